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
from collections.abc import Collection, Iterator, Sequence
from itertools import compress
from typing import Any, NamedTuple

import orjson

from taskd.query.casefold import folds_to_ascii
from taskd.query.regex import compile_pattern

BLOCK_ENTRIES = 8_192
SAMPLE_ENTRIES = 128
KINDS_MAX = 256
# Where fewer than every so-manieth is wanted, finding one after another is faster.
FEW = 16
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
HEAD = (
    "SELECT min_timestamp, max_timestamp, ordered, folding, kinds_json FROM log_blocks WHERE task_id = ? AND block = ?"
)
ENTRY_KINDS = "SELECT entry_kinds FROM log_blocks WHERE task_id = ? AND block = ?"
SAMPLES = "SELECT samples FROM log_blocks WHERE task_id = ? AND block = ?"
BEFORE = "SELECT count(*) FROM task_logs WHERE task_id = ? AND seq > ? AND seq <= ? AND timestamp < ?"


class Kind(NamedTuple):
    """The entries of one level and source in a block: how many, and the places (from 0) of the first and the last."""

    level: str
    source: str
    entries: int
    first: int
    last: int


class Block:
    """The block with the seqs from `BLOCK_ENTRIES * number + 1` on. Its columns are read when they are asked for."""

    def __init__(self, connection: sqlite3.Connection, task_id: str, number: int, head: Sequence[Any]) -> None:
        self.min_timestamp: str = head[0]
        self.max_timestamp: str = head[1]
        self.ordered = bool(head[2])
        self.folding = bool(head[3])
        self.kinds = [Kind(*kind) for kind in orjson.loads(head[4])]
        self.after = BLOCK_ENTRIES * number
        self._connection = connection
        self._place = (task_id, number)
        self._entry_kinds: bytes | None = None
        self._samples: list[str] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether its kinds are known: there were not too many."""
        return bool(self.kinds)

    @property
    def entry_kinds(self) -> bytes:
        """Of each entry the place of its kind in `kinds`."""
        if self._entry_kinds is None:
            self._entry_kinds = self._connection.execute(ENTRY_KINDS, self._place).fetchone()[0]
        return self._entry_kinds

    @property
    def samples(self) -> list[str]:
        """The timestamp of every `SAMPLE_ENTRIES`th entry from the first."""
        if self._samples is None:
            self._samples = self._connection.execute(SAMPLES, self._place).fetchone()[0].split("\n")
        return self._samples

    def seqs(self, wanted: Collection[int], after: int, until: int) -> list[int]:
        """The seqs above `after` and up to `until` of the entries whose kinds have the places `wanted`."""
        mask = self._mask(wanted)[after - self.after : until - self.after]
        count = mask.count(1)
        if count * FEW > len(mask):
            return [*compress(range(after + 1, until + 1), mask)]
        found, place = [], -1
        for _ in range(count):
            place = mask.find(1, place + 1)
            found.append(after + 1 + place)
        return found

    def count(self, wanted: Collection[int], after: int, until: int) -> int:
        """How many `seqs` would have."""
        if after == self.after and until == self.after + BLOCK_ENTRIES:
            return sum([self.kinds[place].entries for place in wanted])
        return self._mask(wanted)[after - self.after : until - self.after].count(1)

    def flags(self, seqs: Sequence[int], wanted: Collection[int]) -> bytes:
        """Of each of these entries a 1 where its kind has one of the places `wanted`; nothing where none is."""
        if not wanted:
            return b""
        low = self.after + 1
        mask = self._mask(wanted)
        if isinstance(seqs, range):
            return mask[seqs[0] - low : seqs[-1] - low + 1]
        return bytes([mask[seq - low] for seq in seqs])

    def groups(self, seqs: Sequence[int]) -> Iterator[tuple[str, str, int, int, int]]:
        """Of these entries the level, the source, how many, and the first and the last seq."""
        low = self.after + 1
        if len(seqs) == BLOCK_ENTRIES:
            for kind in self.kinds:
                yield kind.level, kind.source, kind.entries, low + kind.first, low + kind.last
            return
        if isinstance(seqs, range):
            kinds = self.entry_kinds[seqs[0] - low : seqs[-1] - low + 1]
        else:
            kinds = bytes([self.entry_kinds[seq - low] for seq in seqs])
        for place in set(kinds):
            one = bytes([place])
            kind = self.kinds[place]
            yield kind.level, kind.source, kinds.count(one), seqs[kinds.index(one)], seqs[kinds.rindex(one)]

    def before(self, timestamp: str) -> int:
        """How many entries lie before `timestamp`; the block is ordered."""
        sample = bisect_left(self.samples, timestamp)
        if sample == 0:
            return 0
        # Between the sample that is smaller and the one that is not.
        start = (sample - 1) * SAMPLE_ENTRIES
        low = self.after + start
        span = (self._place[0], low, low + SAMPLE_ENTRIES, timestamp)
        return start + int(self._connection.execute(BEFORE, span).fetchone()[0])

    def _mask(self, wanted: Collection[int]) -> bytes:
        table = bytearray(KINDS_MAX)
        for place in wanted:
            table[place] = 1
        return self.entry_kinds.translate(table)


def read_block(connection: sqlite3.Connection, task_id: str, number: int) -> Block | None:
    """The block, where it was made."""
    head = connection.execute(HEAD, (task_id, number)).fetchone()
    return None if head is None else Block(connection, task_id, number, head)


def make_block(connection: sqlite3.Connection, task_id: str, number: int) -> tuple[object, ...]:
    """The values of `INSERT_BLOCK` for the block, whose entries are all stored."""
    after = BLOCK_ENTRIES * number
    row = connection.execute(MADE_OF, (task_id, after, after + BLOCK_ENTRIES)).fetchone()
    timestamps: list[str] = row[0].split("\n")
    texts: list[str] = row[1].split("\n")
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    few = len(places) <= KINDS_MAX and len(texts) == len(timestamps) == BLOCK_ENTRIES
    entry_kinds = bytes(map(places.__getitem__, texts)) if few else b""
    kinds = [_kind(text, bytes([place]), entry_kinds) for text, place in places.items()] if few else []
    return (
        task_id, number, min(timestamps), max(timestamps), timestamps == sorted(timestamps),
        _has_folding(connection, task_id, after), orjson.dumps(kinds).decode(), entry_kinds,
        "\n".join(timestamps[::SAMPLE_ENTRIES]),
    )  # fmt: skip


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


def _kind(text: str, place: bytes, entry_kinds: bytes) -> tuple[str, str, int, int, int]:
    level, _, source = text.partition("\0")
    return level, source, entry_kinds.count(place), entry_kinds.index(place), entry_kinds.rindex(place)
