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
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from taskd.entries import Level, LogEntry, timestamp_now
from taskd.masking import Masker
from taskd.sanitise import clean_metadata, clean_source, clean_text, clean_value, split_text
from taskd.settings import Settings

SYSTEM = "system"
SOURCES_MAX = 1_000
OTHER_SOURCES = "other"

# One message may take this share of the queue's bytes; what is longer is cut, and says so.
MESSAGE_SHARE = 8

_CONTINUED = b'{"continued":true}'
_log = logging.getLogger("taskd.queue")

# What becomes one entry: its message, and its metadata as JSON.
Part = tuple[str, bytes | None]
# What waits to be accepted: level, source, parts, and whether it is taskd's own.
Said = tuple[Level, str, Sequence[Part], bool]


class LogQueue(asyncio.Queue[LogEntry | None]):
    """
    The per-task queue between producers and the one writer. Made on the loop that consumes it.

    `on_progress(source, progress)` is called on the loop for progress that is shown, not stored.
    """

    def __init__(
        self,
        settings: Settings,
        on_progress: Callable[[str, dict[str, Any]], None],
        masker: Masker | None = None,
    ) -> None:
        super().__init__()
        self.last_seq = 0
        self.closed = False
        self.flush_asked = False
        self.masker = masker or Masker()
        self.on_progress = on_progress
        self._settings = settings
        self._metadata_bytes_max = settings.metadata_bytes_max
        # A character takes at most four bytes: what is no longer than this needs no splitting.
        self._short_characters = settings.message_bytes_max // 4
        parts_max = max(1, settings.queue_max // 2)
        self._message_characters_max = min(
            settings.queue_bytes_max // MESSAGE_SHARE, parts_max * self._short_characters
        )
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        # Reentrant: a signal handler or a destructor that logs may interrupt an emit.
        self._lock = threading.RLock()
        self._room = threading.Condition(self._lock)
        self._accepting = False
        self._said: deque[Said] = deque()
        self._handed: deque[LogEntry] = deque()
        self._entries = 0
        self._bytes = 0
        self._dropped = 0
        self._dropped_since = ""
        self._late = 0
        self._sources: set[str] = set()
        self._committed_seq = 0
        self._drains: list[tuple[int, concurrent.futures.Future[None]]] = []

    # The producers' end

    def emit(self, level: Level, source: str, message: object, metadata: dict[str, Any] | None = None) -> None:
        """
        Accept what a source says, or drop and count it. Never raises for what it is given.

        On the loop this never waits; in a thread it waits for room, at most `thread_wait_s`.
        """
        parts = self._parts(message, metadata)
        if source not in self._sources:
            source = self._known(source)
        with self._lock:
            if threading.get_ident() != self._thread and not self._accepting:
                self._await_room(parts)
            self._offer((level, source, parts, False))

    def emit_system(self, level: Level, message: str, metadata: dict[str, Any] | None = None) -> None:
        """Accept taskd's own words about the task, always."""
        parts = self._parts(message, metadata)
        with self._lock:
            self._offer((level, SYSTEM, parts, True))

    def show_progress(self, source: str, progress: dict[str, Any]) -> None:
        """Show viewers where a progress is, without storing it. From any thread."""
        shown = self.masker.value(clean_value(progress))
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

    # Before the lock

    def _parts(self, message: object, metadata: dict[str, Any] | None) -> Sequence[Part]:
        cut = 0
        if type(message) is str and len(message) > self._message_characters_max:
            cut = len(message) - self._message_characters_max
            message = message[: self._message_characters_max]
        text = clean_text(message)
        encoded = clean_metadata(metadata, self._metadata_bytes_max) if metadata else None
        masker = self.masker
        if masker.needed or "://" in text:
            text = masker(text)
        if encoded is not None and (masker.needed or b"://" in encoded):
            encoded = orjson.dumps(masker.value(orjson.loads(encoded)))
        if len(text) <= self._short_characters and not cut:
            return ((text, encoded),)
        return self._split(text, encoded, cut)

    def _split(self, text: str, encoded: bytes | None, cut: int) -> Sequence[Part]:
        # A repr, an escape or a mask may have made it longer again.
        cut += max(0, len(text) - self._message_characters_max)
        text = text[: self._message_characters_max]
        if cut:
            text = f"{text} <{cut:,} more characters cut>"
        first, *others = split_text(text, self._settings.message_bytes_max)
        return [(first, encoded), *((part, _CONTINUED) for part in others)]

    def _known(self, source: str) -> str:
        """The clean name of a source; past `SOURCES_MAX` of them they share one, for counts stay small."""
        source = clean_source(self.masker(source))
        if source not in self._sources and len(self._sources) >= SOURCES_MAX:
            return OTHER_SOURCES
        self._sources.add(source)
        return source

    # Under the lock

    def _offer(self, said: Said) -> None:
        self._said.append(said)
        self._accept_all()

    def _accept_all(self) -> None:
        # In the middle of another accept of this same thread (a signal handler, a destructor):
        # that one takes it next, or seqs would be queued out of order.
        while self._said and not self._accepting:
            self._accepting = True
            try:
                while self._said:
                    self._accept(*self._said.popleft())
            finally:
                self._accepting = False

    def _accept(self, level: Level, source: str, parts: Sequence[Part], system: bool) -> None:
        if self.closed:
            self._refuse_late(parts[0][0])
            return
        timestamp = timestamp_now()
        entries, size = self._stamped(level, source, parts, timestamp, self.last_seq)
        if not system and not self._has_room(len(entries), size):
            self._drop(len(entries), timestamp)
            return
        if self._dropped:
            entries, size = self._after_note(level, source, parts, timestamp)
        # Accepted. (A journal of what is accepted belongs exactly here: under the lock, after
        # the seq is known, before anybody sees the entry.)
        self.last_seq += len(entries)
        self._entries += len(entries)
        self._bytes += size
        if threading.get_ident() == self._thread:
            if self._handed:
                self._hand_over()  # what threads handed over has smaller seqs
            for entry in entries:
                self.put_nowait(entry)
        else:
            self._hand(entries)

    def _stamped(
        self, level: Level, source: str, parts: Sequence[Part], timestamp: str, seq: int
    ) -> tuple[list[LogEntry], int]:
        """The parts as entries that come after `seq`, and their size."""
        entries = []
        size = 0
        for text, metadata in parts:
            seq += 1
            entry = LogEntry.make(seq, timestamp, level, source, text, metadata)
            entries.append(entry)
            size += len(entry.encoded)
        return entries, size

    def _after_note(
        self, level: Level, source: str, parts: Sequence[Part], timestamp: str
    ) -> tuple[list[LogEntry], int]:
        message = f"{self._dropped:,} entries were dropped here, since {self._dropped_since}: the queue was full"
        told = orjson.dumps({"dropped": self._dropped, "since": self._dropped_since, "until": timestamp})
        self._dropped = 0
        note, note_size = self._stamped(Level.WARNING, SYSTEM, [(message, told)], timestamp, self.last_seq)
        entries, size = self._stamped(level, source, parts, timestamp, self.last_seq + 1)
        return note + entries, note_size + size

    def _has_room(self, entries: int, size: int) -> bool:
        return (
            self._entries + entries <= self._settings.queue_max and self._bytes + size <= self._settings.queue_bytes_max
        )

    def _drop(self, entries: int, timestamp: str) -> None:
        if not self._dropped:
            self._dropped_since = timestamp
        self._dropped += entries

    def _refuse_late(self, text: str) -> None:
        # Told once, and not from here: a log handler may do anything, and we hold the lock.
        self._late += 1
        if self._late == 1:
            self._on_loop(_log.warning, "A task says more after its end, which is in no log: %.200s", text)

    def _await_room(self, parts: Sequence[Part]) -> None:
        """In a thread: let go of the lock until there is room, or the time is up."""
        # JSON writes at most six bytes for one of a text's; the names around it take under 400.
        size_max = sum(6 * len(text.encode()) + len(metadata or b"") + 400 for text, metadata in parts)
        size_max = min(size_max, self._settings.queue_bytes_max)
        self._room.wait_for(lambda: self.closed or self._has_room(len(parts), size_max), self._settings.thread_wait_s)

    # From threads to the loop

    def _hand(self, entries: Sequence[LogEntry]) -> None:
        idle = not self._handed
        self._handed.extend(entries)
        if idle:
            self._on_loop(self._take_handed)

    def _take_handed(self) -> None:
        with self._lock:
            self._accepting = True
            try:
                self._hand_over()
            finally:
                self._accepting = False
            self._accept_all()

    def _hand_over(self) -> None:
        handed = self._handed
        while handed:
            self.put_nowait(handed.popleft())

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
        # Exchanged, not emptied: a signal handler that logs may add to it meanwhile.
        taken = self._queue
        self._init(0)
        return [entry for entry in taken if entry is not None]

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
        _finish(drained)

    def close(self) -> None:
        """Accept nothing more, after a last word about what was dropped. Idempotent; on the loop."""
        with self._lock:
            if self.closed:
                return
            if self._dropped:
                self.emit_system(Level.WARNING, "Those were the last words that were dropped")
            self._take_handed()
            self.closed = True
            self._room.notify_all()
        self._wake()

    def release(self) -> None:
        """The writer is gone: let go whoever waits for a commit."""
        with self._lock:
            drained, self._drains = self._drains, []
        _finish(drained)

    def _ask_flush(self) -> None:
        self.flush_asked = True
        self._wake()

    def _wake(self) -> None:
        self.put_nowait(None)

    def _init(self, maxsize: int) -> None:
        self._queue: deque[LogEntry | None] = deque()


def _finish(drained: list[tuple[int, concurrent.futures.Future[None]]]) -> None:
    for _, future in drained:
        if future.set_running_or_notify_cancel():
            future.set_result(None)
