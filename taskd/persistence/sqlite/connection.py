"""
A connection to SQLite, and what is done in its thread.

aiosqlite gives each connection a thread of its own, so the loop never waits for SQLite. Here an
operation, however many statements it has, is one call into that thread.
"""

import asyncio
import contextlib
import functools
import gc
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import aiosqlite

from taskd.errors import StoreCorrupt, StoreError, StoreTimeout, StoreUnavailable
from taskd.system import threads

# How long SQLite itself waits for another process's lock. Not longer: whoever waits behind
# it (a new task, another task's flush) should be told soon, and tries again itself.
BUSY_TIMEOUT_S = 0.5
# A statement may begin just after an interrupt: so it is repeated.
INTERRUPT_AGAIN_S = 0.02
ROLLBACKS_MAX = 5
# How often a caller looks whether the thread that it waits for is alive.
THREAD_LOOK_S = 1.0
_THREAD_ENDED = "The database did not answer: something has ended the thread of taskd that asks it."

# What to do about it, by SQLite's primary result code.
_ADVICE: dict[int | None, str] = {
    sqlite3.SQLITE_BUSY: " Another process holds it: let that end.",
    sqlite3.SQLITE_LOCKED: " Another process holds it: let that end.",
    sqlite3.SQLITE_FULL: " Make room on its disk.",
    sqlite3.SQLITE_IOERR: " Its disk fails: the system's own log says how.",
    sqlite3.SQLITE_READONLY: " Let taskd write to the file and its directory.",
    sqlite3.SQLITE_CANTOPEN: " Let taskd write to the file and its directory.",
}
GIVEN_UP = "The query was given up: it took longer than query_timeout_s allows, or taskd is stopping."
CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
CLOSED = "The store is closed: taskd is stopping."

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]


class ThreadEnded(StoreUnavailable):
    """The connection cannot be used any more; whether the operation was done is not known."""


class Connection(sqlite3.Connection):
    """`given_up`: nobody waits any more for what is done on it now."""

    given_up = False


def check_wanted(connection: sqlite3.Connection) -> None:
    """
    Raise `StoreTimeout` where nobody waits any more for what is done on the connection.

    For operations of many short statements: an interrupt reaches only one that is under way.
    """
    if isinstance(connection, Connection) and connection.given_up:
        raise StoreTimeout(GIVEN_UP)


@asynccontextmanager
async def connect(path: str) -> AsyncIterator[aiosqlite.Connection]:
    """A connection to the file `path`, closed in the end. Raises `sqlite3.Error`."""
    connecting = aiosqlite.connect(
        path,
        isolation_level=None,
        timeout=BUSY_TIMEOUT_S,
        cached_statements=256,
        factory=Connection,
        check_same_thread=False,  # if its thread has ended, another has to close it
    )
    try:
        connection = await _opened(connecting)
    except BaseException:
        # Its thread has still to tell this loop that it ends, so the loop must not close before.
        await threads.in_thread(connecting._thread.join, name="end of a connection")
        raise
    try:
        # Damage is then an error where it is met, and not a wrong answer.
        await in_thread(connection, lambda raw: raw.execute("PRAGMA cell_size_check = ON") and None)
        yield connection
    finally:
        await _close(connection)


async def _opened(connecting: aiosqlite.Connection) -> aiosqlite.Connection:
    """Wait until it is open, cancelled or not: what is opened then would be left unclosed."""
    opening: asyncio.Future[aiosqlite.Connection] = asyncio.ensure_future(connecting)
    cancellation: asyncio.CancelledError | None = None
    while not opening.done():
        try:
            await asyncio.wait([opening])
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is None:
        return opening.result()
    if opening.exception() is None:
        await connecting.close()
    raise cancellation


async def _close(connection: aiosqlite.Connection) -> None:
    try:
        await in_thread(connection, lambda raw: raw.close())
    except ThreadEnded:
        raw, connection._connection = connection._conn, None
        await threads.in_thread(raw.close, name="end of a connection")
    except BaseException:
        connection.stop()
        raise
    else:
        await connection.close()


