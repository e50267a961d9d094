"""
The database's version: a new one is made of `schema.sql`, an older one is brought up to it.

Every version so far has only added tables and indexes. So bringing a database up to date is to
make, of `schema.sql`, what it does not have; a test compares the outcome with a new one.
"""

import sqlite3
from pathlib import Path

from taskd import shipped
from taskd.errors import StoreError, StoreNewer
from taskd.persistence.sqlite.corruption import APPLICATION_ID, check, keep_unread_log

SCHEMA_VERSION = 2
CACHE_KIB = 16_384
CHECKPOINT_PAGES = 4_000  # of 4 KiB
# The write-ahead log's file is cut to this when it begins anew.
WAL_KEPT_BYTES = CHECKPOINT_PAGES * 4_096

EVERYTHING = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid"


def prepare(connection: sqlite3.Connection, path: str) -> str | None:
    """
    Make the database ready, and find out whether it is sound; what is to be said of it.

    Raises `StoreError` where it is not taskd's, a newer one's or damaged.
    """
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
    wanted = _wanted()
    notice = keep_unread_log(connection, path)
    if empty:
        # Before anything is written, for later only VACUUM could change it. Measured: an insert costs no more,
        # and the file has a thousandth more pages.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    else:
        check(connection, path, dict(wanted))
    connection.execute("PRAGMA journal_mode = WAL")
    # The whole schema or nothing, also when killed in the middle.
    if empty:
        connection.executescript(f"BEGIN IMMEDIATE; {Path(shipped.SCHEMA).read_text()}; COMMIT;")
    elif version < SCHEMA_VERSION:
        _upgrade(connection, wanted)
    return notice


def configure(connection: sqlite3.Connection, synchronous: str) -> None:
    """Set what a connection that writes needs."""
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute("PRAGMA foreign_keys = ON")
    # Many tasks write in many places at once: with SQLite's 2 MB and 4 MB their pages are
    # written out and read again within one transaction, and copied into the file time and again.
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_KEPT_BYTES}")


def _wanted() -> list[tuple[str, str]]:
    """What a new database has, by name."""
    fresh = sqlite3.connect(":memory:")
    fresh.executescript(Path(shipped.SCHEMA).read_text())
    wanted = fresh.execute(EVERYTHING).fetchall()
    fresh.close()
    return wanted


def _upgrade(connection: sqlite3.Connection, wanted: list[tuple[str, str]]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for name, sql in wanted:
        # Looked up each time: a virtual table comes with tables of its own.
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone() is None:
            connection.execute(sql)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")
