"""
The store in SQLite, through aiosqlite.

One connection writes, through `Committer`, and a few others read. WAL lets them read while it
writes. A read connection sees everything that was committed before its read began; it may only
read (`query_only`), has a time limit, and is interrupted when whoever asked has gone.
"""

import asyncio
import contextlib
import errno
import functools
import os
import shutil
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiosqlite
import orjson

from taskd.entries import Level, LogEntry, timestamp_now
from taskd.errors import StoreCorrupt, StoreError, StoreUnavailable, TaskNotFound
from taskd.persistence.base import Span, TaskFilter
from taskd.persistence.sqlite.append import Append
from taskd.persistence.sqlite.checkpoints import Checkpointer, prepare_checkpointer
from taskd.persistence.sqlite.committer import Committer
from taskd.persistence.sqlite.connection import (
    CLOSED,
    Operation,
    T,
    ThreadEnded,
    advice,
    code_of,
    connect,
    in_thread,
    interruptible,
    read_leniently,
    store_error,
)
from taskd.persistence.sqlite.corruption import (
    HEAD_BYTES,
    Soundness,
    check_sides,
    is_taskds,
    set_aside,
)
from taskd.persistence.sqlite.deletion import Purger, used_bytes
from taskd.persistence.sqlite.indexer import Indexer, prepare_writer
from taskd.persistence.sqlite.schema import configure, prepare
from taskd.persistence.sqlite.search import searching
from taskd.query.counts import Count, LogCounts, Stats
from taskd.query.filters import SQL_FUNCTIONS, LogFilter
from taskd.query.outline import Outline
from taskd.query.parameters import Order
from taskd.settings import Settings
from taskd.system.filelock import hold
from taskd.system.supervision import Supervisor
from taskd.tasks import Task, TaskEnd, TaskStatus, first_id_of

INSERT_TASK = """
INSERT INTO tasks (id, plugin, params_json, secrets_json, status, created_at, retry_of)
VALUES (?, ?, ?, ?, 'queued', ?, ?)
"""
START_TASK = "UPDATE tasks SET status = 'running', started_at = ? WHERE id = ? AND status = 'queued'"
HIDE_TASKS = """
UPDATE tasks SET deleted_at = ?
WHERE id IN (SELECT value FROM json_each(?)) AND deleted_at IS NULL AND status NOT IN ('queued', 'running')
RETURNING id
"""
HIDDEN_TASKS = "SELECT id FROM tasks WHERE deleted_at IS NOT NULL"
# Those that were created later need not be looked at: they have not ended before either. But after a clock was
# set back ids run ahead of it (`taskd.tasks`), and say nothing of when a task was created.
OLDEST_ENDED = """
SELECT id FROM tasks WHERE id < ? AND finished_at < ? AND deleted_at IS NULL AND status NOT IN ('queued', 'running')
ORDER BY id LIMIT ?
"""
COUNT_TASKS = "SELECT count(*) FROM tasks WHERE deleted_at IS NULL"
NEWEST_TASK_ID = "SELECT max(id) FROM tasks"
NEWEST_TIMESTAMP = "SELECT max(timestamp) FROM task_logs"
COUNTS = """
SELECT level, source, count, first_seq, last_seq, first_timestamp, last_timestamp
FROM log_counts WHERE task_id = ?
"""

TASK_COLUMNS = """
id, plugin, params_json, status, created_at, started_at, finished_at, result_json, error, retry_of,
last_seq, progress_json,
(SELECT json_group_object(level, total) FROM
  (SELECT level, sum(count) AS total FROM log_counts WHERE task_id = tasks.id GROUP BY level))
"""
TASK = f"SELECT {TASK_COLUMNS} FROM tasks WHERE id = ? AND deleted_at IS NULL"
TASKS = f"SELECT {TASK_COLUMNS} FROM tasks WHERE deleted_at IS NULL AND {{where}} ORDER BY id DESC LIMIT ?"
UNENDED = f"SELECT {TASK_COLUMNS} FROM tasks WHERE status IN ('queued', 'running') ORDER BY id"
SECRETS = "SELECT secrets_json FROM tasks WHERE id = ?"

