"""
`LogWriter`: the one consumer of a task's queue, and what is known of the log while it lives.

    queue ──► pending + hub, in one step ──► store, every 2 s, when full, and at the end

An entry becomes *pending* and is published with no `await` between: a reader that looks at
what is pending and subscribes in one step of its own can miss nothing and get nothing twice.
It leaves pending only after its commit is known. A reader that looks at pending first and at
the store then finds each entry in one of the two at least; the other way round it could find
an entry in neither.

The flush timer starts at the first pending entry and no later entry moves it, so an entry
waits at most `flush_interval_s` for its flush, under any load. While a flush is on its way to
the store, entries go on becoming pending and being published: a locked store stops neither
the task nor the live tail. A flush that fails is tried again, with growing waits, for ever:
nothing is dropped and nothing reordered.

While nobody follows the log, entries stay in the queue until a flush or a question needs them:
to take each as it comes would be half of what the loop does for it. Whoever asks here what the
log is now (`snapshot`, `join`, `counts`, `last_seq`) gets it with what is queued.

Plugin code may be cancelled, the writer may not: it ends when its queue is closed and all is
stored, the final status in the transaction of the last entries; or, at a stop whose deadline
is over, when it is abandoned.
"""

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any

from taskd.concurrency import first
from taskd.entries import LogEntry
from taskd.errors import StoreError, TaskNotFound
from taskd.log.catch_up import Rereading
from taskd.log.hub import LogHub, Subscription
from taskd.log.queue import LogQueue
from taskd.metrics import Metrics
from taskd.persistence.base import LogPersistenceService
from taskd.query.counts import LogCounts
from taskd.query.filters import LogFilter, Lot, Sieve
from taskd.settings import Settings
from taskd.tasks import TaskEnd
from taskd.text.tracebacks import exception_line

