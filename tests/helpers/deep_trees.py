"""Trees deeper than a path can name."""

import os
from pathlib import Path


def dig(path: Path, levels: int, name: str = "d", file_every: int = 0) -> None:
    """Make `path` a directory of so many levels, the others called `name`; a file `f` at every Nth of them."""
    path.mkdir()
    at = os.open(path, os.O_RDONLY)
    for level in range(1, levels):
        os.mkdir(name, dir_fd=at)
        below = os.open(name, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
        if file_every and not level % file_every:
            os.close(os.open("f", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=at))
    os.close(at)


def depth(path: Path, name: str = "d") -> int:
    """How many levels a directory made by `dig` has."""
    at, levels = os.open(path, os.O_RDONLY), 1
    while name in os.listdir(at):
        below = os.open(name, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at, levels = below, levels + 1
    os.close(at)
    return levels
