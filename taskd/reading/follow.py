"""
Reading a log to its end and staying: stored, then pending, then live.

    subscribe, and look at what is pending     one step, nothing happens in between
    ├── the store, up to where pending begins
    ├── what was pending
    └── the subscription, until the end
            └── lagged? from the top, after the last seq that was given

A first connection, a reconnection and a slow reader are all this one loop. It subscribes
before it reads: an entry emitted meanwhile waits in the subscription. It looks at pending
before it reads the store: an entry committed meanwhile is then found in one of them, where
the other way round it might be found in neither. What is found twice has a seq that was
given already.
"""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from taskd.concurrency import Limit
from taskd.entries import LogEntry
from taskd.log.catch_up import Rereading
from taskd.log.hub import LogHub, Matches, Subscription, Taken
from taskd.log.writer import LogWriter, Snapshot
from taskd.persistence.base import Span
from taskd.query.filters import LogFilter, Lot, Sieve
from taskd.reading.pages import READ_BYTES, Logs, before_tail, check_after, last_seq
from taskd.tasks import Task


@dataclass(frozen=True, slots=True)
class Entries:
    """Matches, in `seq` order and after all those before; `more` are at hand already."""

    matches: list[Matches]
    more: bool = False

    @property
    def entries(self) -> list[LogEntry]:
        """All of them."""
        return [entry for matches in self.matches for entry in matches.entries]


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """All matches up to `last_seq` were given; what follows is live. Comes once."""

    last_seq: int


