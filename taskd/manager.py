"""
`TaskManager`: takes tasks, runs them, ends them.

It owns what a task needs while it lives: its queue, its hub, its writer and the asyncio task
that runs the plugin. What is known of a task that has ended is in the store.

The end of a task is one order, from which its promise comes: the plugin ends → its last
words are queued → the queue is closed → the writer stores them with the final status in one
transaction → only then is the status shown, and the readers are let go. Whoever sees
`succeeded` can read the whole log.

Plugin tasks live in a named set, not in an `asyncio.TaskGroup`: a group does not return while
a stubborn child runs. Whatever a plugin raises ends its own task and reaches no other.
"""

import asyncio
import logging
import shutil
from collections import deque
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import orjson

from taskd.context import TaskContext, task_dir
from taskd.endings import ending_of
from taskd.entries import Level, timestamp_now
from taskd.errors import ParamsInvalid, Stopping, StoreError, TaskConflict, TooManyTasks
from taskd.execution import Outcome, execute
from taskd.hub import LogHub
from taskd.logger import TaskLogger
from taskd.persistence.base import LogPersistenceService, TaskFilter
from taskd.plugins import SECRET, LoadedPlugin, PluginRegistry, secret_paths, without_secrets
from taskd.queue import LogQueue
from taskd.settings import Settings
from taskd.tasks import Task, TaskStatus, new_task_id
from taskd.writer import LogWriter

RETRY_AFTER_S = 5
CANCEL_WAIT_S = 2.0
_log = logging.getLogger("taskd.manager")


class LiveTask:
    """A task that has not ended, and what is there only until then."""

    def __init__(
        self, task: Task, plugin: LoadedPlugin, params: Any, store: LogPersistenceService, settings: Settings
    ) -> None:
        self.row = task
        self.plugin = plugin
        self.params = params
        self.hub = LogHub(settings.subscriber_queue_max, settings.subscriber_bytes_max)
        self.queue = LogQueue(settings, self._on_progress)
        self.writer = LogWriter(task.id, self.queue, self.hub, store, settings)
        self.context = TaskContext(
            task_id=task.id,
            plugin=plugin.name,
            params=params,
            logger=TaskLogger(self.queue, plugin.name),
            masker=self.queue.masker,
            settings=settings,
        )
        self.running: asyncio.Task[Outcome] | None = None
        self.stop_as: TaskStatus | None = None
        self.abandoned = asyncio.Event()
        self.ended = asyncio.Event()

    @property
    def task(self) -> Task:
        """The task as of now: its row, with the counts of what is pending too."""
        return replace(
            self.row,
            last_seq=self.hub.last_seq,
            progress=self.writer.progress,
            counts=self.writer.counts.by_level,
        )

    def become(self, status: TaskStatus, **changes: Any) -> None:
        """Change the status, as the picture in `taskd.tasks` allows, and show it."""
        if not self.row.status.may_become(status):
            raise ValueError(f"task {self.row.id} is {self.row.status} and cannot become {status}")
        self.row = replace(self.row, status=status, **changes)
        self.hub.publish_task(self.task)

    def _on_progress(self, source: str, progress: dict[str, Any]) -> None:
        self.writer.progress = progress
        self.hub.publish_progress(source, progress)


