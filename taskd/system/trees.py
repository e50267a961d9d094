"""
Trees of directories of any depth, held by descriptors instead of paths.

- No symbolic link is ever followed. Each name is looked up in a directory that is already open, so a
  directory that another process exchanges for a link leads nowhere.
- Nothing recurses and no path is built, so neither Python's stack nor PATH_MAX limits the depth.
- `Descent` keeps at most `OPEN_MAX` directories open. It opens the others again through `..` and
  checks that each is the directory it was.
- `remove_tree` does not stop at the first error, does not enter another file system or a bind mount, and
  returns a bounded list of the entries that are left.
"""

import contextlib
import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

# Directories that one descent holds open: deeper trees than most, and few of the usual 1,024 descriptors.
OPEN_MAX = 32
# Entries that `Left` names; it counts the others.
NAMED_MAX = 5
PATH_SHOWN = 200
# The system or the process is at a limit now, and the entry itself can be removed.
SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
# Looks at a name, or at the entries of a directory, that another process changes while it is removed.
SCANS_MAX = 3
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Identity = tuple[int, int]


def identity(about: os.stat_result) -> Identity:
    """Return the numbers that no two files of a system share."""
    return about.st_dev, about.st_ino


class Moved(OSError):
    """A directory was moved to another parent during the descent, so the way back is lost."""

    def __init__(self) -> None:
        super().__init__(errno.ESTALE, "its directory was moved meanwhile")


class Descent:
    """The way from a directory down to one below it, one `enter` a level. Owns the descriptors that it is given."""

    def __init__(self, fd: int) -> None:
        self._identities = [identity(os.fstat(fd))]
        self._open = deque([fd])

    @property
    def fd(self) -> int:
        """The directory that the descent has reached."""
        return self._open[-1]

    def enter(self, fd: int) -> None:
        """Go down into an open directory, which is a child of the current one."""
        self._open.append(fd)
        self._identities.append(identity(os.fstat(fd)))
        if len(self._open) > OPEN_MAX:
            os.close(self._open.popleft())

    def leave(self) -> None:
        """Go back up. Raises `Moved` or another OSError if the parent cannot be reached; then only `close` is left."""
        self._identities.pop()
        below = self._open.pop()
        try:
            if not self._open:
                self._open.append(os.open("..", DIRECTORY, dir_fd=below))
                if identity(os.fstat(self.fd)) != self._identities[-1]:
                    raise Moved
        finally:
            os.close(below)

    def close(self) -> None:
        """Close every directory that is open."""
        while self._open:
            os.close(self._open.pop())


@dataclass(slots=True)
class Left:
    """Entries that could not be removed: how many, and the first of them with the reasons."""

    count: int = 0
    named: list[str] = field(default_factory=list)
    # Whether one of them may go when the system has descriptors or memory again.
    scarce: bool = False

    def add(self, path: str, error: OSError) -> None:
        """Count one more."""
        self.count += 1
        self.scarce |= error.errno in SCARCE
        if len(self.named) < NAMED_MAX:
            shown = path if len(path) <= PATH_SHOWN else f"{path[:PATH_SHOWN]}…"
            self.named.append(f"{shown!r} ({error.strerror or error})")

    def __str__(self) -> str:
        more = self.count - len(self.named)
        return ", ".join(self.named) + (f" and {more:,} more" if more else "")


def remove_tree(name: str, *, dir_fd: int, stop: Callable[[], bool] = lambda: False) -> Left:
    """
    Delete an entry of the directory `dir_fd` with everything below it; return the entries that are left.

    Never raises OSError. An entry that is not there counts as removed. Returns early once `stop()` is true.
    """
    try:
        with contextlib.closing(Descent(os.dup(dir_fd))) as descent:
            return _Removal(descent, stop).run(name)
    except OSError as error:  # there is no descriptor to begin with
        left = Left()
        left.add(name, error)
        return left


@dataclass(slots=True)
class _Level:
    """A directory that is being emptied: the entries still to enter and remove, each with the scans so far."""

    name: str
    todo: list[tuple[str, int]]
    scans: int = 1
    keeps: bool = False


