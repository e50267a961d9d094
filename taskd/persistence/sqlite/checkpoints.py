"""
`Checkpointer`: keeps the write-ahead log (`taskd.db-wal`) small, as far as that can be done.

SQLite moves what is committed from that log into the database after every `CHECKPOINT_PAGES`, in
the writer; then the log is written anew from its start, unless somebody still reads an older
state of the database. With many readers there may always be somebody. So where the log has grown
large, and where nothing was written for a while, it is emptied: with the writer kept out for at
most `BUSY_S`, in which the short reads of our own end.

Our own reads end after `query_timeout_s` at the latest, and between two pages of an export or a
stream there is no read. What holds an older state for longer is another program with an open
transaction. Nothing can be done against that from here, and the log grows for as long: so it is
said, with its size, and the log shrinks when that program lets go.
"""

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import aiosqlite

from taskd.persistence.sqlite.committer import Committer
from taskd.persistence.sqlite.connection import in_thread

LOOK_S = 1.0
# From here on it is emptied as soon as may be; else when nothing was written for `QUIET_S`.
LARGE_BYTES = 64 * 1_048_576
QUIET_BYTES = 1_048_576
QUIET_S = 5.0
BUSY_S = 0.1
# After a try that was in vain the next waits, twice as long each time.
RETRY_MAX_S = 16.0

_log = logging.getLogger("taskd.store")


class Checkpointer:
    """The one that empties the write-ahead log. `run` until it is cancelled."""

    def __init__(
        self,
        connect: Callable[[], AbstractAsyncContextManager[aiosqlite.Connection]],
        path: str,
        committer: Committer,
        query_timeout_s: float,
    ) -> None:
        self._connect = connect
        self._wal = Path(f"{os.path.realpath(path)}-wal")
        self._committer = committer
        # Longer than a few of our own reads, one after the other, can be in the way.
        self._patience_s = 3 * query_timeout_s
        self._commits = 0
        self._quiet_since = time.monotonic()
        self._held_since: float | None = None
        self._told = False
        self._delay_s = LOOK_S

    @property
    def wal_bytes(self) -> int:
        """How large the write-ahead log is now."""
        try:
            return self._wal.stat().st_size
        except OSError:
            return 0

    @property
    def held(self) -> str | None:
        """That another program keeps it from shrinking, in words; None where none is known to."""
        if not self._told:
            return None
        return (
            f"The database's write-ahead log {self._wal} has {self.wal_bytes / 1_048_576:,.0f} MiB and grows: another "
            "program has had a transaction open on the database for long. End it; then the log shrinks by itself."
        )

    async def run(self) -> None:
        """Look at the log, for ever. May be cancelled at any point."""
        async with self._connect() as connection:
            while True:
                await asyncio.sleep(self._delay_s)
                await self._look(connection)

    async def _look(self, connection: aiosqlite.Connection) -> None:
        quiet = self._is_quiet()
        size = self.wal_bytes
        if size < LARGE_BYTES and not (quiet and size > QUIET_BYTES):
            self._let_go()
            return
        if await self._emptied(connection):
            self._let_go()
        elif size >= LARGE_BYTES:
            now = time.monotonic()
            self._held_since = self._held_since or now
            self._delay_s = min(2 * self._delay_s, RETRY_MAX_S)
            if not self._told and now - self._held_since >= self._patience_s:
                self._told = True
                _log.warning("%s", self.held)

    def _let_go(self) -> None:
        if self._told:
            _log.warning("The database's write-ahead log has shrunk to %s bytes.", f"{self.wal_bytes:,}")
        self._held_since, self._told, self._delay_s = None, False, LOOK_S

    def _is_quiet(self) -> bool:
        if self._commits != self._committer.commits:
            self._commits, self._quiet_since = self._committer.commits, time.monotonic()
        return time.monotonic() - self._quiet_since >= QUIET_S

    async def _emptied(self, connection: aiosqlite.Connection) -> bool:
        try:
            return await in_thread(connection, empty)
        except sqlite3.Error as error:
            # The store is locked or fails, and who writes entries says so.
            _log.debug("the write-ahead log is emptied later: %s", error)
            return False


def empty(connection: sqlite3.Connection) -> bool:
    """Move all of the write-ahead log into the database and cut it to nothing; False where a reader is in the way."""
    # First most of it, beside the writer; then, with the writer kept out, the little that is left.
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    busy: int = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    return not busy


def prepare_checkpointer(connection: sqlite3.Connection) -> None:
    """Set how long the connection waits for others."""
    connection.execute(f"PRAGMA busy_timeout = {int(BUSY_S * 1_000)}")
