"""
`Committer`: all writing, through one connection and one coroutine.

It takes everything that waits (the batches of many tasks, new tasks, ends) and does it in one
transaction, in one call into the connection's thread. Nobody else can come between its BEGIN
and its COMMIT, a cancelled caller does not stop it halfway, and a thousand tasks share commits,
and so fsyncs. What cannot be done fails alone: an operation has a savepoint of its own, and
appends that wait one behind the other have one for all, and each its own if that fails.

After an error of the disk the next transaction gets a new connection: what the old one, or the
kernel behind a file that failed to sync, believes to be written is then not relied on.
"""

import asyncio
import contextlib
import functools
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from time import monotonic
from typing import Any

import aiosqlite

from taskd.concurrency import first
from taskd.errors import StoreError, StoreUnavailable
from taskd.persistence.sqlite.append import Append, append_all
from taskd.persistence.sqlite.connection import (
    CLOSED,
    CORRUPT,
    Operation,
    T,
    ThreadEnded,
    code_of,
    in_thread,
    store_error,
)
from taskd.persistence.sqlite.corruption import Soundness
from taskd.system.supervision import Supervisor

# Entries in one transaction: enough that the commit costs nothing beside them, few enough
# that a new task does not wait for long behind them.
TRANSACTION_ENTRIES_MAX = 50_000
# How long a transaction that failed is told of: nobody may try again.
FAULT_SHOWN_S = 10.0
# From when on a transaction that does not end is reported.
HUNG_S = 10.0
NOT_DONE = "The database did not finish this, because of a fault in taskd."


@dataclass(slots=True)
class _Waiting:
    work: Operation[Any] | Append
    done: asyncio.Future[Any]

    @property
    def entries(self) -> int:
        return len(self.work.entries) if isinstance(self.work, Append) else 0


class Committer:
    """All writing: whatever waits goes into the next transaction. `connect` opens a connection that is set up."""

    def __init__(
        self,
        connect: Callable[[], AbstractAsyncContextManager[aiosqlite.Connection]],
        soundness: Soundness,
        supervisor: Supervisor,
    ) -> None:
        self._connect = connect
        self._soundness = soundness
        self._metrics = supervisor.metrics
        self._opened = AsyncExitStack()
        self._connection: aiosqlite.Connection | None = None
        self._fault = ""
        self._fault_at = 0.0
        self._began: float | None = None
        self._waiting: list[_Waiting] = []
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self.commits = 0
        self._closed = False
        self._part = supervisor.start("committer", self._run)

    async def do(self, operation: Operation[T]) -> T:
        """
        Do `operation` in a transaction; return when it is committed.

        A cancelled caller leaves it to be done all the same.
        """
        result: T = await self._done(operation)
        return result

    async def append(self, append: Append) -> None:
        """The same for a batch. Raises what `append_all` has against it."""
        await self._done(append)

    async def idle(self, timeout_s: float) -> bool:
        """Wait until nothing is written and nothing waits to be, at most `timeout_s`; whether it came to that."""
        await first(self._idle.wait(), timeout_s=timeout_s)
        return self._idle.is_set()

    @property
    def fault(self) -> str | None:
        """Why the last transaction failed, for some seconds; or that one does not end."""
        if self._began is not None and (took_s := monotonic() - self._began) >= HUNG_S:
            return f"The database has not answered for {took_s:.0f} s. Look at its disk."
        return self._fault if self._fault and monotonic() - self._fault_at < FAULT_SHOWN_S else None

    def _done(self, work: Operation[Any] | Append) -> asyncio.Future[Any]:
        if self._closed:
            raise StoreUnavailable(CLOSED)
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(work, done))
        self._idle.clear()
        self._work.set()
        return done

    async def close(self) -> None:
        """Do what waits, then stop; the connection is left to `let_go`. Idempotent."""
        self._closed = True
        self._work.set()
        await self._part.finish()
        _refuse(self._waiting, CLOSED)

    async def _run(self) -> None:
        while self._waiting or not self._closed:
            # Plugin code that cancels every asyncio task it finds must not stop the store.
            with contextlib.suppress(asyncio.CancelledError):
                if not self._waiting:
                    self._idle.set()
                    self._work.clear()
                    await self._work.wait()
                while self._waiting:
                    taken = self._next()
                    try:
                        await self._commit(taken)
                    finally:
                        # Nobody waits for ever for what was interrupted: it is tried again, by whoever asked.
                        _refuse(taken, NOT_DONE)

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
        self.commits += 1
        work = [waiting.work for waiting in taken]
        outcomes: Sequence[Any]
        try:
            self._began = monotonic()
            connection = await self._connected()
            with self._metrics.commit_seconds.time():
                outcomes = await in_thread(connection, functools.partial(transaction, work=work))
            self._fault = ""
        except asyncio.CancelledError:
            # The thread does them all the same; an append that is done again does no harm.
            outcomes = [StoreUnavailable("The commit was not heard of.")] * len(taken)
        except Exception as error:
            self._metrics.store_errors.inc()
            outcomes = [await self._failed(error)] * len(taken)
        finally:
            self._began = None
        for waiting, outcome in zip(taken, outcomes, strict=True):
            if waiting.done.done():
                continue
            if isinstance(outcome, Exception):
                waiting.done.set_exception(outcome)
            else:
                waiting.done.set_result(outcome)

    async def _connected(self) -> aiosqlite.Connection:
        if self._connection is not None and not self._connection._thread.is_alive():
            await self.let_go()
        if self._connection is None:
            self._connection = await self._opened.enter_async_context(self._connect())
        return self._connection

    async def _failed(self, error: Exception) -> StoreError:
        told = self._soundness.told(error)
        self._fault, self._fault_at = str(told), monotonic()
        broken = isinstance(error, sqlite3.Error) and code_of(error) == sqlite3.SQLITE_IOERR
        if broken or isinstance(error, ThreadEnded):
            await self.let_go()
        return told

    async def let_go(self) -> None:
        """Close the connection; the next transaction, where there is one, gets another."""
        self._connection = None
        with contextlib.suppress(sqlite3.Error):
            await self._opened.aclose()