class TaskManager:
    """The tasks of one service. Made on the running loop; `stop` ends it."""

    def __init__(self, settings: Settings, store: LogPersistenceService, plugins: PluginRegistry) -> None:
        self.store = store
        self.page_bytes_max = settings.page_bytes_max
        self._settings = settings
        self._plugins = plugins
        self._live: dict[str, LiveTask] = {}
        self._queued: deque[LiveTask] = deque()
        self._running: set[str] = set()
        self._lives: set[asyncio.Task[None]] = set()
        self._abandoned: list[LiveTask] = []
        self._accepted = 0
        self._stopping = asyncio.Event()

    # What is there

    @property
    def running(self) -> int:
        """How many tasks run now."""
        return len(self._running)

    @property
    def entries_pending(self) -> int:
        """How many entries are published and not known to be committed."""
        return sum(live.writer.pending for live in self._live.values())

    @property
    def store_faults(self) -> list[str]:
        """Why entries wait, where the store does not take them; each reason once."""
        return sorted({live.writer.failing for live in self._live.values() if live.writer.failing})

    def writer(self, task_id: str) -> LogWriter | None:
        """The writer of a task that has not ended; None means that all of its log is stored."""
        live = self._live.get(task_id)
        return live.writer if live else None

    async def task(self, task_id: str) -> Task:
        """The task. Raises `TaskNotFound`."""
        live = self._live.get(task_id)
        return live.task if live else await self.store.task(task_id)

    async def tasks(
        self,
        *,
        status: TaskStatus | None = None,
        plugin: str | None = None,
        ending: str | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> tuple[list[Task], str | None]:
        """The newest tasks that match, and the `before` for those after them, or None."""
        rows = await self.store.tasks(TaskFilter(status, plugin, ending, before), limit + 1)
        tasks = [live.task if (live := self._live.get(row.id)) else row for row in rows[:limit]]
        return tasks, rows[limit - 1].id if len(rows) > limit else None

    async def wait(self, task_id: str) -> Task:
        """Wait until the task has ended and its log is stored. Raises `TaskNotFound`."""
        live = self._live.get(task_id)
        if live is not None:
            await live.ended.wait()
        return await self.store.task(task_id)

    # What people ask for

    async def submit(self, plugin: str, params: dict[str, Any], *, retry_of: str | None = None) -> Task:
        """
        Accept a task: stored as queued, and run as soon as there is room.

        Raises `PluginNotFound`, `ParamsInvalid`, `TooManyTasks`, `Stopping` and `StoreError`;
        then there is no task.
        """
        if self._stopping.is_set():
            raise Stopping
        loaded = self._plugins[plugin]
        validated = loaded.validate(params)
        if len(self._queued) + self._accepted >= self._settings.tasks_queued_max:
            raise TooManyTasks(self._settings.tasks_queued_max, RETRY_AFTER_S)
        secrets = dict(secret_paths(validated))
        shown = without_secrets(_as_json(loaded.name, params), secrets)
        task = Task(new_task_id(), loaded.name, shown, TaskStatus.QUEUED, timestamp_now(), retry_of=retry_of)
        live = LiveTask(task, loaded, validated, self.store, self._settings)
        for secret in secrets.values():
            live.context.add_secret(secret)
        self._accepted += 1
        try:
            await self.store.create_task(task, list(secrets))
        finally:
            self._accepted -= 1
        self._live[task.id] = live
        self._queued.append(live)
        self._start_waiting()
        return live.task

    async def cancel(self, task_id: str) -> Task:
        """
        Ask a task to stop; one that is queued ends at once. Asking again is harmless.

        Raises `TaskNotFound`, and `TaskConflict` where it has ended.
        """
        live = self._live.get(task_id)
        if live is None:
            task = await self.store.task(task_id)
            raise TaskConflict(f"Task {task_id} has ended ({task.status}) and cannot be cancelled.")
        if live in self._queued:
            self._queued.remove(live)
            live.stop_as = TaskStatus.CANCELLED
            # Bounded: where the store does not take the end, the task is still shown as queued.
            await asyncio.wait([self._watch(self._end_unrun(live), f"task {task_id}")], timeout=CANCEL_WAIT_S)
        else:
            self._ask_to_stop(live, TaskStatus.CANCELLED)
        return live.task

    async def retry(self, task_id: str, params: dict[str, Any] | None = None) -> Task:
        """
        A new task with the same plugin and params; `params` are put over those of the old one.

        Raises what `submit` raises, `TaskNotFound`, `TaskConflict` while it runs, and
        `ParamsInvalid` naming the secret params that must be given again.
        """
        task = await self.task(task_id)
        if not task.status.ended:
            raise TaskConflict(f"Task {task_id} has not ended ({task.status}); only an ended task can be retried.")
        merged = {**task.params, **(params or {})}
        missing = [path for path in await self.store.secret_paths(task_id) if _at(merged, path) == SECRET]
        if missing:
            message = "secret, and so not stored: give it again"
            raise ParamsInvalid(task.plugin, [{"path": f"params.{path}", "message": message} for path in missing])
        return await self.submit(task.plugin, merged, retry_of=task_id)

    async def delete(self, task_id: str) -> None:
        """Delete an ended task, its log and its files. Raises `TaskNotFound`, and `TaskConflict` while it runs."""
        task = await self.task(task_id)
        if not task.status.ended:
            raise TaskConflict(f"Task {task_id} has not ended ({task.status}); cancel it before deleting it.")
        await self.store.delete_task(task_id)
        await asyncio.to_thread(shutil.rmtree, task_dir(self._settings, task_id), ignore_errors=True)

    # A task's life

    def _start_waiting(self) -> None:
        while self._queued and len(self._running) < self._settings.tasks_running_max and not self._stopping.is_set():
            live = self._queued.popleft()
            self._running.add(live.row.id)
            self._watch(self._live_through(live), f"task {live.row.id}")

    def _watch(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        life = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._lives.add(life)
        life.add_done_callback(self._watched)
        return life

    def _watched(self, life: asyncio.Task[None]) -> None:
        self._lives.discard(life)
        if not life.cancelled() and life.exception() is not None:
            _log.error("%s died, which is a fault in taskd", life.get_name(), exc_info=life.exception())

    async def _live_through(self, live: LiveTask) -> None:
        """A task from its start to its end stored. Never cancelled: plugin code is."""
        started_at = timestamp_now()
        if not await self._store_start(live, started_at):
            live.stop_as = live.stop_as or TaskStatus.INTERRUPTED
            await self._end_unrun(live)
            return
        writing = self._watch(live.writer.run(), f"writer {live.row.id}")
        live.become(TaskStatus.RUNNING, started_at=started_at)
        live.queue.emit_system(Level.INFO, f"started {live.plugin.name}")
        live.running = self._plugin_task(live)
        await _first(live.running, live.abandoned.wait())
        await self._finish(live, _outcome(live.running), writing)

    async def _end_unrun(self, live: LiveTask) -> None:
        """End a task that was only queued."""
        writing = self._watch(live.writer.run(), f"writer {live.row.id}")
        await self._finish(live, Outcome(cancelled=True), writing)

    async def _store_start(self, live: LiveTask, started_at: str) -> bool:
        """Store that the task runs, however often it must be tried; False where the service stops first."""
        while not self._stopping.is_set():
            try:
                await self.store.start_task(live.row.id, started_at)
                return True
            except StoreError as error:
                _log.warning("Task %s waits to start: %s", live.row.id, error)
                await _first(self._stopping.wait(), timeout_s=self._settings.retry_delay_max_s)
        return False

    def _plugin_task(self, live: LiveTask) -> asyncio.Task[Outcome]:
        coroutine = execute(live.plugin, live.context)
        plugin_task = asyncio.get_running_loop().create_task(coroutine, name=f"plugin {live.row.id}")
        if live.stop_as is not None:
            plugin_task.cancel()
        return plugin_task

    def _ask_to_stop(self, live: LiveTask, stop_as: TaskStatus) -> None:
        if live.stop_as is None:
            live.stop_as = stop_as
            why = "asked to cancel" if stop_as is TaskStatus.CANCELLED else "asked to stop: the service is stopping"
            live.queue.emit_system(Level.WARNING, why)
        live.context.cancelled = True
        if live.running is not None:
            live.running.cancel()

    async def _finish(self, live: LiveTask, outcome: Outcome, writing: asyncio.Task[None]) -> None:
        """Say how the task ended, store it, and only then show it."""
        ending = ending_of(outcome, live.stop_as, live.row.started_at, live.queue.masker)
        for level, message, metadata in ending.words:
            live.queue.emit_system(level, message, metadata)
        live.writer.end(ending.end)
        await asyncio.wait([writing])
        if live.writer.stored_end:
            live.become(
                ending.end.status,
                finished_at=ending.end.finished_at,
                result=ending.result,
                error=ending.end.error,
            )
            live.hub.end(live.task)
        else:
            live.hub.close()
        self._forget(live)

    def _forget(self, live: LiveTask) -> None:
        del self._live[live.row.id]
        self._running.discard(live.row.id)
        live.ended.set()
        self._start_waiting()

    # The end of all

    async def stop(self, hurry: asyncio.Event) -> None:
        """
        End every task: those that run have `shutdown_grace_s` to finish by themselves, and after
        being cancelled `shutdown_deadline_s`. Setting `hurry` cuts the waiting short.

        What is then still there becomes `interrupted` and is left behind; entries and ends are
        stored, within `shutdown_deadline_s` again. Idempotent.
        """
        self._stopping.set()
        queued, self._queued = list(self._queued), deque()
        for live in queued:
            live.stop_as = TaskStatus.INTERRUPTED
            self._watch(self._end_unrun(live), f"task {live.row.id}")
        await self._all_ended(self._settings.shutdown_grace_s, hurry)
        for live in list(self._live.values()):
            self._ask_to_stop(live, TaskStatus.INTERRUPTED)
        await self._all_ended(self._settings.shutdown_deadline_s, hurry)
        self._abandon_stubborn()
        await self._all_ended(self._settings.shutdown_deadline_s, asyncio.Event())
        for live in list(self._live.values()):
            _log.error("Task %s ends without %d of its entries being stored", live.row.id, live.writer.pending)
            live.writer.abandon()
        await self._all_ended(1.0, asyncio.Event())

    @property
    def stubborn(self) -> bool:
        """True where plugin code still runs that was told to stop: the interpreter cannot end by itself."""
        return any(live.running is not None and not live.running.done() for live in self._abandoned)

    def _abandon_stubborn(self) -> None:
        for live in list(self._live.values()):
            if live.running is not None and not live.running.done():
                _log.error("Task %s (%s) ignores its cancellation and is left behind", live.row.id, live.plugin.name)
                live.abandoned.set()
                self._abandoned.append(live)

    async def _all_ended(self, timeout_s: float, hurry: asyncio.Event) -> None:
        async def every_one() -> None:
            while self._live:
                await next(iter(self._live.values())).ended.wait()

        await _first(every_one(), hurry.wait(), timeout_s=timeout_s)


async def _first(*awaitables: Any, timeout_s: float | None = None) -> None:
    """Wait for one of several; the waits for the others end, an asyncio task among them goes on."""
    waits = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    for wait, awaitable in zip(waits, awaitables, strict=True):
        if wait is not awaitable:
            wait.cancel()


def _outcome(running: asyncio.Task[Outcome]) -> Outcome:
    """What came out of a plugin's task; cancelled where it never began, or is left behind."""
    return running.result() if running.done() and not running.cancelled() else Outcome(cancelled=True)


def _as_json(plugin: str, params: dict[str, Any]) -> Any:
    """A copy of the params made of what JSON has. Raises `ParamsInvalid`."""
    try:
        return orjson.loads(orjson.dumps(params))
    except (TypeError, orjson.JSONEncodeError) as error:
        raise ParamsInvalid(plugin, [{"path": "params", "message": f"not JSON: {error}"}]) from error


def _at(params: Any, path: str) -> Any:
    """What lies in `params` at `path`, or None."""
    for name in path.split("."):
        if isinstance(params, dict):
            params = params.get(name)
        elif isinstance(params, list) and name.isdigit() and int(name) < len(params):
            params = params[int(name)]
        else:
            return None
    return params