# Why a database cannot be opened now, and perhaps can a moment later.
PASSING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
# With less than this a disk is full: the shared memory of a write-ahead log begins with 32 KiB.
FULL_BYTES = 65_536

_STATUSES = {status.value: status for status in TaskStatus}

Row = tuple[Any, ...]


@asynccontextmanager
async def open_sqlite(path: str, settings: Settings, supervisor: Supervisor) -> AsyncIterator["SqliteStore"]:
    """
    The store in the file `path`, created where it is missing.

    Raises `StoreNewer` for a database of a newer taskd, `StoreCorrupt` for one of taskd's that is
    damaged, `StoreUnavailable` for what may pass (a lock, a full disk), and `StoreError` for what is
    no database or cannot be opened; the file is then left as it was.
    """
    async with AsyncExitStack() as stack:
        head = stack.enter_context(_held(path))
        soundness = Soundness()
        try:
            check_sides(path)
            notice = await _prepared(path)
            committer = Committer(lambda: _writer(path, settings.synchronous), soundness, supervisor)
            # Closed last, for it may write: it then copies the log into the file, and removes it.
            stack.push_async_callback(committer.let_go)
            stack.push_async_callback(committer.close)
            read = [await stack.enter_async_context(_reader(path)) for _ in range(settings.readers)]
        except (sqlite3.Error, StoreCorrupt) as error:
            raise _cannot_open(path, error, is_taskds(path, settings.data_dir, head)) from error
        indexer = Indexer(lambda: _indexing(path), committer, soundness, settings.index_entries_min)
        await stack.enter_async_context(supervisor.running("indexer", indexer.run))
        stack.callback(indexer.interrupt)
        checkpointer = Checkpointer(lambda: _checkpointing(path), path, committer, settings.query_timeout_s)
        await stack.enter_async_context(supervisor.running("checkpointer", checkpointer.run))
        # Closed after the store, which breaks off what is under way in them.
        renewed = await stack.enter_async_context(AsyncExitStack())
        store = SqliteStore(path, settings, committer, read, indexer, checkpointer, soundness, renewed)
        store.notices += [notice] if notice else []
        stack.callback(store.close)
        yield store


async def _prepared(path: str) -> str | None:
    async with connect(path) as connection:
        await in_thread(connection, read_leniently)
        return await in_thread(connection, functools.partial(prepare, path=path))


def _cannot_open(path: str, error: sqlite3.Error | StoreCorrupt, taskds: bool) -> StoreError:
    told = store_error(error)
    if taskds and isinstance(told, StoreCorrupt):
        return told if told is error else StoreCorrupt(f"The database {path} is damaged: {error}.")
    if isinstance(error, sqlite3.Error) and code_of(error) in PASSING:
        # On a full disk SQLite may only see that it cannot make its files as large as it needs.
        if code_of(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR) and _is_full(path):
            return StoreUnavailable(f"The database {path} cannot be opened: its disk is full. Make room on it.")
        return StoreUnavailable(f"The database {path} cannot be opened: {error}.{advice(error)}")
    return StoreError(f"The database {path} cannot be opened: {error}.")


def _is_full(path: str) -> bool:
    try:
        return shutil.disk_usage(Path(path).resolve().parent).free < FULL_BYTES
    except OSError:
        return False


@asynccontextmanager
async def _writer(path: str, synchronous: str) -> AsyncIterator[aiosqlite.Connection]:
    async with connect(path) as connection:
        await in_thread(connection, functools.partial(configure, synchronous=synchronous))
        await in_thread(connection, prepare_writer)
        await in_thread(connection, read_leniently)
        yield connection


@asynccontextmanager
async def _reader(path: str) -> AsyncIterator[aiosqlite.Connection]:
    async with connect(path) as connection:
        await in_thread(connection, _prepare_reader)
        yield connection


