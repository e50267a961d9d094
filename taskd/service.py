"""
`Service`: opens everything in order and closes it in reverse. The only place where the parts meet.

    data directory held → store open → journal recovered → orphans interrupted → journal begun
    → capture → plugins → deletions → manager → watchdog → retention → ready

Stopping: new tasks are refused; running ones finish, or are cancelled, or are left behind;
every writer ends with all stored; readers whose log has ended get its end, and the others are
sent away to come back; the store closes. Each step is idempotent.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from taskd import journal, shipped
from taskd.capture import capture_installed
from taskd.context import tasks_dir
from taskd.deletions import Deletions, deleting
from taskd.entries import Level, LogEntry, timestamp_now
from taskd.errors import DataDirHeld, StoreError, TaskNotFound
from taskd.filters import LogFilter
from taskd.journal import Journal
from taskd.manager import TaskManager
from taskd.metrics import Metrics
from taskd.persistence import LogPersistenceService, open_persistence
from taskd.plugins import PluginRegistry
from taskd.queue import SYSTEM
from taskd.retention import Retention, retaining
from taskd.settings import Settings
from taskd.tasks import TaskEnd, TaskStatus
from taskd.version import __version__
from taskd.watchdog import Watchdog

RECOVERY_BATCH = 10_000
# Threads beside one for each running task: deletions, the journal's sync.
SPARE_THREADS = 16
STOPPING = "taskd is stopping and takes no new tasks; ask again when it has been started again."
JOURNAL_ADVICE = "Make room on the disk of the data directory, or raise journal_bytes_max."

_log = logging.getLogger("taskd.service")


@dataclass(frozen=True, slots=True)
class Health:
    """
    How the service is. `problems` says in words what makes entries wait or refuses tasks, and
    what to do about it; `notices` what somebody should know although the service is well.
    """

    problems: list[str]
    notices: list[str]
    version: str
    database: str
    tasks_running: int
    entries_pending: int


class Service:
    """taskd without its network edge. `async with Service(settings)` is a running one."""

    store: LogPersistenceService
    journal: Journal
    deletions: Deletions
    manager: TaskManager
    watchdog: Watchdog
    retention: Retention

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.plugins = PluginRegistry()
        self.metrics = Metrics()
        # What was put right and should be known all the same, in whole sentences. For `health`.
        self.notices: list[str] = []
        self.stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._stack = AsyncExitStack()
        self._stopped = asyncio.Lock()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.enter_context(_held(self.settings.data_dir))
            self.store = await stack.enter_async_context(open_persistence(self.settings, self.metrics))
            newest = await self.store.newest_timestamp()
            await recover_journal(self.settings.data_dir / "journal", self.store)
            await interrupt_orphans(self.store)
            self.journal = stack.enter_context(_begun_journal(self.settings))
            # Plugins move what blocks into threads: a few long ones must not keep the others waiting.
            threads = ThreadPoolExecutor(self.settings.tasks_running_max + SPARE_THREADS, "taskd")
            asyncio.get_running_loop().set_default_executor(threads)
            stack.enter_context(capture_installed(self.settings.capture_level))
            self._load_plugins()
            self.deletions = await stack.enter_async_context(deleting(self.store, tasks_dir(self.settings)))
            self.manager = TaskManager(
                self.settings, self.store, self.journal, self.plugins, self.metrics, self.deletions
            )
            self.watchdog = Watchdog(self.settings, self.metrics, self.manager.task_of)
            stack.enter_context(self.watchdog.watching())
            self.retention = Retention(self.settings, self.store, self.deletions, newest)
            if self.settings.retention_days or self.settings.retention_bytes_max:
                await stack.enter_async_context(retaining(self.retention))
            if self.settings.journal_sync_ms:
                await stack.enter_async_context(_syncing(self.journal, self.settings.journal_sync_ms / 1_000))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Stop and close everything; a second call waits for the first."""
        self.stopping.set()
        async with self._stopped:
            await self.manager.stop(self._hurry)
            await self._stack.aclose()

    def hurry(self) -> None:
        """Cut the waits of a stop for running tasks short. No entry is lost by it."""
        self._hurry.set()

    def health(self) -> Health:
        """How the service is now."""
        return Health(
            problems=[*self._problems()],
            notices=[*self.notices, *self._passing_notices()],
            version=__version__,
            database=self.store.url,
            tasks_running=self.manager.running,
            entries_pending=self.manager.entries_pending,
        )

    def _problems(self) -> Iterator[str]:
        if self.stopping.is_set():
            yield STOPPING
        if self.store.fault:
            yield self.store.fault
        pending = self.manager.entries_pending
        for fault in self.manager.store_faults:
            yield f"{fault} {pending:,} entries wait in memory and are stored in order when the store takes them again."
        if self.journal.fault:
            yield f"{self.journal.fault} {JOURNAL_ADVICE}"

    def _passing_notices(self) -> Iterator[str]:
        """Those that go by themselves."""
        if self.store.notice:
            yield self.store.notice
        yield from self.retention.notices
        if self.watchdog.recent:
            yield self.watchdog.recent
        if not self.manager.has_room:
            yield (
                f"{self.manager.waiting:,} tasks wait to run, which is the limit: new ones are refused (429) until "
                "some have ended; tasks_running_max and tasks_queued_max set it."
            )

    def _load_plugins(self) -> None:
        for directory in (shipped.PLUGINS, *self.settings.plugins):
            self.plugins.load_directory(directory)
        self.plugins.load_entry_points()


