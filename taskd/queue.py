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

Sanitising, masking and splitting come first, outside the lock. They run foreign code (any
object's `repr`), which may be slow, may raise and may log.
"""

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from taskd.entries import Level, LogEntry, timestamp_now
from taskd.masking import Masker
from taskd.sanitise import clean_metadata, clean_source, clean_text, split_text
from taskd.settings import Settings

SYSTEM = "system"
SOURCES_MAX = 1_000
OTHER_SOURCES = "other"

_CONTINUED = b'{"continued":true}'
_log = logging.getLogger("taskd.queue")

Part = tuple[str, bytes | None]


class LogQueue(asyncio.Queue[LogEntry | None]):
    """
    The per-task queue between producers and the one writer. Made on the loop that consumes it.

    `on_progress(source, progress)` is called on the loop for progress that is shown, not stored.
    """

    def __init__(self, settings: Settings, on_progress: Callable[[str, dict[str, Any]], None]) -> None:
        super().__init__()
        self.last_seq = 0
        self.closed = False
        self.flush_asked = False
        self.masker = Masker()
        self.on_progress = on_progress
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        # Reentrant: a signal handler or a destructor that logs may interrupt an emit.
        self._lock = threading.RLock()
        self._room = threading.Condition(self._lock)
        self._emitting = False
        self._interrupting: deque[tuple[Level, str, list[Part], bool]] = deque()
        self._handed: deque[LogEntry] = deque()
        self._entries = 0
        self._bytes = 0
        self._dropped = 0
        self._dropped_since = ""
        self._sources: set[str] = set()
        self._committed_seq = 0
        self._drains: list[tuple[int, concurrent.futures.Future[None]]] = []

    # The producers' end

    def emit(self, level: Level, source: str, message: object, metadata: Mapping[str, Any] | None = None) -> None:
        """
        Accept what a source says, or drop and count it. Never raises for what it is given.

        On the loop this never waits; in a thread it waits for room, at most `thread_wait_s`.
        """
        parts = self._prepared(message, metadata)
        if source not in self._sources:
            source = self._known(source)
        with self._lock:
            if threading.get_ident() != self._thread and not self._emitting:
                self._await_room(parts)
            self._offer(level, source, parts, False)

    def emit_system(self, level: Level, message: str, metadata: Mapping[str, Any] | None = None) -> None:
        """Accept taskd's own words about the task, always."""
        self._offer(level, SYSTEM, self._prepared(message, metadata), True)

    def show_progress(self, source: str, progress: dict[str, Any]) -> None:
        """Show viewers where a progress is, without storing it. From any thread."""
        shown = self.masker.value(progress)
        if threading.get_ident() == self._thread:
            self.on_progress(source, shown)
        else:
            self._on_loop(self.on_progress, source, shown)

    def later(self, delay_s: float, function: Callable[[], None]) -> None:
        """Call `function` on the loop after `delay_s`. From any thread."""
        self._on_loop(self._loop.call_later, delay_s, function)

    async def drain(self) -> None:
        """Return when all that was accepted so far is committed, asking the writer to flush now."""
        drained: concurrent.futures.Future[None] = concurrent.futures.Future()
        with self._lock:
            if self._committed_seq >= self.last_seq:
                return
            self._drains.append((self.last_seq, drained))
        self._on_loop(self._ask_flush)
        # Not bound to this loop: a synchronous plugin may run a loop of its own.
        await asyncio.wrap_future(drained)

    def _prepared(self, message: object, metadata: Mapping[str, Any] | None) -> list[Part]:
        text = clean_text(message)
        encoded = None if not metadata else clean_metadata(dict(metadata), self._settings.metadata_bytes_max)
        masker = self.masker
        if masker.needed or "://" in text:
            text = masker(text)
        if encoded is not None and (masker.needed or b"://" in encoded):
            encoded = orjson.dumps(masker.value(orjson.loads(encoded)))
        limit = self._settings.message_bytes_max
        if len(text) * 4 <= limit:
            return [(text, encoded)]
        first, *others = split_text(_cut(text, self._settings.queue_bytes_max // 8), limit)
        return [(first, encoded), *((part, _CONTINUED) for part in others)]

    def _known(self, source: str) -> str:
        """The clean name of a source; past `SOURCES_MAX` of them they share one, for counts stay small."""
        source = clean_source(self.masker(source))
        if source not in self._sources and len(self._sources) >= SOURCES_MAX:
            return OTHER_SOURCES
        self._sources.add(source)
        return source

    def _offer(self, level: Level, source: str, parts: list[Part], system: bool) -> None:
        with self._lock:
            self._interrupting.append((level, source, parts, system))
            # In the middle of another emit of this same thread: that one takes it next, or
            # seqs would be queued out of order.
            if self._emitting:
                return
            self._emitting = True
            try:
                while self._interrupting:
                    self._accept(*self._interrupting.popleft())
            finally:
                self._emitting = False

    def _accept(self, level: Level, source: str, parts: list[Part], system: bool) -> None:
        if self.closed:
            _log.warning("An entry of %r came after its task's log had ended: %.200s", source, parts[0][0])
            return
        timestamp = timestamp_now()
        entries = self._stamped(level, source, parts, timestamp, self.last_seq)
        size = sum([len(entry.encoded) for entry in entries])
        if not system and not self._has_room(len(entries), size):
            self._drop(len(entries), timestamp)
            return
        if self._dropped:
            entries = self._after_note(level, source, parts, timestamp)
            size = sum([len(entry.encoded) for entry in entries])
        # Accepted. (A journal of what is accepted belongs exactly here: under the lock, after
        # the seq is known, before anybody sees the entry.)
        self.last_seq += len(entries)
        self._entries += len(entries)
        self._bytes += size
        self._queue_in_order(entries)

    def _stamped(self, level: Level, source: str, parts: list[Part], timestamp: str, seq: int) -> list[LogEntry]:
        make = LogEntry.make
        return [
            make(seq + place, timestamp, level, source, text, metadata)
            for place, (text, metadata) in enumerate(parts, 1)
        ]

    def _after_note(self, level: Level, source: str, parts: list[Part], timestamp: str) -> list[LogEntry]:
        message = f"{self._dropped:,} entries were dropped here, since {self._dropped_since}: the log's queue was full"
        told = orjson.dumps({"dropped": self._dropped, "since": self._dropped_since, "until": timestamp})
        note = self._stamped(Level.WARNING, SYSTEM, [(message, told)], timestamp, self.last_seq)
        self._dropped = 0
        return note + self._stamped(level, source, parts, timestamp, self.last_seq + 1)

    def _has_room(self, entries: int, size: int) -> bool:
        return (
            self._entries + entries <= self._settings.queue_max and self._bytes + size <= self._settings.queue_bytes_max
        )

    def _drop(self, entries: int, timestamp: str) -> None:
        if not self._dropped:
            self._dropped_since = timestamp
        self._dropped += entries

    def _queue_in_order(self, entries: list[LogEntry]) -> None:
        if threading.get_ident() == self._thread:
            # What threads handed over has smaller seqs.
            self._hand_over()
            for entry in entries:
                self.put_nowait(entry)
        else:
            idle = not self._handed
            self._handed.extend(entries)
            if idle:
                self._on_loop(self._hand_over)

    def _hand_over(self) -> None:
        handed = self._handed
        while handed:
            self.put_nowait(handed.popleft())

    def _await_room(self, parts: list[Part]) -> None:
        """In a thread, under the lock, which is let go while waiting: wait for room, or until the time is up."""
        # JSON writes at most six bytes for one of a text's; the names around it take under 400.
        size_max = sum(6 * len(text.encode()) + len(metadata or b"") + 400 for text, metadata in parts)
        size_max = min(size_max, self._settings.queue_bytes_max)
        self._room.wait_for(lambda: self.closed or self._has_room(len(parts), size_max), self._settings.thread_wait_s)

    def _on_loop(self, function: Callable[..., object], *arguments: Any) -> None:
        # A thread that outlives the service has nobody left to tell.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    # The writer's end

    async def take(self) -> list[LogEntry]:
        """
        Wait for entries, for a flush to be asked or for the end; then all entries there are.

        They are in `seq` order. May be cancelled: what was not returned is still queued.
        """
        while self.empty():
            first = await self.get()
            self._queue.appendleft(first)
        return self.take_rest()

    def take_rest(self) -> list[LogEntry]:
        """All entries there are, without waiting."""
        taken = [entry for entry in self._queue if entry is not None]
        self._queue.clear()
        return taken

    def committed(self, entries: int, size: int, seq: int) -> None:
        """Give back the room of `entries` with `size` bytes: all up to `seq` is committed."""
        with self._lock:
            self._entries -= entries
            self._bytes -= size
            self._committed_seq = seq
            drained = [drain for drain in self._drains if drain[0] <= seq]
            self._drains = [drain for drain in self._drains if drain[0] > seq]
            self.flush_asked = bool(self._drains)
            self._room.notify_all()
        for _, future in drained:
            if future.set_running_or_notify_cancel():
                future.set_result(None)

    def close(self) -> None:
        """Accept nothing more, after a last word about what was dropped. Idempotent; on the loop."""
        with self._lock:
            if self.closed:
                return
            self._hand_over()
            if self._dropped:
                self.emit_system(Level.WARNING, "These were the last entries that were dropped")
            self.closed = True
            self._room.notify_all()
        self._wake()

    def _ask_flush(self) -> None:
        self.flush_asked = True
        self._wake()

    def _wake(self) -> None:
        self.put_nowait(None)

    def _init(self, maxsize: int) -> None:
        self._queue: deque[LogEntry | None] = deque()


def _cut(text: str, bytes_max: int) -> str:
    """A text that could fill the queue alone, cut so that what is left says so."""
    size = len(text.encode())
    if size <= bytes_max:
        return text
    kept = next(split_text(text, bytes_max))
    return f"{kept} <{size - len(kept.encode()):,} more bytes cut>"
