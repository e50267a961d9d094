"""Put an entry on disk before its call returns."""
