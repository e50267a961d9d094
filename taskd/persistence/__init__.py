"""Where tasks and their logs are kept: what every store has to do, and the stores."""
