"""
A log read as of one moment: what is stored and what is pending, as one.

Each answer takes the writer's snapshot first and the store second. The snapshot says where
pending begins; the store is asked for what lies before. So each entry counts once, whatever
is committed in between. A task that has ended has everything in the store.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Protocol

from taskd.entries import LogEntry
from taskd.errors import ParameterInvalid
from taskd.log.writer import LogWriter, Snapshot
from taskd.persistence.base import LogPersistenceService, Span
from taskd.query.counts import LogCounts, Stats, add_stats
from taskd.query.filters import LogFilter
from taskd.query.outline import Outline, make_bins
from taskd.query.parameters import LogQuery
from taskd.settings import KIB

# What an export or a follower reads at a time: a client that takes nothing keeps so much in memory, some
# five times over, and there may be `viewers_max` of them.
READ_ENTRIES = 1_000
READ_BYTES = 256 * KIB


class Logs(Protocol):
    """Where logs are read: the store, and the writers of those tasks that have not ended."""

    @property
    def store(self) -> LogPersistenceService:
        """Everything that is committed."""

    @property
    def page_bytes_max(self) -> int:
        """How many bytes of entries one page may have."""

    def writer(self, task_id: str) -> LogWriter | None:
        """The writer of a task that has not ended; None means that all of its log is stored."""


@dataclass(slots=True)
class Nearest:
    """A match, its number among the matches (from 1), and how many there are."""

    entry: LogEntry
    ordinal: int
    total: int


@dataclass(slots=True)
class Page:
    """A bounded slice of a log. `total` is None where counting would need a scan nobody asked for."""

    entries: list[LogEntry]
    total: int | None
    offset: int
    limit: int
    last_seq: int
    more: bool
    ended: bool


async def read_page(logs: Logs, task_id: str, query: LogQuery) -> Page:
    """
    One page of a log.

    Raises `TaskNotFound`, and `ParameterInvalid` where `after` is above the log's last seq.
    """
    view = await _View.of(logs, task_id, query.filter)
    view.check_after(query.after)
    after = query.after if query.tail is None else await view.before_tail(query.tail)
    limit = query.limit if query.tail is None else query.tail
    entries, more = await (view.ascending if query.order == "asc" else view.descending)(query, after, limit)
    total = await view.total() if query.filter.counted or query.total else None
    return Page(entries, total, query.offset, limit, view.last_seq, more, view.ended)


async def read_stats(logs: Logs, task_id: str, query: LogQuery) -> Stats:
    """What the matches between `after` and `before` are. Raises as `read_page` does."""
    view = await _View.of(logs, task_id, query.filter)
    view.check_after(query.after)
    return await view.stats(query.after, query.before)


async def read_outline(logs: Logs, task_id: str, query: LogQuery) -> tuple[Outline, int]:
    """The outline of the matches between `after` and `before`, and the log's last seq. Raises as `read_page` does."""
    view = await _View.of(logs, task_id, query.filter)
    view.check_after(query.after)
    return await view.outline(query), view.last_seq


async def read_next(logs: Logs, task_id: str, query: LogQuery) -> Nearest | None:
    """
    The nearest match beyond `origin`, of those between `after` and `before`; None where there is none.

    Raises as `read_page` does.
    """
    view = await _View.of(logs, task_id, query.filter)
    view.check_after(query.after)
    return await view.nearest(query)


async def read_all(logs: Logs, task_id: str, query: LogQuery, newest: int) -> AsyncGenerator[list[LogEntry], None]:
    """All matches up to the seq `newest`, some at a time, in the order asked for. Raises as `read_page` does."""
    before = min(query.before or newest + 1, newest + 1)
    asked = replace(query, before=before, limit=READ_ENTRIES, offset=0)
    more = True
    while more:
        # Each time anew: what was pending may be stored by now.
        view = _View.up_to(logs, task_id, query.filter, newest)
        view.bytes_max = min(view.bytes_max, READ_BYTES)
        entries, more = await (view.ascending if query.order == "asc" else view.descending)(
            asked, asked.after, asked.limit
        )
        if not entries:
            return
        yield entries
        seen = entries[-1].seq
        asked = replace(asked, after=seen) if query.order == "asc" else replace(asked, before=seen)


