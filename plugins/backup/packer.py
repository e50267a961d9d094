"""Files into an archive: what is read of them, and what is told where they cannot be read."""

import contextlib
import hashlib
import os
import stat
import tarfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

import zstandard

from taskd import TaskLogger

from .failures import Failed, check, why
from .reader import READ_BYTES, forget_members
from .source import Source
from .witness import Witness

ZSTD_LEVEL = 3
UNSYNCED_BYTES = 16_777_216

# What is counted, as one and as many.
KINDS = {
    "directory": "directories",
    "file": "files",
    "file with holes": "files with holes",
    "hard link": "hard links",
    "name that is not UTF-8": "names that are not UTF-8",
    "symbolic link": "symbolic links",
}


class HashingFile:
    """A file that is written once, from start to end: its size and checksum are known at the end."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._told = 0
        self.size = 0
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            raise Failed(
                f"The archive cannot be written: {why(error)}. Make room or give another destination."
            ) from error
        self.size += len(data)
        self.sha256.update(data)
        if self.size - self._told >= UNSYNCED_BYTES:
            # The disk begins now, beside us, so that little is left for the sync at the end.
            self._forget()
        return len(data)

    def sync(self) -> None:
        """On disk, and out of the cache: what is read back now comes from the disk."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise Failed(f"The archive cannot be written to disk: {why(error)}.") from error
        self._told = 0
        self._forget()

    def _forget(self) -> None:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._fd, self._told, 0, os.POSIX_FADV_DONTNEED)
        self._told = self.size


class Packer:
    """Packs a source into an archive, and says what it had to leave out; a witness hears what it reads."""

    def __init__(self, source: Source, log: TaskLogger, stop: threading.Event, witness: Witness | None) -> None:
        self.files = 0
        self._kinds: Counter[str] = Counter()
        self._witness = witness
        self._source = source
        self._log = log
        self._stop = stop
        self._left_out = 0

    def pack(self, output: HashingFile) -> None:
        """Write the whole archive to `output`."""
        compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True, threads=2)
        with (
            self._log.progress("files", total=self._measure(), unit="bytes") as bar,
            compressor.stream_writer(cast(IO[bytes], output), closefd=False) as packed,
            new_tar(packed) as tar,
        ):
            for path, name in self._source.walk(self._problem):
                check(self._stop)
                self._add(tar, path, name, bar.advance)
                forget_members(tar)
        kinds = (f"{count:,} {kind if count == 1 else KINDS[kind]}" for kind, count in sorted(self._kinds.items()))
        self._log.info(f"packed {', '.join(kinds)}")
        if count := self._left_out:
            told = "1 entry is" if count == 1 else f"{count:,} entries are"
            self._log.warning(f"{told} not in the archive, or not as in the source; see above")

    def _measure(self) -> int:
        """The bytes to read, as far as can be known before."""
        size = 0
        for path, _ in self._source.walk(lambda name, error: None):
            check(self._stop)
            with contextlib.suppress(OSError):
                about = path.lstat()
                size += about.st_size if stat.S_ISREG(about.st_mode) else 0
        return size

    def _add(self, tar: tarfile.TarFile, path: Path, name: str, advance: Callable[[int], None]) -> None:
        try:
            kind = stat.S_IFMT(path.lstat().st_mode)
            if kind == stat.S_IFREG:
                self._add_file(tar, path, name, advance)
            elif kind in (stat.S_IFDIR, stat.S_IFLNK):
                member = tar.gettarinfo(path, name)
                self._count(member, "directory" if member.isdir() else "symbolic link")
                tar.addfile(member)
                self._look_at_link(member)
            else:
                self._leave_out(name, "it is a socket, a pipe or a device, which an archive cannot hold")
        except OSError as error:
            self._problem(name, error)

    def _count(self, member: tarfile.TarInfo, kind: str) -> None:
        """The entry that is added now."""
        if self._witness is not None:
            self._witness.entry(member)
        self.files += not member.isdir()
        self._kinds[kind] += 1
        if not _is_utf8(member.name):
            self._kinds["name that is not UTF-8"] += 1

    def _look_at_link(self, member: tarfile.TarInfo) -> None:
        if member.issym() and _leads_out(member):
            self._log.warning(
                f"{member.name!r} is a link to {member.linkname!r}, outside of the source: only the link is "
                "stored, and a restore refuses this archive unless skip_links=true, which leaves the link out"
            )

    def _add_file(self, tar: tarfile.TarFile, path: Path, name: str, advance: Callable[[int], None]) -> None:
        # Opened before it is described: what is described is what is read. Not waiting for a pipe
        # that has just taken the file's place, nor following a link.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb", buffering=0) as file:
            member = tar.gettarinfo(arcname=name, fileobj=file)
            about = os.fstat(fd)
            if about.st_nlink == 1:
                # `tarfile` would remember every file, in case another is a hard link to it.
                tar.inodes.pop((about.st_ino, about.st_dev), None)  # type: ignore[attr-defined]
            if member.islnk():
                self._count(member, "hard link")
                tar.addfile(member)
            elif member.isreg():
                self._count(member, "file with holes" if about.st_blocks * 512 < member.size else "file")
                content = Content(cast(IO[bytes], file), member.size, self._read(advance))
                tar.addfile(member, cast(IO[bytes], content))
                self._compare(name, content, member, os.fstat(fd))

    def _read(self, advance: Callable[[int], None]) -> Callable[[bytes], None]:
        """What is done with each piece of a file's content."""

        def read(data: bytes) -> None:
            check(self._stop)
            if self._witness is not None:
                self._witness.feed(data)
            advance(len(data))

        return read

    def _compare(self, name: str, content: "Content", before: tarfile.TarInfo, after: os.stat_result) -> None:
        if content.fault:
            self._leave_out(name, f"it {content.fault}: the missing {content.missing:,} bytes are zeros in the archive")
        elif after.st_size != before.size or after.st_mtime != before.mtime:
            self._log.warning(f"{name!r} changed while it was read: the archive may mix the old and the new")

    def _problem(self, name: str, error: OSError) -> None:
        if name == self._source.name:
            raise Failed(f"The source {self._source.told} cannot be read: {why(error)}.") from error
        gone = isinstance(error, FileNotFoundError)
        self._leave_out(name, "it vanished meanwhile" if gone else f"it cannot be read ({why(error)})")

    def _leave_out(self, name: str, why: str) -> None:
        self._left_out += 1
        self._log.warning(f"{name!r} is left out: {why}", path=name)


