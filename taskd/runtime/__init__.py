"""Load plugins, run tasks, end them, keep and delete them."""
