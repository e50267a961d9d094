"""An archive from start to end, and what its entries may be called."""

import hashlib
import tarfile
import threading
from collections.abc import Callable, Iterator
from typing import IO, Any, Self, cast

import zstandard

from .failures import Failed, check

READ_BYTES = 1_048_576
HEADER_BYTES_MAX = 1_048_576
NAME_BYTES_MAX = 4_095

# What `tarfile` raises for bytes that were never a tar archive, or are one on purpose.
NOT_AN_ARCHIVE = (
    *(tarfile.TarError, zstandard.ZstdError, EOFError, ValueError),
    *(LookupError, OverflowError, RecursionError),
)


class Reader:
    """
    Reads an archive once from start to end, never holding more than a piece of it.

    `sha256()` is the checksum of the file's bytes, known after all members were read.
    """

    def __init__(self, file: IO[bytes], stop: threading.Event, show: Callable[[int], None] = lambda at: None) -> None:
        self._file = file
        self._stop = stop
        self._show = show
        self._sha256 = hashlib.sha256()
        self._at = 0
        self._allowed = 0
        self._tar: tarfile.TarFile | None = None
        decompressor = zstandard.ZstdDecompressor()
        self._content = decompressor.stream_reader(
            cast(IO[bytes], _Tee(self._read_file)), read_size=READ_BYTES, read_across_frames=True
        )

    def members(self) -> Iterator[tarfile.TarInfo]:
        """Every entry; raises `Failed` where this is no archive, or not all of one."""
        try:
            self._allow(0)
            with tarfile.open(
                fileobj=cast(IO[bytes], self), mode="r|", tarinfo=_Member, errors="surrogateescape"
            ) as tar:
                self._tar = tar
                while member := tar.next():
                    forget_members(tar)
                    self._allow(member.size)
                    yield member
                self._drain(tar)
        except NOT_AN_ARCHIVE as error:
            raise Failed(f"This is not a complete .tar.zst archive: {error}. Give another archive.") from error

    def open(self, member: tarfile.TarInfo) -> IO[bytes]:
        """The content of the member that was given last, if it is a file."""
        file = self._tar.extractfile(member) if self._tar else None
        assert file is not None
        return file

    def sha256(self) -> str:
        return self._sha256.hexdigest()

    def read(self, size: int) -> bytes:
        """For `tarfile`: decompressed bytes, as many as the entry before may have."""
        check(self._stop)
        self._allowed -= size
        if self._allowed < 0:
            raise Failed(f"A header of this archive is larger than {HEADER_BYTES_MAX:,} bytes: it is refused.")
        return self._content.read(size)

    def _allow(self, content: int) -> None:
        # A header is read whole into memory and says itself how long it is. So between two
        # members no more may be read than the first one's content and a reasonable header.
        if content < 0:
            raise Failed("An entry of this archive has a negative size: it is refused.")
        self._allowed = content + HEADER_BYTES_MAX

    def _drain(self, tar: tarfile.TarFile) -> None:
        """Read what follows the last member: only there are the marks of a complete archive."""
        ended = cast(Any, tar.fileobj).tell() >= tar.offset + tarfile.BLOCKSIZE
        while self._content.read(READ_BYTES):
            check(self._stop)
        if not ended:
            raise EOFError("it ends too early")

    def _read_file(self, size: int) -> bytes:
        data = self._file.read(size)
        self._sha256.update(data)
        self._at += len(data)
        self._show(self._at)
        return data


class _Member(tarfile.TarInfo):
    """An entry. `tarfile` takes a header that is none, behind the first, for the end: that would be half a tree."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.InvalidHeaderError as error:  # type: ignore[attr-defined] # missing from the stubs
            raise tarfile.ReadError(f"one of its headers is damaged ({error})") from error


class _Tee:
    """A readable made of a function."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self.read = read


def forget_members(tar: tarfile.TarFile) -> None:
    """Free what `tarfile` keeps of every member for a second look that we never take."""
    cast(Any, tar).members.clear()


def safe_name(name: str) -> str:
    """A member's name as a path below the root, or `Failed`."""
    check_length(name)
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\0" in name or not name:
        raise Failed(f"The archive holds {name!r}, which would be outside of the destination: it is refused.")
    return "/".join(parts) or "."


def check_length(name: str) -> None:
    """No system takes a longer name, and to look at one with a million parts takes long."""
    if len(name) > NAME_BYTES_MAX:
        raise Failed(f"The archive has a name of {len(name):,} characters, {name[:60]!r} …: it is refused.")
