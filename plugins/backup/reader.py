"""
An archive, read once from start to end.

Every byte has to be where it belongs: an archive that is cut, damaged or followed by something else is
never taken for a shorter one. `members` ends without an error only if each zstd frame reached its
end, each header has the checksum of its bytes, each record of an extended header follows the one before,
and two blocks of zeros end the archive, with nothing but zeros after them.
"""

import hashlib
import tarfile
import threading
from collections.abc import Callable, Iterator
from typing import IO

import zstandard

from taskd import PluginError

from .failures import Damaged, check
from .frames import READ_BYTES, Frames, is_zeros
from .members import BLOCK_BYTES, SPARSE, Member, Segments, header_number, old_sparse_map, pax_records, segments_of
from .members import sparse_map as pax_sparse_map

# A header is read whole into memory and states its own length.
HEADER_BYTES_MAX = 16 * 1_024**2
EXTENDED = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
LONG = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}
# The records that count for all entries that follow them; others, such as a comment, are not kept.
GLOBAL = ("path", "linkpath", "size", "mtime", "uid", "gid", "uname", "gname")
PAIR = (SPARSE + "offset", SPARSE + "numbytes")

NOT_AN_ARCHIVE = (Damaged, tarfile.TarError, zstandard.ZstdError, EOFError)