def _refuse(waiting: Sequence[_Waiting], why: str) -> None:
    """Have those fail that have no outcome yet."""
    for one in waiting:
        if not one.done.done():
            one.done.set_exception(StoreUnavailable(why))


def transaction(connection: sqlite3.Connection, work: Sequence[Operation[Any] | Append]) -> list[Any]:
    """Do all of it and commit; what stands in the way of one is its outcome and undoes it alone."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        outcomes = list(_outcomes(connection, work))
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # a full disk has rolled back already
            connection.execute("ROLLBACK")
        raise
    return outcomes


def _outcomes(connection: sqlite3.Connection, work: Sequence[Operation[Any] | Append]) -> Iterator[Any]:
    for one in _grouped(work):
        if isinstance(one, list):
            yield from _appended(connection, one)
        else:
            yield _alone(connection, one)


def _grouped(work: Sequence[Operation[Any] | Append]) -> Iterator[Operation[Any] | list[Append]]:
    """The work in its order, with appends of different tasks that follow each other in one list."""
    group: dict[str, Append] = {}
    for one in work:
        if group and not (isinstance(one, Append) and one.task_id not in group):
            yield list(group.values())
            group = {}
        if isinstance(one, Append):
            group[one.task_id] = one
        else:
            yield one
    if group:
        yield list(group.values())


def _appended(connection: sqlite3.Connection, appends: list[Append]) -> list[Any]:
    outcomes = _alone(connection, functools.partial(append_all, appends=appends))
    if isinstance(outcomes, list):
        return outcomes
    if len(appends) == 1:
        return [outcomes]
    # SQLite refuses something in one of them: the others go without it.
    return [outcome for append in appends for outcome in _appended(connection, [append])]


def _alone(connection: sqlite3.Connection, operation: Operation[Any]) -> Any:
    connection.execute("SAVEPOINT operation")
    outcome: Any
    try:
        outcome = operation(connection)
    except sqlite3.OperationalError:
        raise  # locked, full, failing: nothing in this transaction will work
    except Exception as error:
        if isinstance(error, sqlite3.Error) and code_of(error) in CORRUPT:
            raise
        connection.execute("ROLLBACK TO operation")
        outcome = store_error(error) if isinstance(error, sqlite3.Error) else error
    connection.execute("RELEASE operation")
    return outcome