async def in_thread(connection: aiosqlite.Connection, operation: Operation[T]) -> T:
    """
    Run a whole operation in the connection's thread: one hop, and nothing between its statements.

    aiosqlite's public methods are a hop for each statement. A hop costs 50 µs, and a caller
    cancelled between BEGIN and COMMIT would leave the transaction open.
    """
    done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    # What its private `_execute` does, with an eye on the thread: what ends that leaves callers waiting for ever.
    connection._tx.put_nowait((done, functools.partial(operation, connection._conn)))
    try:
        while not done.done():
            await asyncio.wait([done], timeout=THREAD_LOOK_S)
            if not connection._thread.is_alive():
                await asyncio.sleep(0)  # its last result may be on its way
                if not done.done():
                    raise ThreadEnded(_THREAD_ENDED)
    finally:
        done.cancel()
    error = done.exception()
    if error is not None and not isinstance(error, Exception):
        # SystemExit, which something raised in the thread, would end the service if it were raised here.
        raise ThreadEnded(_THREAD_ENDED) from error
    return done.result()


async def interruptible(connection: aiosqlite.Connection, operation: Operation[T], timeout_s: float) -> T:
    """`operation` in the connection's thread, which is free again when this returns or raises."""

    def unless_given_up(raw: sqlite3.Connection) -> T:
        assert isinstance(raw, Connection)
        # An interrupt before the statement begins would be for nothing.
        check_wanted(raw)
        try:
            return operation(raw)
        except (sqlite3.OperationalError, StoreTimeout):
            if not raw.given_up:
                raise
        # Not from there: the error keeps the frames that it came through, these a page of entries,
        # and asyncio's futures keep the error in a cycle, which nobody looks for in a long time.
        _let_go(raw)
        raise StoreTimeout(GIVEN_UP)

    raw = connection._conn
    assert isinstance(raw, Connection)
    raw.given_up = False
    reading = asyncio.ensure_future(in_thread(connection, unless_given_up))
    try:
        done, _ = await asyncio.wait([reading], timeout=timeout_s)
        while not done:
            raw.given_up = True
            raw.interrupt()
            done, _ = await asyncio.wait([reading], timeout=INTERRUPT_AGAIN_S)
        return reading.result()
    finally:
        raw.given_up = True
        # Cancelled: the thread works on. Stop it, and wait until it has, before another uses the
        # connection; a second cancellation does not change that.
        while not reading.done():
            raw.interrupt()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([reading], timeout=INTERRUPT_AGAIN_S)
        reading.exception()


def code_of(error: sqlite3.Error) -> int | None:
    """SQLite's code without its details; None where the error is Python's, as for text that is no UTF-8."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def read_leniently(connection: sqlite3.Connection) -> None:
    """From now on text that is no UTF-8, as damage makes it, is shown with marks in it and is no error."""
    connection.text_factory = lambda text: text.decode(errors="replace")


def _let_go(connection: sqlite3.Connection) -> None:
    """
    End the transaction of a read that was given up; it would hold the state that it read for ever.

    While any statement is under way an interrupt holds for all, also for the ROLLBACK that was due.
    So it is done again when the read's frames are gone, and with them its statements.
    """
    for _ in range(ROLLBACKS_MAX):
        if not connection.in_transaction:
            return
        with contextlib.suppress(sqlite3.OperationalError):
            connection.execute("ROLLBACK")
            return
        gc.collect()


def advice(error: sqlite3.Error) -> str:
    """Return what to do about an error, as a sentence after a space, or nothing."""
    return _ADVICE.get(code_of(error), "")


def store_error(error: Exception) -> StoreError:
    """What an error of SQLite's is to the callers of a store."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, sqlite3.Error) and code_of(error) in CORRUPT:
        return StoreCorrupt(f"The database is damaged: {error}.")
    if isinstance(error, sqlite3.OperationalError):
        if code_of(error) == sqlite3.SQLITE_INTERRUPT:
            return StoreTimeout(GIVEN_UP)
        return StoreUnavailable(f"The database cannot do this now: {error}.{advice(error)}")
    return StoreError(f"The database failed: {type(error).__name__}: {error}.")
