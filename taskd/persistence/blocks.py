"""
`Block`: 8,192 entries of a log as columns, which answers what asks for level, source or time.

A block has the level and source of each of its entries in one byte, so that all entries of a
level, in a log of a million, are found by looking at a megabyte. It has its smallest and its
greatest timestamp and, where they are in order, enough of those between to find any of them by
looking at 128 rows. And it says whether LIKE alone can search its messages for ASCII.

Blocks are made of entries that are stored, which never change, so a block is never out of date.
What has no block yet is read from its rows.
"""

import sqlite3
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

import orjson

from taskd.entries import Level
from taskd.filters import LogFilter
from taskd.folding import folds_to_ascii
from taskd.patterns import compile_pattern

BLOCK_ENTRIES = 8_192
SAMPLE_ENTRIES = 128
KINDS_MAX = 256
# Messages that are looked at in one piece: 16 MiB where all are as long as they may be.
JOINED_ENTRIES = 256

MADE_OF = """
SELECT group_concat(timestamp, char(10)), group_concat(level || char(0) || source, char(10))
FROM (SELECT timestamp, level, source FROM task_logs WHERE task_id = ? AND seq > ? AND seq <= ? ORDER BY seq)
"""
JOINED = """
SELECT CAST(group_concat(message, char(10)) AS BLOB) FROM task_logs WHERE task_id = ? AND seq > ? AND seq <= ?
"""
BLOCK_COLUMNS = "block, min_timestamp, max_timestamp, ordered, folding, kinds_json, entry_kinds, samples"
INSERT_BLOCK = f"INSERT OR IGNORE INTO log_blocks (task_id, {BLOCK_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
BLOCK = f"SELECT {BLOCK_COLUMNS} FROM log_blocks WHERE task_id = ? AND block = ?"
BEFORE = "SELECT count(*) FROM task_logs WHERE task_id = ? AND seq > ? AND seq <= ? AND timestamp < ?"


@dataclass(slots=True)
class Block:
    """The block with the seqs from `BLOCK_ENTRIES * number + 1` on, as `schema.sql` has it."""

    number: int
    min_timestamp: str
    max_timestamp: str
    ordered: bool
    folding: bool
    kinds: list[tuple[Level, str]]
    entry_kinds: bytes
    samples: list[str]

    @property
    def after(self) -> int:
        """The seq before its first."""
        return BLOCK_ENTRIES * self.number

    def row(self, task_id: str) -> tuple[object, ...]:
        """The values for `INSERT_BLOCK`."""
        return (
            task_id, self.number, self.min_timestamp, self.max_timestamp, self.ordered, self.folding,
            orjson.dumps(self.kinds).decode(), self.entry_kinds, "\n".join(self.samples),
        )  # fmt: skip

    def kinds_wanted(self, log_filter: LogFilter) -> bytes:
        """The places in `kinds` of those that the filter wants."""
        wanted = [place for place, kind in enumerate(self.kinds) if log_filter.matches_kind(*kind)]
        return bytes(wanted)

    def seqs(self, wanted: bytes, after: int, until: int) -> list[int]:
        """The seqs above `after` and up to `until` of the entries of the kinds `wanted`."""
        return [*compress(range(after + 1, until + 1), self.mask(wanted)[after - self.after : until - self.after])]

    def mask(self, wanted: bytes) -> bytes:
        """Of each entry 1 where it is of the kinds `wanted`, else 0."""
        return self.entry_kinds.translate(bytes([int(kind in wanted) for kind in range(KINDS_MAX)]))

    def first_from(self, connection: sqlite3.Connection, task_id: str, timestamp: str) -> int:
        """How many entries lie before `timestamp`; the block is ordered."""
        sample = bisect_left(self.samples, timestamp)
        if sample == 0:
            return 0
        # Between the sample that is smaller and the one that is not.
        start = (sample - 1) * SAMPLE_ENTRIES
        span = (task_id, self.after + start, self.after + start + SAMPLE_ENTRIES, timestamp)
        return start + int(connection.execute(BEFORE, span).fetchone()[0])


def make_block(connection: sqlite3.Connection, task_id: str, number: int) -> Block:
    """The block of entries that are all stored."""
    after = BLOCK_ENTRIES * number
    row = connection.execute(MADE_OF, (task_id, after, after + BLOCK_ENTRIES)).fetchone()
    timestamps: list[str] = row[0].split("\n")
    texts: list[str] = row[1].split("\n")
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    few = len(places) <= KINDS_MAX and len(texts) == len(timestamps) == BLOCK_ENTRIES
    return Block(
        number,
        min(timestamps),
        max(timestamps),
        timestamps == sorted(timestamps),
        _has_folding(connection, task_id, after),
        [_kind(text) for text in places] if few else [],
        bytes(map(places.__getitem__, texts)) if few else b"",
        timestamps[::SAMPLE_ENTRIES],
    )


def read_block(connection: sqlite3.Connection, task_id: str, number: int) -> Block | None:
    """The block, where it was made."""
    row: Sequence[object] | None = connection.execute(BLOCK, (task_id, number)).fetchone()
    if row is None:
        return None
    place, low, high, ordered, folding, kinds_json, entry_kinds, samples = row
    assert isinstance(place, int)
    assert isinstance(entry_kinds, bytes)
    assert isinstance(kinds_json, str)
    kinds = [(Level(level), source) for level, source in orjson.loads(kinds_json)]
    return Block(place, str(low), str(high), bool(ordered), bool(folding), kinds, entry_kinds, str(samples).split("\n"))


def joined_messages(connection: sqlite3.Connection, task_id: str, after: int, until: int) -> bytes:
    """The messages above the seq `after` and up to `until`, in UTF-8, with a line break between each two."""
    return connection.execute(JOINED, (task_id, after, until)).fetchone()[0] or b""


def _has_folding(connection: sqlite3.Connection, task_id: str, after: int) -> bool:
    folds = compile_pattern(folds_to_ascii())
    for start in range(after, after + BLOCK_ENTRIES, JOINED_ENTRIES):
        text = joined_messages(connection, task_id, start, start + JOINED_ENTRIES)
        if not text.isascii() and folds(text):
            return True
    return False


def _kind(text: str) -> tuple[Level, str]:
    level, _, source = text.partition("\0")
    return Level(level), source