@dataclass(frozen=True, slots=True)
class ProgressChanged:
    """Where a progress is now."""

    source: str
    progress: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TaskChanged:
    """The task's status changed."""

    task: Task


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing happened for a while; all matches up to `last_seq` were given."""

    last_seq: int


@dataclass(frozen=True, slots=True)
class End:
    """The task has ended, and all of its matches were given."""

    task: Task
    last_seq: int


Event = Entries | CaughtUp | ProgressChanged | TaskChanged | Idle | End


def follow(
    logs: Logs,
    task_id: str,
    log_filter: LogFilter,
    *,
    after: int = 0,
    tail: int | None = None,
    page_entries: int,
    idle_s: float | None = None,
) -> AsyncGenerator[Event, None]:
    """
    Every match after `after` (or the last `tail` matches), each once and in `seq` order, then
    what comes, until the task has ended or this process stops (then without `End`).

    Whoever takes its time is never waited for, and gets what came meanwhile in one `Entries`,
    of at most `page_entries`. After `idle_s` without an event comes `Idle`. May be cancelled
    and closed at any point; `aclose` it.

    Raises, at the first event, `TaskNotFound` and (for an `after` above the log's last seq)
    `ParameterInvalid`.
    """
    return _Follower(logs, task_id, log_filter, page_entries, idle_s).events(after, tail)


class _Follower:
    """One reader of one log: `given` is the seq up to which it has every match."""

    def __init__(
        self, logs: Logs, task_id: str, log_filter: LogFilter, page_entries: int, idle_s: float | None
    ) -> None:
        self._logs = logs
        self._task_id = task_id
        self._filter = log_filter
        self._page_entries = page_entries
        self._idle = None if idle_s is None else Limit(idle_s)
        self._given = 0
        self._caught_up = False

    async def events(self, after: int, tail: int | None) -> AsyncGenerator[Event, None]:
        check_after(after, await last_seq(self._logs, self._task_id))
        self._given = after if tail is None else await before_tail(self._logs, self._task_id, self._filter, tail)
        while (writer := self._logs.writer(self._task_id)) is not None:
            subscription, snapshot = writer.join(self._filter, self._given)
            try:
                async with contextlib.aclosing(self._joined(writer, subscription, snapshot)) as events:
                    async for event in events:
                        yield event
            finally:
                subscription.close()
            # Its log ended or this process stops; a lagged reader joins again.
            if not subscription.lagged:
                return
        async for event in self._ended():
            yield event

    async def _joined(
        self, writer: LogWriter, subscription: Subscription, snapshot: Snapshot
    ) -> AsyncGenerator[Event, None]:
        before = snapshot.pending_from
        stored = self._missed(writer.rereading, before) if self._caught_up else self._stored(before)
        async with contextlib.aclosing(stored) as events:
            async for event in events:
                yield event
        for event in self._some([Matches(snapshot.pending)] if snapshot.pending else []):
            yield event
        self._given = max(self._given, snapshot.last_seq)
        if not self._caught_up:
            self._caught_up = True
            yield CaughtUp(self._given)
        async for event in self._live(writer.hub, subscription):
            yield event

    async def _ended(self) -> AsyncIterator[Event]:
        """All that a task has said that has ended: it is in the store."""
        task = await self._logs.store.task(self._task_id)
        async for event in self._stored(task.last_seq + 1):
            yield event
        if not self._caught_up:
            yield CaughtUp(task.last_seq)
        # It has no writer and has not ended: this process stopped before its end was stored.
        if task.status.ended:
            yield End(task, task.last_seq)

    async def _stored(self, before: int) -> AsyncGenerator[Event, None]:
        more = self._given + 1 < before
        while more:
            span = Span(self._given, before)
            entries, more = await self._logs.store.page(
                self._task_id, self._filter, span,
                order="asc", offset=0, limit=self._page_entries, bytes_max=min(READ_BYTES, self._logs.page_bytes_max),
            )  # fmt: skip
            for event in self._some([Matches(entries)] if entries else []):
                yield event
        self._given = max(self._given, before - 1)

    async def _missed(self, rereading: Rereading, before: int) -> AsyncGenerator[Event, None]:
        """What was stored since it lagged. It is not much, so all of it may be looked through."""
        sieve = Sieve(self._filter)
        with rereading.joined():
            while self._given + 1 < before:
                entries = await rereading.after(self._given, before)
                found = sieve.pick(Lot(entries))
                for event in self._some([Matches(found)] if found else [], more=True):
                    yield event
                self._given = max(self._given, entries[-1].seq)

    async def _live(self, hub: LogHub, subscription: Subscription) -> AsyncIterator[Event]:
        while True:
            taken = await self._taken(subscription)
            if taken is None:
                # What was published meanwhile did not match, or it would have been offered.
                self._given = max(self._given, hub.last_seq) if subscription.idle else self._given
                yield Idle(self._given)
                continue
            for event in self._some(taken.matches):
                yield event
            for source, progress in taken.progress:
                yield ProgressChanged(source, progress)
            if taken.task is not None:
                yield TaskChanged(taken.task)
            if taken.ended is not None:
                # From the hub, not from the store: at a stop the store closes before all have read this.
                yield End(taken.ended, taken.ended.last_seq)
                return
            if taken.lagged or taken.closed:
                return
            self._given = max(self._given, taken.last_seq)

    async def _taken(self, subscription: Subscription) -> Taken | None:
        if self._idle is None:
            return await subscription.take()
        try:
            with self._idle:
                return await subscription.take()
        except TimeoutError:
            return None

    def _some(self, matches: Iterable[Matches], *, more: bool = False) -> list[Event]:
        """Those that were not given yet, in events of a bounded size; `more` says so of the last."""
        events: list[Event] = []
        gathered: list[Matches] = []
        count = 0
        for new in self._new(matches):
            if gathered and count + len(new.entries) > self._page_entries:
                events.append(Entries(gathered, more=True))
                gathered, count = [], 0
            gathered.append(new)
            count += len(new.entries)
        return [*events, Entries(gathered, more)] if gathered else events

    def _new(self, matches: Iterable[Matches]) -> Iterator[Matches]:
        for one in matches:
            new = one.after(self._given)
            if new is not None:
                self._given = new.entries[-1].seq
                yield from new.parts(self._page_entries)
