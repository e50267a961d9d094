"""
The store in SQLite, through aiosqlite.

One connection writes and a few others read. All writing goes through one coroutine,
`_Committer`: it takes everything that waits (the batches of many tasks, new tasks, ends) and
does it in one transaction, in one call into the write connection's thread. Nobody else can
come between its BEGIN and its COMMIT, a cancelled caller does not stop it halfway, and a
thousand tasks share commits, and so fsyncs. Each operation has a savepoint of its own: one
that cannot be done fails alone.

WAL lets readers read while it writes. A read connection sees everything that was committed
before its read began; it may only read (`query_only`), has a time limit, and is interrupted
when whoever asked has gone.
"""

import asyncio
import contextlib
import functools
import logging
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite
import orjson

from taskd import shipped
from taskd.counts import Count, LogCounts, Stats
from taskd.entries import Level, LogEntry, timestamp_now
from taskd.errors import StoreError, StoreNewer, StoreTimeout, StoreUnavailable, TaskNotFound
from taskd.filters import LogFilter, Order, contains_folded
from taskd.persistence.base import Span, TaskFilter
from taskd.settings import Settings
from taskd.tasks import Task, TaskEnd, TaskStatus

SCHEMA_VERSION = 1
APPLICATION_ID = 0x7461736B  # 'task'

# How long SQLite itself waits for another process's lock. Not longer: whoever waits behind
# it (a new task, another task's flush) should be told soon, and tries again itself.
BUSY_TIMEOUT_S = 0.5
# Entries in one transaction: enough that the commit costs nothing beside them, few enough
# that a new task does not wait for long behind them.
TRANSACTION_ENTRIES_MAX = 50_000
# Entries deleted in one transaction: others wait a few milliseconds behind it, not seconds.
DELETE_ENTRIES_MAX = 5_000
# Rows in one INSERT. Measured: 1.6 times as fast as one row each; more rows bring nothing.
ROWS_PER_INSERT = 160

INSERT_TASK = """
INSERT INTO tasks (id, plugin, params_json, secrets_json, status, created_at, retry_of)
VALUES (?, ?, ?, ?, 'queued', ?, ?)
"""
START_TASK = "UPDATE tasks SET status = 'running', started_at = ? WHERE id = ? AND status = 'queued'"
END_TASK = """
UPDATE tasks SET status = ?, finished_at = ?, result_json = ?, error = ?
WHERE id = ? AND status IN ('queued', 'running')
"""
HIDE_TASK = """
UPDATE tasks SET deleted_at = ? WHERE id = ? AND deleted_at IS NULL AND status NOT IN ('queued', 'running')
"""
HIDDEN_TASKS = "SELECT id FROM tasks WHERE deleted_at IS NOT NULL"
DELETE_ENTRIES = """
DELETE FROM task_logs WHERE id IN (SELECT id FROM task_logs WHERE task_id = ? ORDER BY seq LIMIT ?)
"""
DELETE_TASK = "DELETE FROM tasks WHERE id = ?"
LAST_SEQ = "SELECT last_seq FROM tasks WHERE id = ? AND deleted_at IS NULL"
ADVANCE_TASK = "UPDATE tasks SET last_seq = ?, progress_json = coalesce(?, progress_json) WHERE id = ?"

ENTRY_COLUMNS = "seq, timestamp, level, source, message, metadata_json"
INSERT_ENTRIES = f"INSERT INTO task_logs (task_id, {ENTRY_COLUMNS}) VALUES "
INSERT_ROW = "(?, ?, ?, ?, ?, ?, ?)"
# The seq says whether an entry is stored already, and is looked at first; this is the belt.
IF_NEW = " ON CONFLICT (task_id, seq) DO NOTHING"
INSERT_MANY = INSERT_ENTRIES + ", ".join([INSERT_ROW] * ROWS_PER_INSERT) + IF_NEW
INSERT_ONE = INSERT_ENTRIES + INSERT_ROW + IF_NEW

ADD_COUNT = """
INSERT INTO log_counts (task_id, level, source, count, first_seq, last_seq, first_timestamp, last_timestamp)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (task_id, level, source) DO UPDATE SET
  count = count + excluded.count, last_seq = excluded.last_seq, last_timestamp = excluded.last_timestamp
"""
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

