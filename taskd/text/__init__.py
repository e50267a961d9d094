"""Make safe text of any value."""
