"""Make tasks and entries for a store, and read them back."""

from collections.abc import Iterable

from taskd.entries import Level, LogEntry, timestamp_of
from taskd.persistence.base import LogPersistenceService, Span
from taskd.query.filters import LogFilter
from taskd.tasks import Task, TaskEnd, TaskStatus, new_task_id

START_US = 1_795_000_000_000_000
ENDED = TaskEnd(TaskStatus.SUCCEEDED, timestamp_of(START_US + 9_000_000), '{"n":1}')
ALL = LogFilter()


def new_task(plugin: str = "mine") -> Task:
    """Return a queued task that no store has yet."""
    return Task(new_task_id(), plugin, {"a": [1, "ä"]}, TaskStatus.QUEUED, timestamp_of(START_US))


def entry(seq: int, message: str = "said", level: Level = Level.INFO, source: str = "mine") -> LogEntry:
    """Return an entry whose time follows from its seq."""
    return LogEntry.make(seq, timestamp_of(START_US + seq * 1_000), level, source, message, b'{"n":%d}' % seq)


def entries(seqs: Iterable[int]) -> list[LogEntry]:
    """Return an entry for each seq."""
    return [entry(seq) for seq in seqs]


async def stored(store: LogPersistenceService, task_id: str, log_filter: LogFilter = ALL) -> list[LogEntry]:
    """Return every match in a stored log."""
    page, more = await store.page(
        task_id, log_filter, Span(), order="asc", offset=0, limit=100_000, bytes_max=1_000_000_000
    )
    assert not more
    return page


async def created(store: LogPersistenceService, plugin: str = "mine") -> str:
    """Store a new task and return its id."""
    task = new_task(plugin)
    await store.create_task(task, [])
    return task.id
