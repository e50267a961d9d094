"""
`LiveTask`: a task that has not ended, and what is there only until then.

It owns the task's queue, hub and writer, and the asyncio task that runs the plugin, and takes
it from its start to its end. The end is one order, from which its promise comes: the plugin
ends → its last words are queued → the queue is closed → the writer stores them with the final
status in one transaction → only then is the status shown, and the readers are let go. Whoever
sees `succeeded` can read the whole log.
"""

import asyncio
import contextlib
import logging
import time
from dataclasses import replace
from typing import Any

from taskd.concurrency import first
from taskd.entries import Level, timestamp_now
from taskd.errors import StoreError, TaskdError
from taskd.journal.journal import Journal
from taskd.log.hub import LogHub
from taskd.log.logger import TaskLogger
from taskd.log.queue import LogQueue
from taskd.log.writer import LogWriter
from taskd.metrics import Metrics, Tally
from taskd.persistence.base import LogPersistenceService
from taskd.runtime.context import TaskContext
from taskd.runtime.execution import Ending, Outcome, ending_of, execute
from taskd.runtime.isolation import give_to_plugin
from taskd.runtime.plugins import LoadedPlugin
from taskd.settings import Settings
from taskd.tasks import Task, TaskStatus
from taskd.text.masking import Masker
from taskd.text.sanitise import type_name

# Asking again within this time is the same ask: a second cancellation would break off what the
# plugin does to end well. Later it may be needed: the first may have been ignored.
ASK_AGAIN_S = 1.0

_log = logging.getLogger("taskd.live")


