"""
`TaskManager`: takes tasks, lets so many of them run, and answers for all of them.

A task that has not ended is a `LiveTask`; what is known of one that has ended is in the store.
Accepted tasks wait in a queue, bounded, and run in order, at most `tasks_running_max` at once.

Their lives are asyncio tasks in a set, not in an `asyncio.TaskGroup`: a group does not return
while a stubborn child runs. Whatever a plugin does ends its own task and reaches no other.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine
from typing import Any, TypeVar

import orjson

from taskd.deletions import Deletions
from taskd.entries import timestamp_now
from taskd.errors import ParamsInvalid, Stopping, TaskConflict, TaskdError, TooManyTasks
from taskd.journal import Journal
from taskd.live import LiveTask
from taskd.masking import Masker
from taskd.persistence.base import LogPersistenceService, TaskFilter
from taskd.plugins import PluginRegistry
from taskd.secrets import differing, secret_paths, value_at, without_secrets
from taskd.settings import Settings
from taskd.tasks import Task, TaskStatus, new_task_id
from taskd.waiting import first
from taskd.writer import LogWriter

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
        deletions: Deletions,
    ) -> None:
        self.store = store
        self.page_bytes_max = settings.page_bytes_max
        self._settings = settings
        self._journal = journal
        self._plugins = plugins
        self._deletions = deletions
        self._live: dict[str, LiveTask] = {}
        self._queued: deque[LiveTask] = deque()
        self._running: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._left_behind: list[LiveTask] = []
        self._accepting = 0
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
        return sorted({live.store_fault for live in self._live.values() if live.store_fault})

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
        then there is no task. May be cancelled; the task may then have been accepted.
        """
        if self._stopping.is_set():
            raise Stopping
        loaded = self._plugins[plugin]
        given = _as_json(loaded.name, params)
        validated = loaded.validate(given)
        if len(self._queued) + self._accepting >= self._settings.tasks_queued_max:
            raise TooManyTasks(self._settings.tasks_queued_max, RETRY_AFTER_S)
        masker = Masker()
        secrets = list(secret_paths(validated))
        for _, secret in secrets:
            masker.add(secret)
        # What is declared secret, wherever it stands again, and passwords in URLs.
        shown = masker.value(without_secrets(given, [path for path, _ in secrets]))
        task = Task(new_task_id(), loaded.name, shown, TaskStatus.QUEUED, timestamp_now(), retry_of=retry_of)
        live = LiveTask(task, loaded, validated, masker, self.store, self._journal, self._settings)
        # Whoever asked may leave: a stored task must still come to live.
        return await asyncio.shield(self._watch(self._accept(live, list(differing(given, shown))), f"accept {task.id}"))

    async def _accept(self, live: LiveTask, hidden: list[str]) -> Task:
        self._accepting += 1
        try:
            await self.store.create_task(live.row, hidden)
        finally:
            self._accepting -= 1
        self._live[live.row.id] = live
        if self._stopping.is_set():
            self._end_queued(live, TaskStatus.INTERRUPTED)
        else:
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
            live = self._queued.popleft()
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
        del self._live[live.row.id]
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
        error = None if task.cancelled() else task.exception()
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
        queued, self._queued = list(self._queued), deque()
        for live in queued:
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

    @property
    def stubborn(self) -> bool:
        """True where plugin code still runs that was told to stop: the interpreter cannot end by itself."""
        return any(live.running is not None and not live.running.done() for live in self._left_behind)

    async def _all_ended(self, timeout_s: float, hurry: asyncio.Event | None = None) -> None:
        async def every_one() -> None:
            while self._live:
                await next(iter(self._live.values())).ended.wait()
                await asyncio.sleep(0)  # it is forgotten in the next turn

        await first(every_one(), (hurry or asyncio.Event()).wait(), timeout_s=timeout_s)


def _as_json(plugin: str, params: dict[str, Any]) -> Any:
    """A copy of the params made of what JSON has. Raises `ParamsInvalid`."""
    try:
        return orjson.loads(orjson.dumps(params))
    except (TypeError, RecursionError, orjson.JSONEncodeError) as error:
        raise ParamsInvalid(plugin, [{"path": "params", "message": f"not JSON: {error}"}]) from error