_log = logging.getLogger("taskd.writer")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    A log's unstored part as of one moment: all before `pending_from` is stored.

    `pending` has the matches of a filter, in `seq` order; `last_seq` is the log's newest.
    """

    pending: list[LogEntry]
    pending_from: int
    last_seq: int


class LogWriter:
    """Consumes one task's queue until it is closed and everything is stored."""

    def __init__(
        self,
        task_id: str,
        queue: LogQueue,
        hub: LogHub,
        store: LogPersistenceService,
        settings: Settings,
        metrics: Metrics | None = None,
    ) -> None:
        self.task_id = task_id
        self.hub = hub
        self.rereading = Rereading(task_id, store)
        self.progress: dict[str, Any] | None = None
        self.failing: str | None = None
        self.stored_end = False
        self._queue = queue
        self._store = store
        self._settings = settings
        self._metrics = metrics or Metrics()
        self._counts = LogCounts()
        self._pending: list[LogEntry] = []
        self._end: TaskEnd | None = None
        self._abandoned = asyncio.Event()
        self._overdue = False
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._appending: asyncio.Task[None] | None = None

    @property
    def pending(self) -> int:
        """How many entries are not known to be committed."""
        self._catch_up()
        return len(self._pending)

    @property
    def last_seq(self) -> int:
        """The newest entry's."""
        self._catch_up()
        return self.hub.last_seq

    @property
    def counts(self) -> LogCounts:
        """The counts of the log."""
        self._catch_up()
        return self._counts

    def snapshot(self, log_filter: LogFilter, after: int = 0) -> Snapshot:
        """The pending matches with a greater seq than `after`. One step: nothing happens in between."""
        self._catch_up()
        pending_from = self._pending[0].seq if self._pending else self.hub.last_seq + 1
        # Without holes, so there is no need to look at those before.
        pending = Sieve(log_filter).pick(Lot(self._pending[max(0, after + 1 - pending_from) :]))
        return Snapshot(pending, pending_from, self.hub.last_seq)

    def join(self, log_filter: LogFilter, after: int) -> tuple[Subscription, Snapshot]:
        """What is pending and, in the same step, a view of all that comes behind it."""
        snapshot = self.snapshot(log_filter, after)
        subscription = self.hub.subscribe(log_filter)
        self._queue.handoff.wake_at = 1
        return subscription, snapshot

    def show_progress(self, source: str, progress: dict[str, Any]) -> None:
        """Show readers where a progress is now, whatever their filter; it is not stored."""
        # First what was said before it: an entry may tell of the same progress, as it was.
        self._catch_up()
        self.progress = progress
        self.hub.publish_progress(source, progress)

    async def run(self) -> None:
        """
        Publish and store until `end` was called and all is committed. Must not be cancelled.

        If it raises, what is pending stays so, and another call goes on with it.
        """
        while not self._queue.closed:
            self._make_pending(await self._queue.take())
            if self._is_due():
                self._start_flush()
        self._make_pending(self._queue.take_rest())
        if self._flushing is not None:
            await asyncio.wait([self._flushing])  # a plugin may have cancelled it
        # Only here is all that was said pending, so only here may the end go with it.
        self.stored_end = await self._flush(self._end)
        self.let_go()

    def let_go(self) -> None:
        """Nothing more is stored: let go whoever waits for a commit."""
        self._stop_timer()
        self._queue.release(self.stored_end)

    def died(self, error: BaseException) -> None:
        """Report what broke off `run` or a flush."""
        self._metrics.restarts.labels("writer").inc()
        self._tell_failing(error)

    async def abandoned(self, timeout_s: float) -> bool:
        """Wait for `abandon`, for at most this time; whether it was called."""
        await first(self._abandoned.wait(), timeout_s=timeout_s)
        return self._abandoned.is_set()

    def end(self, end: TaskEnd) -> None:
        """Accept no more entries; the last flush stores how the task ended, in the same transaction."""
        self._end = end
        self._queue.close(end)

    def abandon(self) -> None:
        """At a stop whose deadline is over: try the store no more. What is unstored stays so."""
        self._abandoned.set()
        if self._appending is not None:
            self._appending.cancel()
        self._queue.close()

    def _catch_up(self) -> None:
        """Take what is queued."""
        self._make_pending(self._queue.take_rest())

    def _make_pending(self, entries: list[LogEntry]) -> None:
        if not entries:
            return
        # One step: no await between these two.
        self._pending.extend(entries)
        self._counts.add(entries)
        self.hub.publish(entries)
        self._note_progress(entries)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._settings.flush_interval_s, self._on_timer)
        batch_max = self._settings.batch_max
        # Not before the batch is full, or, while the store is behind, another is.
        self._queue.handoff.wake_at = 1 if self.hub.readers else batch_max - len(self._pending) % batch_max

    def _note_progress(self, entries: list[LogEntry]) -> None:
        if self._queue.plain:
            return
        self._queue.plain = True
        for entry in reversed(entries):
            if b'"progress":{' not in entry.encoded:
                continue
            progress = (entry.metadata or {}).get("progress")
            if isinstance(progress, dict):
                self.progress = progress
                return

    def _on_timer(self) -> None:
        self._overdue = True
        self._start_flush()

    def _is_due(self) -> bool:
        full = len(self._pending) >= self._settings.batch_max
        return bool(self._pending) and (full or self._overdue or self._queue.flush_asked)

    def _start_flush(self) -> None:
        if self._flushing is None:
            name = f"flush {self.task_id}"
            self._flushing = asyncio.get_running_loop().create_task(self._flush_while_due(), name=name)
            self._flushing.add_done_callback(self._flushed)

    async def _flush_while_due(self) -> None:
        try:
            while self._is_due() and not self._abandoned.is_set():
                await self._flush()
        finally:
            self._flushing = None

    def _flushed(self, flushing: "asyncio.Task[None]") -> None:
        error = asyncio.CancelledError() if flushing.cancelled() else flushing.exception()
        if error is not None and not self._queue.closed:
            self._overdue = True
            asyncio.get_running_loop().call_later(self._settings.restart_delay_s, self._flush_again)
            self.died(error)

    def _flush_again(self) -> None:
        if self._is_due() and not self._queue.closed:
            self._start_flush()

    async def _flush(self, end: TaskEnd | None = None) -> bool:
        """
        Store a batch, or all there is together with the end, however often it must be tried.

        False where `abandon` came first.
        """
        self._catch_up()
        batch = self._pending[: None if end else self._settings.batch_max]
        if len(batch) == len(self._pending):
            # What is left over by a smaller batch keeps its time: it has waited for as long.
            self._overdue = False
            self._stop_timer()
        began = time.monotonic()
        stored = await self._append(batch, end)
        if stored:
            self._metrics.flush_seconds.observe(time.monotonic() - began)
            self._forget(batch)
        return stored

    async def _append(self, batch: list[LogEntry], end: TaskEnd | None) -> bool:
        delay_s = self._settings.retry_delay_s
        while not self._abandoned.is_set():
            append = self._store.append(self.task_id, batch, progress=self.progress, end=end)
            self._appending = asyncio.get_running_loop().create_task(append, name=f"append {self.task_id}")
            await asyncio.wait((self._appending,))
            if not self._appending.cancelled():
                error = self._appending.exception()
                if error is None or isinstance(error, TaskNotFound):
                    self.failing = None
                    return True
                self._tell_failing(error)
            await first(self._abandoned.wait(), timeout_s=delay_s)
            delay_s = min(2 * delay_s, self._settings.retry_delay_max_s)
        return False

    def _tell_failing(self, error: BaseException) -> None:
        if self.failing is None:
            fault = None if isinstance(error, StoreError) else error
            _log.warning(
                "Entries of task %s wait in memory: the store does not take them: %s",
                self.task_id,
                error,
                exc_info=fault,
            )
        self.failing = str(error) if isinstance(error, StoreError) else _fault(error)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._queue.handoff.wake_at = 1  # the next entry starts it again

    def _forget(self, batch: list[LogEntry]) -> None:
        # Only here, after the commit: a reader between the two would find the entries nowhere.
        del self._pending[: len(batch)]
        if batch:
            size = sum([len(entry.encoded) for entry in batch])
            self._queue.committed(len(batch), size, batch[-1].seq)


def _fault(error: BaseException) -> str:
    return f"taskd made a mistake while it stored entries ({exception_line(error)})."
