"""
Files under temporary names: hidden, locked while they are in use, and gone at the end.

The files that a killed process left hold no lock any more, so the next task that works in the
same directory removes them, whatever their depth. A leftover that cannot be removed is reported, and
never makes that task fail.
"""

import contextlib
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from taskd import PluginError, TaskLogger
from taskd.system.trees import DIRECTORY, identity, remove_tree

from .failures import why

PARTIAL = re.compile(r"\..+\.[0-9a-f]{12}\.(partial|snapshot|restoring)", re.DOTALL)


@contextlib.contextmanager
def temporary(
    parent: int, stem: str, kind: str, log: TaskLogger, *, directory: bool = False
) -> Iterator[tuple[str, int]]:
    """
    A new hidden file (or directory) beside what it will become, and gone at the end under that
    name. It is locked while it is in use, unlike the files that a killed process left.
    """
    name, fd = _new_locked(parent, f".{short(stem)}.{{}}.{kind}", directory)
    try:
        yield name, fd
    finally:
        _remove(parent, name, log)
        os.close(fd)


def _new_locked(parent: int, pattern: str, directory: bool) -> tuple[str, int]:
    flags = DIRECTORY if directory else os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        name = pattern.format(secrets.token_hex(6))
        try:
            if directory:
                os.mkdir(name, 0o700, dir_fd=parent)
            fd = os.open(name, flags, 0o600, dir_fd=parent)
            if directory:
                os.fchmod(fd, 0o700)  # a default ACL of the parent may leave its owner without the right to enter
        except OSError as error:
            raise PluginError(
                f"The directory of {name} cannot be written to: {why(error)}. Give another one."
            ) from error
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_SH)
        # Another task that looks for leftovers may have come between the making and the lock.
        if is_still(name, fd, parent):
            return name, fd
        os.close(fd)


def is_still(name: str, fd: int, parent: int) -> bool:
    """Whether a name stands for an open file."""
    try:
        return identity(os.stat(name, dir_fd=parent, follow_symlinks=False)) == identity(os.fstat(fd))
    except OSError:
        return False


def remove_leftovers(parent: int, log: TaskLogger) -> None:
    """Remove what a killed service left unfinished: no process holds its lock any more."""
    for name in [name for name in os.listdir(parent) if PARTIAL.fullmatch(name)]:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        except OSError as error:
            log.warning(f"{name} cannot be removed ({why(error)}); an interrupted task had left it")
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _remove(parent, name, log):
                log.info(f"removed {name}, which an interrupted task had left")
        except OSError:
            pass  # it is in use
        finally:
            os.close(fd)


def _remove(parent: int, name: str, log: TaskLogger) -> bool:
    left = remove_tree(name, dir_fd=parent)
    if left.count:
        log.warning(f"temporary files cannot be removed: {left}. Remove {name} by hand")
    return not left.count


def short(name: str) -> str:
    """As much of a file's name as fits into another's."""
    return os.fsencode(name)[:120].decode(errors="ignore").replace("{", "").replace("}", "") or "root"


@contextlib.contextmanager
def made(destination: Path) -> Iterator[tuple[Path, int]]:
    """The directory, made if it is not there, and held open until this is left. Raises `PluginError`."""
    try:
        destination.mkdir(parents=True, exist_ok=True)
        path = destination.resolve()
        fd = os.open(path, DIRECTORY)
    except OSError as error:
        raise PluginError(f"The destination {destination} cannot be made: {why(error)}. Give a directory.") from error
    try:
        yield path, fd
    finally:
        os.close(fd)