class Reader:
    """
    Reads an archive, never holding more of it than a piece and one header.

    `sha256()` is the checksum of the file's bytes, known after all members were read.
    """

    def __init__(self, file: IO[bytes], stop: threading.Event, show: Callable[[int], None] = lambda at: None) -> None:
        self._file = file
        self._stop = stop
        self._show = show
        self._sha256 = hashlib.sha256()
        self._at = 0
        self._frames = Frames(self._read_file)
        self._global: dict[str, bytes] = {}
        self._header_bytes = 0
        # Of the current member: its content, and bytes of it and its padding that are still to be read.
        self._segments: Segments = []
        self._left = 0

    @property
    def unchecked(self) -> bool:
        """Whether the archive lacks checksums, so that damage to the contents of files goes unnoticed."""
        return self._frames.blocks.unchecked > 0

    def members(self) -> Iterator[Member]:
        """Every entry; raises `PluginError` if this is no archive, or not all of one."""
        try:
            while member := self._next():
                yield member
                self._skip()
            self._finish()
        except NOT_AN_ARCHIVE as error:
            raise PluginError(f"This is not a complete .tar.zst archive: {error}. Give another archive.") from error

    def content(self) -> Iterator[tuple[int, bytes]]:
        """The data of the member that was given last, in pieces, each with its offset in the file."""
        try:
            for offset, length in self._segments:
                end = offset + length
                while offset < end:
                    data = self._exactly(min(READ_BYTES, end - offset))
                    self._left -= len(data)
                    yield offset, data
                    offset += len(data)
        except NOT_AN_ARCHIVE as error:
            raise PluginError(f"This is not a complete .tar.zst archive: {error}. Give another archive.") from error

    def sha256(self) -> str:
        return self._sha256.hexdigest()

    def _next(self) -> Member | None:
        """Read the headers of the next entry; None at the end of the archive."""
        self._header_bytes = 0
        records: dict[str, bytes] = {}
        pairs: list[bytes] = []
        while True:
            block = self._block()
            if not any(block):
                if records:
                    raise Damaged("it ends after an extended header")
                return None
            member = self._member(block)
            if member.type in EXTENDED:
                for key, value in pax_records(self._payload(member.size)):
                    records[key] = value
                    pairs += [value] if key in PAIR else []
            elif member.type == tarfile.XGLTYPE:
                found = pax_records(self._payload(member.size))
                self._global.update((key, value) for key, value in found if key in GLOBAL)
            elif (field := LONG.get(member.type)) is not None:
                records[field] = self._payload(member.size).partition(b"\0")[0]
            else:
                if member.type in (tarfile.AREGTYPE, tarfile.DIRTYPE) and "path" in records and not block[156]:
                    # The oldest format marks a directory by its name, of which the block may have only a part.
                    member.type = tarfile.DIRTYPE if records["path"].endswith(b"/") else tarfile.AREGTYPE
                member.complete(self._global | records)
                self._begin(member)
                self._read_sparse_map(member, block, records, pairs)
                member.header_bytes = self._header_bytes
                return member

    def _member(self, block: bytes) -> Member:
        try:
            member = Member.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise Damaged(f"one of its headers is damaged ({error})") from error
        if block[257:265] == tarfile.GNU_MAGIC and block[345]:
            # GNU tar keeps times there (as with --listed-incremental), and tarfile takes them for directories.
            name = tarfile.nts(block[:100], "utf-8", "surrogateescape")  # type: ignore[attr-defined]
            member.name = name.rstrip("/") if member.isdir() else name
        return member

    def _begin(self, member: Member) -> None:
        self._segments = member.content() if member.isreg() else []
        self._left = member.stored + -member.stored % BLOCK_BYTES

    def _read_sparse_map(self, member: Member, block: bytes, records: dict[str, bytes], pairs: list[bytes]) -> None:
        """Find where the data of a sparse file is: in its header, in more blocks of it, or before its content."""
        if not member.isreg():
            return
        if member.type == tarfile.GNUTYPE_SPARSE:
            segments = self._old_sparse_map(block)
            size = header_number(block[483:495])
        elif records.get(SPARSE + "major") == b"1":
            segments = self._leading_sparse_map(member)
            size = _size_of(records)
        elif SPARSE + "map" in records or pairs:
            segments = pax_sparse_map(records, pairs)
            size = _size_of(records)
        else:
            return
        member.complete_sparse(records, [segment for segment in segments if segment[1]], size)
        self._segments = member.content()

    def _old_sparse_map(self, block: bytes) -> Segments:
        segments, more = old_sparse_map(block[386:482], 4), block[482]
        while more:
            block = self._block()
            segments += old_sparse_map(block, 21)
            more = block[504]
        return segments

    def _leading_sparse_map(self, member: Member) -> Segments:
        """Read the map that GNU format 1.0 has before the content: a count, then that number of pairs, in lines."""
        content, lines, wanted = b"", 0, 1
        while lines < wanted:
            content += (block := self._block())
            member.stored -= BLOCK_BYTES
            self._left -= BLOCK_BYTES
            if member.stored < 0:
                raise Damaged("the map of a sparse file does not end")
            lines += block.count(b"\n")
            if lines and wanted == 1:
                (_, count), *_ = segments_of([b"0", content.partition(b"\n")[0]])
                wanted = 1 + 2 * count
        return segments_of(content.split(b"\n", wanted)[1:wanted])

    def _payload(self, size: int) -> bytes:
        """Read the content of an extended header."""
        if not 0 <= size <= HEADER_BYTES_MAX:
            self._refuse_header()
        self._header_bytes += size
        payload = self._exactly(size + -size % BLOCK_BYTES)
        return payload[:size]

    def _block(self) -> bytes:
        self._header_bytes += BLOCK_BYTES
        if self._header_bytes > HEADER_BYTES_MAX:
            self._refuse_header()
        return self._exactly(BLOCK_BYTES)

    def _refuse_header(self) -> None:
        raise PluginError(f"A header of this archive is larger than {HEADER_BYTES_MAX:,} bytes: it is refused.")

    def _skip(self) -> None:
        while self._left:
            self._left -= len(self._exactly(min(READ_BYTES, self._left)))

    def _finish(self) -> None:
        """Read what follows the first block of zeros."""
        if any(self._exactly(BLOCK_BYTES)):
            raise Damaged("a block of zeros is in the middle of it")
        while data := self._frames.read(READ_BYTES):
            check(self._stop)
            if not is_zeros(data):
                raise Damaged("something follows its end")

    def _exactly(self, size: int) -> bytes:
        check(self._stop)
        data = self._frames.read(size)
        if len(data) < size:
            raise EOFError("it ends too early")
        return data

    def _read_file(self, size: int) -> bytes:
        check(self._stop)
        data = self._file.read(size)
        self._sha256.update(data)
        self._at += len(data)
        self._show(self._at)
        return data


def _size_of(records: dict[str, bytes]) -> int:
    (_, size), *_ = segments_of([b"0", records.get(SPARSE + "realsize", records.get(SPARSE + "size", b""))])
    return size
