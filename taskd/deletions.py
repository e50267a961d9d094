"""
`Deletions`: tasks that are deleted, by a person or by retention, with their logs and their files.

    hidden ──► files ──► entries and indexes, in bites ──► gone

From the first step on the task is not there for anybody, and nothing takes it back. What follows
is done in the background, one deletion after another. The row goes last: after a death at any
point the next start finds it hidden, and does the rest.

Who reads the log at that moment keeps what was sent; the next page is a 404, a live view closes
with 1008, an export ends with `complete: false`. Nobody sees an end with entries missing.
"""

import asyncio
import contextlib
import logging
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path

from taskd.errors import StoreError
from taskd.persistence.base import LogPersistenceService
from taskd.supervision import Supervisor
from taskd.threads import in_thread

RETRY_S = 2.0
# Tasks whose rows are deleted before the next are looked at.
ROUND_TASKS_MAX = 500

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
        self._work = asyncio.Event()
        self._done = asyncio.Event()
        self._done.set()

    async def delete(self, task_ids: Sequence[str]) -> int:
        """
        Hide those of the tasks that have ended, delete their files, and leave the rest to `run`.

        How many there were. Raises `StoreError`; then nothing has happened.
        """
        hidden = await self._store.hide_tasks(task_ids)
        await self._begin(hidden)
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

    async def _begin(self, hidden: Sequence[str]) -> None:
        # Before their rows go: the journal may still have entries of them, which a death must not bring back.
        self._forget(hidden)
        try:
            await in_thread(partial(self._remove_files, hidden), name="deletion of files")
        finally:
            # Also where whoever asked has gone: nothing takes a deletion back.
            self._due += hidden
            self._done.clear()
            self._work.set()

    def _remove_files(self, task_ids: Sequence[str]) -> None:
        for task_id in task_ids:
            shutil.rmtree(self._tasks_dir / task_id, ignore_errors=True)

    async def _resume(self) -> None:
        while True:
            try:
                await self._begin(await self._store.hidden_tasks())
                return
            except StoreError as error:
                _log.debug("deletions are resumed later: %s", error)
                await asyncio.sleep(RETRY_S)

    async def _purge(self) -> None:
        while self._due:
            some = self._due[:ROUND_TASKS_MAX]
            try:
                await self._store.purge(some)
                del self._due[: len(some)]
                if not self._due:
                    await self._store.give_back()
            except StoreError as error:
                # The store fails or is locked, and who writes entries says so; here it can wait.
                _log.debug("%d tasks are deleted later: %s", len(self._due), error)
                await asyncio.sleep(RETRY_S)


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
