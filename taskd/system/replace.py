"""
A file that appears when it is complete.

It is written under another name in its directory and renamed at its end, so a reader never sees half
of it. A rename replaces anything of that name, as root even `/dev/null`. So only regular files are
replaced: a device, a FIFO, a directory or a link is refused.
"""

import contextlib
import os
import secrets
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from taskd.errors import Invalid


@contextlib.contextmanager
def replacement(path: Path, *, force: bool) -> Iterator[BinaryIO]:
    """
    Give a file to write; it becomes `path` when the block ends, and nothing is left if it raises.

    Raises `Invalid` if `path` exists and `force` is not set, if it is no regular file, and if it
    cannot be written. A file that is replaced passes on its permissions.
    """
    # Short, because a name that is as long as a file system allows has no room for more.
    part = path.parent / f".taskd-{secrets.token_hex(8)}.part"
    try:
        _check(path, force)
        with _leaving_in_order(), part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            _pass_on(_check(path, force), file.fileno())
        part.replace(path)
    except OSError as error:
        raise Invalid(f"-o {str(path)!r}: {error.strerror}.") from error
    finally:
        with contextlib.suppress(OSError):  # it was never there, or has become `path`
            part.unlink()


@contextlib.contextmanager
def _leaving_in_order() -> Iterator[None]:
    """Let SIGTERM, which `timeout` sends, end the block as Ctrl-C does: the file is removed."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check(path: Path, force: bool) -> os.stat_result | None:
    """Return the status of the file that may be replaced; None if there is no file. Raises `Invalid`."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise Invalid(
            f"-o {str(path)!r} is no regular file: give the name of one. Without -o the log goes to standard output."
        )
    if not force:
        raise Invalid(f"-o {str(path)!r} exists already: give another name, or --force to write over it.")
    return found


def _pass_on(old: os.stat_result | None, descriptor: int) -> None:
    if old is not None:
        with contextlib.suppress(PermissionError):  # only root gives files away
            os.fchown(descriptor, old.st_uid, old.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
