"""
`TaskManager`: takes tasks, lets so many of them run, and answers for all of them.

A task that has not ended is a `LiveTask`; what is known of one that has ended is in the store.
Accepted tasks wait, so many of them, and run, at most `tasks_running_max` at once: taken in turn
from each plugin of which one waits, and of one plugin in the order in which they came.

Their lives are asyncio tasks in a set, not in an `asyncio.TaskGroup`: a group does not return
while a stubborn child runs. Whatever a plugin does ends its own task and reaches no other.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

import orjson

from taskd.capture.exceptions import owner_of
from taskd.concurrency import first
from taskd.entries import timestamp_now
from taskd.errors import ParamsInvalid, Stopping, TaskConflict, TaskdError, TooManyTasks
from taskd.journal.journal import Journal
from taskd.log.writer import LogWriter
from taskd.metrics import Metrics, Tally
from taskd.persistence.base import LogPersistenceService, TaskFilter
from taskd.runtime.deletion import Deletions
from taskd.runtime.fair_queue import Turns
from taskd.runtime.live_task import LiveTask
from taskd.runtime.plugins import PluginRegistry
from taskd.runtime.secret_params import differing, secret_paths, value_at, without_secrets
from taskd.settings import Settings
from taskd.tasks import Task, TaskIds, TaskStatus
from taskd.text.exact_json import faults_in
from taskd.text.masking import Masker

RETRY_AFTER_S = 5
CANCEL_WAIT_S = 2.0
# For writers to end after they were told to give up.
ABANDON_WAIT_S = 1.0

_log = logging.getLogger("taskd.manager")

T = TypeVar("T")


class TaskManager:
    """The tasks of one service. Made on the running loop; `stop` ends it."""

    def __init__(
        self,
        settings: Settings,
        store: LogPersistenceService,
        journal: Journal,
        plugins: PluginRegistry,
        metrics: Metrics,
        deletions: Deletions,
        new_id: TaskIds,
    ) -> None:
        self.store = store
        self._new_id = new_id
        self.page_bytes_max = settings.page_bytes_max
        self._settings = settings
        self._journal = journal
        self._plugins = plugins
        self._metrics = metrics
        self._ended: dict[str, Tally] = {}
        self._deletions = deletions
        self._live: dict[str, LiveTask] = {}
        self._queued: Turns[LiveTask] = Turns()
        self._running: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        # Kept, since asyncio holds a task that waits only weakly.
        self._left_behind: list[LiveTask] = []
        self._accepting: set[str] = set()
        self._stopping = asyncio.Event()

    # What is there

    @property
    def running(self) -> int:
        """How many tasks run now."""
        return len(self._running)

    @property
    def has_room(self) -> bool:
        """Whether one more task may run or wait, counting those that are just being stored."""
        settings = self._settings
        taken = len(self._running) + self.waiting + len(self._accepting)
        return taken < settings.tasks_running_max + settings.tasks_queued_max

    @property
    def waiting(self) -> int:
        """How many tasks wait to run."""
        return len(self._queued)

    @property
    def queued(self) -> dict[str, int]:
        """How many tasks wait to run, by plugin."""
        return self._queued.counts()

    @property
    def running_by_plugin(self) -> dict[str, int]:
        """How many tasks run now, by plugin."""
        return Counter(self._live[task_id].plugin.name for task_id in self._running)

    @property
    def tallies(self) -> dict[str, Tally]:
        """What became of all entries since the start, by plugin. Nothing in it ever falls."""
        tallies = {plugin: replace(tally) for plugin, tally in self._ended.items()}
        for live in self._live.values():
            tallies.setdefault(live.plugin.name, Tally()).add(live.tally)
        return tallies

    def task_of(self, running: "asyncio.Task[Any]") -> LiveTask | None:
        """The task whose code an asyncio task runs, its children included. From any thread."""
        owner = owner_of(running)
        queue = owner.logger.queue if owner is not None else None
        # A list of them at once: in another thread they may change while they are gone through.
        lives = list(self._live.values())
        return next((live for live in lives if live.running is running or live.queue is queue), None)

    @property
    def entries_pending(self) -> int:
        """How many entries are published and not known to be committed."""
        return sum(live.writer.pending for live in self._live.values())

    @property
    def store_faults(self) -> list[str]:
        """Why entries wait, where the store does not take them; each reason once."""
        return sorted({live.store_fault for live in self._live.values() if live.store_fault})

    def writer(self, task_id: str) -> LogWriter | None:
        """The writer of a task that has not ended; None means that all of its log is stored."""
        live = self._live.get(task_id)
        # In the turn in which it ends it is still here, with a hub that is closed and sends everybody away.
        return live.writer if live and not live.ended.is_set() else None

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
        """
        The newest tasks that match, and the `before` for those after them, or None.

        Fewer than `limit` where they are large: a page ends at `page_bytes_max`.
        """
        task_filter = TaskFilter(status, plugin, ending, before)
        rows, more = await self.store.tasks(task_filter, limit, self.page_bytes_max)
        tasks = [live.task if (live := self._live.get(row.id)) else row for row in rows]
        return tasks, rows[-1].id if more else None

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
        then there is no task. May be cancelled; the task may then have been accepted.
        """
        if self._stopping.is_set():
            raise Stopping
        loaded = self._plugins[plugin]
        given = _as_json(loaded.name, params)
        validated = loaded.validate(given)
        if not self.has_room:
            self._metrics.tasks_refused.labels(loaded.name).inc()
            raise TooManyTasks(self._settings.tasks_queued_max, RETRY_AFTER_S)
        masker = Masker()
        secrets = list(secret_paths(validated))
        for _, secret in secrets:
            masker.add(secret)
        # What is declared secret, wherever it stands again, and passwords in URLs.
        shown = masker.value(without_secrets(given, [path for path, _ in secrets]))
        task = Task(self._new_id(), loaded.name, shown, TaskStatus.QUEUED, timestamp_now(), retry_of=retry_of)
        live = LiveTask(task, loaded, validated, masker, self.store, self._journal, self._settings, self._metrics)
        # From here on it counts, in the step in which there was room: others ask before it is stored.
        self._accepting.add(task.id)
        accepting = self._watch(self._accept(live, list(differing(given, shown))), f"accept {task.id}")
        # Also where it is cancelled before it begins.
        accepting.add_done_callback(lambda _: self._accepting.discard(task.id))
        # Whoever asked may leave: a stored task must still come to live.
        return await asyncio.shield(accepting)

    async def _accept(self, live: LiveTask, hidden: list[str]) -> Task:
        await self.store.create_task(live.row, hidden)
        self._accepting.discard(live.row.id)
        self._live[live.row.id] = live
        self._metrics.tasks_accepted.labels(live.plugin.name).inc()
        if self._stopping.is_set():
            self._end_queued(live, TaskStatus.INTERRUPTED)
        else:
            self._queued.add(live.plugin.name, live)
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
        if self._queued.remove(live.plugin.name, live):
            self._end_queued(live, TaskStatus.CANCELLED)
            # Bounded: where the store does not take the end, the task is still shown as queued.
            await first(live.ended.wait(), timeout_s=CANCEL_WAIT_S)
        else:
            live.ask_to_stop(TaskStatus.CANCELLED)
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
        hidden = await self.store.secret_paths(task_id)
        missing = [path for path in hidden if value_at(merged, path) == value_at(task.params, path)]
        if missing:
            message = "secret, and so not stored: give it again"
            raise ParamsInvalid(task.plugin, [{"path": f"params.{path}", "message": message} for path in missing])
        return await self.submit(task.plugin, merged, retry_of=task_id)

    async def delete(self, task_id: str) -> None:
        """
        Delete an ended task and its files and, in the background, its log.

        Raises `TaskNotFound`, and `TaskConflict` while it runs.
        """
        task = await self.task(task_id)
        if not task.status.ended:
            raise TaskConflict(f"Task {task_id} has not ended ({task.status}); cancel it before deleting it.")
        await self._deletions.delete([task_id])

    # Running them

    def _start_waiting(self) -> None:
        while self._queued and len(self._running) < self._settings.tasks_running_max and not self._stopping.is_set():
            live = self._queued.take()
            self._running.add(live.row.id)
            self._begin(live)

    def _begin(self, live: LiveTask) -> None:
        life = self._watch(live.live(), f"task {live.row.id}")
        life.add_done_callback(lambda _: self._forget(live))

    def _end_queued(self, live: LiveTask, stop_as: TaskStatus) -> None:
        """End a task that was only queued: asked to stop, its life is its end."""
        live.ask_to_stop(stop_as)
        self._begin(live)

    def _forget(self, live: LiveTask) -> None:
        # One step with the next, or a total would fall and rise again.
        del self._live[live.row.id]
        self._ended.setdefault(live.plugin.name, Tally()).add(live.tally)
        self._running.discard(live.row.id)
        live.ended.set()
        self._start_waiting()

    def _watch(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run it as a named task that does not die in silence."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._watched)
        return task

    def _watched(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, TaskdError):
            _log.error("%s died, which is a fault in taskd", task.get_name(), exc_info=error)

    # The end of all

    async def stop(self, hurry: asyncio.Event) -> None:
        """
        End every task: those that run have `shutdown_grace_s` to finish by themselves, and after
        being cancelled `shutdown_deadline_s`. Setting `hurry` cuts the waiting short.

        What is then still there becomes `interrupted` and is left behind. The store has as long
        again to take what is pending; what it does not take is not shown as ended. Idempotent.
        """
        self._stopping.set()
        for live in self._queued.clear():
            self._end_queued(live, TaskStatus.INTERRUPTED)
        await self._all_ended(self._settings.shutdown_grace_s, hurry)
        for live in list(self._live.values()):
            live.ask_to_stop(TaskStatus.INTERRUPTED)
        await self._all_ended(self._settings.shutdown_deadline_s, hurry)
        self._left_behind += [live for live in self._live.values() if live.leave_behind()]
        await self._all_ended(self._settings.shutdown_flush_s)
        for live in list(self._live.values()):
            live.writer.abandon()
        await self._all_ended(ABANDON_WAIT_S)

    async def _all_ended(self, timeout_s: float, hurry: asyncio.Event | None = None) -> None:
        async def every_one() -> None:
            while self._live:
                await next(iter(self._live.values())).ended.wait()
                await asyncio.sleep(0)  # it is forgotten in the next turn

        await first(every_one(), (hurry or asyncio.Event()).wait(), timeout_s=timeout_s)


def _as_json(plugin: str, params: dict[str, Any]) -> Any:
    """Return a copy of the params made of what JSON has. Raises `ParamsInvalid`."""
    try:
        if faults := list(faults_in(params, "params")):
            raise ParamsInvalid(plugin, faults)
        return orjson.loads(orjson.dumps(params))
    except (TypeError, RecursionError, orjson.JSONEncodeError) as error:
        raise ParamsInvalid(plugin, [{"path": "params", "message": f"not JSON: {error}"}]) from error
