"""
The source of a backup, as a tree of files in one order.

The root is opened once. Everything below it is reached from open directories, one name at a time and
never through a link: a directory that is exchanged for a link while it is backed up is stored as
that link. Neither the depth of the tree nor the length of a path is limited by the system's PATH_MAX.
"""

import contextlib
import errno
import fnmatch
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from taskd import PluginError
from taskd.system.trees import DIRECTORY, Descent, Identity, identity

from .failures import why
from .temporary import PARTIAL, short

ARCHIVE = re.compile(r".+-[0-9a-f]{8}-\d{8}T\d{6}\.\d{6}Z\.tar\.zst", re.DOTALL)
# A restore reads a path whole into memory, and a deep tree's archive grows with the square of its depth.
PATH_CHARACTERS_MAX = 1_000_000
# A pipe that takes a file's place is opened without waiting for its other end.
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# Times that a name is looked up again because another process has replaced the file meanwhile.
LOOKS_MAX = 3

Problem = Callable[[str, OSError], None]


@dataclass(slots=True)
class Found:
    """
    A file of the source: the path that it is stored under, its name in an open directory, and its status.

    `fd` is a directory's own, if it could be opened.
    """

    name: str
    leaf: str
    dir_fd: int
    about: os.stat_result
    fd: int | None = None


@dataclass(slots=True)
class Source:
    """
    The source: `place` is its path for people and for `keep`; `fd` is the root, held open.

    A single file is stored as `name`, and `fd` is the directory that it is in as `leaf`. A directory's
    entries are stored as the paths below it.
    """

    place: Path
    fd: int
    leaf: str = "."
    name: str = "."
    excluded: Callable[[str, bool], bool] = field(default=lambda path, is_directory: False)
    destination: Identity | None = None

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path: Path, exclude: list[str], destination: Path) -> Iterator[Self]:
        """The source, which is open until this is left. Raises `PluginError`."""
        try:
            place = path.resolve(strict=True)
            is_directory = stat.S_ISDIR(mode := place.stat().st_mode)
            if not is_directory and not stat.S_ISREG(mode):
                raise PluginError(f"The source {path} is neither a directory nor a file; only those can be backed up.")
            fd = os.open(place if is_directory else place.parent, DIRECTORY)
        except OSError as error:
            raise PluginError(f"The source {path} cannot be read: {why(error)}. Give a directory or a file.") from error
        name = "." if is_directory else place.name
        try:
            yield cls(place, fd, name, name, excluder(exclude), identity(destination.stat()))
        finally:
            os.close(fd)

    def stem(self) -> str:
        """What the names of this source's archives begin with: two sources of one name differ in it."""
        digest = hashlib.sha256(os.fsencode(self.place)).hexdigest()[:8]
        return f"{short(self.place.name)}-{digest}-"

    def walk(self, problem: Problem) -> Iterator[Found]:
        """Every file with the name it is stored under: by name, a directory before the entries in it."""
        if self.name != ".":
            try:
                yield Found(self.name, self.leaf, self.fd, os.stat(self.leaf, dir_fd=self.fd, follow_symlinks=False))
            except OSError as error:
                problem(self.name, error)
            return
        yield Found(self.name, ".", self.fd, os.fstat(self.fd), self.fd)
        with contextlib.closing(Descent(os.dup(self.fd))) as descent:
            yield from self._below(descent, problem)

    def _below(self, descent: Descent, problem: Problem) -> Iterator[Found]:
        # One path for the whole way: with a path for each level, a deep tree would fill the memory. So no
        # level may be a generator that keeps its prefix.
        prefix, ends = "", [0]
        levels = [self._children(descent.fd, prefix, problem)]
        while True:
            leaf = next(levels[-1], None)
            if leaf is not None:
                found = self._look(leaf, descent.fd, prefix, problem)
                if found and found.fd is not None:
                    descent.enter(found.fd)
                    prefix = f"{prefix}{leaf}/"
                    ends.append(len(prefix))
                    levels.append(self._children(found.fd, prefix, problem))
                if found:
                    yield found
                continue
            levels.pop()
            if not levels:
                return
            ends.pop()
            try:
                descent.leave()
            except OSError as error:
                raise PluginError(
                    f"The directories above {prefix[-200:]!r} were moved while they were read. Run again."
                ) from error
            prefix = prefix[: ends[-1]]

    def _look(self, leaf: str, dir_fd: int, prefix: str, problem: Problem) -> Found | None:
        """Find out what a name is now; if it is a directory, open it. None if it is left out."""
        name = prefix + leaf
        try:
            if len(name) > PATH_CHARACTERS_MAX:
                raise OSError(errno.ENAMETOOLONG, f"its path has more than {PATH_CHARACTERS_MAX:,} characters")
            about = os.stat(leaf, dir_fd=dir_fd, follow_symlinks=False)
            is_directory = stat.S_ISDIR(about.st_mode)
            if self.excluded(name, is_directory):
                return None
            if not is_directory:
                return Found(name, leaf, dir_fd, about)
        except OSError as error:
            problem(name, error)
            return None
        try:
            fd, about = opened(leaf, dir_fd, DIRECTORY)
        except OSError as error:
            return self._not_entered(Found(name, leaf, dir_fd, about), error, problem)
        return Found(name, leaf, dir_fd, about, fd)

    def _not_entered(self, found: Found, error: OSError, problem: Problem) -> Found | None:
        """Store a directory that cannot be opened without its entries, or the file that has taken its place."""
        try:
            found.about = os.stat(found.leaf, dir_fd=found.dir_fd, follow_symlinks=False)
        except OSError as gone:
            problem(found.name, gone)
            return None
        if stat.S_ISDIR(found.about.st_mode):
            problem(found.name, error)
        return found

    def _children(self, fd: int, prefix: str, problem: Problem) -> Iterator[str]:
        try:
            with os.scandir(fd) as scanned:
                # A directory that changes meanwhile may list a name twice.
                children = map(os.fsdecode, sorted({os.fsencode(child.name) for child in scanned}))
        except OSError as error:
            problem(prefix.rstrip("/") or ".", error)
            return iter(())
        if self.destination != identity(os.fstat(fd)):
            return children
        # An archive must not swallow itself, or others that backups wrote here.
        return (child for child in children if not ARCHIVE.fullmatch(child) and not PARTIAL.fullmatch(child))


