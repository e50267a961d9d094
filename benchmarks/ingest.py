"""
ingest: entries a second from `logger.info` to committed, with 1, 10, 100 and 1,000 tasks.

A real `taskd serve` with its defaults (journal on, `synchronous=FULL`) and no viewers. The tasks
begin together; each says chunks as fast as it can, in bursts of a turn of the loop, and goes on
when the chunk before the last is committed (`logger.drain`), so nothing is dropped and about two
chunks of each task are in memory. A chunk is what a task would say between two flushes at 50,000
entries a second, at most 10,000. The time runs from the first call to the last commit, and so has
the last, partly idle, commits in it.

The yardstick Y (`benchmarks.raw`) is measured before and after each round; the ratio of a round is
to the mean of the two.
"""

import statistics
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from benchmarks.plan import Plan, ended
from benchmarks.raw import Row, rows_of, rows_per_second
from benchmarks.table import Result, Skipped, result
from tests.helpers.served import Served

TASKS = (1, 10, 100, 1_000)
BARS = {1: 0.75, 100: 0.75, 1_000: 0.6}
CHUNK_MAX = 10_000
SECOND_ENTRIES = 50_000
FLUSH_S = 2
CLIENTS = 8


def run(plan: Plan) -> list[Result | Skipped]:
    """Each number of tasks, in rounds with Y between them."""
    entries = plan.scaled(600_000, 20_000)
    rounds = plan.scaled(3, 1)
    rows = rows_of(plan.scaled(200_000, 20_000), plan.seed)
    yardsticks = [_yardstick(plan, rows)]
    lines = []
    for tasks in TASKS:
        rates, ratios = [], []
        for number in range(rounds):
            plan.tell("ingest", f"{name_of(tasks)}, round {number + 1} of {rounds}")
            with plan.served("ingest", "--tasks-running-max", str(tasks + 1)) as served:
                told = burst(served, tasks, entries // tasks, plan.seed)
            rates.append(entries / told["seconds"])
            yardsticks.append(_yardstick(plan, rows))
            ratios.append(rates[-1] / statistics.mean(yardsticks[-2:]))
        lines.append(_line(tasks, rates, statistics.median(ratios), statistics.median(yardsticks)))
    lines.append(result("ingest", "Y: raw executemany", "entries/s", yardsticks))
    return [*lines]


def chunk_of(tasks: int) -> int:
    """What one of so many tasks says between two flushes."""
    return min(CHUNK_MAX, FLUSH_S * SECOND_ENTRIES // tasks)


def burst(served: Served, tasks: int, entries: int, seed: int) -> dict[str, Any]:
    """So many tasks with so many entries each; what the conductor tells. Raises where one was dropped."""
    params = {"entries": entries, "chunk": chunk_of(tasks), "burst": max(10, 200 // tasks), "seed": seed}
    with httpx.Client(base_url=served.url, trust_env=False, timeout=30) as client, ThreadPoolExecutor(CLIENTS) as pool:
        asked = {"plugin": "bench-burst", "params": params}
        answers = pool.map(lambda _: client.post("/api/tasks", json=asked).raise_for_status().json(), range(tasks))
        ids = [answer["id"] for answer in answers]
    result: dict[str, Any] = ended(served, served.submit("bench-conductor", tasks=tasks))["result"]
    last_seq = served.get(f"/api/tasks/{ids[0]}")["last_seq"]
    if last_seq < entries:
        raise RuntimeError(f"of {entries:,} entries of a task {last_seq:,} were stored")
    return result


def name_of(tasks: int) -> str:
    """`1 task`, `1,000 tasks`."""
    return "1 task" if tasks == 1 else f"{tasks:,} tasks"


def _yardstick(plan: Plan, rows: list[Row]) -> float:
    plan.tell("ingest", "Y: raw executemany")
    return rows_per_second(plan.fresh("raw"), rows)


def _line(tasks: int, rates: list[float], ratio: float, yardstick: float) -> Result:
    bar = BARS.get(tasks)
    return result(
        "ingest", f"emit to committed, {name_of(tasks)}", "entries/s", rates,
        yardstick=f"Y {yardstick:,.0f}/s", ratio=ratio,
        bar="" if bar is None else f"≥ {bar:g} Y", holds=None if bar is None else ratio >= bar,
    )  # fmt: skip
