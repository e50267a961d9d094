"""
What a start does about the death before it: the journal is stored, and orphans become `interrupted`.

Both may be interrupted anywhere, by another death too, and done again: entries are stored by
`(task_id, seq)`, ends and orphans by their status, and the journal is removed when all of it is
stored. Where the store is locked or full, the start waits for a while with growing pauses, and is
then given up; the journal keeps what it has.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from taskd.entries import SYSTEM, Level, LogEntry, timestamp_now
from taskd.errors import StoreCorrupt, StoreUnavailable, TaskNotFound
from taskd.journal import segments
from taskd.journal.segments import Recovered
from taskd.persistence.base import LogPersistenceService
from taskd.persistence.sqlite.corruption import stamp_now
from taskd.query.filters import LogFilter
from taskd.runtime.strays import Strays
from taskd.system.threads import in_thread
from taskd.tasks import TaskEnd, TaskStatus

RECOVERY_BATCH = 10_000
DELAY_S, DELAY_MAX_S = 0.1, 2.0

T = TypeVar("T")
_log = logging.getLogger("taskd.recovery")


class Patience:
    """Tries again what the store cannot do now, until `wait_s` are over; says once that it waits."""

    def __init__(self, wait_s: float = 0.0) -> None:
        self._wait_s = wait_s
        self._until = time.monotonic() + wait_s
        self._told = False

    async def __call__(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The outcome of `attempt`. Raises `StoreUnavailable` when the time is up."""
        delay_s = DELAY_S
        while True:
            try:
                return await attempt()
            except StoreUnavailable as error:
                if time.monotonic() >= self._until:
                    raise StoreUnavailable(
                        f"{error} The start was given up after {self._wait_s:g} s; the journal keeps what it has."
                    ) from error
                self._tell(error)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, DELAY_MAX_S)

    def _tell(self, error: StoreUnavailable) -> None:
        if not self._told:
            self._told = True
            _log.warning("The start waits for the database, at most %g s: %s", self._wait_s, error)


async def recover_journal(directory: Path, store: LogPersistenceService, patience: Patience | None = None) -> list[str]:
    """
    Store what a process that died had accepted and not yet committed, and the ends of its tasks.

    Entries of tasks that were deleted are let go, and those of tasks that the store does not know are
    kept beside (`taskd.runtime.strays`). Returns what the operator should know, in sentences. Raises
    `StoreError`, `JournalNewer` and `JournalUnreadable`; the journal is then as it was.
    """
    patience = patience or Patience()
    notices: list[str] = []
    deleted = segments.deleted_in(directory) | {*await patience(store.hidden_tasks)}
    with Strays(directory.parent, deleted) as strays:
        recovered = await _recover(segments.recover(directory, notices), store, patience, strays)
        notices += filter(None, [await in_thread(partial(strays.keep, stamp_now()), name="journal reading")])
    segments.clear(directory)
    if recovered:
        _log.info("The last process died; %d entries that it had accepted were read from its journal", recovered)
    return notices


async def _recover(
    bites: Iterator[list[Recovered]], store: LogPersistenceService, patience: Patience, strays: Strays
) -> int:
    """Store all bites, or give them to `strays`; how many entries they had."""
    recovered = 0
    tasks: list[Recovered] | None = []
    while tasks is not None:
        # The next bite is read, in a thread, while this one is stored.
        reading = asyncio.create_task(
            in_thread(lambda: next(bites, None), name="journal reading"), name="journal reading"
        )
        # All are waited for: none may go on when the store is closed because another failed.
        stored = await asyncio.gather(
            *[_append_recovered(store, task, patience) for task in tasks], return_exceptions=True
        )
        unknown = [task for task, outcome in zip(tasks, stored, strict=True) if isinstance(outcome, TaskNotFound)]
        for task in unknown:
            await in_thread(partial(strays.add, task), name="journal reading")
        tasks = await reading
        for outcome in stored:
            if isinstance(outcome, BaseException) and not isinstance(outcome, TaskNotFound):
                raise outcome
            recovered += 0 if isinstance(outcome, BaseException) else outcome
    return recovered


async def _append_recovered(store: LogPersistenceService, task: Recovered, patience: Patience) -> int:
    """Store what is not stored yet; how many entries the journal had. Raises `TaskNotFound`."""
    last_seq = (await patience(lambda: store.task(task.task_id))).last_seq
    new = _without_holes(task, last_seq)
    while batch := [*islice(new, RECOVERY_BATCH)]:
        await _append(store, task.task_id, batch, None, patience)
    if task.end is not None:
        await _append(store, task.task_id, [], task.end, patience)
    return len(task.entries)


async def _append(
    store: LogPersistenceService, task_id: str, entries: Sequence[LogEntry], end: TaskEnd | None, patience: Patience
) -> None:
    try:
        await patience(lambda: store.append(task_id, entries, end=end))
    except ValueError as error:
        # It has just said which entry is the last, and now another one is.
        raise StoreCorrupt(f"The database is damaged: it contradicts itself about task {task_id}: {error}") from error


def _without_holes(task: Recovered, last_seq: int) -> Iterator[LogEntry]:
    """
    The entries after `last_seq`; in the place of each that is missing, one that says so.

    One is missing only where the journal was full, could not be written, as health then said, or
    was damaged.
    """
    for entry in task.entries:
        if entry.seq > last_seq + 1:
            yield from _lost(last_seq + 1, entry.seq, entry.timestamp)
        if entry.seq > last_seq:
            yield entry
            last_seq = entry.seq
    if task.end is not None:
        yield from _lost(last_seq + 1, task.last_seq + 1, task.end.finished_at)


def _lost(start: int, stop: int, timestamp: str) -> Iterator[LogEntry]:
    message = "lost: this entry was neither stored nor in the journal, which was full or damaged, when taskd died"
    for seq in range(start, stop):
        yield LogEntry.make(seq, timestamp, Level.ERROR, SYSTEM, message, b'{"dropped":1}')


async def interrupt_orphans(store: LogPersistenceService, patience: Patience | None = None) -> None:
    """
    End what a process left that died: as `interrupted`, with an entry that says so.

    Exactly once: entry and status are one transaction, after which the task is no orphan. When it
    ended nobody knows; it was there when it said its last word, and that counts as its end.
    """
    patience = patience or Patience()
    for task in await patience(store.unended_tasks):
        was = "running" if task.status is TaskStatus.RUNNING else "waiting to run"
        now = finished_at = timestamp_now()
        message = f"interrupted: the task was {was} when taskd stopped without ending it"
        if task.started_at is not None:
            last = (await store.counts(task.id)).stats(LogFilter()).last_timestamp
            finished_at = max(task.started_at, last or "")
            message += f"; it was last heard of at {finished_at}"
        entry = LogEntry.make(task.last_seq + 1, now, Level.ERROR, SYSTEM, message, None)
        await _append(store, task.id, [entry], TaskEnd(TaskStatus.INTERRUPTED, finished_at, None, message), patience)