PAGE = f"""
SELECT {ENTRY_COLUMNS} FROM task_logs WHERE task_id = ? AND seq > ? AND seq < ? AND {{where}}
ORDER BY seq {{order}} LIMIT ? OFFSET ?
"""
COUNT = "SELECT count(*) FROM task_logs WHERE task_id = ? AND seq > ? AND seq < ? AND {where}"
NTH_LAST = """
SELECT min(seq) FROM (
  SELECT seq FROM task_logs WHERE task_id = ? AND seq > ? AND seq < ? AND {where} ORDER BY seq DESC LIMIT ?)
"""
STATS = """
SELECT level, source, count(*), min(seq), max(seq) FROM task_logs
WHERE task_id = ? AND seq > ? AND seq < ? AND {where} GROUP BY level, source
"""
TIMESTAMP = "SELECT timestamp FROM task_logs WHERE task_id = ? AND seq = ?"
SEQ_END = 2**63 - 1

# A statement may begin just after an interrupt: so it is repeated.
INTERRUPT_AGAIN_S = 0.02

GIVEN_UP = "The query was given up: it took longer than query_timeout_s allows, or taskd is stopping."
CLOSED = "The store is closed: taskd is stopping."

_log = logging.getLogger("taskd.persistence")

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]
Row = tuple[Any, ...]


@asynccontextmanager
async def open_sqlite(path: str, settings: Settings) -> AsyncIterator["SqliteStore"]:
    """
    The store in the file `path`, created where it is missing.

    Raises `StoreNewer` for a database of a newer taskd and `StoreError` for what is no
    database or cannot be opened; the file is then left as it was.
    """
    async with AsyncExitStack() as stack:
        try:
            write = await stack.enter_async_context(_connect(path))
            await _in_thread(write, functools.partial(_prepare, path=path, synchronous=settings.synchronous))
            read = [await stack.enter_async_context(_connect(path)) for _ in range(settings.readers)]
            for connection in read:
                await _in_thread(connection, _prepare_reader)
        except sqlite3.Error as error:
            raise StoreError(f"The database {path} cannot be opened: {error}.") from error
        committer = _Committer(write)
        stack.push_async_callback(committer.close)
        store = SqliteStore(path, settings, committer, read)
        stack.callback(store.close)
        for task_id in await store.hidden_tasks():
            await store.purge(task_id)
        yield store


@asynccontextmanager
async def _connect(path: str) -> AsyncIterator[aiosqlite.Connection]:
    connecting = aiosqlite.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT_S, cached_statements=256)
    try:
        connection = await connecting
    except BaseException:
        # Its thread has still to tell this loop that it ends, so the loop must not close before.
        await asyncio.to_thread(connecting._thread.join)
        raise
    try:
        yield connection
    finally:
        await connection.close()


async def _in_thread(connection: aiosqlite.Connection, operation: Operation[T]) -> T:
    """
    Run a whole operation in the connection's thread: one hop, and nothing between its statements.

    aiosqlite's public methods are a hop for each statement. A hop costs 50 µs, and a caller
    cancelled between BEGIN and COMMIT would leave the transaction open.
    """
    result: T = await connection._execute(operation, connection._conn)  # type: ignore[no-untyped-call]  # private
    return result


def _prepare(connection: sqlite3.Connection, path: str, synchronous: str) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise StoreNewer(
            f"The database {path} has schema {version}, written by a newer taskd; this one knows up to "
            f"{SCHEMA_VERSION}. Run the newer taskd, or give another --data-dir."
        )
    # Before anything is changed: journal_mode, too, is written into the file.
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    empty = version == 0 and not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application_id != APPLICATION_ID and not empty:
        raise StoreError(f"The database {path} holds tables that are not taskd's; give another --database.")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute("PRAGMA foreign_keys = ON")
    if empty:
        # The whole schema or nothing, also when killed in the middle.
        connection.executescript(f"BEGIN IMMEDIATE; {Path(shipped.SCHEMA).read_text()}; COMMIT;")