async def read_sources(logs: Logs, task_id: str) -> list[str]:
    """Who has said something in the log, sorted. Raises `TaskNotFound`."""
    writer = logs.writer(task_id)
    if writer is not None:
        return writer.counts.sources
    await logs.store.task(task_id)
    return (await logs.store.counts(task_id)).sources


async def before_tail(logs: Logs, task_id: str, log_filter: LogFilter, tail: int) -> int:
    """The `after` from which on there are the last `tail` matches. Raises `TaskNotFound`."""
    return await (await _View.of(logs, task_id, log_filter)).before_tail(tail)


async def last_seq(logs: Logs, task_id: str) -> int:
    """The seq of the log's newest entry, stored or pending. Raises `TaskNotFound`."""
    writer = logs.writer(task_id)
    return writer.last_seq if writer is not None else (await logs.store.task(task_id)).last_seq


def check_after(after: int, newest: int) -> None:
    """Raise `ParameterInvalid` where no entry up to `after` can have been seen."""
    if after > newest:
        raise ParameterInvalid("after", str(after), f"at most {newest}, the log's last_seq")


class _View:
    """One log under one filter, as of one moment."""

    def __init__(
        self,
        logs: Logs,
        task_id: str,
        log_filter: LogFilter,
        snapshot: Snapshot,
        counted: Stats | None,
        everything: Stats | None,
    ) -> None:
        self.ended = counted is None
        self.last_seq = snapshot.last_seq
        self._counted = counted
        self._everything_counted = everything
        self._store = logs.store
        self.bytes_max = logs.page_bytes_max
        self._task_id = task_id
        self._filter = log_filter
        self._pending = snapshot.pending
        self._pending_from = snapshot.pending_from

    @classmethod
    async def of(cls, logs: Logs, task_id: str, log_filter: LogFilter) -> "_View":
        ended = logs.writer(task_id) is None
        return cls.up_to(logs, task_id, log_filter, (await logs.store.task(task_id)).last_seq if ended else 0)

    @classmethod
    def up_to(cls, logs: Logs, task_id: str, log_filter: LogFilter, newest: int) -> "_View":
        """The log up to `newest`, a seq that it has, or further: to its last where the task has not ended."""
        writer = logs.writer(task_id)
        if writer is None:
            return cls(logs, task_id, log_filter, Snapshot([], newest + 1, newest), None, None)
        # One step: what is pending and what was counted are of the same moment.
        snapshot, counts = writer.snapshot(log_filter), writer.counts
        return cls(logs, task_id, log_filter, snapshot, counts.stats(log_filter), counts.stats(LogFilter()))

    def check_after(self, after: int) -> None:
        check_after(after, self.last_seq)

    async def before_tail(self, tail: int) -> int:
        if len(self._pending) >= tail:
            return self._pending[-tail].seq - 1
        stored = tail - len(self._pending)
        first = await self._store.nth_last(self._task_id, self._filter, stored, self._pending_from)
        if first is not None:
            return first - 1
        return self._pending[0].seq - 1 if self._pending else self.last_seq

    async def ascending(self, query: LogQuery, after: int, limit: int) -> tuple[list[LogEntry], bool]:
        """The stored matches, then the pending ones."""
        entries, more = await self._stored(query, after, query.offset, limit)
        if more:
            return entries, True
        skip = query.offset
        if skip and self._pending and not entries:
            skip = max(0, skip - await self._count(after, query.before))
        elif entries:
            skip = 0
        return self._joined(entries, self._pending_in(after, query.before)[skip:], limit)

    async def descending(self, query: LogQuery, after: int, limit: int) -> tuple[list[LogEntry], bool]:
        """The pending matches backwards, then the stored ones."""
        pending = self._pending_in(after, query.before)[::-1]
        entries, more = self._joined([], pending[query.offset :], limit)
        if more:
            return entries, True
        # One more than there is room for, so that a full page knows whether it is the last.
        room = limit - len(entries)
        stored, more = await self._stored(query, after, max(0, query.offset - len(pending)), max(room, 1))
        joined, cut = self._joined(entries, stored, limit)
        return joined, more or cut

    async def total(self) -> int:
        """How many matches the whole log has."""
        return (await self.stats(0, None)).total if self._filter.counted else await self._count_all()

    async def stats(self, after: int, before: int | None) -> Stats:
        whole = after == 0 and (before is None or before > self.last_seq)
        if whole and self._filter.counted:
            return self._counted or (await self._store.counts(self._task_id)).stats(self._filter)
        pending = LogCounts.of(self._pending_in(after, before)).stats(LogFilter())
        stored = await self._store.stats(self._task_id, self._filter, self._span(after, before))
        return add_stats(stored, pending)

    async def outline(self, query: LogQuery) -> Outline:
        whole = await self._everything()
        bins = make_bins(whole.first_timestamp, whole.last_timestamp, self._filter, query.bins)
        outline = Outline(bins)
        if bins:
            span = self._span(query.after, query.before)
            await self._store.outline(self._task_id, self._filter, span, outline)
        for entry in self._pending_in(query.after, query.before):
            outline.add(entry.seq, entry.timestamp, entry.level, entry.source)
        return outline

    async def nearest(self, query: LogQuery) -> Nearest | None:
        after, before = query.after, self.last_seq + 1 if query.before is None else query.before
        if query.direction == "next":
            asked = replace(query, after=max(after, query.origin or 0), before=before, order="asc", offset=0)
            found, _ = await self.ascending(asked, asked.after, 1)
        else:
            origin = before if query.origin is None else query.origin
            asked = replace(query, before=min(before, origin), order="desc", offset=0)
            found, _ = await self.descending(asked, after, 1)
        if not found:
            return None
        seq = found[0].seq
        ordinal = await self._count_in(after, seq + 1)
        return Nearest(found[0], ordinal, ordinal + await self._count_in(seq, before))

    async def _count_in(self, after: int, before: int) -> int:
        return await self._count(after, before) + len(self._pending_in(after, before))

    async def _everything(self) -> Stats:
        """The stats of the log without the filter."""
        return self._everything_counted or (await self._store.counts(self._task_id)).stats(LogFilter())

    async def _count_all(self) -> int:
        return await self._count(0, None) + len(self._pending)

    async def _count(self, after: int, before: int | None) -> int:
        return await self._store.count(self._task_id, self._filter, self._span(after, before))

    async def _stored(self, query: LogQuery, after: int, offset: int, limit: int) -> tuple[list[LogEntry], bool]:
        return await self._store.page(
            self._task_id, self._filter, self._span(after, query.before),
            order=query.order, offset=offset, limit=limit, bytes_max=self.bytes_max,
        )  # fmt: skip

    def _span(self, after: int, before: int | None) -> Span:
        return Span(after, self._pending_from if before is None else min(before, self._pending_from))

    def _pending_in(self, after: int, before: int | None) -> list[LogEntry]:
        return [entry for entry in self._pending if entry.seq > after and (before is None or entry.seq < before)]

    def _joined(self, entries: list[LogEntry], others: list[LogEntry], limit: int) -> tuple[list[LogEntry], bool]:
        size = sum([len(entry.encoded) for entry in entries])
        for entry in others:
            size += len(entry.encoded)
            if len(entries) == limit or (entries and size > self.bytes_max):
                return entries, True
            entries.append(entry)
        return entries, False
