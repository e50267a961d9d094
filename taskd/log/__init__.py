"""Take an entry from the logger by the queue and the writer to the store and to its live readers."""
