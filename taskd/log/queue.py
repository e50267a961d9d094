"""
`LogQueue`: one task's entries, from whoever emits them to the writer.

What is true of it:

- `seq` starts at 1 and has no holes. Under the lock, room is checked, `seq` stamped and the
  entry queued, so the order of seqs is the order of the queue, whichever thread emits.
- What is accepted but not yet committed is bounded, in entries and in bytes, whether it still
  lies here or is pending in the writer: the writer gives room back only after a commit.
- On the loop an emit never waits: without room the entry is *dropped*. It gets no seq; the
  next accepted entry is preceded by one of `system` that says how many were dropped and over
  what time. A thread waits for room first, at most `thread_wait_s`.
- The words of taskd itself are always accepted: there are a few for each task.

Sanitising, masking and splitting (`taskd.log.prepare`) come first, outside the lock. They run foreign
code (any object's `repr`), which may be slow, may raise and may log.
"""

import asyncio
import concurrent.futures
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from taskd.entries import Level, LogEntry, encode, kind_of, timestamp_now
from taskd.journal.journal import TaskJournal
from taskd.log.late import LateWords
from taskd.log.prepare import Part, Parts
from taskd.log.rate_limit import FloodLimit
from taskd.metrics import Tally
from taskd.settings import Settings
from taskd.tasks import TaskEnd
from taskd.text.masking import Masker
from taskd.text.sanitise import clean_value, free_key, plain_body
from taskd.text.sources import SOURCES_MAX, clean_source

SYSTEM = "system"
OTHER_SOURCES = "other"
BURST_MAX = 32
SOURCES_CUT = (
    f"This log has {SOURCES_MAX:,} sources, which is the limit: entries of others have the source "
    f"{OTHER_SOURCES!r}, and the name of their own in the metadata as 'source'"
)

# Looked up once: an emit is a few microseconds.
_thread = threading.get_ident

# Whoever waits for a commit: on the loop, or in another thread.
Drained = asyncio.Future[None] | concurrent.futures.Future[None]
# What waits to be accepted: level, source, the first part, those behind it (of a message that
# was split), and whether it is taskd's own.
Said = tuple[Level, str, Part, Sequence[Part], bool]


