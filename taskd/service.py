"""
`Service`: opens everything in order and closes it in reverse. The only place where the parts meet.

    data directory held → store open → journal recovered → orphans interrupted → journal begun
    → capture → plugins → deletions → manager → watchdog → retention → ready

A store that is damaged is set aside, at the start or, where that is found out later, at the stop
that `store.corrupt` asks for; see `taskd.persistence.sqlite.corruption`.

Stopping: new tasks are refused; running ones finish, or are cancelled, or are left behind;
every writer ends with all stored; readers whose log has ended get its end, and the others are
sent away to come back; the store closes. Each step is idempotent.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from taskd import shipped
from taskd.capture.install import capture_installed
from taskd.errors import StoreCorrupt, StoreError
from taskd.journal import segments
from taskd.journal.journal import Journal
from taskd.persistence.base import LogPersistenceService
from taskd.persistence.sqlite.corruption import free_name, stamp_now
from taskd.runtime import shared_state
from taskd.runtime.context import tasks_dir
from taskd.runtime.deletion import Deletions, deleting
from taskd.runtime.manager import TaskManager
from taskd.runtime.plugins import PluginRegistry
from taskd.runtime.recovery import Patience, interrupt_orphans, recover_journal
from taskd.runtime.retention import Retention
from taskd.runtime.watchdog import Watchdog
from taskd.settings import Settings
from taskd.stores import open_persistence, set_aside_database
from taskd.system.filelock import hold
from taskd.system.signals import StopSignals
from taskd.system.supervision import Run, Supervisor
from taskd.system.threads import in_thread
from taskd.tasks import TaskIds
from taskd.version import __version__

# Threads for `asyncio.to_thread` in plugins beside one for each running task.
SPARE_THREADS = 16
STOPPING = "taskd is stopping and takes no new tasks; ask again when it has been started again."
# How often it is looked whether the journal's files are there: as long, and a flush, is unsafe what they had.
JOURNAL_LOOK_S = 1.0
JOURNAL_LOST = (
    "The journal's files were removed while taskd ran. It has begun others; what was not committed at that time "
    "would have been lost by a crash. Leave the data directory to taskd."
)
# From when on a sync of the journal that does not end is reported, beyond its interval.
SYNC_HUNG_S = 5.0
# How long health shows what was put right.
NOTICE_SHOWN_S = 3_600.0
JOURNAL_ADVICE = "Make room on the disk of the data directory, or raise journal_bytes_max."

_log = logging.getLogger("taskd.service")


@dataclass(frozen=True, slots=True)
class Health:
    """
    How the service is: `problems` has a sentence for each thing that is wrong, and what to do about it.

    `refusing`: no task can be accepted or nothing can be stored. `database` is its URL without
    user, password, path and query.
    """

    problems: list[str]
    refusing: bool
    version: str
    database: str
    tasks_running: int
    entries_pending: int

    @property
    def status(self) -> str:
        """`ok` or, with any problem, `degraded`."""
        return "degraded" if self.problems else "ok"


class Service:
    """taskd without its network edge. `async with Service(settings)` is a running one."""

    store: LogPersistenceService
    journal: Journal
    deletions: Deletions
    manager: TaskManager
    watchdog: Watchdog
    retention: Retention
    threads: ThreadPoolExecutor

    def __init__(
        self,
        settings: Settings,
        notices: Mapping[str, float] | None = None,
        supervisor: Supervisor | None = None,
        signals: StopSignals | None = None,
    ) -> None:
        """
        `notices` are those of the service before it in this process; `supervisor` keeps its parts running.

        `signals`: the process is taskd's own, so what its plugins change of it is taken back (`shared_state`).
        """
        self.settings = settings
        self._signals = signals
        # What was put right and should be known all the same, in sentences, each with its time (`time.monotonic`).
        self.notices = dict(notices or {})
        self.plugins = PluginRegistry()
        self.supervisor = supervisor or Supervisor(settings)
        self.metrics = self.supervisor.metrics
        self.stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._synced_at = monotonic()
        self._stack = AsyncExitStack()
        self._stopped = asyncio.Lock()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.enter_context(_held(self.settings.data_dir))
            # Plugins move what blocks into threads: a few long ones must not keep the others waiting.
            self.threads = ThreadPoolExecutor(self.settings.tasks_running_max + SPARE_THREADS, "taskd")
            asyncio.get_running_loop().set_default_executor(self.threads)
            await self._open_store(stack)
            self.journal = stack.enter_context(_begun_journal(self.settings))
            stack.enter_context(capture_installed(self.settings.capture_level))
            if self._signals is not None:
                stack.enter_context(shared_state.kept(self._signals))
            self._load_plugins()
            shared_state.loaded()
            self.deletions = await stack.enter_async_context(
                deleting(self.store, tasks_dir(self.settings), self.supervisor, self.journal.forget)
            )
            self.manager = TaskManager(
                self.settings, self.store, self.journal, self.plugins, self.metrics, self.deletions, self._new_id
            )
            self.watchdog = Watchdog(self.settings, self.metrics, self.manager.task_of)
            await self._keep_running(stack, "watchdog", self.watchdog.run)
            self.retention = Retention(self.settings, self.store, self.deletions, self._newest)
            if self.settings.retention_days or self.settings.retention_bytes_max:
                await self._keep_running(stack, "retention", self.retention.run)
            await self._keep_running(stack, "journal watch", self._watch_journal)
            if self.settings.journal_sync_ms:
                self._synced_at = monotonic()
                await self._keep_running(stack, "journal sync", self._sync_journal)
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

    async def _keep_running(self, stack: AsyncExitStack, name: str, run: Run) -> None:
        await stack.enter_async_context(self.supervisor.running(name, run))

    async def _open_store(self, stack: AsyncExitStack) -> None:
        """Open the store and make up for a death before; where it is damaged, with a new one in its place."""
        try:
            await self._open_store_there_is(stack)
        except StoreCorrupt as error:
            self._set_aside(str(error))
            await self._open_store_there_is(stack)

    async def _open_store_there_is(self, stack: AsyncExitStack) -> None:
        async with AsyncExitStack() as opening:
            patience = Patience(self.settings.start_wait_s)
            self.store = await patience(
                lambda: opening.enter_async_context(open_persistence(self.settings, self.supervisor))
            )
            # Before anything is added: what the clock said last time.
            self._newest = await patience(self.store.newest_timestamp)
            self._new_id = TaskIds(await patience(self.store.newest_task_id))
            recovered = await recover_journal(self._journal_dir, self.store, patience)
            await interrupt_orphans(self.store, patience)
            for notice in (*self.store.notices, *recovered):
                self._notice(notice)
            # Done last, when the store and the journal are closed and the data directory is still held.
            stack.callback(self._set_aside_if_corrupt)
            stack.push_async_exit(opening.pop_all())

    def _set_aside_if_corrupt(self) -> None:
        if self.store.corrupt.is_set():
            self._set_aside(self.store.fault or "The database is damaged.")

    def _set_aside(self, why: str) -> None:
        """
        Keep a damaged database beside the new one that is begun, with what the journal has for its tasks.

        Raises `StoreError` where that cannot be, or has been done too often.
        """
        stamp = stamp_now()
        journal = free_name(self.settings.data_dir / f"journal.corrupt-{stamp}")
        moved = []

        def journal_first() -> None:
            moved.extend([journal] if segments.set_aside(self._journal_dir, journal) else [])

        kept = set_aside_database(self.settings, stamp, journal_first)
        with_journal = f" What the journal had for it is kept in {journal}." if moved else ""
        self._notice(f"{why} It is kept as {kept}, and a new one was begun.{with_journal}")

    async def _watch_journal(self) -> None:
        """Look, for ever, whether the journal's files are there, and have it begin others where they are not."""
        while True:
            await asyncio.sleep(JOURNAL_LOOK_S)
            if self.journal.replace_lost() and JOURNAL_LOST not in self._recent_notices():
                self._notice(JOURNAL_LOST)

    async def _sync_journal(self) -> None:
        """Have the kernel write the journal out, for ever, in a thread."""
        while True:
            await asyncio.sleep(self.settings.journal_sync_ms / 1_000)
            await in_thread(self.journal.sync, name="journal sync")
            self._synced_at = monotonic()

    @property
    def _sync_hung(self) -> str | None:
        """That the journal's sync takes far too long, in a sentence."""
        late_s = monotonic() - self._synced_at
        if not self.settings.journal_sync_ms or late_s < SYNC_HUNG_S + self.settings.journal_sync_ms / 1_000:
            return None
        return f"The journal has not been synced for {late_s:.0f} s: a power cut would lose what is younger."

    def _notice(self, notice: str) -> None:
        self.notices[notice] = monotonic()
        _log.error("%s", notice)

    @property
    def _journal_dir(self) -> Path:
        return self.settings.data_dir / "journal"

    def health(self) -> Health:
        """How the service is now."""
        refusing = [*self._refusing()]
        return Health(
            problems=[*refusing, *self._degraded()],
            refusing=bool(refusing),
            version=__version__,
            database=_shown_url(self.store.url),
            tasks_running=self.manager.running,
            entries_pending=self.manager.entries_pending,
        )

    def _refusing(self) -> Iterator[str]:
        """Why no task can be accepted or nothing can be stored."""
        if self.stopping.is_set():
            yield STOPPING
        waiting_for = self.manager.store_faults
        if self.store.fault and self.store.fault not in waiting_for:
            yield self.store.fault
        pending = self.manager.entries_pending
        for fault in waiting_for:
            yield f"{fault} {pending:,} entries wait in memory and are stored in order when the store takes them again."

    def _degraded(self) -> Iterator[str]:
        """What else an operator should know."""
        yield from self.supervisor.problems
        if self.journal.fault:
            yield f"{self.journal.fault} {JOURNAL_ADVICE}"
        if self.journal.sync_fault:
            yield self.journal.sync_fault
        if self._sync_hung:
            yield self._sync_hung
        yield from self._recent_notices()
        if self.store.notice:
            yield self.store.notice
        yield from self.retention.notices
        yield from self.deletions.notices
        if self.watchdog.recent:
            yield self.watchdog.recent
        if not self.manager.has_room:
            yield (
                f"{self.manager.waiting:,} tasks wait to run, which is the limit: new ones are refused (429) until "
                "some have ended; tasks_running_max and tasks_queued_max set it."
            )

    def _recent_notices(self) -> list[str]:
        now = monotonic()
        return [notice for notice, at in self.notices.items() if now - at < NOTICE_SHOWN_S]

    def _load_plugins(self) -> None:
        for directory in (shipped.PLUGINS, *self.settings.plugins):
            self.plugins.load_directory(directory)
        self.plugins.load_entry_points()
        for name in sorted({option.partition(".")[0] for option in self.settings.plugin_option}):
            if name not in self.plugins.plugins:
                known = ", ".join(sorted(self.plugins.plugins))
                _log.warning("plugin_option names the plugin %r, which is not loaded; these are: %s", name, known)


def _shown_url(url: str) -> str:
    """A database's URL with its scheme, host and port alone."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")


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


@contextlib.contextmanager
def _held(data_dir: Path) -> Iterator[None]:
    """
    Make the data directory and hold it: two services on one database would share seqs.

    Raises `DataDirHeld` and `StoreError`.
    """
    try:
        # Logs hold what tasks were told, so they are for their owner; a directory that is there stays as it is.
        data_dir.mkdir(0o700, parents=True, exist_ok=True)
        lock = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        why = "it is no directory" if isinstance(error, FileExistsError) else error.strerror
        told = f"The data directory {data_dir} cannot be written ({why}); give another --data-dir."
        raise StoreError(told) from error
    try:
        hold(lock, f"The data directory {data_dir}", "--data-dir")
        yield
    finally:
        os.close(lock)