def _prepare_reader(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA query_only = ON")
    connection.create_function("contains_folded", 2, contains_folded, deterministic=True)


@dataclass(slots=True)
class _Waiting:
    operation: Operation[Any]
    entries: int
    done: asyncio.Future[Any]


class _Committer:
    """All writing: whatever waits goes into the next transaction."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        self._waiting: list[_Waiting] = []
        self._work = asyncio.Event()
        self._closed = False
        self._task = asyncio.get_running_loop().create_task(self._run(), name="committer")

    async def do(self, operation: Operation[T], entries: int = 0) -> T:
        """
        Do `operation` in a transaction; return when it is committed.

        A cancelled caller leaves it to be done all the same.
        """
        if self._closed:
            raise StoreUnavailable(CLOSED)
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(operation, entries, done))
        self._work.set()
        return await done

    async def close(self) -> None:
        """Do what waits, then stop. Idempotent."""
        self._closed = True
        self._work.set()
        await self._task

    async def _run(self) -> None:
        while self._waiting or not self._closed:
            # Plugin code that cancels every asyncio task it finds must not stop the store.
            with contextlib.suppress(asyncio.CancelledError):
                await self._work.wait()
                self._work.clear()
                while self._waiting:
                    await self._commit(self._next())

    def _next(self) -> list[_Waiting]:
        """As much as fits into one transaction, the longest waiting first; at least one."""
        entries = count = 0
        for waiting in self._waiting:
            entries += waiting.entries
            if count and entries > TRANSACTION_ENTRIES_MAX:
                break
            count += 1
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return taken

    async def _commit(self, taken: list[_Waiting]) -> None:
        operations = [waiting.operation for waiting in taken]
        outcomes: Sequence[Any]
        try:
            outcomes = await _in_thread(self._connection, functools.partial(_transaction, operations=operations))
        except asyncio.CancelledError:
            # The thread does them all the same; an append that is done again does no harm.
            outcomes = [StoreUnavailable("The commit was not heard of.")] * len(taken)
        except Exception as error:
            outcomes = [_store_error(error)] * len(taken)
        for waiting, outcome in zip(taken, outcomes, strict=True):
            if waiting.done.done():
                continue
            if isinstance(outcome, Exception):
                waiting.done.set_exception(outcome)
            else:
                waiting.done.set_result(outcome)


def _transaction(connection: sqlite3.Connection, operations: Sequence[Operation[Any]]) -> list[Any]:
    """Do all operations and commit; an operation's own error is its outcome and undoes it alone."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        outcomes = [_alone(connection, operation) for operation in operations]
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # a full disk has rolled back already
            connection.execute("ROLLBACK")
        raise
    return outcomes


def _alone(connection: sqlite3.Connection, operation: Operation[Any]) -> Any:
    connection.execute("SAVEPOINT operation")
    outcome: Any
    try:
        outcome = operation(connection)
    except sqlite3.OperationalError:
        raise  # locked, full, failing: nothing in this transaction will work
    except Exception as error:
        connection.execute("ROLLBACK TO operation")
        outcome = _store_error(error) if isinstance(error, sqlite3.Error) else error
    connection.execute("RELEASE operation")
    return outcome


def _store_error(error: Exception) -> StoreError:
    if isinstance(error, StoreError):
        return error
    if isinstance(error, sqlite3.OperationalError):
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            return StoreTimeout(GIVEN_UP)
        return StoreUnavailable(f"The database cannot do this now: {error}.")
    return StoreError(f"The database failed: {type(error).__name__}: {error}.")


class SqliteStore:
    """`LogPersistenceService` in one SQLite file."""

    def __init__(
        self, path: str, settings: Settings, committer: _Committer, readers: list[aiosqlite.Connection]
    ) -> None:
        self.url = f"sqlite:///{path}"
        self._settings = settings
        self._committer = committer
        self._readers = readers
        self._idle: asyncio.LifoQueue[aiosqlite.Connection] = asyncio.LifoQueue()
        for connection in readers:
            self._idle.put_nowait(connection)
        self._closed = False

    def close(self) -> None:
        """Begin no more reads and break off those under way; `open_sqlite` closes the connections."""
        self._closed = True
        for connection in self._readers:
            connection._conn.interrupt()

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
        operation = functools.partial(_append, task_id=task_id, entries=entries, progress_json=progress_json, end=end)
        await self._committer.do(operation, len(entries))

    async def delete_task(self, task_id: str) -> bool:
        hide = (timestamp_now(), task_id)
        hidden = await self._committer.do(lambda connection: connection.execute(HIDE_TASK, hide).rowcount > 0)
        if hidden:
            await self.purge(task_id)
        return hidden

    async def hidden_tasks(self) -> list[str]:
        """The tasks whose deletion was begun: a crash may have left some."""
        return [row[0] for row in await self._all(HIDDEN_TASKS, ())]

    async def purge(self, task_id: str) -> None:
        """Delete a hidden task's entries, some at a time, and then the task."""
        bite = (task_id, DELETE_ENTRIES_MAX)
        while await self._committer.do(lambda connection: connection.execute(DELETE_ENTRIES, bite).rowcount):
            pass
        await self._committer.do(lambda connection: connection.execute(DELETE_TASK, (task_id,)) and None)

    # Reading tasks

    async def task(self, task_id: str) -> Task:
        row = await self._one(TASK, (task_id,))
        if row is None:
            raise TaskNotFound(task_id)
        return _task_of(row)

    async def secret_paths(self, task_id: str) -> list[str]:
        row = await self._one(SECRETS, (task_id,))
        return orjson.loads(row[0]) if row and row[0] else []

    async def tasks(self, task_filter: TaskFilter, limit: int) -> list[Task]:
        where, values = _where_task(task_filter)
        return [_task_of(row) for row in await self._all(TASKS.format(where=where), (*values, limit))]

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
        where, values = _where_log(task_id, log_filter, span)
        sql = PAGE.format(where=where, order="DESC" if order == "desc" else "ASC")
        # One row more than asked tells whether there is another page.
        rows = (*values, limit + 1, offset)
        return await self._read(lambda connection: _page(connection.execute(sql, rows), limit, bytes_max))

    async def count(self, task_id: str, log_filter: LogFilter, span: Span) -> int:
        where, values = _where_log(task_id, log_filter, span)
        row = await self._one(COUNT.format(where=where), values)
        return int(row[0]) if row else 0

    async def nth_last(self, task_id: str, log_filter: LogFilter, n: int, before: int) -> int | None:
        where, values = _where_log(task_id, log_filter, Span(0, before))
        row = await self._one(NTH_LAST.format(where=where), (*values, n))
        return row[0] if row else None

    async def counts(self, task_id: str) -> LogCounts:
        counts = LogCounts()
        for level, source, *count in await self._all(COUNTS, (task_id,)):
            counts.add_group(Level(level), source, Count(*count))
        return counts

    async def stats(self, task_id: str, log_filter: LogFilter, span: Span) -> Stats:
        where, values = _where_log(task_id, log_filter, span)
        return await self._read(lambda connection: _stats(connection, STATS.format(where=where), values))

    # How reading is done

    async def _one(self, sql: str, values: Sequence[object]) -> Row | None:
        row: Row | None = await self._read(lambda connection: connection.execute(sql, values).fetchone())
        return row

    async def _all(self, sql: str, values: Sequence[object]) -> list[Row]:
        return await self._read(lambda connection: connection.execute(sql, values).fetchall())

    async def _read(self, operation: Operation[T]) -> T:
        """Read on an idle connection, within the time limit; interrupted when the caller is cancelled."""
        async with self._reader() as connection:
            if self._closed:
                raise StoreUnavailable(CLOSED)
            try:
                return await _interruptible(connection, operation, self._settings.query_timeout_s)
            except sqlite3.Error as error:
                raise _store_error(error) from error

    @asynccontextmanager
    async def _reader(self) -> AsyncGenerator[aiosqlite.Connection, None]:
        connection = await self._idle.get()
        try:
            yield connection
        finally:
            self._idle.put_nowait(connection)


async def _interruptible(connection: aiosqlite.Connection, operation: Operation[T], timeout_s: float) -> T:
    """`operation` in the connection's thread, which is free again when this returns or raises."""
    given_up = False

    def unless_given_up(raw: sqlite3.Connection) -> T:
        # An interrupt before the statement begins would be for nothing.
        if given_up:
            raise StoreTimeout(GIVEN_UP)
        return operation(raw)

    raw = connection._conn
    reading = asyncio.ensure_future(_in_thread(connection, unless_given_up))
    timer = asyncio.get_running_loop().call_later(timeout_s, raw.interrupt)
    try:
        return await asyncio.shield(reading)
    finally:
        timer.cancel()
        given_up = True
        # Cancelled: the thread works on. Stop it, and wait until it has, before another uses the
        # connection; a second cancellation does not change that.
        while not reading.done():
            raw.interrupt()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([reading], timeout=INTERRUPT_AGAIN_S)
        reading.exception()


def _append(
    connection: sqlite3.Connection,
    task_id: str,
    entries: Sequence[LogEntry],
    progress_json: str | None,
    end: TaskEnd | None,
) -> None:
    row = connection.execute(LAST_SEQ, (task_id,)).fetchone()
    if row is None:
        raise TaskNotFound(task_id)
    new = _not_stored(entries, row[0])
    if new:
        _insert(connection, task_id, new)
        _add_counts(connection, task_id, LogCounts.of(new))
        connection.execute(ADVANCE_TASK, (new[-1].seq, progress_json, task_id))
    if end is not None:
        connection.execute(END_TASK, (end.status, end.finished_at, end.result_json, end.error, task_id))


def _not_stored(entries: Sequence[LogEntry], last_seq: int) -> Sequence[LogEntry]:
    """What comes after `last_seq`. The seqs are dense, so that is what is not stored yet."""
    if not entries:
        return entries
    first = entries[0].seq
    if first > last_seq + 1 or entries[-1].seq - first + 1 != len(entries):
        raise ValueError(
            f"Entries {first} to {entries[-1].seq} ({len(entries)} of them) would leave a hole after {last_seq}."
        )
    return entries[last_seq + 1 - first :]


def _insert(connection: sqlite3.Connection, task_id: str, entries: Sequence[LogEntry]) -> None:
    whole = len(entries) - len(entries) % ROWS_PER_INSERT
    for start in range(0, whole, ROWS_PER_INSERT):
        values: list[object] = []
        for entry in entries[start : start + ROWS_PER_INSERT]:
            values += _row_of(task_id, entry)
        connection.execute(INSERT_MANY, values)
    connection.executemany(INSERT_ONE, [_row_of(task_id, entry) for entry in entries[whole:]])


def _row_of(task_id: str, entry: LogEntry) -> Row:
    # `_value_`: sqlite3 binds plain text several times faster than a subclass of it.
    return (
        task_id, entry.seq, entry.timestamp, entry.level._value_, entry.source, entry.message, entry.metadata_json,
    )  # fmt: skip


def _add_counts(connection: sqlite3.Connection, task_id: str, counts: LogCounts) -> None:
    connection.executemany(
        ADD_COUNT,
        [
            (task_id, level, source, count.count, count.first_seq, count.last_seq,
             count.first_timestamp, count.last_timestamp)
            for level, source, count in counts
        ],
    )  # fmt: skip


def _where_log(task_id: str, log_filter: LogFilter, span: Span) -> tuple[str, list[object]]:
    where, values = log_filter.where()
    return where, [task_id, span.after, SEQ_END if span.before is None else span.before, *values]


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


def _page(rows: Iterable[Row], limit: int, bytes_max: int) -> tuple[list[LogEntry], bool]:
    entries: list[LogEntry] = []
    size = 0
    for row in rows:
        entry = LogEntry.from_row(row)
        size += len(entry.encoded)
        if len(entries) == limit or (entries and size > bytes_max):
            return entries, True
        entries.append(entry)
    return entries, False


def _stats(connection: sqlite3.Connection, sql: str, values: Sequence[object]) -> Stats:
    counts = LogCounts()
    # One state of the database for all of it: the task may be deleted meanwhile.
    connection.execute("BEGIN")
    try:
        for level, source, count, *seqs in connection.execute(sql, values).fetchall():
            timestamps = [connection.execute(TIMESTAMP, (values[0], seq)).fetchone()[0] for seq in seqs]
            counts.add_group(Level(level), source, Count(count, *seqs, *timestamps))
    finally:
        connection.execute("ROLLBACK")
    return counts.stats(LogFilter())


def _task_of(row: Row) -> Task:
    (task_id, plugin, params, status, created, started, finished, result, error, retry_of, last_seq, progress,
     counts) = row  # fmt: skip
    return Task(
        id=task_id,
        plugin=plugin,
        params=orjson.loads(params),
        status=TaskStatus(status),
        created_at=created,
        started_at=started,
        finished_at=finished,
        result=None if result is None else orjson.loads(result),
        error=error,
        retry_of=retry_of,
        last_seq=last_seq,
        progress=None if progress is None else orjson.loads(progress),
        counts={level: orjson.loads(counts).get(level.value, 0) for level in Level},
    )
