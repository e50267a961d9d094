"""
memory: what a pending entry takes, what a million of them do, and what an idle server has.

All is read from the kernel, so Linux only, of a real `taskd serve`.

- Pending: another connection locks the database; a task says 95,000 entries (its queue takes
  100,000), which become pending and stay so. The value is by how much the process's own memory
  (`RssAnon`) grew, by entry. The journal's mapped pages are not in it: they belong to the kernel,
  which may write them out.
- A million: 10 tasks say 100,000 entries each, as fast as they are committed. The values are the
  highest resident size (`VmHWM`, the journal's pages included) and how much of it was its own.
- Idle: the resident size (`VmRSS`) a second after the ready line.
"""

import contextlib
import json
import sqlite3
import time

from benchmarks.ingest import burst
from benchmarks.plan import Plan, ended, wait_for
from benchmarks.proc import memory_of
from benchmarks.table import Result, Skipped, result
from tests.helpers.served import Served

BAR_BYTES = 600
BAR_IDLE_MB = 60
TASKS = 10


def run(plan: Plan) -> list[Result | Skipped]:
    """The three, each on servers of its own."""
    if not memory_of():
        return [Skipped("memory", "all of it", "this system has no /proc/self/status")]
    rounds = plan.scaled(3, 1)
    idle, pending = [], []
    for number in range(rounds):
        plan.tell("memory", f"idle and pending, round {number + 1} of {rounds}")
        with Served(plan.fresh("idle")) as served:
            time.sleep(1)
            idle.append(memory_of(served.process.pid)["VmRSS"] / 1e6)
        with plan.served("pending") as served:
            pending.append(_pending_bytes(plan, served))
    entries = plan.scaled(1_000_000, 50_000)
    plan.tell("memory", f"{entries:,} entries")
    with plan.served("peak") as served:
        told = burst(served, TASKS, entries // TASKS, plan.seed)
        peak = memory_of(served.process.pid)["VmHWM"]
    return [
        result("memory", "a pending entry", "bytes", pending, bar=f"≤ {BAR_BYTES} bytes",
               holds=max(pending) <= BAR_BYTES),
        result("memory", f"peak while {entries:,} are emitted", "MB", [peak / 1e6],
               yardstick=f"of it {max(told['memory']) / 1e6:.0f} MB own"),
        result("memory", "idle", "MB", idle, bar=f"≤ {BAR_IDLE_MB} MB", holds=max(idle) <= BAR_IDLE_MB),
    ]  # fmt: skip


def _pending_bytes(plan: Plan, served: Served) -> float:
    entries = plan.scaled(95_000, 20_000)
    # Once before, so that what is made only once is not counted.
    _hoard(plan, served, 2_000, locked=False)
    told = _hoard(plan, served, entries, locked=True)
    return (told["after"]["RssAnon"] - told["before"]["RssAnon"]) / entries


def _hoard(plan: Plan, served: Served, entries: int, locked: bool) -> dict[str, dict[str, int]]:
    gate, report = (served.data_dir.parent / f"{name}-{entries}" for name in ("gate", "report"))
    task_id = served.submit("bench-hoard", entries=entries, seed=plan.seed, report=str(report), gate=str(gate))
    while served.get(f"/api/tasks/{task_id}")["status"] != "running":
        time.sleep(0.01)
    with contextlib.closing(sqlite3.connect(served.data_dir / "taskd.db", isolation_level=None)) as database:
        if locked:
            database.execute("BEGIN IMMEDIATE")
        gate.touch()
        wait_for(report, 60)
    ended(served, task_id)
    told: dict[str, dict[str, int]] = json.loads(report.read_text())
    return told
