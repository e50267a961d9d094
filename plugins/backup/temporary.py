"""
Files under temporary names: hidden, locked while they are in use, and gone at the end.

What a killed process left behind holds no lock any more, and so the next task that works in the
same directory removes it.
"""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from taskd import TaskLogger

from .failures import Failed, why

PARTIAL = re.compile(r"\..+\.[0-9a-f]{12}\.(partial|snapshot|restoring)")


@contextlib.contextmanager
def temporary(parent: Path, stem: str, kind: str, *, directory: bool = False) -> Iterator[tuple[Path, int]]:
    """
    A new hidden file (or directory) beside what it will become, and gone at the end under that
    name. It is locked while it is in use, so that what a killed process left can be told apart.
    """
    path, fd = _new_locked(parent, f".{short(stem)}.{{}}.{kind}", directory)
    try:
        yield path, fd
    finally:
        _remove(path)
        os.close(fd)


def _new_locked(parent: Path, pattern: str, directory: bool) -> tuple[Path, int]:
    flags = os.O_RDONLY if directory else os.O_RDWR | os.O_CREAT | os.O_EXCL
    while True:
        path = parent / pattern.format(secrets.token_hex(6))
        try:
            if directory:
                path.mkdir(mode=0o700)
            fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Failed(f"{parent} cannot be written to: {why(error)}. Give another directory.") from error
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_SH)
        # Another task that looks for leftovers may have come between the making and the lock.
        if path.exists():
            return path, fd
        os.close(fd)


def remove_leftovers(parent: Path, log: TaskLogger) -> None:
    """Remove what a killed service left unfinished: nobody holds its lock any more."""
    for path in [path for path in parent.iterdir() if PARTIAL.fullmatch(path.name)]:
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(path)
                log.info(f"removed {path.name}, which an interrupted task had left behind")
            finally:
                os.close(fd)


def _remove(path: Path) -> None:
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    path.chmod(0o700)
    for directory, names, _ in os.walk(path):
        for inner in (Path(directory, name) for name in names):
            if not inner.is_symlink():
                inner.chmod(0o700)
    shutil.rmtree(path, ignore_errors=True)


def short(name: str) -> str:
    """As much of a file's name as fits into another's."""
    return os.fsencode(name)[:120].decode(errors="ignore").replace("{", "").replace("}", "") or "root"


def sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def made(destination: Path) -> Path:
    try:
        destination.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Failed(f"The destination {destination} cannot be made: {why(error)}. Give a directory.") from error
    return destination.resolve()