class LiveTask:
    """One task's life. Made when the task is accepted, on the running loop."""

    def __init__(
        self,
        row: Task,
        plugin: LoadedPlugin,
        params: Any,
        masker: Masker,
        store: LogPersistenceService,
        journal: Journal,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self.row = row
        self.plugin = plugin
        self.hub = LogHub(settings.subscriber_queue_max, settings.subscriber_bytes_max)
        self.queue = LogQueue(settings, self._on_progress, masker, journal.task(row.id), f"{plugin.name} {row.id[-8:]}")
        self.writer = LogWriter(row.id, self.queue, self.hub, store, settings, metrics)
        self.context = TaskContext(
            task_id=row.id,
            plugin=plugin.name,
            params=params,
            logger=TaskLogger(self.queue, plugin.name),
            masker=masker,
            settings=settings,
        )
        self.running: asyncio.Task[Outcome] | None = None
        self.fault: str | None = None
        self.ended = asyncio.Event()
        self._masker = masker
        self._store = store
        self._settings = settings
        self._metrics = metrics
        self._stop_as: TaskStatus | None = None
        self._asked_to_stop = asyncio.Event()
        self._asked_at = 0.0
        self._left_behind = asyncio.Event()

    @property
    def task(self) -> Task:
        """The task as of now: its row, with the counts of what is pending too."""
        return replace(
            self.row,
            last_seq=self.writer.last_seq,
            progress=self.writer.progress,
            counts=self.writer.counts.by_level,
        )

    @property
    def store_fault(self) -> str | None:
        """Why the store does not take what this task has for it, or None."""
        return self.fault or self.writer.failing

    @property
    def tally(self) -> Tally:
        """What became of what it said."""
        return replace(self.queue.tally, lagged=self.hub.lagged_ever)

    async def live(self) -> None:
        """From the start to the end stored, whatever goes wrong. Not to be cancelled: see `ask_to_stop`."""
        writing = asyncio.get_running_loop().create_task(self._write(), name=f"writer {self.row.id}")
        try:
            outcome = await self._outcome()
        except GeneratorExit:
            raise
        except BaseException as error:  # it is not to be cancelled, so that is a fault too
            _log.exception("taskd made a mistake while task %s ran", self.row.id)
            outcome = Outcome(error=TaskdError(f"taskd made a mistake here: {type(error).__name__}: {error}"))
        try:
            await self._finish(outcome, writing)
        finally:
            self.hub.close()
            self.ended.set()

    async def _write(self) -> None:
        """Run the writer to its end, and again after whatever breaks it off: no entry is lost by that."""
        delay_s, over = self._settings.restart_delay_s, False
        while not over:
            try:
                await self.writer.run()
                return
            except GeneratorExit:
                raise
            except BaseException as error:  # a cancellation is a fault too
                self.writer.died(error)
            with contextlib.suppress(asyncio.CancelledError):
                over = await self.writer.abandoned(delay_s)
            delay_s = min(2 * delay_s, self._settings.restart_delay_max_s)
        self.writer.let_go()

    def ask_to_stop(self, stop_as: TaskStatus) -> None:
        """Cancel the plugin; the task then ends as `stop_as`. Asking again is harmless."""
        why = "asked to cancel" if stop_as is TaskStatus.CANCELLED else "asked to stop: the service is stopping"
        if self._stop_as is None:
            self._stop_as = stop_as
            if not self.queue.closed:
                self.queue.emit_system(Level.WARNING, why)
        self.context.cancelled = True
        self._asked_to_stop.set()
        if self.running is not None and time.monotonic() - self._asked_at >= ASK_AGAIN_S:
            self._asked_at = time.monotonic()
            self.running.cancel(why)

    def leave_behind(self) -> bool:
        """End the task though its plugin still runs; False where it does not."""
        if self.running is None or self.running.done():
            return False
        _log.error("Task %s (%s) ignores its cancellation and is left behind", self.row.id, self.plugin.name)
        self._left_behind.set()
        return True

    async def _outcome(self) -> Outcome:
        started_at = timestamp_now()
        if not await self._store_start(started_at):
            return Outcome(cancelled=True)
        self._become(TaskStatus.RUNNING, started_at=started_at)
        self._metrics.tasks_started.labels(self.plugin.name).inc()
        self.queue.emit_system(Level.INFO, f"started {self.plugin.name}")
        coroutine = execute(self.plugin, self.context)
        self.running = asyncio.get_running_loop().create_task(coroutine, name=f"plugin {self.row.id}")
        give_to_plugin(self.running)
        if self._stop_as is not None:  # asked while the start was being stored
            self.running.cancel()
        while not self.running.done() and not self._left_behind.is_set():
            with contextlib.suppress(asyncio.CancelledError):  # nobody may cancel this: see `ask_to_stop`
                await first(self.running, self._left_behind.wait())
        # Cancelled where it never began, or is left behind.
        done = self.running.done() and not self.running.cancelled()
        return self.running.result() if done else Outcome(cancelled=True)

    async def _store_start(self, started_at: str) -> bool:
        """Store that the task runs, however often it must be tried; False where it is asked to stop first."""
        delay_s = self._settings.retry_delay_s
        while not self._asked_to_stop.is_set():
            try:
                await self._store.start_task(self.row.id, started_at)
            except StoreError as error:
                self.fault = str(error)
                await first(self._asked_to_stop.wait(), timeout_s=delay_s)
                delay_s = min(2 * delay_s, self._settings.retry_delay_max_s)
            else:
                self.fault = None
                return True
        return False

    async def _finish(self, outcome: Outcome, writing: asyncio.Task[None]) -> None:
        """Say how the task ended, store it, and only then show it."""
        ending = self._ending(outcome)
        for level, message, metadata in ending.words:
            self.queue.emit_system(level, message, metadata)
        self.writer.end(ending.end)
        while not writing.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([writing])
        if writing.cancelled() or writing.exception() is not None or not self.writer.stored_end:
            _log.error("Task %s ends with %d entries and its end not stored", self.row.id, self.writer.pending)
            return
        end = ending.end
        self._metrics.tasks_ended.labels(self.plugin.name, end.status.value).inc()
        self._become(end.status, finished_at=end.finished_at, result=ending.result, error=end.error)
        self.hub.end(self.task)

    def _ending(self, outcome: Outcome) -> Ending:
        try:
            return ending_of(outcome, self._stop_as, self.row.started_at, self._masker)
        except BaseException as error:  # what a plugin returns or raises may do anything when it is looked at
            fault = TaskdError(f"the plugin's outcome cannot be told: {type_name(error)}")
            return ending_of(Outcome(error=fault), self._stop_as, self.row.started_at, self._masker)

    def _become(self, status: TaskStatus, **changes: Any) -> None:
        """Change the status, as the picture in `taskd.tasks` allows, and show it."""
        if not self.row.status.may_become(status):
            raise TaskdError(f"Task {self.row.id} is {self.row.status} and cannot become {status}.")
        self.row = replace(self.row, status=status, **changes)
        self.hub.publish_task(self.task)

    def _on_progress(self, source: str, progress: dict[str, Any]) -> None:
        self.writer.show_progress(source, progress)
