"""
The yardstick Y: what SQLite itself takes, from Python, as it is commonly used.

`sqlite3.executemany`, 1,000 rows a transaction, WAL, `synchronous=FULL`, into `task_logs` of
`schema.sql` with all of its indexes and checks. The rows are made beforehand and are those that
the benchmark's plugins say; foreign keys are off, as is sqlite3's default. One task has them all.
"""

import sqlite3
import time
from pathlib import Path

import orjson

from benchmarks.words import LINES, SOURCES, levels, messages, sources
from taskd import shipped
from taskd.entries import timestamp_of

TRANSACTION_ROWS = 1_000
TASK = "0198c0de-0000-7000-8000-000000000001"
# 2026-11-23, in microseconds after 1970.
EPOCH_US = 1_795_392_000_000_000

INSERT = """
INSERT INTO task_logs (task_id, seq, timestamp, level, source, message, metadata_json) VALUES (?, ?, ?, ?, ?, ?, ?)
"""

Row = tuple[str, int, str, str, str, str, str]


def rows_of(count: int, seed: int) -> list[Row]:
    """The entries of one task as rows."""
    lines = list(zip(levels(seed), sources(seed), messages(seed), strict=True))
    rows = []
    for n in range(count):
        level, source, message = lines[n % LINES]
        metadata = orjson.dumps({"n": n, "took_ms": n % LINES}).decode()
        timestamp = timestamp_of(EPOCH_US + 10 * n)
        rows.append((TASK, n + 1, timestamp, level.upper(), f"load.{source % SOURCES}", message, metadata))
    return rows


def rows_per_second(directory: Path, rows: list[Row]) -> float:
    """How many of them a second are committed."""
    connection = sqlite3.connect(directory / "raw.db", isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(shipped.SCHEMA.read_text())
        started = time.perf_counter()
        for start in range(0, len(rows), TRANSACTION_ROWS):
            connection.execute("BEGIN")
            connection.executemany(INSERT, rows[start : start + TRANSACTION_ROWS])
            connection.execute("COMMIT")
        return len(rows) / (time.perf_counter() - started)
    finally:
        connection.close()
