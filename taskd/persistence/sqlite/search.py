"""
`Search`: the matches of a filter in a stored log, found by reading as little as possible.

    the span of seqs
    ├── the part that is in log_search     rows that have all three-character pieces of the text
    └── the rest, block by block           skipped by level, source and time where it has none
            └── 256 messages at a time     skipped where RE2 says that the text is in none of them

What remains is a `Part`: a few seqs, or a range of them, and what is still to be asked of their
rows, which `LogFilter.where` then asks. So nothing here decides that an entry matches, and every
shortcut only leaves out what cannot. A text that is common is not looked for in log_search: it is
found at once by reading. All of one search sees one state of the database.

Texts of one or two characters are read for, and so are regular expressions.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice, pairwise
from typing import Any

import orjson

from taskd.entries import Level, LogEntry
from taskd.errors import TaskNotFound
from taskd.persistence.base import Span
from taskd.persistence.sqlite.blocks import BLOCK_ENTRIES, JOINED_ENTRIES, Block, joined_messages, read_block
from taskd.persistence.sqlite.connection import check_wanted
from taskd.query.casefold import may_contain
from taskd.query.counts import Count, LogCounts, Stats
from taskd.query.filters import LogFilter
from taskd.query.outline import Outline
from taskd.query.parameters import Order
from taskd.query.regex import compile_lines, compile_pattern

ENTRY_COLUMNS = "seq, timestamp, level, source, message, metadata_json"
STATE = """
SELECT last_seq, coalesce(blocks, 0), first_row, coalesce(searchable, 0)
FROM tasks LEFT JOIN log_indexes ON task_id = id WHERE id = ? AND deleted_at IS NULL
"""
IN_RANGE = "SELECT {columns} FROM task_logs WHERE task_id = ? AND seq > ? AND seq <= ? AND {where}"
IN_LIST = "SELECT {columns} FROM task_logs WHERE task_id = ? AND seq IN ({marks}) AND {where}"
PACK = "SELECT json_group_array(json_array({columns})) FROM ("
CANDIDATES = "SELECT rowid FROM log_search WHERE log_search MATCH ? AND rowid > ? AND rowid <= ? ORDER BY rowid {order}"
GROUPS = "level, source, count(*), min(seq), max(seq)"
TIMESTAMP = "SELECT timestamp FROM task_logs WHERE task_id = ? AND seq = ?"

# Where more than every so-manieth entry of a block is of a level and source that are wanted.
MANY = 4
# Seqs in one list of SQL; shorter lists repeat their last, so that the statement is the same.
LIST_SEQS = 250
# Rows in one of JSON: few at first, for they may be large; then as many as those before let have so many
# characters. Behind small ones the largest may come, and all of a pack are in memory.
PACK_ENTRIES_FIRST, PACK_ENTRIES_MAX = 32, 256
PACK_CHARACTERS = 256 * 1_024
TRIGRAM = 3
TRIGRAMS_MAX = 24
# From so many on, and if more than every so-manieth entry is one, reading is faster than looking up.
CANDIDATES_MIN = 3_000
CANDIDATES_EVERY = 12
# After so many pieces in which the text may be it is common, and looking at the next one first is in vain.
UNTESTED_MAX = 16

# More is not looked at in one call of RE2, which cannot be interrupted.
TESTED_BYTES_MAX = 1_024 * 1_024

Row = tuple[Any, ...]
Test = Callable[[bytes], bool]
_ALL = LogFilter()


@dataclass(slots=True)
class Part:
    """Entries above `after` and up to `until`, or of those `seqs` alone; `filter` is still to be asked of each."""

    after: int
    until: int
    filter: LogFilter
    seqs: list[int] | None = None
    block: Block | None = None

    @property
    def decided(self) -> bool:
        """Whether all of them match."""
        return self.filter.everything

    @property
    def folding(self) -> bool:
        return self.block is None or self.block.folding

    def beyond(self, seq: int, descending: bool) -> "Part | None":
        """What of it comes behind `seq`; None for nothing."""
        after, until = (self.after, seq - 1) if descending else (seq, self.until)
        seqs = None if self.seqs is None else [one for one in self.seqs if after < one <= until]
        return replace(self, after=after, until=until, seqs=seqs) if after < until and seqs != [] else None


@contextmanager
def searching(connection: sqlite3.Connection, task_id: str, log_filter: LogFilter, span: Span) -> Iterator["Search"]:
    """A search in one state of the database. Raises `TaskNotFound` where there is no such task in it."""
    connection.execute("BEGIN")
    try:
        yield Search(connection, task_id, log_filter, span)
    finally:
        connection.execute("ROLLBACK")


class Search:
    """One filter over one span of one log."""

    def __init__(self, connection: sqlite3.Connection, task_id: str, log_filter: LogFilter, span: Span) -> None:
        state = connection.execute(STATE, (task_id,)).fetchone()
        if state is None:
            raise TaskNotFound(task_id)
        last_seq, blocks, first_row, searchable = state
        self._blocks: int = blocks
        self._first_row: int | None = first_row
        self._searchable: int = searchable
        self._connection = connection
        self._task_id = task_id
        self._filter = log_filter
        self._after = span.after
        self._until: int = last_seq if span.before is None else min(span.before - 1, last_seq)
        self._kinds: dict[tuple[str, str], bool] = {}
        self._tests: dict[str, Test | None] = {}
        self._untested = self._common = 0

    # What is asked

    def page(self, order: Order, offset: int, limit: int, bytes_max: int) -> tuple[list[LogEntry], bool]:
        """As `LogPersistenceService.page`."""
        entries: list[LogEntry] = []
        size = 0
        for row in islice(self._rows_from(offset, limit + 1, order == "desc"), limit + 1):
            entry = LogEntry.from_row(row)
            size += len(entry.encoded)
            if len(entries) == limit or (entries and size > bytes_max):
                return entries, True
            entries.append(entry)
        return entries, False

    def count(self) -> int:
        """How many matches there are."""
        if self._filter.everything:
            return max(0, self._until - self._after)
        if self._filter.counted:
            return sum(self._count_block(*span) for span in self._spans(self._after, self._until, False))
        return sum(self._count(part) for part in self._parts(False))

    def nth_last(self, n: int) -> int | None:
        """The seq of the n-th last match; of the first where there are fewer; None where there is none."""
        if self._filter.everything:
            return max(self._after, self._until - n) + 1 if self._after < self._until else None
        first = None
        for part in self._parts(True):
            count = self._count(part)
            if count:
                *_, (first,) = self._rows(part, "seq", True, n)
            n -= count
            if n <= 0:
                break
        return first

    def stats(self) -> Stats:
        """The matches by level and source."""
        groups: dict[tuple[str, str], tuple[int, int, int]] = {}
        for part in self._parts(False):
            for level, source, count, first, last in self._groups(part):
                known = groups.get((level, source), (0, first, last))
                groups[level, source] = (known[0] + count, known[1], last)
        counts = LogCounts()
        for (level, source), (count, first, last) in groups.items():
            count_of = Count(count, first, last, self._timestamp(first), self._timestamp(last))
            counts.add_group(Level(level), source, count_of)
        return counts.stats(_ALL)

    def outline(self, outline: Outline) -> None:
        """Add the matches to `outline`."""
        groups: Counter[tuple[str, str]] = Counter()
        for part in self._parts(False):
            block = part.block
            if block is None or not block.ordered or not block.is_whole:
                for row in self._rows(part, "seq, timestamp, level, source", False):
                    outline.add(*row)
                continue
            seqs = self._seqs(part)
            if seqs:
                self._outline_block(outline, block, seqs)
                for level, source, count, *_ in block.groups(seqs):
                    groups[level, source] += count
        for (level, source), count in groups.items():
            outline.counts.add_one(Level(level), source, 0, "", count)

    # Where matches may be

    def _parts(self, descending: bool) -> Iterator[Part]:
        query = self._trigrams()
        if query is None or self._searchable <= self._after:
            yield from self._read(self._after, self._until, descending)
        elif descending:
            yield from self._read(max(self._after, self._searchable), self._until, True)
            yield from self._looked_up(query, self._after, min(self._until, self._searchable), True)
        else:
            yield from self._looked_up(query, self._after, min(self._until, self._searchable), False)
            yield from self._read(max(self._after, self._searchable), self._until, False)

    def _trigrams(self) -> str | None:
        """What a row of log_search has where the texts are in its message; None where it cannot help."""
        if self._filter.regex or self._first_row is None:
            return None
        pieces: list[str] = []
        for needle in self._filter.search:
            found = [needle[at : at + TRIGRAM] for at in range(len(needle) - TRIGRAM + 1)]
            # Every so-manieth of a long text: all the others would say the same again.
            pieces += dict.fromkeys(found[:: 1 + len(found) // TRIGRAMS_MAX])
        if not pieces or any("\0" in piece for piece in pieces):
            return None
        return " AND ".join('"' + piece.replace('"', '""') + '"' for piece in pieces[: 2 * TRIGRAMS_MAX])

    def _looked_up(self, query: str, after: int, until: int, descending: bool) -> Iterator[Part]:
        if after >= until:
            return
        base = self._first_row or 0
        sql = CANDIDATES.format(order="DESC" if descending else "ASC")
        rows = self._connection.execute(sql, (query, base + after, base + until))
        seen, size = 0, LIST_SEQS // 4
        while found := rows.fetchmany(size):
            seqs = [row - base for (row,) in found]
            seen, size = seen + len(seqs), LIST_SEQS
            yield Part(min(seqs) - 1, max(seqs), self._filter, sorted(seqs))
            if seen >= CANDIDATES_MIN and seen * CANDIDATES_EVERY > abs(seqs[-1] - (until if descending else after)):
                rows.close()
                low, high = (after, seqs[-1] - 1) if descending else (seqs[-1], until)
                yield from self._read(low, high, descending)
                return

    def _read(self, after: int, until: int, descending: bool) -> Iterator[Part]:
        """Block by block, what of the span may match."""
        if after >= until:
            return
        if self._filter.everything:
            # Nothing to leave out, and so nothing to look up.
            for number, low, high in self._spans(after, until, descending):
                yield Part(low, high, self._filter, block=self._block(number))
            return
        for span in self._spans(after, until, descending):
            part = self._part(*span)
            if part is not None:
                yield part

    def _spans(self, after: int, until: int, descending: bool) -> Iterator[tuple[int, int, int]]:
        """The span block by block: the block's number, and what of it is in the span."""
        numbers = range(after // BLOCK_ENTRIES, (until - 1) // BLOCK_ENTRIES + 1) if after < until else range(0)
        for number in reversed(numbers) if descending else numbers:
            yield number, max(after, number * BLOCK_ENTRIES), min(until, (number + 1) * BLOCK_ENTRIES)

    def _block(self, number: int) -> Block | None:
        return read_block(self._connection, self._task_id, number) if number < self._blocks else None

    def _part(self, number: int, after: int, until: int) -> Part | None:
        """What of one block may match; None for nothing."""
        log_filter = self._filter
        block = self._block(number)
        if block is None:
            return Part(after, until, log_filter)
        if log_filter.since is not None or log_filter.until is not None:
            since, before = log_filter.since or "", log_filter.until or "~"
            if block.max_timestamp < since or block.min_timestamp >= before:
                return None
            if block.min_timestamp >= since and block.max_timestamp < before:
                log_filter = replace(log_filter, since=None, until=None)
        seqs = None
        if log_filter.by_kind and block.is_whole:
            wanted = self._wanted(block)
            count = block.count(wanted, after, until) if wanted else 0
            if not count:
                return None
            left = log_filter.rest
            if count == until - after:
                log_filter = left
            # Where most are wanted, reading all is faster than a list of them.
            elif left.everything or MANY * count < until - after:
                log_filter, seqs = left, block.seqs(wanted, after, until)
        return Part(after, until, log_filter, seqs, block)

    def _wanted(self, block: Block) -> frozenset[int]:
        """The places of the kinds that the filter wants."""
        found = []
        for place, (level, source, *_) in enumerate(block.kinds):
            kind = level, source
            if kind not in self._kinds:
                self._kinds[kind] = self._filter.matches_kind(Level(level), source)
            if self._kinds[kind]:
                found.append(place)
        return frozenset(found)

    # What of a part matches

    def _rows_from(self, offset: int, count: int, descending: bool) -> Iterator[Row]:
        """The rows of matches, from behind the first `offset`; of so many at least, if there are."""
        if self._filter.everything:
            # Seqs have no holes: the offset is a place.
            after, until = self._after, self._until
            low, high = (after, until - offset) if descending else (after + offset, until)
            return self._rows(Part(low, high, _ALL), ENTRY_COLUMNS, descending, count)
        return self._rows_skipping(offset, count, descending)

    def _rows_skipping(self, offset: int, count: int, descending: bool) -> Iterator[Row]:
        for part in self._parts(descending):
            skipped = self._count(part) if offset else 0
            if offset and skipped <= offset:
                offset -= skipped
                continue
            yield from islice(self._rows(part, ENTRY_COLUMNS, descending, offset + count), offset, None)
            offset = 0

    def _seqs(self, part: Part) -> list[int] | range:
        if part.decided:
            return range(part.after + 1, part.until + 1) if part.seqs is None else part.seqs
        return [seq for (seq,) in self._rows(part, "seq", False)]

    def _count(self, part: Part) -> int:
        if part.decided:
            return part.until - part.after if part.seqs is None else len(part.seqs)
        return sum(count for (count,) in self._summed(part, "count(*)"))

    def _count_block(self, number: int, after: int, until: int) -> int:
        """How many of one block match, where level and source alone are asked for."""
        block = self._block(number)
        if block is None or not block.is_whole:
            return self._count(Part(after, until, self._filter))
        wanted = self._wanted(block)
        return block.count(wanted, after, until) if wanted else 0

    def _groups(self, part: Part) -> Iterable[Row]:
        """The matches by level and source; with the last of each in order."""
        if part.decided and part.block is not None and part.block.is_whole:
            return part.block.groups(self._seqs(part))
        return self._summed(part, GROUPS, " GROUP BY level, source")

    def _summed(self, part: Part, columns: str, suffix: str = "") -> Iterator[Row]:
        """Counts or groups of the matches of a part: of each piece that is read."""
        pieces = self._pieces(part, False)
        return chain.from_iterable(self._execute(piece, columns, suffix) for piece in pieces)

    def _rows(self, part: Part, columns: str, descending: bool, count: int | None = None) -> Iterator[Row]:
        """`columns`, of which `seq` is the first, of the matches of a part; of `count` of them at most."""
        pieces = self._pieces(part, descending)
        packs = (pack for piece in pieces for pack in self._packs(piece, columns, descending, count))
        return islice(chain.from_iterable(packs), count)

    def _packs(self, piece: Part, columns: str, descending: bool, count: int | None) -> Iterator[list[Row]]:
        """
        The rows of a piece, each time many in one row of JSON.

        For each row that SQLite gives, its thread waits for the interpreter's lock: behind a busy loop a
        page of a thousand took a thousand turns.
        """
        suffix = f" ORDER BY seq {'DESC' if descending else 'ASC'} LIMIT "
        size = PACK_ENTRIES_FIRST
        left: Part | None = piece
        while left is not None:
            size = size if count is None else min(size, count)
            packed: str = self._execute(left, columns, f"{suffix}{size})", PACK.format(columns=columns)).fetchone()[0]
            rows: list[Row] = orjson.loads(packed)
            # That they come in the order of the inner SELECT is SQLite's habit, not its promise.
            rows.sort(reverse=descending)
            yield rows
            left = left.beyond(rows[-1][0], descending) if len(rows) == size else None
            size = max(1, min(PACK_ENTRIES_MAX, PACK_CHARACTERS * size // len(packed)))

    def _pieces(self, part: Part, descending: bool) -> Iterator[Part]:
        """The part in pieces of which each is one statement; without those that have no match."""
        if part.seqs is not None:
            starts = range(0, len(part.seqs), LIST_SEQS)
            for start in reversed(starts) if descending else starts:
                yield replace(part, seqs=part.seqs[start : start + LIST_SEQS])
        elif self._is_tested(part.filter):
            edges = [*range(part.after, part.until, JOINED_ENTRIES), part.until]
            spans = [*pairwise(edges)]
            for after, until in reversed(spans) if descending else spans:
                left = self._tested(part.filter, after, until)
                if left is not None:
                    yield Part(after, until, left, block=part.block)
        else:
            yield part

    def _execute(self, piece: Part, columns: str, suffix: str, prefix: str = "") -> sqlite3.Cursor:
        check_wanted(self._connection)
        where, values = piece.filter.where(folding=piece.folding)
        if piece.seqs is None:
            sql = prefix + IN_RANGE.format(columns=columns, where=where) + suffix
            return self._connection.execute(sql, (self._task_id, piece.after, piece.until, *values))
        sql = prefix + IN_LIST.format(columns=columns, where=where, marks=", ".join("?" * LIST_SEQS)) + suffix
        seqs = piece.seqs + piece.seqs[-1:] * (LIST_SEQS - len(piece.seqs))
        return self._connection.execute(sql, (self._task_id, *seqs, *values))

    # Many messages at once

    def _is_tested(self, log_filter: LogFilter) -> bool:
        """Whether what is asked of messages is slow enough to look at many of them first."""
        needles = log_filter.search + log_filter.exclude
        return bool(needles) and (log_filter.regex or not all(needle.isascii() for needle in needles))

    def _tested(self, log_filter: LogFilter, after: int, until: int) -> LogFilter | None:
        """What is still to be asked of the messages of a piece; None where none can match."""
        if self._untested:
            self._untested -= 1
            return log_filter
        check_wanted(self._connection)
        text = joined_messages(self._connection, self._task_id, after, until)
        if len(text) > TESTED_BYTES_MAX:
            return log_filter
        if not all(self._may_match(needle, text) for needle in log_filter.search):
            self._common = 0
            return None
        exclude = tuple(needle for needle in log_filter.exclude if self._may_match(needle, text))
        if exclude == log_filter.exclude:
            self._common = min(self._common + 1, UNTESTED_MAX)
            self._untested = self._common
        return replace(log_filter, exclude=exclude)

    def _may_match(self, needle: str, text: bytes) -> bool:
        if needle not in self._tests:
            regex = self._filter.regex
            self._tests[needle] = compile_lines(needle) if regex else compile_pattern(may_contain(needle))
        test = self._tests[needle]
        return test is None or test(text)

    # Columns of a block

    def _outline_block(self, outline: Outline, block: Block, seqs: list[int] | range) -> None:
        first, last = outline.bin_of(block.min_timestamp), outline.bin_of(block.max_timestamp)
        borders = [block.after]
        for place in range(first, last):
            borders.append(block.after + block.before(outline.borders[place]))
        errors = [place for place, kind in enumerate(block.kinds) if kind.level == Level.ERROR]
        outline.add_many(seqs, block.flags(seqs, errors), first, borders)

    def _timestamp(self, seq: int) -> str:
        timestamp: str = self._connection.execute(TIMESTAMP, (self._task_id, seq)).fetchone()[0]
        return timestamp
