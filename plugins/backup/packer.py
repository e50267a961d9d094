"""Files into an archive: each is read, described and compressed; the log reports the files that are left out."""

import grp
import hashlib
import os
import pwd
import stat
import tarfile
import threading
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import IO, cast

import zstandard

from taskd import PluginError, TaskLogger
from taskd.system.trees import Identity, identity

from . import attributes
from .extent import Extent
from .failures import check, shown, why
from .frames import READ_BYTES
from .members import BLOCK_BYTES, Member
from .source import FILE, Found, Source, opened
from .witness import Witness

ZSTD_LEVEL = 3
UNSYNCED_BYTES = 16_777_216
# GNU tar's unit; the zeros that fill the last one compress to a few bytes.
RECORD_BYTES = tarfile.RECORDSIZE

# Of a path in the metadata of an entry.
PATH_NAMED_MAX = 4_096

# The kinds that the log counts, in the singular and the plural.
KINDS = {
    "directory": "directories",
    "entry with extended attributes": "entries with extended attributes",
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
            raise PluginError(
                f"The archive cannot be written: {why(error)}. Make room or give another destination."
            ) from error
        self.size += len(data)
        self.sha256.update(data)
        if self.size - self._told >= UNSYNCED_BYTES:
            # The disk begins now, beside us, so that little is left for the sync at the end.
            self._forget()
        return len(data)

    def sync(self) -> None:
        """Write to the disk and empty the cache, so that a read comes from the disk."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise PluginError(f"The archive cannot be written to disk: {why(error)}.") from error
        self._told = 0
        self._forget()

    def _forget(self) -> None:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._fd, self._told, 0, os.POSIX_FADV_DONTNEED)
        self._told = self.size


class Packer:
    """Packs a source into an archive, and reports the files that it leaves out; a witness hears all that it reads."""

    def __init__(self, source: Source, log: TaskLogger, stop: threading.Event, witness: Witness | None) -> None:
        self.files = 0
        self.extent = Extent()
        self._kinds: Counter[str] = Counter()
        self._witness = witness
        self._source = source
        self._log = log
        self._stop = stop
        self._left_out = 0
        # Files with several links that are in the archive: the names under which they are, sizes and times.
        self._linked: dict[Identity, tuple[str, int, int]] = {}
        self._leading_out: list[str] = []
        self._without_attributes: list[str] = []

    def pack(self, output: HashingFile) -> None:
        """Write the whole archive to `output`."""
        compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True, threads=2)
        with (
            self._log.progress("files", total=self._measure(), unit="bytes") as bar,
            compressor.stream_writer(cast(IO[bytes], output), closefd=False) as packed,
        ):
            tar = Tar(packed)
            for found in self._source.walk(self._problem):
                check(self._stop)
                self._add(tar, found, bar.advance)
            tar.finish()
        self._report()

    def _report(self) -> None:
        # Without those of which there are none.
        counts = sorted((+self._kinds).items())
        kinds = (f"{count:,} {kind if count == 1 else KINDS[kind]}" for kind, count in counts)
        self._log.info(f"packed {', '.join(kinds)}")
        if links := self._leading_out:
            self._log.info(
                f"{len(links):,} of the links lead out of the source, such as {links[0]}: "
                "the links are stored and not the files that they lead to"
            )
        if names := self._without_attributes:
            self._log.warning(
                f"the extended attributes of {len(names):,} {'entry' if len(names) == 1 else 'entries'} could not be "
                f"read and are not in the archive, such as those of {names[0]}"
            )
        if count := self._left_out:
            entries = "1 entry is" if count == 1 else f"{count:,} entries are"
            self._log.warning(f"{entries} not in the archive, or not as in the source; see above")

    def _measure(self) -> int:
        """The bytes to read, as far as can be known before."""
        size = 0
        for found in self._source.walk(lambda name, error: None):
            check(self._stop)
            size += found.about.st_size if stat.S_ISREG(found.about.st_mode) else 0
        return size

    def _add(self, tar: "Tar", found: Found, advance: Callable[[int], None]) -> None:
        try:
            kind = stat.S_IFMT(found.about.st_mode)
            if kind == stat.S_IFREG:
                self._add_file(tar, found, advance)
            elif kind == stat.S_IFDIR:
                member = self._described(found.name, found.about, tarfile.DIRTYPE)
                self._read_attributes(member, found.fd)
                self._add_header(tar, member, "directory")
            elif kind == stat.S_IFLNK:
                target = os.readlink(found.leaf, dir_fd=found.dir_fd)
                member = self._described(found.name, found.about, tarfile.SYMTYPE, target)
                self._add_header(tar, member, "symbolic link")
                if leads_out(member):
                    self._leading_out.append(f"{shown(member.name)} (to {shown(target)})")
            else:
                self._leave_out(found.name, "it is a socket, a pipe or a device, which an archive cannot hold")
        except OSError as error:
            self._problem(found.name, error)

    def _described(self, name: str, about: os.stat_result, kind: bytes, linkname: str = "") -> Member:
        member = Member.of(name, about, kind, linkname)
        member.uname, member.gname = user_name(about.st_uid), group_name(about.st_gid)
        return member

    def _read_attributes(self, member: Member, fd: int | None) -> None:
        try:
            member.attributes = attributes.read(fd) if fd is not None else {}
        except OSError:
            self._without_attributes.append(shown(member.name))

    def _add_header(self, tar: "Tar", member: Member, kind: str) -> None:
        """Write the headers of the entry that is added now, and count it."""
        header = member.header()
        tar.write(header)
        if self._witness is not None:
            self._witness.entry(member)
        self.files += not member.isdir()
        self.extent.files += 1
        self.extent.names_bytes += len(os.fsencode(member.name.rpartition("/")[2])) + len(member.linkname)
        self.extent.content_bytes += member.size
        self.extent.header_bytes += len(header)
        self._kinds[kind] += 1
        self._kinds["entry with extended attributes"] += bool(member.attributes)
        self._kinds["name that is not UTF-8"] += not _is_utf8(member.name)

    def _add_file(self, tar: "Tar", found: Found, advance: Callable[[int], None]) -> None:
        # Opened before it is described, so that the header is that of the content.
        fd, about = opened(found.leaf, found.dir_fd, FILE)
        with open(fd, "rb", buffering=0) as file:
            first, *then = self._linked.get(identity(about), ("",))
            # One that has changed may be another file: the system gives the number of a removed file to a new one.
            if then == [about.st_size, about.st_mtime_ns]:
                self._add_header(tar, self._described(found.name, about, tarfile.LNKTYPE, first), "hard link")
                return
            member = self._described(found.name, about, tarfile.REGTYPE)
            self._read_attributes(member, fd)
            self._add_header(tar, member, "file with holes" if about.st_blocks * 512 < member.size else "file")
            if about.st_nlink > 1:
                self._linked[identity(about)] = found.name, about.st_size, about.st_mtime_ns
            content = Content(cast(IO[bytes], file), member.size, self._read(advance))
            tar.write_content(content)
            self._compare(found.name, content, about, os.fstat(fd))

    def _read(self, advance: Callable[[int], None]) -> Callable[[bytes], None]:
        """Return what to do with each piece of a file's content."""

        def read(data: bytes) -> None:
            check(self._stop)
            if self._witness is not None:
                self._witness.feed(data)
            advance(len(data))

        return read

    def _compare(self, name: str, content: "Content", before: os.stat_result, after: os.stat_result) -> None:
        if content.fault:
            self._leave_out(name, f"it {content.fault}: the missing {content.missing:,} bytes are zeros in the archive")
        elif (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            self._log.warning(f"{shown(name)} changed while it was read: the archive may mix the old and the new")
        elif content.goes_on():
            self._left_out += 1
            self._log.warning(
                f"{shown(name)} is cut in the archive: it has more bytes than its size of {before.st_size:,}, "
                "as the files of /proc have"
            )

    def _problem(self, name: str, error: OSError) -> None:
        if name == self._source.name:
            raise PluginError(f"The source {self._source.place} cannot be read: {why(error)}.") from error
        gone = isinstance(error, FileNotFoundError)
        self._leave_out(name, "it vanished meanwhile" if gone else f"it cannot be read ({why(error)})")

    def _leave_out(self, name: str, why: str) -> None:
        self._left_out += 1
        self._log.warning(f"{shown(name)} is left out: {why}", path=name[:PATH_NAMED_MAX])


class Tar:
    """An archive that is written: headers, contents, and the blocks at its end."""

    def __init__(self, packed: zstandard.ZstdCompressionWriter) -> None:
        self._packed = packed
        self._size = 0

    def write(self, data: bytes) -> None:
        """Write the next bytes."""
        self._packed.write(data)
        self._size += len(data)

    def write_content(self, content: "Content") -> None:
        """Write the content of a file to its end, and fill its last block."""
        while data := content.read(READ_BYTES):
            self.write(data)
        self.write(bytes(-self._size % BLOCK_BYTES))

    def finish(self) -> None:
        """Write two blocks of zeros, and fill the last record."""
        self.write(bytes(2 * BLOCK_BYTES))
        self.write(bytes(-self._size % RECORD_BYTES))


class Content:
    """
    Exactly `size` bytes of a file, for an archive whose header has promised them.

    If the file has fewer, or fails, the rest is zeros, and `fault` is why.
    """

    def __init__(self, file: IO[bytes], size: int, on_read: Callable[[bytes], None]) -> None:
        # Bytes that the archive has been promised, and bytes that the file has not had so far.
        self._promised = size
        self.missing = size
        self.fault = ""
        self._file = file
        self._on_read = on_read

    def read(self, size: int) -> bytes:
        """Return up to `size` of the promised bytes, and nothing at their end."""
        size = min(size, self._promised)
        data = b"" if self.fault else self._next(size)
        if not data and size:
            self.fault = self.fault or "shrank while it was read"
            data = bytes(size)
        else:
            self.missing -= len(data)
        self._promised -= len(data)
        self._on_read(data)
        return data

    def goes_on(self) -> bool:
        """Return whether the file has bytes after the promised ones, which have been read."""
        return not self.fault and bool(self._next(1))

    def _next(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            self.fault = f"could not be read to its end ({why(error)})"
            return b""


@lru_cache(1_024)
def user_name(uid: int) -> str:
    """Return a user's name, or nothing if there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


@lru_cache(1_024)
def group_name(gid: int) -> str:
    """Return a group's name, or nothing if there is none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""


def _is_utf8(name: str) -> bool:
    """Whether a name is text, and not bytes that stand for themselves."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def leads_out(member: Member) -> bool:
    """Whether a symbolic link, taken alone, leads out of the root of its archive."""
    if member.linkname.startswith("/"):
        return True
    depth = member.name.count("/")
    for part in member.linkname.split("/"):
        if part == "..":
            depth -= 1
        elif part not in ("", "."):
            depth += 1
        if depth < 0:
            return True
    return False
