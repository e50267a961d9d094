"""
`LogPersistenceService`: what taskd needs of a store, method by method.

`tests/persistence/test_contract.py` holds every backend to it. Three things matter most:

- Appending is idempotent by `(task_id, seq)`: a batch whose commit was not heard of may be
  appended again.
- An append is all or nothing, together with the counts, the progress and the end that come
  with it.
- What was committed is seen by every read that begins afterwards.

Errors are `taskd.errors.StoreError`, of which `StoreUnavailable` means that the same call may
work later and `StoreCorrupt` that the database is damaged, and `TaskNotFound`.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from taskd.entries import LogEntry
from taskd.query.counts import LogCounts, Stats
from taskd.query.filters import LogFilter
from taskd.query.outline import Outline
from taskd.query.parameters import Order
from taskd.tasks import Task, TaskEnd, TaskStatus


@dataclass(frozen=True, slots=True)
class Span:
    """Which part of a log: seqs above `after` and, where given, below `before`."""

    after: int = 0
    before: int | None = None


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks: an empty field asks nothing. `before` is an id: only older tasks."""

    status: TaskStatus | None = None
    plugin: str | None = None
    ending: str | None = None
    before: str | None = None


class LogPersistenceService(Protocol):
    """Stores tasks and their logs."""

    url: str
    # What the operator should know of how it was opened, in sentences.
    notices: list[str]
    # Set where the database turns out to be damaged. Close it, and set it aside.
    corrupt: asyncio.Event

    @property
    def fault(self) -> str | None:
        """What is wrong with the store as a whole, in words; None where nothing is known to be."""

    @property
    def notice(self) -> str | None:
        """What an operator should know and do, though the store works; None where there is nothing."""

    async def create_task(self, task: Task, secret_paths: Sequence[str]) -> None:
        """Store a new task, as queued. `secret_paths` name the params that are stored as `"***"`."""

    async def start_task(self, task_id: str, started_at: str) -> None:
        """Store that a queued task runs."""

    async def append(
        self,
        task_id: str,
        entries: Sequence[LogEntry],
        *,
        progress: dict[str, Any] | None = None,
        end: TaskEnd | None = None,
    ) -> None:
        """
        Store entries with consecutive seqs that begin at most one above the last stored, the
        task's newest progress, and the task's end where it is given; all in one transaction.

        What is stored already is left as it is. Raises `TaskNotFound` where there is no such
        task, and `ValueError` where a hole in the seqs would be left. May be cancelled; the
        entries may then be stored all the same.
        """

    async def hide_tasks(self, task_ids: Sequence[str]) -> list[str]:
        """
        Begin to delete tasks: those that have ended, which are returned, are not there any more.

        Others, and those that are hidden already, are left as they are.
        """

    async def hidden_tasks(self) -> list[str]:
        """The tasks whose deletion was begun and is not finished."""

    async def purge(self, task_ids: Sequence[str]) -> None:
        """Delete hidden tasks with their logs, in bites beside what is stored meanwhile. May be done again."""

    async def give_back(self) -> None:
        """Give the disk back what deleting has left free, as far as that is worth it; in bites too."""

    async def used_bytes(self) -> int:
        """Bytes of the disk that hold something."""

    async def count_tasks(self) -> int:
        """How many tasks there are."""

    async def oldest_ended(self, limit: int, ended_before: str | None = None) -> list[str]:
        """
        Ended tasks, those first that were created first; with `ended_before`, those that were
        both created and ended before that time.
        """

    async def newest_timestamp(self) -> str | None:
        """The greatest timestamp of an entry; None where there is none."""

    async def newest_task_id(self) -> str | None:
        """The greatest id of a task, hidden ones included; None if there is none."""

    async def task(self, task_id: str) -> Task:
        """The task. Raises `TaskNotFound`."""

    async def secret_paths(self, task_id: str) -> list[str]:
        """The params of the task that were secret, and are stored as `"***"`."""

    async def tasks(self, task_filter: TaskFilter, limit: int, bytes_max: int) -> tuple[list[Task], bool]:
        """
        The newest tasks that match, at most `limit`, and whether there are more.

        It ends behind the one whose params and result reach `bytes_max`, so there is always one.
        """

    async def unended_tasks(self) -> list[Task]:
        """The tasks stored as queued or running: after a start, those that a crash left."""

    async def page(
        self,
        task_id: str,
        log_filter: LogFilter,
        span: Span,
        *,
        order: Order,
        offset: int,
        limit: int,
        bytes_max: int,
    ) -> tuple[list[LogEntry], bool]:
        """
        Matches in `order`, after `offset` of them, at most `limit` and `bytes_max` bytes (one
        entry may exceed it); and whether there are more.

        Raises `TaskNotFound`, as all that follows does but `counts`, where there is no such task
        (any more): what is being deleted must not look like a log that ends here.
        """

    async def count(self, task_id: str, log_filter: LogFilter, span: Span) -> int:
        """How many matches there are."""

    async def nth_last(self, task_id: str, log_filter: LogFilter, n: int, before: int) -> int | None:
        """The seq of the n-th last match below `before`; of the first where there are fewer; None for none."""

    async def counts(self, task_id: str) -> LogCounts:
        """The kept counts of all that is stored of the log."""

    async def outline(self, task_id: str, log_filter: LogFilter, span: Span, outline: Outline) -> None:
        """Add the matches to `outline`, which has none with greater seqs."""

    async def stats(self, task_id: str, log_filter: LogFilter, span: Span) -> Stats:
        """What the matches are, by a scan."""
