"""
`Append`: the writer's batches, put into SQLite many at a time.

What waits for a transaction, of however many tasks, is stored by the same few statements: one
that looks which of it is new, one for hundreds of entries, one each for counts, progress and
ends. That is not for SQLite's sake alone: after each statement its thread waits for the
interpreter's lock again, behind a loop that is busy emitting. A thousand tasks with a hundred
entries each took twenty statements a task; now it is less than one.
"""

import functools
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import orjson

from taskd.entries import LogEntry
from taskd.errors import TaskNotFound
from taskd.query.counts import LogCounts
from taskd.tasks import TaskEnd

# Rows in one INSERT. Measured: 160 are 1.6 times as fast as one each; more bring little but
# wait less often for the interpreter's lock.
ROWS_PER_INSERT = (480, 160)

# Lists go in as one JSON text, so that each statement is prepared once, however long they are.
LAST_SEQS = """
SELECT id, last_seq FROM tasks WHERE id IN (SELECT value FROM json_each(?)) AND deleted_at IS NULL
"""
INSERT_ENTRIES = "INSERT INTO task_logs (task_id, seq, timestamp, level, source, message, metadata_json) VALUES "
INSERT_ROW = "(?, ?, ?, ?, ?, ?, ?)"
# The seq says whether an entry is stored already, and is looked at first; this is the belt.
IF_NEW = " ON CONFLICT (task_id, seq) DO NOTHING"
ADD_COUNTS = f"""
INSERT INTO log_counts (task_id, level, source, count, first_seq, last_seq, first_timestamp, last_timestamp)
SELECT {", ".join(f"json_extract(value, '$[{column}]')" for column in range(8))} FROM json_each(?) WHERE true
ON CONFLICT (task_id, level, source) DO UPDATE SET
  count = count + excluded.count, last_seq = excluded.last_seq, last_timestamp = excluded.last_timestamp
"""
ADVANCE_TASKS = """
UPDATE tasks SET
  last_seq = json_extract(new.value, '$[1]'),
  progress_json = coalesce(json_extract(new.value, '$[2]'), progress_json)
FROM json_each(?) AS new WHERE tasks.id = json_extract(new.value, '$[0]')
"""
END_TASK = """
UPDATE tasks SET status = ?, finished_at = ?, result_json = ?, error = ?
WHERE id = ? AND status IN ('queued', 'running')
"""


@dataclass(frozen=True, slots=True)
class Append:
    """Entries of one task with consecutive seqs, and what is stored with them."""

    task_id: str
    entries: Sequence[LogEntry]
    progress_json: str | None
    end: TaskEnd | None


def append_all(connection: sqlite3.Connection, appends: Sequence[Append]) -> list[Exception | None]:
    """
    Store them, in the caller's transaction; for each what stands in its way, or None.

    One that cannot be stored (no such task, a hole in its seqs) is left out. Raises
    `sqlite3.Error`; then nothing of it may stay. No task may be twice among them.
    """
    last_seqs = dict(connection.execute(LAST_SEQS, (_json(append.task_id for append in appends),)).fetchall())
    faults = [_fault(append, last_seqs.get(append.task_id)) for append in appends]
    stored = [append for append, fault in zip(appends, faults, strict=True) if fault is None]
    new = [(append, _new(append.entries, last_seqs[append.task_id])) for append in stored]
    new = [(append, entries) for append, entries in new if entries]
    if new:
        _insert(connection, [(append.task_id, entries) for append, entries in new])
        connection.execute(ADD_COUNTS, (_json(chain.from_iterable(_counts_of(*one) for one in new)),))
        told = ((append.task_id, entries[-1].seq, append.progress_json) for append, entries in new)
        connection.execute(ADVANCE_TASKS, (_json(told),))
    for append in stored:
        if (end := append.end) is not None:
            row = (end.status, end.finished_at, end.result_json, end.error, append.task_id)
            connection.execute(END_TASK, row)
    return faults


def _fault(append: Append, last_seq: int | None) -> Exception | None:
    if last_seq is None:
        return TaskNotFound(append.task_id)
    entries = append.entries
    if not entries:
        return None
    first, last = entries[0].seq, entries[-1].seq
    if first <= last_seq + 1 and last - first + 1 == len(entries):
        return None
    return ValueError(f"Entries {first} to {last} ({len(entries)} of them) would leave a hole after {last_seq}.")


def _new(entries: Sequence[LogEntry], last_seq: int) -> Sequence[LogEntry]:
    """What comes after `last_seq`. The seqs are dense, so that is what is not stored yet."""
    return entries[last_seq + 1 - entries[0].seq :] if entries else entries


def _insert(connection: sqlite3.Connection, batches: Iterable[tuple[str, Sequence[LogEntry]]]) -> None:
    rows = [
        # `_value_`: sqlite3 binds plain text several times faster than a subclass of it.
        (task_id, entry.seq, entry.timestamp, entry.level._value_, entry.source, entry.message, entry.metadata_json)
        for task_id, entries in batches
        for entry in entries
    ]
    start = 0
    while start < len(rows):
        left = len(rows) - start
        some = rows[start : start + next((count for count in ROWS_PER_INSERT if count <= left), left)]
        connection.execute(_insert_of(len(some)), list(chain.from_iterable(some)))
        start += len(some)


@functools.cache
def _insert_of(rows: int) -> str:
    return INSERT_ENTRIES + ", ".join([INSERT_ROW] * rows) + IF_NEW


def _counts_of(append: Append, entries: Sequence[LogEntry]) -> Iterator[tuple[object, ...]]:
    for level, source, count in LogCounts.of(entries):
        yield (
            append.task_id, level, source,
            count.count, count.first_seq, count.last_seq, count.first_timestamp, count.last_timestamp,
        )  # fmt: skip


def _json(values: Iterable[object]) -> str:
    return orjson.dumps(list(values)).decode()
