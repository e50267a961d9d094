"""
Long logs, written straight into a database of taskd's: what `query` asks.

One task of a million entries and others beside it, in the order in which a service stores tasks
that run at once: a flush of each in turn. Messages are those of `words` with a number; every
eighth is in Russian. Three entries of each task say a word that nothing else says.
"""

import sqlite3
from pathlib import Path

import orjson

from benchmarks.words import LINES, levels, messages, sources
from taskd import shipped

FLUSH_ENTRIES = 2_000
SOURCES = 8
# 2026-11-23, in seconds after 1970.
EPOCH_S = 1_795_392_000
RUSSIAN = "Соединение с сервером потеряно, повтор через 30 секунд, запрос"
RARE, RARE_RUSSIAN = "Xylophone", "Саксофон"
COMMON, COMMON_RUSSIAN = "timeout", "СЕРВЕРОМ"

# Entry `n` (from 0) of a task says line `n` of `lines`; 20 µs lie between two.
FLUSH = f"""
INSERT INTO task_logs (task_id, seq, timestamp, level, source, message, metadata_json)
SELECT :task, n + 1,
  strftime('%Y-%m-%dT%H:%M:%S.', {EPOCH_S} + n / 50000, 'unixepoch') || printf('%06dZ', n % 50000 * 20),
  level, source,
  CASE
    WHEN n % :third = :third / 2 THEN '{RARE} ' || n || ' {RARE_RUSSIAN}'
    ELSE message || ' ' || n
  END,
  '{{"n":' || n || metadata
FROM (SELECT :after + number AS n, number FROM numbers WHERE number < :count) JOIN lines ON line = n % {LINES}
ORDER BY n
"""
COUNTS = """
INSERT INTO log_counts
SELECT task_id, level, source, count(*), min(seq), max(seq), min(timestamp), max(timestamp)
FROM task_logs WHERE task_id = ? GROUP BY level, source
"""
TASK = """
INSERT INTO tasks (id, plugin, params_json, status, created_at, started_at, finished_at, last_seq)
VALUES (?, 'written', '{}', 'succeeded', :at, :at, :at, ?)
""".replace(":at", "'2026-11-23T00:00:00.000000Z'")


def task_of(number: int) -> str:
    """The id of the task that is `number`, from 0."""
    return f"0198c0de-0000-7000-8000-{number:012x}"


def write_logs(path: Path, sizes: list[int], seed: int) -> None:
    """A database whose task `n` has `sizes[n]` entries."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")
        connection.executescript(shipped.SCHEMA.read_text())
        connection.execute("CREATE TEMP TABLE numbers (number INTEGER PRIMARY KEY)")
        connection.executemany("INSERT INTO numbers VALUES (?)", [(number,) for number in range(FLUSH_ENTRIES)])
        connection.execute("CREATE TEMP TABLE lines (line INTEGER PRIMARY KEY, level, source, message, metadata)")
        connection.executemany("INSERT INTO lines VALUES (?, ?, ?, ?, ?)", _lines(seed))
        connection.executemany(TASK, [(task_of(number), size) for number, size in enumerate(sizes)])
        for after in range(0, max(sizes), FLUSH_ENTRIES):
            connection.execute("BEGIN")
            for number, size in enumerate(sizes):
                if size > after:
                    count = min(FLUSH_ENTRIES, size - after)
                    asked = {"task": task_of(number), "after": after, "count": count, "third": max(1, size // 3)}
                    connection.execute(FLUSH, asked)
            connection.execute("COMMIT")
        for number in range(len(sizes)):
            connection.execute(COUNTS, (task_of(number),))
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


def _lines(seed: int) -> list[tuple[int, str, str, str, str]]:
    said = zip(levels(seed), sources(seed), messages(seed), strict=True)
    return [
        (
            line,
            level.upper(),
            f"load.{(source + line) % SOURCES}",
            message if line % 8 else RUSSIAN,
            f",{orjson.dumps({'worker': f'w{line % 16}', 'took_ms': line})[1:].decode()}",
        )
        for line, (level, source, message) in enumerate(said)
    ]
