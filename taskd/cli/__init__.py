"""The command: its options, its client, and what it prints."""
