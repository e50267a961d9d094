"""
`Committer`: all writing, through one connection and one coroutine.

It takes everything that waits (the batches of many tasks, new tasks, ends) and does it in one
transaction, in one call into the connection's thread. Nobody else can come between its BEGIN
and its COMMIT, a cancelled caller does not stop it halfway, and a thousand tasks share commits,
and so fsyncs. Each operation has a savepoint of its own: one that cannot be done fails alone.
"""

import asyncio
import contextlib
import functools
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiosqlite

from taskd.errors import StoreUnavailable
from taskd.persistence.connection import CLOSED, Operation, T, in_thread, store_error

# Entries in one transaction: enough that the commit costs nothing beside them, few enough
# that a new task does not wait for long behind them.
TRANSACTION_ENTRIES_MAX = 50_000


@dataclass(slots=True)
class _Waiting:
    operation: Operation[Any]
    entries: int
    done: asyncio.Future[Any]


class Committer:
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
            outcomes = await in_thread(self._connection, functools.partial(transaction, operations=operations))
        except asyncio.CancelledError:
            # The thread does them all the same; an append that is done again does no harm.
            outcomes = [StoreUnavailable("The commit was not heard of.")] * len(taken)
        except Exception as error:
            outcomes = [store_error(error)] * len(taken)
        for waiting, outcome in zip(taken, outcomes, strict=True):
            if waiting.done.done():
                continue
            if isinstance(outcome, Exception):
                waiting.done.set_exception(outcome)
            else:
                waiting.done.set_result(outcome)


def transaction(connection: sqlite3.Connection, operations: Sequence[Operation[Any]]) -> list[Any]:
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
        outcome = store_error(error) if isinstance(error, sqlite3.Error) else error
    connection.execute("RELEASE operation")
    return outcome
