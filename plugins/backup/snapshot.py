"""An SQLite database that is written to, as it is at one moment."""

import contextlib
import os
import sqlite3
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from taskd import TaskLogger

from .failures import Failed, check

SQLITE_STEP_PAGES = 1_000
SQLITE_WAIT_S = 30.0


def take_snapshot(database: Path, snapshot: Path, log: TaskLogger, stop: threading.Event) -> None:
    """Copy a database that may be written to meanwhile, as it is at one moment, and check the copy."""
    if not database.is_file():
        raise Failed(f"There is no database {database}. Give it as sqlite:////absolute/file.")
    try:
        with (
            contextlib.closing(_connect(database)) as source,
            contextlib.closing(sqlite3.connect(snapshot)) as copy,
        ):
            # Within one transaction no writer makes the copy start again; with a WAL none waits either.
            copy.execute("PRAGMA journal_mode=OFF")
            copy.execute("PRAGMA synchronous=OFF")
            source.execute("BEGIN")
            source.execute("SELECT 1 FROM sqlite_master").fetchone()
            with log.progress("database", unit="pages") as bar:
                source.backup(copy, pages=SQLITE_STEP_PAGES, progress=_snapshot_progress(bar, stop))
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(snapshot))}?immutable=1", uri=True)) as copy:
            fault = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        raise Failed(f"The database {database} cannot be read: {error}.") from error
    if fault != "ok":
        raise Failed(f"The database {database} is damaged: {fault}. Repair it first, or back up its file as it is.")
    about = database.stat()
    snapshot.chmod(stat.S_IMODE(about.st_mode))
    os.utime(snapshot, ns=(about.st_atime_ns, about.st_mtime_ns))


def _connect(database: Path) -> sqlite3.Connection:
    # Writable, for SQLite may have to finish what a crashed writer began; it makes no new file.
    return sqlite3.connect(
        f"file:{quote(str(database))}?mode=rw", uri=True, timeout=SQLITE_WAIT_S, isolation_level=None
    )


def _snapshot_progress(bar: Any, stop: threading.Event) -> Callable[[int, int, int], None]:
    def show(status: int, remaining: int, total: int) -> None:
        check(stop)
        bar.total = total
        bar.update(total - remaining)

    return show
