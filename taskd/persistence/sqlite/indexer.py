"""
`Indexer`: makes `log_blocks` and `log_search` of what is stored, in the background and in bites.

Blocks follow a running task, for they cost little. The three-character pieces of its messages go
into log_search when the task has ended, and only of logs so long that reading them takes a while.
A bite is read on a connection of its own and written through the one writer, in a transaction
that says how far it has come: so it may die anywhere, and goes on from there. What is not there
yet is read from the rows, so an answer never depends on it.

The writer belongs to entries first. A bite holds it for about `BITE_S`, and after each the
indexer rests: for as long as the bite took, and `BUSY_RESTS` times as long while entries come in
at more than `BUSY_ENTRIES_PER_S`.
"""

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import aiosqlite

from taskd.errors import StoreError
from taskd.persistence.sqlite.blocks import BLOCK_ENTRIES, INSERT_BLOCK, make_block
from taskd.persistence.sqlite.committer import Committer
from taskd.persistence.sqlite.connection import in_thread
from taskd.persistence.sqlite.corruption import Soundness

BITE_S = 0.05
BITE_ENTRIES_MIN, BITE_ENTRIES_MAX = 250, 8_000
BUSY_ENTRIES_PER_S = 10_000
BUSY_RESTS = 20
# Between two looks at how fast entries come.
PACE_S = 0.5
RETRY_S = 2.0

FOLDED = """
CASE WHEN length(message) = length(CAST(message AS BLOB)) THEN lower(message) ELSE casefolded(message) END
"""
UNFINISHED = f"""
SELECT id FROM tasks LEFT JOIN log_indexes ON task_id = id WHERE deleted_at IS NULL AND (
  last_seq / {BLOCK_ENTRIES} > coalesce(blocks, 0)
  OR (status NOT IN ('queued', 'running') AND last_seq >= ?
      AND last_seq > coalesce(searchable, 0)))
"""
STATE = """
SELECT last_seq, status NOT IN ('queued', 'running'), coalesce(blocks, 0), coalesce(searchable, 0)
FROM tasks LEFT JOIN log_indexes ON task_id = id WHERE id = ? AND deleted_at IS NULL
"""
BEGIN_INDEX = "INSERT OR IGNORE INTO log_indexes (task_id) SELECT id FROM tasks WHERE id = ? AND deleted_at IS NULL"
ADVANCE_BLOCKS = "UPDATE log_indexes SET blocks = ? WHERE task_id = ? AND blocks = ?"
KEEP_ROWS = """
UPDATE log_indexes SET
  first_row = (SELECT coalesce(max(first_row + rows), 0) FROM log_indexes),
  rows = (SELECT last_seq FROM tasks WHERE id = task_id)
WHERE task_id = ? AND first_row IS NULL
"""
SEARCHABLE = "SELECT first_row, searchable FROM log_indexes WHERE task_id = ?"
# None where the task is being deleted.
FIRST_ROW = """
SELECT first_row FROM log_indexes JOIN tasks ON id = task_id
WHERE task_id = ? AND searchable = ? AND deleted_at IS NULL
"""
ADD_ROWS = f"""
INSERT INTO log_search (rowid, message)
SELECT ? + seq, {FOLDED} FROM task_logs WHERE task_id = ? AND seq > ? AND seq <= ? ORDER BY seq
"""
REMOVE_ROWS = f"""
INSERT INTO log_search (log_search, rowid, message)
SELECT 'delete', ? + seq, {FOLDED} FROM task_logs WHERE task_id = ? AND seq > ? AND seq <= ?
"""
MOVE_SEARCHABLE = "UPDATE log_indexes SET searchable = ? WHERE task_id = ?"

_log = logging.getLogger("taskd.indexer")


def prepare_writer(connection: sqlite3.Connection) -> None:
    """Give the writer the function that `ADD_ROWS` and `REMOVE_ROWS` call."""
    connection.create_function("casefolded", 1, str.casefold, deterministic=True)


def remove_rows(connection: sqlite3.Connection, task_id: str, entries_max: int) -> bool:
    """Take some of a log out of log_search, from its end; whether there was something to take."""
    state = connection.execute(SEARCHABLE, (task_id,)).fetchone()
    if state is None or not state[1]:
        return False
    first_row, searchable = state
    kept = max(0, searchable - entries_max)
    connection.execute(REMOVE_ROWS, (first_row, task_id, kept, searchable))
    connection.execute(MOVE_SEARCHABLE, (kept, task_id))
    return True


@dataclass(slots=True)
class _State:
    """How far a log is."""

    last_seq: int
    ended: bool
    blocks: int
    searchable: int

    @property
    def block_due(self) -> bool:
        return self.last_seq // BLOCK_ENTRIES > self.blocks

    def rows_due(self, entries_min: int) -> bool:
        return self.ended and self.last_seq >= entries_min and self.last_seq > self.searchable


