"""
Live fan-out of one task's log to the readers that follow it now.

The writer calls `LogHub.publish` with the entries it just made pending, in `seq` order, and
never waits: a reader that cannot keep up must not slow the task it watches. Each reader owns
a bounded queue. When it overflows the reader is *lagged*: what it missed is still in the
store, so it leaves the hub, reads from there, and joins again (see `taskd.reading.follow`). Nothing
is lost and nothing is unbounded.

Readers with equal filters share the filtering and the text of what matches: a hundred viewers of
one page cost little more than one.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from taskd.entries import LogEntry
from taskd.query.filters import LogFilter, Lot, Sieve
from taskd.tasks import Task

PROGRESS_IDS_MAX = 1_000


class Matches:
    """
    Entries that match a filter, at least one, in `seq` order; all readers with that filter share
    them. `text` is what they are as JSON, with commas between, and `size` how many bytes without those.
    """

    __slots__ = ("entries", "size", "text")

    def __init__(self, entries: list[LogEntry]) -> None:
        encoded = b",".join([entry.encoded for entry in entries])
        self.entries = entries
        self.size = len(encoded) - (len(entries) - 1)
        self.text = encoded.decode()

    def after(self, seq: int) -> "Matches | None":
        """Those with a greater seq, if there are any."""
        if self.entries[0].seq > seq:
            return self
        new = [entry for entry in self.entries if entry.seq > seq]
        return Matches(new) if new else None

    def parts(self, entries_max: int) -> "Iterator[Matches]":
        """The same in parts of at most `entries_max`."""
        if len(self.entries) <= entries_max:
            yield self
            return
        for start in range(0, len(self.entries), entries_max):
            yield Matches(self.entries[start : start + entries_max])


@dataclass(slots=True)
class Taken:
    """
    What a subscription had for its reader.

    `last_seq`: every match up to it is in this or was taken before. `ended`: the task as it
    ended; nothing more will come, and the log is whole. `closed`: nothing more will come from
    this process.
    """

    matches: list[Matches] = field(default_factory=list)
    progress: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    task: Task | None = None
    last_seq: int = 0
    lagged: bool = False
    ended: Task | None = None
    closed: bool = False


class Subscription:
    """One reader's live, filtered, bounded view. Made by `LogHub.subscribe`, left by `close`."""

    def __init__(self, hub: "LogHub", log_filter: LogFilter, entries_max: int, bytes_max: int) -> None:
        self.filter = log_filter
        self._hub = hub
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._matches: list[Matches] = []
        self._entries = 0
        self._bytes = 0
        self._progress: dict[str, tuple[str, dict[str, Any]]] = {}
        self._task: Task | None = None
        self.lagged = False
        self._ended: Task | None = None
        self._closed = False
        self._something = asyncio.Event()

    async def take(self) -> Taken:
        """
        Wait until there is something for the reader; then all of it.

        May be cancelled: what was not returned is still there.
        """
        await self._something.wait()
        self._something.clear()
        taken = Taken(
            self._matches, list(self._progress.values()), self._task,
            self._hub.last_seq, self.lagged, self._ended, self._closed,
        )  # fmt: skip
        self._matches, self._entries, self._bytes, self._task = [], 0, 0, None
        self._progress.clear()
        return taken

    @property
    def idle(self) -> bool:
        """True where all that was offered has been taken: every match so far is with the reader."""
        return not (self._matches or self.lagged)

    def offer(self, matches: Matches) -> None:
        """Give the reader matches, or mark it lagged; never waits. Not once it is lagged."""
        entries = self._entries + len(matches.entries)
        size = self._bytes + matches.size
        if entries <= self._entries_max and size <= self._bytes_max:
            self._matches.append(matches)
            self._entries, self._bytes = entries, size
        else:
            self._lag()
        self._something.set()

    def offer_progress(self, source: str, progress: dict[str, Any]) -> None:
        """Give the reader the newest state of a progress; of each only the newest is kept."""
        known = progress["id"] in self._progress
        if known or len(self._progress) < PROGRESS_IDS_MAX:
            self._progress[progress["id"]] = (source, progress)
            self._something.set()

    def offer_task(self, task: Task) -> None:
        """Give the reader the task's new status."""
        self._task = task
        self._something.set()

    def end(self, task: Task) -> None:
        """Let the reader finish once it has taken everything."""
        # A lagged reader must not see the end: it would stop with entries missing.
        if self.lagged:
            return
        self._ended = task
        self._something.set()

    def close(self) -> None:
        """Leave the hub; a reader that still waits is told. Idempotent."""
        self._hub.leave(self)
        self._closed = True
        self._something.set()

    def _lag(self) -> None:
        # The store has what is thrown away here, or will have it: it is pending.
        self._matches, self._entries, self._bytes = [], 0, 0
        self.lagged = True
        self._hub.lagged_ever += 1


class _Group:
    """The readers with one filter."""

    def __init__(self, log_filter: LogFilter) -> None:
        self.readers: list[Subscription] = []
        self._sieve = Sieve(log_filter)

    def publish(self, lot: Lot) -> None:
        keeping_up = [reader for reader in self.readers if not reader.lagged]
        found = self._sieve.pick(lot) if keeping_up else None
        if not found:
            return
        matches = Matches(found)
        for reader in keeping_up:
            reader.offer(matches)


class LogHub:
    """All subscriptions of one task's log."""

    def __init__(self, entries_max: int, bytes_max: int) -> None:
        self.last_seq = 0
        self.lagged_ever = 0
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._closed = False
        self._groups: dict[LogFilter, _Group] = {}

    @property
    def readers(self) -> int:
        """How many subscriptions there are."""
        return sum(len(group.readers) for group in self._groups.values())

    def subscribe(self, log_filter: LogFilter) -> Subscription:
        """A view of what is published from now on. Whoever takes it must `close` it."""
        subscription = Subscription(self, log_filter, self._entries_max, self._bytes_max)
        if log_filter not in self._groups:
            self._groups[log_filter] = _Group(log_filter)
        self._groups[log_filter].readers.append(subscription)
        if self._closed:
            subscription.close()
        return subscription

    def leave(self, subscription: Subscription) -> None:
        """Give the subscription nothing more. Idempotent."""
        group = self._groups.get(subscription.filter)
        if group is not None and subscription in group.readers:
            group.readers.remove(subscription)
            if not group.readers:
                del self._groups[subscription.filter]

    def publish(self, entries: list[LogEntry]) -> None:
        """Offer new entries, in `seq` order and all after those before, to every reader they match."""
        self.last_seq = entries[-1].seq
        lot = Lot(entries)
        for group in self._groups.values():
            group.publish(lot)

    def publish_progress(self, source: str, progress: dict[str, Any]) -> None:
        """Offer the newest state of a progress to every reader, whatever its filter."""
        for subscription in self._all():
            subscription.offer_progress(source, progress)

    def publish_task(self, task: Task) -> None:
        """Offer the task's new status to every reader."""
        for subscription in self._all():
            subscription.offer_task(task)

    def end(self, task: Task) -> None:
        """The log is whole and stored, and `task` has ended: let every reader that kept up finish."""
        for subscription in self._all():
            subscription.end(task)

    def close(self) -> None:
        """This process stops: send every reader away; each comes back with `after`."""
        self._closed = True
        for subscription in self._all():
            subscription.close()

    def _all(self) -> list[Subscription]:
        return [reader for group in self._groups.values() for reader in group.readers]
