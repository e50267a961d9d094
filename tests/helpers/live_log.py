"""Run one task's log without a manager, and read it slowly and with reconnections."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from taskd.entries import Level, LogEntry
from taskd.journal.journal import Journal
from taskd.log.hub import LogHub
from taskd.log.logger import TaskLogger
from taskd.log.queue import LogQueue
from taskd.log.writer import LogWriter
from taskd.persistence.base import LogPersistenceService
from taskd.query.filters import LogFilter
from taskd.reading.follow import CaughtUp, End, Entries, Event, follow
from taskd.settings import Settings
from taskd.stores import open_persistence
from taskd.tasks import Task, TaskEnd, TaskStatus, new_task_id

END = TaskEnd(TaskStatus.SUCCEEDED, "2026-11-23T14:00:00.000000Z")
FILTERS = [
    LogFilter(),
    LogFilter(levels=frozenset({Level.ERROR})),
    LogFilter(sources=("a", "b.*")),
    LogFilter(search=("7",), exclude=("3",)),
    LogFilter(search=("ОШИБКА",)),
    LogFilter(search=("nobody says this",)),
]


class UnevenStore:
    """A real store whose calls wait a random time before and after their work."""

    def __init__(self, store: LogPersistenceService, rng: random.Random) -> None:
        self._store = store
        self._rng = rng

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def unevenly(*args: Any, **kwargs: Any) -> Any:
            await pause(self._rng)
            result = await method(*args, **kwargs)
            await pause(self._rng)
            return result

        return unevenly


class LiveLog:
    """One task's log without a manager: its queue, its writer and its hub."""

    page_bytes_max = 2_000

    def __init__(self, store: LogPersistenceService, settings: Settings, journal: Journal | None = None) -> None:
        self.store = store
        self.task_id = new_task_id()
        self.hub = LogHub(settings.subscriber_queue_max, settings.subscriber_bytes_max)
        part = journal.task(self.task_id) if journal else None
        self.queue = LogQueue(settings, self._show_progress, journal=part)
        self.logger = TaskLogger(self.queue, "a")
        self.ended = asyncio.Event()
        self._writer: LogWriter | None = LogWriter(self.task_id, self.queue, self.hub, store, settings)

    def _show_progress(self, source: str, progress: dict[str, Any]) -> None:
        if self._writer is not None:
            self._writer.show_progress(source, progress)

    def writer(self, task_id: str) -> LogWriter | None:
        """Return the writer, or None after the log has ended, as `TaskManager.writer` does."""
        return self._writer

    async def create(self) -> None:
        """Store the task: a store takes entries of stored tasks only."""
        await self.store.create_task(Task(self.task_id, "mine", {}, TaskStatus.QUEUED, END.finished_at), [])

    async def run(self) -> None:
        """Write the log until its end is stored and published."""
        assert self._writer is not None
        await self._writer.run()
        self._writer = None
        self.hub.end(await self.store.task(self.task_id))
        self.ended.set()

    def left_over(self) -> list[asyncio.Task[Any]]:
        """Return the asyncio tasks that the writer has started: a crash ends them too."""
        names = (f"flush {self.task_id}", f"append {self.task_id}")
        return [task for task in asyncio.all_tasks() if task.get_name() in names]

    def end(self) -> None:
        """Let `run` finish."""
        if self._writer is not None:
            self._writer.end(END)


@asynccontextmanager
async def live_log(tmp_path: Path, rng: random.Random | None = None, **settings: Any) -> AsyncIterator[LiveLog]:
    """Run a log; on leaving, end it and wait until it is stored."""
    chosen = Settings(data_dir=tmp_path, **settings)
    async with open_persistence(chosen) as store:
        log = LiveLog(UnevenStore(store, rng) if rng else store, chosen)
        await log.create()
        running = asyncio.create_task(log.run())
        try:
            yield log
        finally:
            log.end()
            await running


async def pause(rng: random.Random) -> None:
    """Wait for a random time: usually a turn of the loop or two, sometimes a few milliseconds."""
    if rng.random() < 0.1:
        await asyncio.sleep(rng.random() * 0.004)
    for _ in range(rng.randrange(3)):
        await asyncio.sleep(0)


async def emit(log: LiveLog, rng: random.Random, count: int) -> None:
    """Log random entries in bursts, with a flush now and then."""
    for number in range(count):
        logger = log.logger.with_source(rng.choice(["a", "b", "b.c", "bc"]))
        logger.log(rng.choice(list(Level)), f"{rng.choice(['said', 'ошибка'])} {number}", n=number)
        if rng.random() < 0.2:
            await pause(rng)
        if rng.random() < 0.02:
            await log.logger.drain()


async def read(
    log: LiveLog, rng: random.Random, log_filter: LogFilter, slow: bool, seen: list[LogEntry] | None = None
) -> list[LogEntry]:
    """Follow to the end, reconnect with `after` at random, and return the entries."""
    seen = [] if seen is None else seen
    after = 0
    while True:
        page_entries = rng.randrange(1, 30)
        async with aclosing(follow(log, log.task_id, log_filter, after=after, page_entries=page_entries)) as events:
            async for event in events:
                if isinstance(event, Entries):
                    seen += event.entries
                    after = event.entries[-1].seq
                if isinstance(event, CaughtUp):
                    after = event.last_seq
                if isinstance(event, End):
                    return seen
                if slow:
                    await pause(rng)
                if slow and rng.random() < 0.02:
                    await log.ended.wait()
                if rng.random() < 0.05:
                    break


async def first(events: Any, kind: type[Event]) -> Any:
    """Return the next event of a kind."""
    async for event in events:
        if isinstance(event, kind):
            return event
    raise AssertionError(f"the log ended without {kind}")