async def recover_journal(directory: Path, store: LogPersistenceService) -> None:
    """
    Store what a process that died had accepted and not yet committed, and the ends of its tasks.

    By `(task_id, seq)`, so it may be interrupted anywhere and done again. Entries of tasks that
    were deleted are let go.
    """
    recovered = 0
    segments = journal.recover(directory)
    tasks: list[journal.Recovered] | None = []
    while tasks is not None:
        # The next segment is read, in a thread, while this one is stored.
        tasks, stored = await asyncio.gather(
            asyncio.to_thread(next, segments, None),
            asyncio.gather(*[_append_recovered(store, task) for task in tasks]),
        )
        recovered += sum(stored)
    journal.clear(directory)
    if recovered:
        _log.info("The last process died; %d entries that it had accepted were read from its journal", recovered)


async def _append_recovered(store: LogPersistenceService, task: journal.Recovered) -> int:
    """Store what is not stored yet; how many entries the journal had."""
    try:
        new = _without_holes(task.entries, (await store.task(task.task_id)).last_seq)
        for start in range(0, len(new), RECOVERY_BATCH):
            await store.append(task.task_id, new[start : start + RECOVERY_BATCH])
        if task.end is not None:
            await store.append(task.task_id, [], end=task.end)
    except TaskNotFound:
        return 0
    return len(task.entries)


def _without_holes(entries: Sequence[LogEntry], last_seq: int) -> list[LogEntry]:
    """
    The entries after `last_seq`; in the place of each that is missing, one that says so.

    One is missing only where the journal was full or could not be written, as health then said.
    """
    new: list[LogEntry] = []
    for entry in entries:
        for seq in range(last_seq + 1, entry.seq):
            message = "lost: this entry was neither stored nor in the journal, which was full, when taskd died"
            new.append(LogEntry.make(seq, entry.timestamp, Level.ERROR, SYSTEM, message, b'{"dropped":1}'))
        if entry.seq > last_seq:
            new.append(entry)
            last_seq = entry.seq
    return new


async def interrupt_orphans(store: LogPersistenceService) -> None:
    """
    End what a process left that died: as `interrupted`, with an entry that says so.

    Exactly once: entry and status are one transaction, after which the task is no orphan. When it
    ended nobody knows; it was there when it said its last word, and that counts as its end.
    """
    for task in await store.unended_tasks():
        was = "running" if task.status is TaskStatus.RUNNING else "waiting to run"
        message = f"interrupted: the task was {was} when taskd stopped without ending it"
        now = finished_at = timestamp_now()
        if task.started_at is not None:
            last = (await store.counts(task.id)).stats(LogFilter()).last_timestamp
            finished_at = max(task.started_at, last or "")
            message += f"; it was last heard of at {finished_at}"
        entry = LogEntry.make(task.last_seq + 1, now, Level.ERROR, SYSTEM, message, None)
        await store.append(task.id, [entry], end=TaskEnd(TaskStatus.INTERRUPTED, finished_at, None, message))


@contextlib.contextmanager
def _begun_journal(settings: Settings) -> Iterator[Journal]:
    begun = Journal(
        settings.data_dir / "journal",
        segment_bytes=settings.journal_segment_bytes,
        bytes_max=settings.journal_bytes_max,
    )
    try:
        yield begun
    finally:
        begun.close()


@contextlib.asynccontextmanager
async def _syncing(begun: Journal, every_s: float) -> AsyncIterator[None]:
    """Have the kernel write the journal out, again and again, in a thread."""

    async def sync() -> None:
        while True:
            await asyncio.sleep(every_s)
            await asyncio.to_thread(begun.sync)

    task = asyncio.create_task(sync(), name="journal sync")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


@contextlib.contextmanager
def _held(data_dir: Path) -> Iterator[None]:
    """
    Make the data directory and hold it: two services on one database would share seqs.

    The lock ends with the process, however it ends. Raises `DataDirHeld` and `StoreError`.
    """
    try:
        # Logs hold what tasks were told, so they are for their owner; a directory that is there stays as it is.
        data_dir.mkdir(0o700, parents=True, exist_ok=True)
        lock = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StoreError(
            f"The data directory {data_dir} cannot be written ({error.strerror}); give another --data-dir."
        ) from error
    try:
        _lock(lock, data_dir)
        yield
    finally:
        os.close(lock)


def _lock(lock: int, data_dir: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(lock, 32).decode(errors="replace").strip() or "unknown"
        raise DataDirHeld(
            f"The data directory {data_dir} is in use by another taskd (process {holder}); "
            "stop that one, or give another --data-dir."
        ) from error
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
