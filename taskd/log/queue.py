"""
`LogQueue`: one task's entries, from any code that emits them to the writer.

    emit ─┬─ nothing in the way ──────────────────────────┐
          └─ clean, mask, split (no lock) ─ _admit ─┬─────┴─ accepted: it has a seq, and is in the journal
                                                    │           ├─ on the loop: handed off ─ take ─ writer
                                                    │           └─ in a thread: passed to the loop, handed off there
                                                    ├─ inside another emit of this thread: nested, admitted after it
                                                    ├─ no room, in a thread: waits, then accepted or dropped
                                                    ├─ no room, on the loop: dropped, and reported later
                                                    └─ closed: late, to the service's stderr
    committed ─ gives room back, wakes those who `drain`

- `seq` starts at 1 and has no holes. Under the lock, room is checked, `seq` stamped and the entry
  queued. So the order of seqs is the order of the queue, whichever thread emits.
- Entries that are accepted and not yet committed are bounded, in number and in bytes, both here
  and in the writer: the writer gives room back only after a commit.
- On the loop an emit never waits: without room the entry is *dropped* and gets no seq. An entry of
  `system` before the next accepted one reports how many were dropped, and over what time. A thread
  waits for room first, at most `thread_wait_s`.
- Entries of taskd itself are always accepted: there are a few for each task.

Sanitising, masking and splitting (`taskd.log.prepare`) run before the lock is taken. They call foreign
code (any object's `repr`), which may be slow, may raise and may log.
"""

import asyncio
import concurrent.futures
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from taskd.entries import SYSTEM, Level, LogEntry, encode, kind_of, timestamp_now
from taskd.journal.journal import TaskJournal
from taskd.log.commits import CommitWaiters, Waiter, finish
from taskd.log.dropped import Dropped
from taskd.log.handoff import Handoff
from taskd.log.late import LateWords
from taskd.log.prepare import Part, Parts
from taskd.log.rate_limit import FloodLimit
from taskd.metrics import Tally
from taskd.settings import Settings
from taskd.tasks import TaskEnd
from taskd.text.masking import Masker
from taskd.text.sanitise import clean_value, free_key, plain_body
from taskd.text.sources import SOURCES_MAX, clean_source

OTHER_SOURCES = "other"
BURST_MAX = 32
LAST_DROPPED = "The log ends here; the last entries were dropped."
SOURCES_CUT = (
    f"This log has {SOURCES_MAX:,} sources, which is the limit: entries of others have the source "
    f"{OTHER_SOURCES!r}, and the name of their own in the metadata as 'source'"
)

# Looked up once: an emit is a few microseconds.
_thread = threading.get_ident

# An emit before it is accepted: level, source, the first part, the others of a message that was
# split, and whether it is taskd's own.
Emitted = tuple[Level, str, Part, Sequence[Part], bool]


