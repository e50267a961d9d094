"""An SQLite database that is written to, as it is at one moment."""

import contextlib
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from taskd import PluginError, TaskLogger
from taskd.system.trees import identity

from .failures import check

DESCRIPTORS = "/proc/self/fd"
SQLITE_STEP_PAGES = 1_000
SQLITE_WAIT_S = 30.0
# How long SQLite waits for a lock in one call, in which a cancellation is not noticed.
SQLITE_LOOK_S = 0.5
# Instructions of SQLite's machine, some milliseconds, between two looks at a cancellation.
CHECKED_STEPS = 100_000


def take_snapshot(database: Path, snapshot: Path, fd: int, log: TaskLogger, stop: threading.Event) -> None:
    """
    Copy a database that may be written to meanwhile, as it is at one moment, and check the copy.

    `fd` is the open and empty file `snapshot`.
    """
    if not database.is_file():
        raise PluginError(f"There is no database {database}. Give it as sqlite:////absolute/file.")
    try:
        with (
            contextlib.closing(_connect(database)) as source,
            contextlib.closing(_connect(snapshot)) as copy,
        ):
            if not _is_opened_again(fd):
                raise PluginError(f"{snapshot} was replaced by another process. Run again.")
            # Within one transaction no writer makes the copy start again; with a WAL none waits either.
            copy.execute("PRAGMA journal_mode=OFF")
            copy.execute("PRAGMA synchronous=OFF")
            source.execute("BEGIN")
            _wait_for(source, stop)
            with log.progress("database", unit="pages") as bar:
                source.backup(copy, pages=SQLITE_STEP_PAGES, progress=_snapshot_progress(bar, stop))
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(snapshot))}?immutable=1", uri=True)) as copy:
            copy.set_progress_handler(stop.is_set, CHECKED_STEPS)
            fault = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        check(stop)
        raise PluginError(f"The database {database} cannot be read: {error}.") from error
    if fault != "ok":
        raise PluginError(
            f"The database {database} is damaged: {fault}. Repair it first, or back up its file as it is."
        )
    about = database.stat()
    os.fchmod(fd, stat.S_IMODE(about.st_mode))
    os.utime(fd, ns=(about.st_atime_ns, about.st_mtime_ns))


def _connect(database: Path) -> sqlite3.Connection:
    # Writable, for SQLite may have to finish what a crashed writer began; it makes no new file.
    return sqlite3.connect(
        f"file:{quote(str(database))}?mode=rw", uri=True, timeout=SQLITE_LOOK_S, isolation_level=None
    )


def _wait_for(source: sqlite3.Connection, stop: threading.Event) -> None:
    """Begin to read in the transaction that is open. Waits while another process holds the database locked."""
    until = time.monotonic() + SQLITE_WAIT_S
    while True:
        check(stop)
        try:
            source.execute("SELECT 1 FROM sqlite_master").fetchone()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise


def _is_opened_again(fd: int) -> bool:
    """Whether another descriptor of this process has the same file. SQLite takes a path, and follows links."""
    if not os.path.isdir(DESCRIPTORS):
        return True
    found = 0
    for name in os.listdir(DESCRIPTORS):
        with contextlib.suppress(OSError):
            found += identity(os.stat(f"{DESCRIPTORS}/{name}")) == identity(os.fstat(fd))
    return found > 1


def _snapshot_progress(bar: Any, stop: threading.Event) -> Callable[[int, int, int], None]:
    def show(status: int, remaining: int, total: int) -> None:
        check(stop)
        bar.total = total
        bar.update(total - remaining)

    return show
