"""
An entry of an archive: written from what the system knows of a file, and read from its headers.

The headers are those of POSIX.1-2017 (pax). Read are also those of GNU tar, and its sparse files.
`tarfile` makes and checks single blocks here and nothing more: as a reader it takes some damaged
headers for the end of the archive, and which ones depends on Python's version.
"""

import os
import re
import stat
import tarfile
from collections.abc import Iterator
from decimal import Decimal

from . import attributes
from .failures import Damaged

BLOCK_BYTES = tarfile.BLOCKSIZE
NS = 1_000_000_000
TIME = re.compile(rb"-?\d{1,19}(\.\d{0,40})?")
NUMBER = re.compile(rb"\d{1,19}")
SPARSE = "GNU.sparse."
# The parts of a sparse file that hold data, as offsets and lengths.
Segments = list[tuple[int, int]]


class Member(tarfile.TarInfo):
    """An entry. Beside what `TarInfo` has: times to the nanosecond, extended attributes and segments of data."""

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        self.mtime_ns = 0
        self.attributes: attributes.Attributes = {}
        # Bytes of the headers before this entry's content, and of its content in the archive.
        self.header_bytes = 0
        self.stored = 0
        self.segments: Segments | None = None

    @classmethod
    def of(cls, name: str, about: os.stat_result, kind: bytes, linkname: str = "") -> "Member":
        """Describe a file, a directory or a link."""
        member = cls(name)
        member.type, member.linkname = kind, linkname
        member.mode, member.uid, member.gid = stat.S_IMODE(about.st_mode), about.st_uid, about.st_gid
        member.size = member.stored = about.st_size if kind == tarfile.REGTYPE else 0
        member.mtime_ns = about.st_mtime_ns
        return member

    def header(self) -> bytes:
        """Return the blocks before the content."""
        self.mtime, rest = divmod(self.mtime_ns, NS)
        self.pax_headers = dict(attributes.packed(self.attributes))
        if rest:
            self.pax_headers["mtime"] = f"{Decimal(self.mtime_ns).scaleb(-9):f}"
        return self.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")

    def content(self) -> Segments:
        """Return the parts of the file that hold data: all of it, unless it is sparse."""
        return [(0, self.size)] if self.segments is None else self.segments

    def complete(self, records: dict[str, bytes]) -> None:
        """Take over the records of the extended headers. Raises `Damaged` if one cannot be."""
        if "path" in records:
            self.name = _text(records["path"]).rstrip("/") if self.isdir() else _text(records["path"])
        if "linkpath" in records:
            self.linkname = _text(records["linkpath"])
        self.size = _number(records, "size", self.size)
        self.uid, self.gid = _number(records, "uid", self.uid), _number(records, "gid", self.gid)
        for key in records.keys() & {"uname", "gname"}:
            setattr(self, key, _text(records[key]))
        self.mtime_ns = _time_ns(records["mtime"]) if "mtime" in records else int(self.mtime) * NS
        self.attributes = {name: value for record in records.items() for name, value in attributes.unpacked(*record)}
        if self.size < 0:
            raise Damaged("an entry has a negative size")
        self.stored = 0 if self.isdir() or self.issym() or self.islnk() else self.size

    def complete_sparse(self, records: dict[str, bytes], segments: Segments, size: int) -> None:
        """Take over where the data is. Raises `Damaged` if it cannot be there."""
        end = stored = 0
        for offset, length in segments:
            if offset < end or length < 0:
                raise Damaged("the map of a sparse file is out of order")
            end, stored = offset + length, stored + length
        if end > size or stored != self.stored:
            raise Damaged("the map of a sparse file does not fit the file")
        self.segments, self.size = segments, size
        if SPARSE + "name" in records:
            self.name = _text(records[SPARSE + "name"])


def pax_records(payload: bytes) -> Iterator[tuple[str, bytes]]:
    """Return the records of an extended header. Raises `Damaged` if they are not one after the other to its end."""
    at = 0
    while at < len(payload):
        length, space, _ = payload[at : at + 20].partition(b" ")
        end = at + int(length) if space and NUMBER.fullmatch(length) else at
        keyword, equals, value = payload[at + len(length) + 1 : end].partition(b"=")
        if end > len(payload) or not equals or not value.endswith(b"\n"):
            raise Damaged("an extended header is damaged")
        yield _text(keyword), value[:-1]
        at = end


def sparse_map(records: dict[str, bytes], pairs: list[bytes]) -> Segments:
    """Return the segments in the extended header of a sparse file (GNU formats 0.0 and 0.1)."""
    numbers = records[SPARSE + "map"].split(b",") if SPARSE + "map" in records else pairs
    return segments_of(numbers)


def segments_of(numbers: list[bytes]) -> Segments:
    """Return offsets and lengths, which are given as one after the other. Raises `Damaged` if they are none."""
    if len(numbers) % 2 or not all(NUMBER.fullmatch(number) for number in numbers):
        raise Damaged("the map of a sparse file is damaged")
    found = [int(number) for number in numbers]
    return list(zip(found[::2], found[1::2], strict=True))


def old_sparse_map(block: bytes, count: int) -> Segments:
    """Return the segments in a block of the old GNU format, which holds up to `count`."""
    fields = [block[at : at + 12] for at in range(0, 24 * count, 12)]
    numbers = [header_number(field) for field in fields]
    return [pair for pair in zip(numbers[::2], numbers[1::2], strict=True) if any(pair)]


def header_number(field: bytes) -> int:
    """Return a number of a header: octal digits, or bytes if the first bit is set."""
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.partition(b"\0")[0].strip() or b"0", 8)
    except ValueError as error:
        raise Damaged("a number in a header is damaged") from error


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _number(records: dict[str, bytes], key: str, default: int) -> int:
    if key not in records:
        return default
    if not NUMBER.fullmatch(records[key]):
        raise Damaged(f"the {key} in an extended header is no number")
    return int(records[key])


def _time_ns(value: bytes) -> int:
    if not TIME.fullmatch(value):
        raise Damaged("a time in an extended header is no number")
    return int(Decimal(value.decode()).scaleb(9))