class LogQueue:
    """
    The per-task queue between producers and the one writer. Made on the loop that consumes it.

    `on_progress(source, progress)` is called on the loop for progress that is shown, not stored.
    Without a `journal`, entries that are not committed are in memory alone. `name` names the task to
    the operator, who gets what is emitted after the close (`taskd.log.late`).
    """

    def __init__(
        self,
        settings: Settings,
        on_progress: Callable[[str, dict[str, Any]], None],
        masker: Masker | None = None,
        journal: TaskJournal | None = None,
        name: str = "A task",
    ) -> None:
        self.last_seq = 0
        self.closed = False
        self.flush_asked = False
        # False once there was an entry whose fields are not plain: it may be progress.
        self.plain = True
        self.handoff = Handoff()
        self.masker = masker or Masker()
        self.on_progress = on_progress
        self._settings = settings
        self._journal = journal
        # This many short entries fit while the queue is not half full.
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
        self._nested: deque[Emitted] = deque()
        self._from_threads: deque[LogEntry] = deque()
        self._entries = 0
        self._bytes = 0
        self._dropped = Dropped()
        self._late = LateWords(name, self.later)
        # By source and level: the part that entries of these share (`kind_of`).
        self._kinds: dict[str, dict[Level, str]] = {}
        self._sources_cut = False
        self._committed_seq = 0
        self._waiters = CommitWaiters()
        limit = settings.entries_per_s_max
        self._flood = FloodLimit(limit, self.emit_system, self.later) if limit else None

    @property
    def tally(self) -> Tally:
        """How many entries were accepted, committed, dropped and suppressed so far."""
        suppressed = self._flood.suppressed_ever if self._flood is not None else 0
        return Tally(self.last_seq, self._committed_seq, self._dropped.total, suppressed)

    @property
    def filled(self) -> float:
        """The share of its room that is taken, from 0 to 1: of entries or of bytes, the larger."""
        return max(self._entries / self._entries_max, self._bytes / self._bytes_max)

    # The producers' end

    def emit(self, level: Level, source: str, message: object, metadata: dict[str, Any] | None = None) -> None:
        """
        Accept an entry, or drop and count it. Never raises, whatever the message and metadata are.

        On the loop this never waits; in a thread it waits for room, at most `thread_wait_s`.
        """
        if self._flood is not None and self._flood.suppresses():
            return
        # Nearly always nothing is in the way, and this is all: `_admit` and `_accept` in one, without
        # their other cases. That halves the time of a call.
        body = plain_body(message, metadata, self._plain_bytes_max)
        kinds = self._kinds.get(source)
        masker = self.masker
        if body is None or kinds is None or self._thread != _thread() or (masker.needed and masker.finds(body)):
            self._emit_slowly(level, source, message, metadata, body)
            return
        self._lock.acquire()  # takes a third of what `with` does
        if self._accepting or self._dropped.count or self._from_threads or self.closed:
            self._lock.release()
            self._emit_slowly(level, source, message, metadata, body)
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
                handoff = self.handoff
                entries = handoff.entries
                entries.append(LogEntry(seq, timestamp, level, source, message, encoded))  # type: ignore[arg-type]
                if handoff.waiting is not None and len(entries) >= handoff.wake_at:
                    handoff.wake()
            else:
                self._dropped.add(1, timestamp)
        finally:
            self._accepting = False
            self._lock.release()
        if self._nested:
            self._admit_nested()

    def emit_system(self, level: Level, message: str, metadata: dict[str, Any] | None = None) -> None:
        """Accept an entry of taskd itself about the task, always."""
        part, others = self._parts.of(message, metadata)
        with self._lock:
            self._admit((level, SYSTEM, part, others, True))

    def show_progress(self, source: str, progress: dict[str, Any]) -> None:
        """Show a progress to those who follow, without storing it. From any thread."""
        shown = self.masker.value(clean_value(progress, self.masker))
        if _thread() == self._thread:
            self.on_progress(source, shown)
        else:
            self._on_loop(self.on_progress, source, shown)

    def later(self, delay_s: float, function: Callable[[], None]) -> None:
        """Call `function` on the loop after `delay_s`. From any thread."""
        self._on_loop(self._loop.call_later, delay_s, function)

    async def drain(self) -> None:
        """Ask the writer to flush now, and return when all entries accepted so far are committed."""
        on_loop = _thread() == self._thread
        # A synchronous plugin may run a loop of its own, in its thread: that waits for a future of no loop.
        waiter: Waiter = self._loop.create_future() if on_loop else concurrent.futures.Future()
        with self._lock:
            if self._committed_seq >= self.last_seq:
                return
            self._waiters.add(self.last_seq, waiter)
        if isinstance(waiter, concurrent.futures.Future):
            self._on_loop(self._ask_flush)
            await asyncio.wrap_future(waiter)
        else:
            self._ask_flush()
            await waiter

    # Before the lock

    def _emit_slowly(
        self, level: Level, source: str, message: object, metadata: dict[str, Any] | None, body: bytes | None
    ) -> None:
        """Emit in a thread, inside another emit, or with a message or metadata that are not plain."""
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
            self._admit((level, source, part, others, False))

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

    def _admit(self, emitted: Emitted) -> None:
        # Inside another emit of this same thread (a signal handler, a destructor) it waits for that
        # one, or seqs would be queued out of order.
        if self._accepting:
            self._nested.append(emitted)
            return
        self._accepting = True
        try:
            self._accept_or_drop(*emitted)
        finally:
            self._accepting = False
        if self._nested:
            self._admit_nested()

    def _admit_nested(self) -> None:
        with self._lock:
            while self._nested and not self._accepting:
                self._admit(self._nested.popleft())

    def _accept_or_drop(self, level: Level, source: str, part: Part, others: Sequence[Part], system: bool) -> None:
        if self.closed:
            self._late.take(level, source, *part)
            return
        timestamp = timestamp_now()
        entries = [LogEntry.of_body(self.last_seq + 1, timestamp, level, source, *part)]
        for other in others:
            entries.append(LogEntry.of_body(entries[-1].seq + 1, timestamp, level, source, *other))
        # The parts of one message are accepted together or not at all.
        if not system and not self._has_room(len(entries), sum([len(entry.encoded) for entry in entries])):
            self._dropped.add(len(entries), timestamp)
            return
        if self._dropped.count:
            report = self._dropped.report(entries[0].seq, timestamp)
            entries = [report, *(entry.with_seq(entry.seq + 1) for entry in entries)]
        for entry in entries:
            self._accept(entry)

    def _accept(self, entry: LogEntry) -> None:
        """Accept an entry: it is on disk before anyone sees it, and before the call that emits it returns."""
        if self._journal is not None:
            self._journal.append(entry.encoded)
        self.last_seq = entry.seq
        self._entries += 1
        self._bytes += len(entry.encoded)
        if self._thread != _thread():
            self._pass_to_loop(entry)
            return
        if self._from_threads:
            self._hand_off_from_threads()  # their seqs are smaller
        self.plain = False
        self.handoff.put_nowait(entry)

    def _has_room(self, entries: int, size: int) -> bool:
        return self._entries + entries <= self._entries_max and self._bytes + size <= self._bytes_max

    def _await_room(self, parts: Sequence[Part]) -> None:
        """Release the lock, in a thread, until there is room or the time is up."""
        # The rest of an entry takes under 400 bytes.
        size_max = sum(len(body) + 400 for _, body in parts)
        bytes_max = self._bytes_max - min(size_max, self._bytes_max)
        entries_max = self._entries_max - len(parts)
        self._room.wait_for(
            lambda: self.closed or (self._entries <= entries_max and self._bytes <= bytes_max),
            self._settings.thread_wait_s,
        )

    # From threads to the loop

    def _pass_to_loop(self, entry: LogEntry) -> None:
        idle = not self._from_threads
        self._from_threads.append(entry)
        if idle:
            self._on_loop(self._collect)

    def _collect(self) -> None:
        with self._lock:
            self._accepting = True
            try:
                self._hand_off_from_threads()
            finally:
                self._accepting = False
            self._admit_nested()

    def _hand_off_from_threads(self) -> None:
        passed = self._from_threads
        self.plain = False
        while passed:
            self.handoff.put_nowait(passed.popleft())

    def _on_loop(self, function: Callable[..., object], *arguments: Any) -> None:
        # The loop of a service that has ended is closed; a thread may outlive it.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    # The writer's end

    async def take(self) -> list[LogEntry]:
        """Wait for entries, for a flush or for the end, and return all entries in order (see `Handoff`)."""
        return await self.handoff.take()

    def take_rest(self) -> list[LogEntry]:
        """Return all entries without waiting."""
        return self.handoff.take_rest()

    def committed(self, entries: int, size: int, seq: int) -> None:
        """Give back the room of `entries` with `size` bytes: all up to `seq` is committed."""
        with self._lock:
            self._entries -= entries
            self._bytes -= size
            self._committed_seq = seq
            if self._journal is not None:
                self._journal.committed(entries)
            waiters = self._waiters.take(seq)
            self.flush_asked = bool(self._waiters)
            self._room.notify_all()
        finish(waiters)

    def close(self, end: TaskEnd | None = None) -> None:
        """
        Accept nothing more, after a last report of dropped entries. Idempotent; on the loop.

        The `end` goes into the journal after the last entry.
        """
        with self._lock:
            if self.closed:
                return
            if self._flood is not None:
                self._flood.tell()
            if self._dropped.count:
                self.emit_system(Level.WARNING, LAST_DROPPED)
            self._collect()
            if self._journal is not None and end is not None:
                self._journal.append_end(end, self.last_seq)
            self.closed = True
            self._room.notify_all()
        self.handoff.wake()

    def release(self, stored: bool) -> None:
        """Wake those who wait for a commit, because the writer has ended; free the journal if all is `stored`."""
        with self._lock:
            if stored and self._journal is not None:
                self._journal.committed_all()
            waiters = self._waiters.take_all()
        finish(waiters)

    def _ask_flush(self) -> None:
        self.flush_asked = True
        self.handoff.wake()


def _with_source(source: str, metadata: dict[str, Any] | None) -> dict[str, Any]:
    given = metadata or {}
    return {**given, free_key("source", given): source}
