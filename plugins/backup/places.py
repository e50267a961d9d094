"""
The names of an archive as places in one tree.

A place is a number, and the number of a directory is less than those of the entries in it. Each component of a
path is kept once, so that a deep tree takes as much memory as a wide one; and only the part of a path
that differs from the one before is looked at.
"""

import os
import tarfile
from array import array

from taskd import PluginError

from .failures import shown

ROOT = 0
# The longest that file systems take.
COMPONENT_BYTES_MAX = 255
NAMED_LEVELS = 40


class Places:
    """The places of one archive. `kinds` has what each of them is, and nothing for a directory without an entry."""

    def __init__(self) -> None:
        self.names = [""]
        self.parents = array("Q", [ROOT])
        self.depths = array("Q", [0])
        self.kinds = [b""]
        self.names_bytes = 0
        # Those without an entry of their own so far that have others in them.
        self.holding: set[int] = set()
        self._numbers: dict[tuple[int, str], int] = {}
        # The directory of the last path: its text, and where in it each of its levels ends.
        self._prefix = ""
        self._ends: list[tuple[int, int]] = [(0, ROOT)]

    def __len__(self) -> int:
        return len(self.names)

    def place(self, path: str) -> int:
        """Return the place of a path. Raises `PluginError` if it is outside of the root, or below a file or a link."""
        if path.startswith("/") or not path:
            self._refuse(path)
        self._return_to(path)
        at = self._ends[-1][1]
        end = len(self._prefix)
        *directories, last = path[end:].split("/")
        for part in directories:
            at = self._step(at, part, path)
            end += len(part) + 1
            self._ends.append((end, at))
        self._prefix = path[:end]
        return self._step(at, last, path)

    def child(self, parent: int, name: str) -> int | None:
        """Return a place in a directory, if there is one of that name."""
        return self._numbers.get((parent, name))

    def path(self, place: int) -> str:
        """Return the path of a place, or its end if it is very deep."""
        parts: list[str] = []
        while place != ROOT and len(parts) < NAMED_LEVELS:
            parts.append(self.names[place])
            place = self.parents[place]
        return "/".join(["…"] * (place != ROOT) + parts[::-1]) or "."

    def _return_to(self, path: str) -> None:
        """Cut the prefix down to the directories that the path has in common with the last one."""
        if path.startswith(self._prefix):
            return
        low, high = 0, len(self._ends) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if path.startswith(self._prefix[: self._ends[middle][0]]):
                low = middle
            else:
                high = middle - 1
        del self._ends[low + 1 :]
        self._prefix = self._prefix[: self._ends[-1][0]]

    def _step(self, at: int, part: str, path: str) -> int:
        if part in ("", "."):
            return at
        if self.kinds[at] not in (b"", tarfile.DIRTYPE):
            raise PluginError(
                f"{shown(path)} would be written through {shown(self.path(at))}, which is no directory: it is refused."
            )
        found = self._numbers.get((at, part))
        return self._add(at, part, path) if found is None else found

    def _add(self, at: int, part: str, path: str) -> int:
        size = len(os.fsencode(part))
        if part == ".." or "\0" in part:
            self._refuse(path)
        if size > COMPONENT_BYTES_MAX:
            raise PluginError(
                f"The archive holds {shown(path)}, which has a name of {size:,} bytes; "
                f"file systems take {COMPONENT_BYTES_MAX}: it is refused."
            )
        self._numbers[at, part] = number = len(self.names)
        self.names.append(part)
        self.parents.append(at)
        self.depths.append(self.depths[at] + 1)
        self.kinds.append(b"")
        self.names_bytes += size
        if not self.kinds[at]:
            self.holding.add(at)
        return number

    def _refuse(self, path: str) -> None:
        raise PluginError(f"The archive holds {shown(path)}, which would be outside of the destination: it is refused.")
