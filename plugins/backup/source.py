"""What is backed up, as a tree of files in one order."""

import fnmatch
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from .failures import Failed, why
from .temporary import PARTIAL, short

ARCHIVE = re.compile(r".+-[0-9a-f]{8}-\d{8}T\d{6}\.\d{6}Z\.tar\.zst")


@dataclass(slots=True)
class Source:
    """
    What is backed up: `told` is its name for people and for `keep`, `root` where it is read.

    A single file is stored as `name`; a directory's entries are stored as the paths below it.
    """

    told: Path
    root: Path
    name: str = "."
    excluded: Callable[[str, bool], bool] = field(default=lambda path, is_directory: False)
    destination: Path | None = None

    @classmethod
    def of(cls, path: Path, exclude: list[str], destination: Path) -> Self:
        try:
            root = path.resolve(strict=True)
            mode = root.stat().st_mode
        except OSError as error:
            raise Failed(f"The source {path} cannot be read: {why(error)}. Give a directory or a file.") from error
        if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
            raise Failed(f"The source {path} is neither a directory nor a file; only those can be backed up.")
        return cls(root, root, "." if stat.S_ISDIR(mode) else root.name, excluder(exclude), destination)

    def stem(self) -> str:
        """What the names of this source's archives begin with: two sources of one name differ in it."""
        place = hashlib.sha256(os.fsencode(self.told)).hexdigest()[:8]
        return f"{short(self.told.name)}-{place}-"

    def walk(self, problem: Callable[[str, OSError], None]) -> Iterator[tuple[Path, str]]:
        """Every path with the name it is stored under: by name, a directory before what is in it."""
        yield self.root, self.name
        if self.name != ".":
            return
        levels = [self._children(self.root, "", problem)]
        while levels:
            child = next(levels[-1], None)
            if child is None:
                levels.pop()
                continue
            path, name, is_directory = child
            yield path, name
            if is_directory:
                levels.append(self._children(path, name + "/", problem))

    def _children(
        self, directory: Path, prefix: str, problem: Callable[[str, OSError], None]
    ) -> Iterator[tuple[Path, str, bool]]:
        try:
            with os.scandir(directory) as scanned:
                children = sorted((os.fsencode(child.name), child.is_dir(follow_symlinks=False)) for child in scanned)
        except OSError as error:
            problem(prefix.rstrip("/") or ".", error)
            return
        for raw, is_directory in children:
            name = os.fsdecode(raw)
            if not self._is_ours(directory, name) and not self.excluded(prefix + name, is_directory):
                yield directory / name, prefix + name, is_directory

    def _is_ours(self, directory: Path, name: str) -> bool:
        """True for what backups wrote into the destination: an archive must not swallow itself."""
        return directory == self.destination and bool(ARCHIVE.fullmatch(name) or PARTIAL.fullmatch(name))


def excluder(globs: list[str]) -> Callable[[str, bool], bool]:
    """A predicate on a path below the source and whether it is a directory."""
    rules = []
    for glob in globs:
        only_directories, pattern = glob.endswith("/"), glob.strip("/")
        whole = "/" in glob.rstrip("/")
        rules.append((re.compile(fnmatch.translate(pattern)).match, whole, only_directories))

    def excluded(path: str, is_directory: bool) -> bool:
        name = path.rpartition("/")[2]
        return any(
            match(path if whole else name) and (is_directory or not only_directories)
            for match, whole, only_directories in rules
        )

    return excluded
