"""The `taskd` command: its options, its client and its output."""