def opened(leaf: str, dir_fd: int, flags: int) -> tuple[int, os.stat_result]:
    """
    Open a file or a directory, and make sure that it is the one which the name stands for.

    Something that takes its place in between, such as a mount or a device, is noticed. Raises OSError.
    """
    kind = stat.S_IFDIR if flags & os.O_DIRECTORY else stat.S_IFREG
    for _ in range(LOOKS_MAX):
        listed = os.stat(leaf, dir_fd=dir_fd, follow_symlinks=False)
        if stat.S_IFMT(listed.st_mode) != kind:
            raise OSError(errno.ESTALE, "it became something else meanwhile")
        fd = os.open(leaf, flags, dir_fd=dir_fd)
        about = os.fstat(fd)
        if identity(about) == identity(listed):
            return fd, about
        os.close(fd)
    raise OSError(errno.ESTALE, "it was replaced again and again")


def excluder(globs: list[str]) -> Callable[[str, bool], bool]:
    """A predicate on a path below the source and whether it is a directory."""
    rules = []
    for glob in globs:
        only_directories, pattern = glob.endswith("/"), glob.strip("/")
        whole = "/" in glob.rstrip("/")
        rules.append((re.compile(fnmatch.translate(pattern)).match, whole, only_directories))

    def excluded(path: str, is_directory: bool) -> bool:
        if not rules:
            return False
        name = path.rpartition("/")[2]
        return any(
            match(path if whole else name) and (is_directory or not only_directories)
            for match, whole, only_directories in rules
        )

    return excluded