class Indexer:
    """The one that makes the indexes. `run` until it is cancelled."""

    _connection: aiosqlite.Connection

    def __init__(
        self,
        connect: Callable[[], AbstractAsyncContextManager[aiosqlite.Connection]],
        committer: Committer,
        soundness: Soundness,
        entries_min: int,
    ) -> None:
        self._connect = connect
        self._soundness = soundness
        self._committer = committer
        self._entries_min = entries_min
        self._blocks_due: dict[str, None] = {}
        self._rows_due: dict[str, None] = {}
        self._grown: dict[str, int] = {}
        self._work = asyncio.Event()
        self._bite = BITE_ENTRIES_MIN
        self._entries = 0
        self._counted_at = time.monotonic()
        self._busy = False

    def note(self, task_id: str, entries: int, ended: bool) -> None:
        """A log has grown by `entries`, or its task has ended."""
        self._entries += entries
        grown = self._grown.pop(task_id, 0) + entries
        # Not at each flush: a look is due when a block may be full.
        if grown >= BLOCK_ENTRIES or ended:
            self._blocks_due[task_id] = None
            self._work.set()
        elif grown:
            self._grown[task_id] = grown
        if ended:
            self._rows_due[task_id] = None

    def interrupt(self) -> None:
        """Break off the statement that is under way, before `run` is cancelled."""
        with contextlib.suppress(AttributeError, ValueError):  # there is none yet, or none any more
            self._connection._conn.interrupt()

    async def run(self) -> None:
        """Index what is to be indexed, for ever. May be cancelled at any point."""
        # Its own, so that each life has another: something may have ended the thread of the last one.
        async with self._connect() as self._connection:
            await self._note_unfinished()
            await self._index()

    async def _index(self) -> None:
        while True:
            await self._work.wait()
            # Blocks of running tasks before the text of those that have ended, which takes longer.
            due = self._blocks_due or self._rows_due
            if not due:
                self._work.clear()
                continue
            await self._take_bite(next(iter(due)), due)

    async def _take_bite(self, task_id: str, due: dict[str, None]) -> None:
        started = time.perf_counter()
        try:
            done = not await (self._make_block if due is self._blocks_due else self._add_rows)(task_id)
        except (StoreError, sqlite3.Error) as error:
            self._soundness.told(error)
            # The store fails or is locked, and who writes entries says so; here it can wait.
            _log.debug("task %s is indexed later: %s", task_id, error)
            await asyncio.sleep(RETRY_S)
            return
        except Exception:
            # Its log is answered from the rows, as it was before.
            _log.exception("taskd made a mistake while it indexed task %s", task_id)
            done = True
        if done:
            due.pop(task_id, None)
        took_s = time.perf_counter() - started
        await asyncio.sleep(took_s * (BUSY_RESTS if self._is_busy() else 1))

    async def _note_unfinished(self) -> None:
        unfinished = None
        while unfinished is None:
            try:
                unfinished = await in_thread(
                    self._connection, lambda raw: raw.execute(UNFINISHED, (self._entries_min,)).fetchall()
                )
            except sqlite3.Error as error:
                self._soundness.told(error)
                await asyncio.sleep(RETRY_S)
        for (task_id,) in unfinished:
            self.note(task_id, 0, ended=True)

    async def _state(self, task_id: str) -> _State | None:
        row = await in_thread(self._connection, lambda raw: raw.execute(STATE, (task_id,)).fetchone())
        return None if row is None else _State(row[0], bool(row[1]), row[2], row[3])

    async def _make_block(self, task_id: str) -> bool:
        """Make the next block, where one is due; whether there may be another."""
        state = await self._state(task_id)
        if state is None or not state.block_due:
            return False
        number = state.blocks
        block = await in_thread(self._connection, lambda raw: make_block(raw, task_id, number))

        def write(connection: sqlite3.Connection) -> None:
            connection.execute(BEGIN_INDEX, (task_id,))
            # Where the task was deleted meanwhile there is nothing to advance, and no block to keep.
            if connection.execute(ADVANCE_BLOCKS, (number + 1, task_id, number)).rowcount:
                connection.execute(INSERT_BLOCK, block)

        await self._committer.do(write)
        return True

    async def _add_rows(self, task_id: str) -> bool:
        """Add a bite of a log's text, where that is due; whether there may be more."""
        state = await self._state(task_id)
        if state is None or not state.rows_due(self._entries_min):
            return False
        searchable, last_seq, entries = state.searchable, state.last_seq, self._bite

        def write(connection: sqlite3.Connection) -> float:
            started = time.perf_counter()
            connection.execute(BEGIN_INDEX, (task_id,))
            connection.execute(KEEP_ROWS, (task_id,))
            found = connection.execute(FIRST_ROW, (task_id, searchable)).fetchone()
            if found is not None:
                until = min(searchable + entries, last_seq)
                connection.execute(ADD_ROWS, (found[0], task_id, searchable, until))
                connection.execute(MOVE_SEARCHABLE, (until, task_id))
            return time.perf_counter() - started

        took_s = await self._committer.do(write)
        # As many as take about BITE_S; never all at once another number, for one may have been slow by chance.
        wanted = entries * BITE_S / max(took_s, 0.001)
        self._bite = int(min(max(wanted, entries / 2, BITE_ENTRIES_MIN), entries * 2, BITE_ENTRIES_MAX))
        return True

    def _is_busy(self) -> bool:
        """Whether entries come in so fast that the writer should be left to them."""
        now = time.monotonic()
        if now - self._counted_at >= PACE_S:
            self._busy = self._entries > BUSY_ENTRIES_PER_S * (now - self._counted_at)
            self._entries, self._counted_at = 0, now
        return self._busy
