"""The tree that a restore writes."""

import contextlib
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

from .failures import Failed
from .reader import READ_BYTES, Reader, safe_name


class Tree:
    """The tree that is being restored, from entries that a `Plan` has accepted."""

    def __init__(self, root: Path, reader: Reader, advance: Callable[[int], None]) -> None:
        self._root = root
        self.reader = reader
        self._advance = advance
        self._directories: list[tuple[Path, tarfile.TarInfo]] = []

    def add(self, member: tarfile.TarInfo) -> None:
        path = self._root / safe_name(member.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        look_again(member, self._root)
        if member.isdir():
            path.mkdir(exist_ok=True, mode=0o700)
            self._directories.append((path, member))
        elif member.issym():
            os.symlink(member.linkname, path)
            set_time(path, member)
        elif member.islnk():
            os.link(self._root / safe_name(member.linkname), path, follow_symlinks=False)
        else:
            self._write(path, member)

    def finish(self) -> None:
        """Directories last and from within, for a directory may be one that nobody may write to."""
        for path, member in reversed(self._directories):
            path.chmod(member.mode & 0o777)
            set_time(path, member)

    def _write(self, path: Path, member: tarfile.TarInfo) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            content = self.reader.open(member)
            while data := content.read(READ_BYTES):
                # Zeros become a hole again, which takes no room.
                if data.count(0) < len(data):
                    file.write(data)
                else:
                    file.seek(len(data), os.SEEK_CUR)
                self._advance(len(data))
            file.truncate()
            os.fchmod(fd, member.mode & 0o777)
        set_time(path, member)


def look_again(member: tarfile.TarInfo, root: Path) -> None:
    """Let the standard library look too, where it can (since 3.11.4)."""
    data_filter = getattr(tarfile, "data_filter", None)
    if data_filter is None:
        return
    try:
        data_filter(member, str(root))
    except tarfile.TarError as error:
        raise Failed(f"{member.name!r} cannot be restored safely: {error}. The archive is refused.") from error


def set_time(path: Path, member: tarfile.TarInfo) -> None:
    # An archive may hold any number as a time, and not every file system any time.
    with contextlib.suppress(OSError, OverflowError, ValueError):
        os.utime(path, (member.mtime, member.mtime), follow_symlinks=False)