@asynccontextmanager
async def _indexing(path: str) -> AsyncIterator[aiosqlite.Connection]:
    async with _reader(path) as connection:
        await in_thread(connection, read_leniently)
        yield connection


@asynccontextmanager
async def _checkpointing(path: str) -> AsyncIterator[aiosqlite.Connection]:
    async with connect(path) as connection:
        await in_thread(connection, prepare_checkpointer)
        yield connection


def set_aside_sqlite(path: str, stamp: str, before: Callable[[], None]) -> Path:
    """Set the database's files aside, with nobody else at them; see `taskd.persistence.sqlite.corruption`."""
    with _held(path):
        return set_aside(path, stamp, before)


@contextmanager
def _held(path: str) -> Iterator[bytes]:
    """
    Hold the database for this process: two services on one would end each other's tasks. Its first bytes.

    It is let go only after the connections are closed: closing a file drops SQLite's own locks on it.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        kind = StoreUnavailable if error.errno in (errno.ENOSPC, errno.EDQUOT) else StoreError
        raise kind(f"The database {path} cannot be opened for writing: {error.strerror}.") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise StoreError(f"The database {path} cannot be opened: expected a regular file, got another kind.")
        hold(descriptor, f"The database {path}", "--database")
        yield os.pread(descriptor, HEAD_BYTES, 0)
    finally:
        os.close(descriptor)


def _prepare_reader(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA query_only = ON")
    for name, arguments, function in SQL_FUNCTIONS:
        connection.create_function(name, arguments, function, deterministic=True)


class SqliteStore:
    """`LogPersistenceService` in one SQLite file."""

    def __init__(
        self,
        path: str,
        settings: Settings,
        committer: Committer,
        readers: list[aiosqlite.Connection],
        indexer: Indexer,
        checkpointer: Checkpointer,
        soundness: Soundness,
        renewed: AsyncExitStack,
    ) -> None:
        self.notices: list[str] = []
        self.corrupt = soundness.corrupt
        self.url = f"sqlite:///{path}"
        self._path = Path(path)
        self._file = self._identity()
        self._settings = settings
        self._committer = committer
        self._indexer = indexer
        self._checkpointer = checkpointer
        self._purger = Purger(committer)
        self._soundness = soundness
        self._readers = readers
        self._opened = renewed
        self._idle: asyncio.LifoQueue[aiosqlite.Connection] = asyncio.LifoQueue()
        for connection in readers:
            self._idle.put_nowait(connection)
        # Searches may take seconds: one connection is always left for what does not.
        self._searches = asyncio.Semaphore(max(1, len(readers) - 1))
        self._closed = False

    def close(self) -> None:
        """Begin no more reads and break off those under way; `open_sqlite` closes the connections."""
        self._closed = True
        for connection in self._readers:
            connection._conn.interrupt()

    @property
    def fault(self) -> str | None:
        """What is wrong with the file itself, or why nothing could be written just now; None where nothing is."""
        if self._identity() == self._file:
            return self._soundness.reason or self._committer.fault
        return f"The database {self._path} was removed or replaced: what is stored now goes to a file without a name."

    @property
    def notice(self) -> str | None:
        """What an operator should know, though the store works: that another program keeps files large."""
        return self._checkpointer.held

    def _identity(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    # Writing

    async def create_task(self, task: Task, secret_paths: Sequence[str]) -> None:
        secrets = orjson.dumps(list(secret_paths)).decode() if secret_paths else None
        params = orjson.dumps(task.params).decode()
        row = (task.id, task.plugin, params, secrets, task.created_at, task.retry_of)
        await self._committer.do(lambda connection: connection.execute(INSERT_TASK, row) and None)

    async def start_task(self, task_id: str, started_at: str) -> None:
        await self._committer.do(lambda connection: connection.execute(START_TASK, (started_at, task_id)) and None)

    async def append(
        self,
        task_id: str,
        entries: Sequence[LogEntry],
        *,
        progress: dict[str, Any] | None = None,
        end: TaskEnd | None = None,
    ) -> None:
        progress_json = None if progress is None else orjson.dumps(progress).decode()
        await self._committer.append(Append(task_id, entries, progress_json, end))
        self._indexer.note(task_id, len(entries), ended=end is not None)

    # Deleting

    async def hide_tasks(self, task_ids: Sequence[str]) -> list[str]:
        hide = (timestamp_now(), orjson.dumps(list(task_ids)).decode())
        rows = await self._committer.do(lambda connection: connection.execute(HIDE_TASKS, hide).fetchall())
        return [row[0] for row in rows]

    async def hidden_tasks(self) -> list[str]:
        return [row[0] for row in await self._all(HIDDEN_TASKS, ())]

    async def purge(self, task_ids: Sequence[str]) -> None:
        await self._purger.purge(task_ids)

    async def give_back(self) -> None:
        await self._purger.give_back()

    async def used_bytes(self) -> int:
        return await self._read(used_bytes)

    async def count_tasks(self) -> int:
        return int((await self._all(COUNT_TASKS, ()))[0][0])

    async def oldest_ended(self, limit: int, ended_before: str | None = None) -> list[str]:
        newest = await self.newest_task_id() or ""
        ahead = ended_before is None or newest > first_id_of(timestamp_now())
        before = ("~" if ahead else first_id_of(ended_before or ""), ended_before or "~")
        return [row[0] for row in await self._all(OLDEST_ENDED, (*before, limit))]

    async def newest_timestamp(self) -> str | None:
        newest: str | None = (await self._all(NEWEST_TIMESTAMP, ()))[0][0]
        return newest

    # Reading tasks

    async def newest_task_id(self) -> str | None:
        newest: str | None = (await self._all(NEWEST_TASK_ID, ()))[0][0]
        return newest

    async def task(self, task_id: str) -> Task:
        row = await self._one(TASK, (task_id,))
        if row is None:
            raise TaskNotFound(task_id)
        return _task_of(row)

    async def secret_paths(self, task_id: str) -> list[str]:
        row = await self._one(SECRETS, (task_id,))
        return orjson.loads(row[0]) if row and row[0] else []

    async def tasks(self, task_filter: TaskFilter, limit: int, bytes_max: int) -> tuple[list[Task], bool]:
        where, values = _where_task(task_filter)

        def read(connection: sqlite3.Connection) -> tuple[list[Row], bool]:
            with contextlib.closing(connection.execute(TASKS.format(where=where), (*values, limit + 1))) as rows:
                return _filled(rows, limit, bytes_max)

        rows, more = await self._read(read)
        return [_task_of(row) for row in rows], more

    async def unended_tasks(self) -> list[Task]:
        return [_task_of(row) for row in await self._all(UNENDED, ())]

    # Reading logs

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
        def page(connection: sqlite3.Connection) -> tuple[list[LogEntry], bool]:
            with searching(connection, task_id, log_filter, span) as search:
                return search.page(order, offset, limit, bytes_max)

        return await self._search(page, log_filter)

    async def count(self, task_id: str, log_filter: LogFilter, span: Span) -> int:
        def count(connection: sqlite3.Connection) -> int:
            with searching(connection, task_id, log_filter, span) as search:
                return search.count()

        return await self._search(count, log_filter)

    async def nth_last(self, task_id: str, log_filter: LogFilter, n: int, before: int) -> int | None:
        def nth_last(connection: sqlite3.Connection) -> int | None:
            with searching(connection, task_id, log_filter, Span(0, before)) as search:
                return search.nth_last(n)

        return await self._search(nth_last, log_filter)

    async def counts(self, task_id: str) -> LogCounts:
        counts = LogCounts()
        for level, source, *count in await self._all(COUNTS, (task_id,)):
            counts.add_group(Level(level), source, Count(*count))
        return counts

    async def stats(self, task_id: str, log_filter: LogFilter, span: Span) -> Stats:
        def stats(connection: sqlite3.Connection) -> Stats:
            with searching(connection, task_id, log_filter, span) as search:
                return search.stats()

        return await self._search(stats, log_filter)

    async def outline(self, task_id: str, log_filter: LogFilter, span: Span, outline: Outline) -> None:
        def add(connection: sqlite3.Connection) -> None:
            with searching(connection, task_id, log_filter, span) as search:
                search.outline(outline)

        await self._search(add, log_filter)

    # How reading is done

    async def _one(self, sql: str, values: Sequence[object]) -> Row | None:
        row: Row | None = await self._read(lambda connection: connection.execute(sql, values).fetchone())
        return row

    async def _all(self, sql: str, values: Sequence[object]) -> list[Row]:
        return await self._read(lambda connection: connection.execute(sql, values).fetchall())

    async def _search(self, operation: Operation[T], log_filter: LogFilter) -> T:
        if log_filter.counted:
            return await self._read(operation)
        async with self._searches:
            return await self._read(operation)

    async def _read(self, operation: Operation[T]) -> T:
        """Read on an idle connection, within the time limit; interrupted when the caller is cancelled."""
        connection = await self._idle.get()
        try:
            if self._closed:
                raise StoreUnavailable(CLOSED)
            try:
                return await self._once_or_leniently(connection, operation)
            except ThreadEnded:
                connection = await self._renewed(connection)
                return await self._once_or_leniently(connection, operation)
        except sqlite3.Error as error:
            raise self._soundness.told(error) from error
        finally:
            self._idle.put_nowait(connection)

    async def _renewed(self, connection: aiosqlite.Connection) -> aiosqlite.Connection:
        """Another connection in the place of one whose thread has ended."""
        another = await self._opened.enter_async_context(_reader(str(self._path)))
        self._readers[self._readers.index(connection)] = another
        return another

    async def _once_or_leniently(self, connection: aiosqlite.Connection, operation: Operation[T]) -> T:
        try:
            return await interruptible(connection, operation, self._settings.query_timeout_s)
        except sqlite3.OperationalError as error:
            if code_of(error) is not None:
                raise
            # Text that is no UTF-8: damage that SQLite does not see. The rest can be read.
            await in_thread(connection, read_leniently)
            return await interruptible(connection, operation, self._settings.query_timeout_s)


def _where_task(task_filter: TaskFilter) -> tuple[str, list[object]]:
    ending = task_filter.ending
    asked = [
        ("status = ?", task_filter.status),
        ("plugin = ?", task_filter.plugin),
        ("id < ?", task_filter.before),
        (f"substr(id, -{len(ending or '')}) = ?", ending),
    ]
    given = [(fragment, str(value)) for fragment, value in asked if value is not None]
    return " AND ".join(fragment for fragment, _ in given) or "1", [value for _, value in given]


def _filled(rows: Iterable[Row], limit: int, bytes_max: int) -> tuple[list[Row], bool]:
    """The rows of tasks that one page has room for, and whether one more was there."""
    page: list[Row] = []
    size = 0
    for row in rows:
        if len(page) == limit or size >= bytes_max:
            return page, True
        page.append(row)
        params, result, error = row[2], row[7], row[8]
        size += len(params) + len(result or "") + len(error or "")
    return page, False


def _task_of(row: Row) -> Task:
    (task_id, plugin, params, status, created, started, finished, result, error, retry_of, last_seq, progress,
     counts) = row  # fmt: skip
    return Task(
        id=task_id,
        plugin=plugin,
        params=_json_of(params) or {},
        status=_STATUSES.get(status, TaskStatus.INTERRUPTED),
        created_at=created,
        started_at=started,
        finished_at=finished,
        result=_json_of(result),
        error=error,
        retry_of=retry_of,
        last_seq=last_seq if isinstance(last_seq, int) else 0,
        progress=_json_of(progress),
        counts={level: (_json_of(counts) or {}).get(level.value, 0) for level in Level},
    )


def _json_of(text: str | None) -> Any:
    """The value; None for what is none any more: one damaged row must not take the list of tasks with it."""
    try:
        return None if text is None else orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
