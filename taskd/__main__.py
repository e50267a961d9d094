"""Lets `python -m taskd` do what `taskd` does."""

from taskd.cli import main

if __name__ == "__main__":
    main()
