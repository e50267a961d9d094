"""
`Deletions`: tasks that are deleted, by a person or by retention, with their logs and their files.

    hidden ──► files ──► entries and indexes, in bites ──► gone

From the first step on the task is not there for anybody, and nothing takes it back. What follows
is done in the background, one deletion after another. The row goes last: after a death at any
point the next start finds it hidden, and does the rest.

Files are removed in a thread, by descriptor, to any depth, and read-only directories too. Files that
cannot be removed keep no other deletion back: a warning and a notice in health name them.

Who reads the log at that moment keeps what was sent; the next page is a 404, a live view closes
with 1008, an export ends with `complete: false`. Nobody sees an end with entries missing.
"""

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path

from taskd.errors import StoreError
from taskd.persistence.base import LogPersistenceService
from taskd.system.supervision import Supervisor
from taskd.system.threads import in_thread
from taskd.system.trees import SCARCE, remove_tree

# The first pause after a failure of the store, and the longest.
RETRY_FIRST_S, RETRY_S = 0.1, 2.0
# Tasks whose rows are deleted before the next are looked at.
ROUND_TASKS_MAX = 500
# Deleted tasks with files left: how many are remembered, and how many of them a notice names.
LEFT_MAX = 1_000
NOTICED_MAX = 3
FILES_LEFT = "files are left: "

_log = logging.getLogger("taskd.deletions")


class Deletions:
    """The deletions of one service. `run` until it is cancelled."""

    def __init__(
        self, store: LogPersistenceService, tasks_dir: Path, forget: Callable[[Sequence[str]], None] = lambda ids: None
    ) -> None:
        self._store = store
        self._forget = forget
        self._tasks_dir = tasks_dir
        self._due: list[str] = []
        # Why the files, or the row, of a deleted task are left.
        self._left: dict[str, str] = {}
        self._work = asyncio.Event()
        self._done = asyncio.Event()
        self._done.set()

    @property
    def notices(self) -> list[str]:
        """Deletions since the start that left something, in words."""
        if not self._left:
            return []
        named = "; ".join(f"{task_id}: {why}" for task_id, why in [*self._left.items()][:NOTICED_MAX])
        more = len(self._left) - NOTICED_MAX
        return [
            f"{len(self._left):,} deleted {'task is' if len(self._left) == 1 else 'tasks are'} not wholly gone: {named}"
            f"{f'; and {more:,} more' if more > 0 else ''}. Remove the rest in {self._tasks_dir} by hand."
        ]

    async def delete(self, task_ids: Sequence[str]) -> int:
        """
        Hide those of the tasks that have ended, delete their files, and leave the rest to `run`.

        How many there were. Raises `StoreError`; then nothing has happened.
        """
        hidden = await self._store.hide_tasks(task_ids)
        try:
            await self._remove_files(hidden)
        except RuntimeError as error:
            _log.debug("no thread can be started: %s", error)
        finally:
            # Also if the caller is cancelled: nothing takes a deletion back, and `run` removes the other files.
            self._add(hidden)
        return len(hidden)

    async def settled(self) -> None:
        """Wait until nothing is left to delete."""
        await self._done.wait()

    async def run(self) -> None:
        """Delete what is hidden, for ever; first what a process left that died. May be cancelled at any point."""
        await self._resume()
        while True:
            await self._work.wait()
            self._work.clear()
            await self._purge()
            if not self._due:
                self._done.set()

    def _add(self, hidden: Sequence[str]) -> None:
        # Before their rows go: the journal may still have entries of them, which a death must not bring back.
        self._forget(hidden)
        self._due += hidden
        self._done.clear()
        self._work.set()

    async def _remove_files(self, task_ids: Sequence[str]) -> None:
        """Remove the files of these tasks. Raises `RuntimeError` if there is no thread or no descriptor for it."""
        stop = threading.Event()
        remove = partial(self._remove_directories, task_ids, stop)
        left = await in_thread(remove, name="deletion of files", stop=stop.set)
        for task_id in task_ids:
            if task_id in left:
                self._note(task_id, FILES_LEFT + left[task_id])
            elif self._left.get(task_id, "").startswith(FILES_LEFT):  # a second look found them removable
                del self._left[task_id]

    def _remove_directories(self, task_ids: Sequence[str], stop: threading.Event) -> dict[str, str]:
        """In a thread. Return the tasks of which files are left, each with the reason. Raises `RuntimeError`."""
        try:
            directory = os.open(self._tasks_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return {}
        except OSError as error:
            if error.errno in SCARCE:
                raise RuntimeError(f"{self._tasks_dir} cannot be opened now: {error}") from error
            return dict.fromkeys(task_ids, f"{self._tasks_dir} cannot be opened ({error.strerror})")
        try:
            lefts = ((task_id, _removed(task_id, directory, stop)) for task_id in task_ids if not stop.is_set())
            return {task_id: left for task_id, left in lefts if left}
        finally:
            os.close(directory)

    async def _resume(self) -> None:
        retry_s = min(RETRY_FIRST_S, RETRY_S)
        while True:
            try:
                self._add(await self._store.hidden_tasks())
                return
            except StoreError as error:
                _log.debug("deletions are resumed later: %s", error)
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, RETRY_S)

    async def _purge(self) -> None:
        retry_s = min(RETRY_FIRST_S, RETRY_S)
        while self._due:
            some = self._due[:ROUND_TASKS_MAX]
            try:
                await self._remove_files(some)
                await self._purge_rows(some)
                del self._due[: len(some)]
                if not self._due:
                    await self._store.give_back()
            except (StoreError, RuntimeError) as error:
                # The store fails or is locked, and who writes entries says so; here it can wait.
                _log.debug("%d tasks are deleted later: %s", len(self._due), error)
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, RETRY_S)

    async def _purge_rows(self, task_ids: Sequence[str]) -> None:
        """Delete all at once, or those that can be if one of them raises an error that no retry mends."""
        try:
            await self._store.purge(task_ids)
        except StoreError:
            raise
        except Exception as error:
            _log.debug("%d tasks are deleted one by one: %r", len(task_ids), error)
            for task_id in task_ids:
                await self._purge_row(task_id)

    async def _purge_row(self, task_id: str) -> None:
        try:
            await self._store.purge([task_id])
        except StoreError:
            raise
        except Exception as error:
            self._note(task_id, f"its log is left until the next start ({error!r:.200})")

    def _note(self, task_id: str, why: str) -> None:
        if self._left.get(task_id) != why:
            if len(self._left) == LEFT_MAX:
                del self._left[next(iter(self._left))]
            self._left[task_id] = why
            _log.warning("task %s is deleted, but %s", task_id, why)


def _removed(task_id: str, directory: int, stop: threading.Event) -> str:
    """Remove a task's directory; return why something of it is left, or nothing. Raises `RuntimeError`."""
    try:
        left = remove_tree(task_id, dir_fd=directory, stop=stop.is_set)
    except Exception as error:  # one task must not keep the files of the others
        return f"{error!r:.200}"
    if left.scarce:
        raise RuntimeError(f"files cannot be removed now: {left}")
    return str(left)


@contextlib.asynccontextmanager
async def deleting(
    store: LogPersistenceService,
    tasks_dir: Path,
    supervisor: Supervisor,
    forget: Callable[[Sequence[str]], None] = lambda ids: None,
) -> AsyncIterator[Deletions]:
    """Deletions that are done until this is left. `forget` is given the tasks before their rows go."""
    deletions = Deletions(store, tasks_dir, forget)
    async with supervisor.running("deletions", deletions.run):
        yield deletions
