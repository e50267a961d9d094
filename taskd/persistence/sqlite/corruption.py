"""
A database that is damaged: how that is noticed, and how its files are set aside.

Only what SQLite calls SQLITE_CORRUPT or SQLITE_NOTADB counts, and what the same reading at the
start finds: never a disk that fails, is full, is locked or denies access. Noticed at the start by
what costs little (a large database must be there in seconds), and later by whichever statement
meets the damage first. Then nothing is repaired: the files are kept as they are, beside the new
database that is begun, for whoever can read what is left of them.

A file is set aside only if it is taskd's: it lies where taskd puts its own database, or its head
has taskd's application id. Another file, named by mistake, is refused and left where it is. And
not again and again: where that is the third within minutes, the disk is at fault, and the start
is refused.
"""

import asyncio
import os
import shutil
import sqlite3
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

from taskd.errors import StoreCorrupt, StoreError
from taskd.persistence.sqlite.connection import store_error

APPLICATION_ID = 0x7461736B  # 'task'
HEAD_BYTES = 72
# Checked whole at the start, at 150 MB/s and more.
CHECKED_BYTES_MAX = 64 * 1_024 * 1_024
# What a start reads of a larger one: the tasks, and the newest part of each tree.
TAILS = (
    "SELECT * FROM (SELECT * FROM tasks ORDER BY id DESC LIMIT 1000)",
    "SELECT id FROM tasks INDEXED BY tasks_by_plugin ORDER BY plugin DESC, id DESC LIMIT 1000",
    "SELECT id FROM tasks INDEXED BY tasks_unended WHERE status IN ('queued', 'running')",
    "SELECT * FROM (SELECT * FROM task_logs ORDER BY id DESC LIMIT 1000)",
    "SELECT seq FROM task_logs ORDER BY task_id DESC, seq DESC LIMIT 1000",
    "SELECT id FROM task_logs ORDER BY timestamp DESC LIMIT 1000",
    "SELECT * FROM log_counts ORDER BY task_id DESC LIMIT 1000",
    "SELECT * FROM log_indexes ORDER BY rowid DESC LIMIT 1000",
    "SELECT block FROM log_blocks ORDER BY task_id DESC, block DESC LIMIT 100",
)
SIDES = ("-wal", "-shm", "")  # the database last: without its log it would be an older one
SET_ASIDE_MAX = 3
SET_ASIDE_WITHIN = timedelta(minutes=10)
STAMP = "%Y%m%dT%H%M%SZ"


class Soundness:
    """Whether an open database is sound: `corrupt` is set where SQLite says that it is not."""

    def __init__(self) -> None:
        self.corrupt = asyncio.Event()
        self.reason = ""

    def told(self, error: Exception) -> StoreError:
        """The error as the callers of a store get it; noted where it says that the database is damaged."""
        told = store_error(error)
        if isinstance(told, StoreCorrupt) and not self.corrupt.is_set():
            self.reason = str(told)
            self.corrupt.set()
        return told


def is_taskds(path: str, data_dir: Path, head: bytes) -> bool:
    """Whether a file that SQLite cannot read is taskd's own."""
    own = Path(path).resolve() == (data_dir / "taskd.db").resolve()
    return own or head[68:72] == APPLICATION_ID.to_bytes(4, "big")


def check_sides(path: str) -> None:
    """Before it is opened: SQLite would take a file that was cut to nothing for new, and remove its log."""
    log = Path(f"{path}-wal")
    if log.exists() and log.stat().st_size and not Path(path).stat().st_size:
        raise StoreCorrupt(f"The database {path} is empty, but has a write-ahead log.")


def check(connection: sqlite3.Connection, path: str, expected: dict[str, str]) -> None:
    """
    Find damage that shows itself at once. Raises `StoreCorrupt`, and `sqlite3.Error` where SQLite finds it.

    `expected` has the schema's objects by name.
    """
    # As bytes, for damaged text may be no text.
    there = dict(connection.execute("SELECT CAST(name AS BLOB), CAST(sql AS BLOB) FROM sqlite_master"))
    for name, sql in expected.items():
        found, written = there.get(name.encode()), sql.encode()
        # Somebody may have altered a table; bytes that changed in their places are damage.
        if found is not None and found != written and len(found) == len(written):
            raise StoreCorrupt(f"The database {path} is damaged: the schema of {name} is not the one that was written.")
    if Path(path).stat().st_size <= CHECKED_BYTES_MAX:
        said = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if said != "ok":
            raise StoreCorrupt(f"The database {path} is damaged: {' '.join(said.split())}.")
    else:
        for tail in TAILS:
            connection.execute(tail).fetchall()


