"""What taskd asks of the operating system: signals, descriptors, locks, threads, files by descriptor."""