class _Removal:
    def __init__(self, descent: Descent, stop: Callable[[], bool]) -> None:
        self._descent = descent
        self._stop = stop
        self._mount = _mount_of(descent.fd)
        self._left = Left()
        self._levels: list[_Level] = []

    def run(self, name: str) -> Left:
        self._levels.append(_Level("", [(name, 0)]))
        try:
            while not self._stop() and self._step():
                pass
        except OSError as error:  # the way back is lost
            self._keep("", error)
        return self._left

    def _step(self) -> bool:
        """Enter the next directory, or leave one that is empty; False at the end."""
        level = self._levels[-1]
        if level.todo:
            self._enter(*level.todo.pop())
        elif len(self._levels) > 1:
            self._leave()
        else:
            return False
        return True

    def _enter(self, name: str, scans: int) -> None:
        try:
            fd = _opened(name, self._descent.fd, self._mount)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                self._unlink(name, scans + 1)
            elif error.errno != errno.ENOENT:
                self._keep(name, error)
            return
        self._descent.enter(fd)
        self._levels.append(_Level(name, [], scans + 1))
        try:
            self._empty(fd)
        except OSError as error:
            self._keep("", error)

    def _empty(self, fd: int) -> None:
        """Unlink everything in a directory but its subdirectories, which are left to do."""
        with os.scandir(fd) as entries:
            for entry in entries:
                if self._stop():
                    return
                if entry.is_dir(follow_symlinks=False):
                    self._levels[-1].todo.append((entry.name, 0))
                else:
                    self._unlink(entry.name)

    def _unlink(self, name: str, scans: int = 0) -> None:
        try:
            os.unlink(name, dir_fd=self._descent.fd)
        except FileNotFoundError:
            pass
        except IsADirectoryError as error:  # it has become one meanwhile
            if scans < SCANS_MAX:
                self._levels[-1].todo.append((name, scans))
            else:
                self._keep(name, error)
        except OSError as error:
            self._keep(name, error)

    def _leave(self) -> None:
        self._descent.leave()
        level = self._levels.pop()
        try:
            os.rmdir(level.name, dir_fd=self._descent.fd)
        except FileNotFoundError:
            pass
        except OSError as error:
            if level.keeps:  # the entries that it keeps are reported already
                self._levels[-1].keeps = True
            elif error.errno in (errno.ENOTEMPTY, errno.EEXIST) and level.scans < SCANS_MAX:
                self._levels[-1].todo.append((level.name, level.scans))
            else:
                self._keep(level.name, error)

    def _keep(self, name: str, error: OSError) -> None:
        self._levels[-1].keeps = True
        path = "/".join(level.name for level in self._levels[1:]) if self._left.count < NAMED_MAX else ""
        self._left.add(f"{path}/{name}".strip("/"), error)


def _opened(name: str, dir_fd: int, mount: int) -> int:
    """Open a directory so that its entries can be removed. Raises OSError if it cannot be, or is a mount point."""
    try:
        fd = os.open(name, DIRECTORY, dir_fd=dir_fd)
    except PermissionError:
        _unlock(name, dir_fd, mount)
        fd = os.open(name, DIRECTORY, dir_fd=dir_fd)
    with _closed_on_error(fd):
        _check_mount(fd, mount)
        if os.fstat(fd).st_mode & stat.S_IRWXU != stat.S_IRWXU:
            with contextlib.suppress(OSError):  # removing the entries fails with the better reason
                os.fchmod(fd, stat.S_IRWXU)
    return fd


def _unlock(name: str, dir_fd: int, mount: int) -> None:
    """Let the owner open a directory that not even the owner may read."""
    if not hasattr(os, "O_PATH"):
        os.chmod(name, stat.S_IRWXU, dir_fd=dir_fd, follow_symlinks=False)
        return
    fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        _check_mount(fd, mount)
        os.chmod(f"/proc/self/fd/{fd}", stat.S_IRWXU)  # fchmod refuses such a descriptor
    finally:
        os.close(fd)


def _check_mount(fd: int, mount: int) -> None:
    if _mount_of(fd) != mount:
        raise OSError(errno.EXDEV, "it is a mount point")


def _mount_of(fd: int) -> int:
    """Return which mount a directory is on. Linux has a number for each bind mount; elsewhere only devices differ."""
    try:
        with open(f"/proc/self/fdinfo/{fd}") as lines:
            for line in lines:
                if line.startswith("mnt_id:"):
                    return int(line.split()[1])
    except OSError as error:
        if error.errno in SCARCE:  # a number of another kind would make each directory a mount point
            raise
    return os.fstat(fd).st_dev


@contextlib.contextmanager
def _closed_on_error(fd: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        os.close(fd)
        raise