def stamp_now() -> str:
    """The time, as it stands in the names of what is set aside."""
    return datetime.now(UTC).strftime(STAMP)


def set_aside(path: str, stamp: str, before: Callable[[], None]) -> Path:
    """
    Rename the database's files to `….corrupt-STAMP`; the database's new name.

    `before` sets aside what belongs to it: a death between the two must not leave that to the new
    one. Nothing may be open. Raises `StoreCorrupt` where that has been done too often of late, and
    `StoreError` where it cannot be done.
    """
    database = Path(path)
    if sum(_is_recent(kept) for kept in _kept(database)) >= SET_ASIDE_MAX:
        raise StoreCorrupt(
            f"The database {path} is damaged again, after {SET_ASIDE_MAX} that were set aside within "
            f"{SET_ASIDE_WITHIN.seconds // 60} minutes: look at the disk, then start again."
        )
    name = free_name(Path(f"{path}.corrupt-{stamp}"))
    try:
        before()
        for side in SIDES:
            if (file := Path(path + side)).exists():
                file.rename(f"{name}{side}")
    except OSError as error:
        raise StoreError(
            f"The database {path} is damaged and cannot be set aside ({error.strerror}); move it away."
        ) from error
    return name


def free_name(path: Path) -> Path:
    """`path`, or with a number behind it where that is taken."""
    name, number = path, 1
    while name.exists():
        number += 1
        name = path.with_name(f"{path.name}-{number}")
    return name


def _kept(database: Path) -> Iterator[Path]:
    sides = tuple(side for side in SIDES if side)
    return (kept for kept in database.parent.glob(f"{database.name}.corrupt-*") if not kept.name.endswith(sides))


def _is_recent(kept: Path) -> bool:
    try:
        when = datetime.strptime(kept.name.rpartition(".corrupt-")[2][:16], STAMP).replace(tzinfo=UTC)
    except ValueError:
        return False
    return abs(datetime.now(UTC) - when) < SET_ASIDE_WITHIN


def keep_unread_log(connection: sqlite3.Connection, path: str) -> str | None:
    """
    Where the write-ahead log has commits that SQLite does not read, copy it, and say so.

    SQLite reads a log up to the first part whose checksum is wrong, as a power cut leaves it, and
    says nothing of what is behind. Called when the connection has read, and nobody has written.
    """
    log = Path(f"{path}-wal")
    if not log.exists():
        return None
    read = int(connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1])
    if read < 0:  # somebody else is at it
        return None
    with log.open("rb") as file:
        unread = _unread_commits(file, read)
    if not unread:
        return None
    told = f"The write-ahead log of the database {path} is damaged: {unread} commits in it cannot be read."
    kept = free_name(Path(f"{log}.corrupt-{stamp_now()}"))
    try:
        shutil.copyfile(log, kept)
    except OSError:
        kept.unlink(missing_ok=True)
        return told
    return f"{told} A copy is in {kept}."


def _unread_commits(log: BinaryIO, read: int) -> int:
    """How many frames behind the first `read` are commits of the same log (see SQLite's file format, section 4)."""
    head = log.read(56)
    if len(head) < 56:
        return 0
    page_bytes = int.from_bytes(head[8:12], "big")
    if not 512 <= page_bytes <= 65_536:
        return 1
    # A log that is begun anew has new salts in its head; a head that is damaged has none to go by.
    salts = head[16:24] if _is_whole(head) else head[40:48]
    size = os.fstat(log.fileno()).st_size
    starts = range(32 + read * (24 + page_bytes), size - 23, 24 + page_bytes)
    frames = (os.pread(log.fileno(), 24, start) for start in starts)
    return sum(frame[8:16] == salts and frame[4:8] != bytes(4) for frame in frames)


def _is_whole(head: bytes) -> bool:
    """Whether a log's head has the checksum that it should."""
    order = {b"\x37\x7f\x06\x82": "<", b"\x37\x7f\x06\x83": ">"}.get(head[:4])
    if order is None:
        return False
    one = two = 0
    for first, second in struct.iter_unpack(f"{order}II", head[:24]):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return head[24:32] == struct.pack(">II", one, two)