class LogQueue(asyncio.Queue[LogEntry]):
    """
    The per-task queue between producers and the one writer. Made on the loop that consumes it.

    `on_progress(source, progress)` is called on the loop for progress that is shown, not stored.
    Without a `journal`, what is not committed is in memory alone. `name` names the task to the operator,
    who gets what comes after the close (`taskd.log.late`).
    """

    def __init__(
        self,
        settings: Settings,
        on_progress: Callable[[str, dict[str, Any]], None],
        masker: Masker | None = None,
        journal: TaskJournal | None = None,
        name: str = "A task",
    ) -> None:
        super().__init__()
        self.last_seq = 0
        self.closed = False
        self.flush_asked = False
        # How many entries wake the writer: one by one only while that is needed.
        self.wake_at = 1
        # False once there was something else than entries with plain fields: it may be progress.
        self.plain = True
        self.masker = masker or Masker()
        self.on_progress = on_progress
        self._settings = settings
        self._journal = journal
        # How many short entries surely fit while the queue is not half full.
        self.burst_max = max(1, min(BURST_MAX, settings.queue_max // 2))
        self._entries_max = settings.queue_max
        self._bytes_max = settings.queue_bytes_max
        self._plain_bytes_max = min(settings.message_bytes_max, settings.metadata_bytes_max)
        self._parts = Parts(self.masker, settings)
        self._loop = asyncio.get_running_loop()
        self._thread = _thread()
        # Reentrant: a signal handler or a destructor that logs may interrupt an emit. Shared with
        # the journal, and so with the other tasks: to take two takes longer than what they guard.
        self._lock = threading.RLock() if journal is None else journal.lock
        self._room = threading.Condition(self._lock)
        self._accepting = False
        self._said: deque[Said] = deque()
        self._handed: deque[LogEntry] = deque()
        self._entries = 0
        self._bytes = 0
        self._dropped = 0
        self._dropped_since = ""
        self._dropped_ever = 0
        self._late = LateWords(name, self.later)
        # By source and level: what entries of these share (`kind_of`).
        self._kinds: dict[str, dict[Level, str]] = {}
        self._sources_cut = False
        self._committed_seq = 0
        self._drains: list[tuple[int, Drained]] = []
        self._woken = False
        self._getters: deque[asyncio.Future[None]] = deque()
        limit = settings.entries_per_s_max
        self._flood = FloodLimit(limit, self.emit_system, self.later) if limit else None

    @property
    def tally(self) -> Tally:
        """What became of all that was emitted so far."""
        suppressed = self._flood.suppressed_ever if self._flood is not None else 0
        return Tally(self.last_seq, self._committed_seq, self._dropped_ever, suppressed)

    @property
    def filled(self) -> float:
        """How full it is, from 0 to 1: in entries or in bytes, whichever is more."""
        return max(self._entries / self._entries_max, self._bytes / self._bytes_max)

    # The producers' end

    def emit(self, level: Level, source: str, message: object, metadata: dict[str, Any] | None = None) -> None:
        """
        Accept what a source says, or drop and count it. Never raises for what it is given.

        On the loop this never waits; in a thread it waits for room, at most `thread_wait_s`.
        """
        if self._flood is not None and self._flood.suppresses():
            return
        # Nearly always nothing is in the way, and then this is all: what `_accept` and `_enter`
        # do, flat, without what is for something else. It halves what a call takes.
        body = plain_body(message, metadata, self._plain_bytes_max)
        kinds = self._kinds.get(source)
        masker = self.masker
        if body is None or kinds is None or self._thread != _thread() or (masker.needed and masker.finds(body)):
            self._emit_other(level, source, message, metadata, body)
            return
        self._lock.acquire()  # takes a third of what `with` does
        if self._accepting or self._dropped or self._handed or self.closed:
            self._lock.release()
            self._emit_other(level, source, message, metadata, body)
            return
        self._accepting = True
        try:
            seq = self.last_seq + 1
            timestamp = timestamp_now()
            encoded = encode(seq, timestamp, kinds[level], body)
            size = len(encoded)
            if self._entries < self._entries_max and self._bytes + size <= self._bytes_max:
                if self._journal is not None:
                    self._journal.append(encoded)
                self.last_seq = seq
                self._entries += 1
                self._bytes += size
                entries = self._queue
                entries.append(LogEntry(seq, timestamp, level, source, message, encoded))  # type: ignore[arg-type]
                if self._getters and len(entries) >= self.wake_at:
                    self._wake()
            else:
                self._drop(1, timestamp)
        finally:
            self._accepting = False
            self._lock.release()
        if self._said:
            self._accept_interrupting()

    def emit_system(self, level: Level, message: str, metadata: dict[str, Any] | None = None) -> None:
        """Accept taskd's own words about the task, always."""
        part, others = self._parts.of(message, metadata)
        with self._lock:
            self._offer((level, SYSTEM, part, others, True))

    def show_progress(self, source: str, progress: dict[str, Any]) -> None:
        """Show viewers where a progress is, without storing it. From any thread."""
        shown = self.masker.value(clean_value(progress, self.masker))
        if _thread() == self._thread:
            self.on_progress(source, shown)
        else:
            self._on_loop(self.on_progress, source, shown)

    def later(self, delay_s: float, function: Callable[[], None]) -> None:
        """Call `function` on the loop after `delay_s`. From any thread."""
        self._on_loop(self._loop.call_later, delay_s, function)

    async def drain(self) -> None:
        """Return when all that was accepted so far is committed, asking the writer to flush now."""
        on_loop = _thread() == self._thread
        # A synchronous plugin may run a loop of its own, in its thread: that waits for a future of no loop.
        drained: Drained = self._loop.create_future() if on_loop else concurrent.futures.Future()
        with self._lock:
            if self._committed_seq >= self.last_seq:
                return
            self._drains.append((self.last_seq, drained))
        if isinstance(drained, concurrent.futures.Future):
            self._on_loop(self._ask_flush)
            await asyncio.wrap_future(drained)
        else:
            self._ask_flush()
            await drained

    # Before the lock

    def _emit_other(
        self, level: Level, source: str, message: object, metadata: dict[str, Any] | None, body: bytes | None
    ) -> None:
        """What `emit` does in a thread, in the middle of another emit, and with what is not plain."""
        part: Part
        others: Sequence[Part] = ()
        if source not in self._kinds:
            source, given = self._known(source), source
            if source == OTHER_SOURCES != given:
                metadata, body = _with_source(given, metadata), None
        if type(message) is str and body is not None and not self.masker.finds(body):
            part = (message, body)
        else:
            part, others = self._parts.of(message, metadata)
        with self._lock:
            if self._thread != _thread() and not self._accepting:
                self._await_room((part, *others))
            self._offer((level, source, part, others, False))

    def _known(self, source: str) -> str:
        """Return the clean name of a source. Beyond `SOURCES_MAX` they share one, which the log reports."""
        source = clean_source(self.masker(source))
        if source not in self._kinds and len(self._kinds) >= SOURCES_MAX:
            if not self._sources_cut:
                self._sources_cut = True
                self.emit_system(Level.WARNING, SOURCES_CUT)
            source = OTHER_SOURCES
        self._kinds[source] = {level: kind_of(level, source) for level in Level}
        return source

    # Under the lock

    def _offer(self, said: Said) -> None:
        # In the middle of another accept of this same thread (a signal handler, a destructor):
        # that one takes it next, or seqs would be queued out of order.
        if self._accepting:
            self._said.append(said)
            return
        self._accepting = True
        try:
            self._accept(*said)
        finally:
            self._accepting = False
        if self._said:
            self._accept_interrupting()

    def _accept_interrupting(self) -> None:
        with self._lock:
            while self._said and not self._accepting:
                self._offer(self._said.popleft())

    def _accept(self, level: Level, source: str, part: Part, others: Sequence[Part], system: bool) -> None:
        if self.closed:
            self._late.take(level, source, *part)
            return
        timestamp = timestamp_now()
        entry = LogEntry.of_body(self.last_seq + 1, timestamp, level, source, *part)
        if others or self._dropped:
            self._accept_several(entry, others, timestamp, system)
        elif system or self._has_room(1, len(entry.encoded)):
            self._enter(entry)
        else:
            self._drop(1, timestamp)

    def _accept_several(self, first: LogEntry, others: Sequence[Part], timestamp: str, system: bool) -> None:
        """An entry with the other parts of its message, all or none, and behind the note of what was dropped."""
        level, source = first.level, first.source
        entries = [first]
        for other in others:
            entries.append(LogEntry.of_body(entries[-1].seq + 1, timestamp, level, source, *other))
        if not system and not self._has_room(len(entries), sum([len(entry.encoded) for entry in entries])):
            self._drop(len(entries), timestamp)
            return
        if self._dropped:
            entries = self._after_note(entries, timestamp)
        for entry in entries:
            self._enter(entry)

    def _after_note(self, entries: Sequence[LogEntry], timestamp: str) -> list[LogEntry]:
        """The entries, each a seq later, behind one that says how many were dropped."""
        message = f"{self._dropped:,} entries were dropped here, since {self._dropped_since}: the queue was full"
        told = orjson.dumps({"dropped": self._dropped, "since": self._dropped_since, "until": timestamp})
        self._dropped = 0
        note = LogEntry.make(entries[0].seq, timestamp, Level.WARNING, SYSTEM, message, told)
        return [note, *(entry.with_seq(entry.seq + 1) for entry in entries)]

    def _enter(self, entry: LogEntry) -> None:
        """Accepted: on disk before anybody sees it, and before the call that said it returns."""
        if self._journal is not None:
            self._journal.append(entry.encoded)
        self.last_seq = entry.seq
        self._entries += 1
        self._bytes += len(entry.encoded)
        if self._thread != _thread():
            self._hand(entry)
            return
        if self._handed:
            self._hand_over()  # what threads handed over has smaller seqs
        self.plain = False
        self.put_nowait(entry)

    def _has_room(self, entries: int, size: int) -> bool:
        return self._entries + entries <= self._entries_max and self._bytes + size <= self._bytes_max

    def _drop(self, entries: int, timestamp: str) -> None:
        if not self._dropped:
            self._dropped_since = timestamp
        self._dropped += entries
        self._dropped_ever += entries

    def _await_room(self, parts: Sequence[Part]) -> None:
        """In a thread: let go of the lock until there is room, or the time is up."""
        # The rest of an entry takes under 400 bytes.
        size_max = sum(len(body) + 400 for _, body in parts)
        bytes_max = self._bytes_max - min(size_max, self._bytes_max)
        entries_max = self._entries_max - len(parts)
        self._room.wait_for(
            lambda: self.closed or (self._entries <= entries_max and self._bytes <= bytes_max),
            self._settings.thread_wait_s,
        )

    # From threads to the loop

    def _hand(self, entry: LogEntry) -> None:
        idle = not self._handed
        self._handed.append(entry)
        if idle:
            self._on_loop(self._take_handed)

    def _take_handed(self) -> None:
        with self._lock:
            self._accepting = True
            try:
                self._hand_over()
            finally:
                self._accepting = False
            self._accept_interrupting()

    def _hand_over(self) -> None:
        handed = self._handed
        self.plain = False
        while handed:
            self.put_nowait(handed.popleft())

    def _on_loop(self, function: Callable[..., object], *arguments: Any) -> None:
        # A thread that outlives the service has nobody left to tell.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    # The writer's end

    async def take(self) -> list[LogEntry]:
        """
        Wait for `wake_at` entries, for a flush to be asked or for the end; then all entries there are.

        They are in `seq` order. May be cancelled: what was not returned is still queued.
        """
        if not self._woken and len(self._queue) < self.wake_at:
            getter = self._loop.create_future()
            self._getters.append(getter)
            try:
                await getter
            finally:
                if getter in self._getters:
                    self._getters.remove(getter)
        self._woken = False
        return self.take_rest()

    def take_rest(self) -> list[LogEntry]:
        """All entries there are, without waiting."""
        # Exchanged, not emptied: a signal handler that logs may add to it meanwhile.
        taken = self._queue
        self._init(0)
        return list(taken)

    def committed(self, entries: int, size: int, seq: int) -> None:
        """Give back the room of `entries` with `size` bytes: all up to `seq` is committed."""
        with self._lock:
            self._entries -= entries
            self._bytes -= size
            self._committed_seq = seq
            if self._journal is not None:
                self._journal.committed(entries)
            drained = [drain for drain in self._drains if drain[0] <= seq]
            self._drains = [drain for drain in self._drains if drain[0] > seq]
            self.flush_asked = bool(self._drains)
            self._room.notify_all()
        _finish(drained)

    def close(self, end: TaskEnd | None = None) -> None:
        """
        Accept nothing more, after a last word about what was dropped. Idempotent; on the loop.

        The `end` goes into the journal behind the last entry.
        """
        with self._lock:
            if self.closed:
                return
            if self._flood is not None:
                self._flood.tell()
            if self._dropped:
                self.emit_system(Level.WARNING, "Those were the last words that were dropped")
            self._take_handed()
            if self._journal is not None and end is not None:
                self._journal.append_end(end, self.last_seq)
            self.closed = True
            self._room.notify_all()
        self._wake()

    def release(self, stored: bool) -> None:
        """The writer is gone: let go whoever waits for a commit, and the journal where all is `stored`."""
        with self._lock:
            if stored and self._journal is not None:
                self._journal.committed_all()
            drained, self._drains = self._drains, []
        _finish(drained)

    def _ask_flush(self) -> None:
        self.flush_asked = True
        self._wake()

    def _wake(self) -> None:
        """Let `take` return, now or when it is next called."""
        self._woken = True
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)

    # `asyncio.Queue` as it is, without what only its bound and its `join` need.

    def put_nowait(self, item: LogEntry) -> None:
        self._queue.append(item)
        if self._getters and len(self._queue) >= self.wake_at:
            self._wake()

    def _init(self, maxsize: int) -> None:
        self._queue: deque[LogEntry] = deque()


def _with_source(source: str, metadata: dict[str, Any] | None) -> dict[str, Any]:
    given = metadata or {}
    return {**given, free_key("source", given): source}


def _finish(drained: list[tuple[int, Drained]]) -> None:
    for _, future in drained:
        if isinstance(future, asyncio.Future):
            if not future.done():  # cancelled: nobody waits any more
                future.set_result(None)
        elif future.set_running_or_notify_cancel():
            future.set_result(None)
