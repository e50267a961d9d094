"""
recover: how long a start takes after a crash that left 1 M entries in the journal.

The journal is written with `taskd.journal.journal` for 10 tasks that the database has as running and of
which it has no entry, by a process that ends without closing anything. The value is the time from
starting `taskd serve` to its ready line: the interpreter's start, reading, storing, the tasks'
interruption. Afterwards the database must have every entry.
"""

import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

from benchmarks.plan import ROOT, Plan
from benchmarks.raw import rows_of
from benchmarks.table import Result, Skipped, result
from taskd import shipped
from taskd.entries import Level, LogEntry
from taskd.journal.journal import Journal
from taskd.settings import MIB
from tests.helpers.served import ENVIRONMENT, taskd

TASKS = 10
ENTRIES = 1_000_000
SEGMENT_BYTES = 8 * MIB
JOURNAL_BYTES_MAX = 1_024 * MIB
BAR_S = 10
START_WAIT_S = 120
INSERT_TASK = "INSERT INTO tasks (id, plugin, params_json, status, created_at) VALUES (?, 'gone', '{}', 'running', ?)"


def run(plan: Plan) -> list[Result | Skipped]:
    """Each round with a journal and a database of its own."""
    entries, rounds = plan.scaled(ENTRIES, 50_000), plan.scaled(2, 1)
    times = []
    for number in range(rounds):
        data_dir = plan.fresh("recover")
        plan.tell("recover", f"writing a journal of {entries:,} entries, round {number + 1} of {rounds}")
        subprocess.run(
            [sys.executable, "-m", "benchmarks.recover", str(data_dir), str(entries), str(plan.seed)],
            check=True, timeout=300, cwd=ROOT,
        )  # fmt: skip
        plan.tell("recover", f"starting, round {number + 1} of {rounds}")
        times.append(start_s(data_dir))
        check(data_dir, entries)
    rate = f"{entries / min(times):,.0f} entries/s"
    holds = None if plan.quick else max(times) <= BAR_S
    return [result("recover", f"start with {entries:,} journaled", "s", times, yardstick=rate, bar=f"≤ {BAR_S} s",
                   holds=holds)]  # fmt: skip


def write(data_dir: Path, entries: int, seed: int) -> None:
    """A database with running tasks and a journal with all of their entries."""
    ids = [str(uuid.UUID(int=0x0198C0DE000070008000000000000000 + number)) for number in range(TASKS)]
    rows = rows_of(entries // TASKS, seed)
    with contextlib.closing(sqlite3.connect(data_dir / "taskd.db")) as database:
        database.executescript(shipped.SCHEMA.read_text())
        database.executemany(INSERT_TASK, [(task_id, rows[0][2]) for task_id in ids])
        database.commit()
    journal = Journal(data_dir / "journal", segment_bytes=SEGMENT_BYTES, bytes_max=JOURNAL_BYTES_MAX)
    tasks = [journal.task(task_id) for task_id in ids]
    for _, seq, timestamp, level, source, message, metadata in rows:
        entry = LogEntry.make(seq, timestamp, Level(level), source, message, metadata.encode())
        for task in tasks:
            task.append(entry.encoded)
    if journal.fault:
        raise RuntimeError(journal.fault)


def start_s(data_dir: Path) -> float:
    """From starting the server to its ready line."""
    started = time.perf_counter()
    command = [*taskd("serve"), "--port", "0", "--data-dir", str(data_dir)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, cwd=ROOT) as server:
        assert server.stderr is not None
        too_long = threading.Timer(START_WAIT_S, server.kill)
        too_long.start()
        try:
            for line in server.stderr:
                if " ready on " in line:
                    return time.perf_counter() - started
        finally:
            too_long.cancel()
            server.terminate()
    raise RuntimeError("the server did not start")


def check(data_dir: Path, entries: int) -> None:
    """Every entry is in the database. Raises `RuntimeError`."""
    with contextlib.closing(sqlite3.connect(data_dir / "taskd.db")) as database:
        sql = "SELECT count(*) FROM task_logs WHERE source <> 'system'"
        [(stored,)] = database.execute(sql).fetchall()
    if stored != entries:
        raise RuntimeError(f"of {entries:,} journaled entries {stored:,} were stored")


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    os._exit(0)