class Content:
    """
    Exactly `size` bytes of a file, for an archive whose header has promised them.

    Where the file has fewer, or fails, the rest is zeros, and `fault` says so.
    """

    def __init__(self, file: IO[bytes], size: int, on_read: Callable[[bytes], None]) -> None:
        self.missing = size
        self.fault = ""
        self._file = file
        self._on_read = on_read

    def read(self, size: int = -1) -> bytes:
        data = b"" if self.fault else self._next(min(size, self.missing))
        if not data:
            self.fault = self.fault or "shrank while it was read"
            self._on_read(zeros := bytes(size))
            return zeros
        self.missing -= len(data)
        self._on_read(data)
        # `tarfile` takes a short piece for the end of the file.
        return data if len(data) == size else data + self.read(size - len(data))

    def _next(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            self.fault = f"could not be read to its end ({why(error)})"
            return b""


def new_tar(packed: zstandard.ZstdCompressionWriter) -> tarfile.TarFile:
    tar = tarfile.open(  # noqa: SIM115 (the caller closes it)
        fileobj=packed, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape"
    )
    tar.copybufsize = READ_BYTES  # type: ignore[attr-defined] # documented, and missing from the stubs
    return tar


def _is_utf8(name: str) -> bool:
    """Whether a name is text, and not bytes that stand for themselves."""
    return not any("\udc80" <= character <= "\udcff" for character in name)


def _leads_out(member: tarfile.TarInfo) -> bool:
    """True where a symbolic link, taken alone, leads out of the root of its archive."""
    joined = os.path.normpath(os.path.join(os.path.dirname(member.name), member.linkname))
    return os.path.isabs(joined) or joined.split("/")[0] == ".."
