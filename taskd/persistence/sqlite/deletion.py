"""
`Purger`: deletes what is hidden, and gives the disk back what that leaves free; in bites.

A task is deleted in two steps. It is hidden, in one small transaction: from then on it is not
there for anybody. Its entries, their indexes and at last its row then go in bites, each a
transaction of about `BITE_S`; a process that dies in between leaves a hidden task, and the next
start goes on with it.

The writer belongs to entries: a bite waits until nothing waits to be stored, or, where that
never comes, for `TURN_WAIT_S`; and after it the purger rests for as long as it took. So at the
most about a tenth of a writer that is never idle goes into deleting.

Free pages are used again by what is stored next, so a tenth of the file may be free. What is
free beyond that leaves the file, from its end, by `incremental_vacuum`; a database made before
taskd had that keeps its size, until somebody runs VACUUM on it.
"""

import asyncio
import functools
import sqlite3
import time
from collections.abc import Sequence

from taskd.persistence.sqlite.committer import Committer
from taskd.persistence.sqlite.connection import Operation, T
from taskd.persistence.sqlite.indexer import remove_rows

BITE_S = 0.02
# Between two looks at the clock.
STEP_ENTRIES = 500
STEP_ROWS = 100
STEP_PAGES = 64
# Tasks in one bite: of many small ones.
BITE_TASKS_MAX = 100
TURN_WAIT_S = 0.25
# Kept free for what comes next: this, or so-manieth of the pages in use.
FREE_PAGES_KEPT = 256
FREE_PART_KEPT = 10
INCREMENTAL = 2

IS_HIDDEN = "SELECT 1 FROM tasks WHERE id = ? AND deleted_at IS NOT NULL"
DELETE_ENTRIES = """
DELETE FROM task_logs WHERE id IN (SELECT id FROM task_logs WHERE task_id = ? ORDER BY seq LIMIT ?)
"""
DELETE_TASK = "DELETE FROM tasks WHERE id = ?"


class Purger:
    """Deletes in bites, through the one writer."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer

    async def purge(self, task_ids: Sequence[str]) -> None:
        """Delete hidden tasks with their logs. May be cancelled, and done again."""
        left = list(task_ids)
        while left:
            some = left[:BITE_TASKS_MAX]
            gone = await self._bite(functools.partial(purge_bite, task_ids=some))
            del left[:gone]

    async def give_back(self) -> None:
        """Take out of the file what is free and more than is kept. May be cancelled."""
        while await self._bite(give_back_bite):
            pass

    async def _bite(self, operation: Operation[T]) -> T:
        await self._committer.idle(TURN_WAIT_S)
        started = time.perf_counter()
        result = await self._committer.do(operation)
        await asyncio.sleep(time.perf_counter() - started)
        return result


def purge_bite(connection: sqlite3.Connection, task_ids: Sequence[str]) -> int:
    """Delete, for `BITE_S`, what hidden tasks have; how many of them, from the first, are gone then."""
    until = time.perf_counter() + BITE_S
    for gone, task_id in enumerate(task_ids):
        while not _purged(connection, task_id):
            if time.perf_counter() >= until:
                return gone
        if time.perf_counter() >= until:
            return gone + 1
    return len(task_ids)


def _purged(connection: sqlite3.Connection, task_id: str) -> bool:
    """Delete a little of a hidden task; whether nothing is left of it."""
    if connection.execute(IS_HIDDEN, (task_id,)).fetchone() is None:
        return True
    # From log_search first: what is to go there is asked of the entries.
    if remove_rows(connection, task_id, STEP_ROWS):
        return False
    if connection.execute(DELETE_ENTRIES, (task_id, STEP_ENTRIES)).rowcount == STEP_ENTRIES:
        return False
    connection.execute(DELETE_TASK, (task_id,))
    return True


def give_back_bite(connection: sqlite3.Connection) -> bool:
    """Take pages out of the file for `BITE_S`; whether there is more to take."""
    if _pragma(connection, "auto_vacuum") != INCREMENTAL:
        return False
    until = time.perf_counter() + BITE_S
    while (spare := spare_pages(connection)) > 0:
        # Each row that it returns is a page: they are all to be asked for.
        connection.execute(f"PRAGMA incremental_vacuum({min(spare, STEP_PAGES)})").fetchall()
        if time.perf_counter() >= until:
            return True
    return False


def spare_pages(connection: sqlite3.Connection) -> int:
    """How many free pages are more than is kept."""
    free = _pragma(connection, "freelist_count")
    used = _pragma(connection, "page_count") - free
    return free - max(FREE_PAGES_KEPT, used // FREE_PART_KEPT)


def used_bytes(connection: sqlite3.Connection) -> int:
    """Bytes of the database that hold something."""
    pages = _pragma(connection, "page_count") - _pragma(connection, "freelist_count")
    return pages * _pragma(connection, "page_size")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value
