"""
tail: how long from `logger.info` to a viewer in another process.

Three processes: a real `taskd serve`, in which one task says entries at a rate, in turns of 2 ms;
one process with all viewers (`benchmarks.viewers`), each on a WebSocket of its own, with ten
different filters in turn, the first of which asks nothing; and this one, which waits. An entry
carries the monotonic clock from before the call; it is received when its frame is whole in the
viewers' process. A value is the p99 over all viewers and entries, its spread that of the p99s of
single seconds. The first seconds are warming up and do not count.

In the same run, inside the server: the loop's lag (how late a sleep of 5 ms wakes; uvloop's timers
are of 1 ms), what was dropped (said, but not stored), how much memory grew from the first to the
last quarter, and the CPU for each delivered entry: what all of the server took, less what it took
at the same rate without viewers, by the entries delivered. `keeps up` means that at least 99 % of
the rate was said, nothing was dropped, and everybody saw the end, in order.

Under the load whose loop lag has a bar, this process is a second client besides: it reads pages of
1,000 entries, anywhere in the log, ten a second.
"""

import contextlib
import json
import sqlite3
import statistics
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.pages import PAGE_ENTRIES, Pages
from benchmarks.plan import ROOT, Plan, ended
from benchmarks.table import Result, Skipped, quantile, result
from benchmarks.viewers import STEP_NS
from tests.helpers.served import Served

# Entries a second and viewers. Rates that one filter's viewer sees alone, then the bars' loads.
LOADS = (
    (1_000, 1), (10_000, 1), (50_000, 1), (100_000, 1),
    (1_000, 500), (10_000, 10), (10_000, 100), (50_000, 10), (100_000, 10),
)  # fmt: skip
QUICK_LOADS: tuple[tuple[int, int], ...] = ((1_000, 1), (10_000, 10))
P99_BARS_MS = {(50_000, 10): 50, (100_000, 10): 80, (10_000, 100): 60, (1_000, 500): 120}
KEEPS_UP = {(50_000, 10), (100_000, 10)}
LAG_BARS_MS = {(50_000, 10): 10}
PAGE_BAR_MS = 8
CPU_BARS_US = {(10_000, 100): 0.5}
LONG_S = {(50_000, 10): 60, (100_000, 10): 30}
FLAT_MB = 20
WARM_S = 2
END_WAIT_S = 60
SAID_SHARE = 0.99
STEP_MS = STEP_NS / 1e6


@dataclass(frozen=True, slots=True)
class Tail:
    """One load: what was offered, what the server told and what the viewers saw."""

    rate: int
    viewers: int
    seconds: float
    server: dict[str, Any]
    seen: dict[str, Any]
    dropped: int
    pages_ms: list[float]

    @property
    def keeps_up(self) -> bool:
        """Whether all that was offered was said, stored and seen."""
        enough = self.server["said"] >= SAID_SHARE * self.rate * self.seconds
        return enough and not self.dropped and self.seen["ordered"] and not self.seen["lost"]

    def late_ms(self, share: float) -> float:
        """The quantile over everything."""
        return _late_ms(sum(map(_counter, self.seen["late"].values()), Counter()), share)

    def late_by_second_ms(self, share: float) -> list[float]:
        """The quantile of each second."""
        return [_late_ms(_counter(late), share) for late in self.seen["late"].values()]

    @property
    def lag_p99_ms(self) -> float:
        """How late the server's loop was."""
        return 1_000 * quantile(self.server["lags_s"], 0.99)

    @property
    def growth_mb(self) -> float:
        """How much its memory grew from the first to the last quarter."""
        memory = self.server["memory"]
        quarter = max(1, len(memory) // 4)
        first, last = statistics.median(memory[:quarter]), statistics.median(memory[-quarter:])
        return float(last - first) / 1e6


def run(plan: Plan) -> list[Result | Skipped]:
    """Each load on a server of its own."""
    lines: list[Result | Skipped] = []
    for rate, viewers in QUICK_LOADS if plan.quick else LOADS:
        tail = watched(plan, rate, viewers)
        lines += _lines(tail)
        if (rate, viewers) in CPU_BARS_US:
            alone = watched(plan, rate, 0)
            lines.append(_cpu(tail, alone))
    return lines


def watched(plan: Plan, rate: int, viewers: int, beside: Callable[[subprocess.Popen[str]], None] | None = None) -> Tail:
    """One load, from the start of its server to the stop; `beside` is done meanwhile, with the viewers' process."""
    seconds = LONG_S.get((rate, viewers), 10) if plan.long else plan.scaled(10, 2)
    plan.tell("tail", f"{name_of(rate, viewers)}, {seconds} s")
    with plan.served("tail") as served:
        gate = served.data_dir.parent / "gate"
        params = {"rate": rate, "seconds": seconds, "seed": plan.seed, "gate": str(gate)}
        task_id = served.submit("bench-paced", warm_s=WARM_S if not plan.quick else 0.5, **params)
        client = _viewers(served, task_id, viewers)
        gate.touch()
        if beside is not None:
            threading.Thread(target=beside, args=(client,), daemon=True).start()
        pages = Pages(served.port, task_id, plan.seed)
        with client:
            try:
                with pages if (rate, viewers) in LAG_BARS_MS else contextlib.nullcontext():
                    told = _told(client, seconds + END_WAIT_S)
            finally:
                client.kill()
        server = ended(served, task_id)["result"]
    seen = json.loads(told)
    stored = _stored(served, task_id)
    return Tail(rate, viewers, seconds, server, seen, server["said"] + server["warmed"] - stored, pages.times_ms)


def name_of(rate: int, viewers: int) -> str:
    """`50,000/s, 10 viewers`."""
    return f"{rate:,}/s, {viewers} {'viewer' if viewers == 1 else 'viewers'}"


def _viewers(served: Served, task_id: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.viewers", str(served.port), task_id, str(count)]
    client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert client.stdout is not None
    if client.stdout.readline() != "ready\n":
        raise RuntimeError(f"the viewers ended with {client.wait()}")
    return client


def _told(client: subprocess.Popen[str], within_s: float) -> str:
    """What the viewers tell at their end; '' where they have not come to it."""
    # Not `communicate`: it does not know of what came together with "ready" and was read with it.
    assert client.stdout is not None
    late = threading.Timer(within_s, client.kill)
    late.start()
    try:
        return client.stdout.readline()
    finally:
        late.cancel()


def _stored(served: Served, task_id: str) -> int:
    """How many of the plugin's entries the database has."""
    connection = sqlite3.connect(served.data_dir / "taskd.db")
    try:
        sql = "SELECT sum(count) FROM log_counts WHERE task_id = ? AND source <> 'system'"
        return int(connection.execute(sql, (task_id,)).fetchone()[0] or 0)
    finally:
        connection.close()


def _counter(late: Mapping[str, int]) -> Counter[int]:
    return Counter({int(step): count for step, count in late.items()})


def _late_ms(late: Counter[int], share: float) -> float:
    """The quantile of a histogram: the upper end of its step."""
    wanted = share * late.total()
    so_far = 0
    for step in sorted(late):
        so_far += late[step]
        if so_far >= wanted:
            return (step + 1) * STEP_MS
    return 0.0


def _lines(tail: Tail) -> list[Result]:
    load = (tail.rate, tail.viewers)
    name = name_of(*load)
    seconds = tail.late_by_second_ms(0.99)
    p99, bar = tail.late_ms(0.99), P99_BARS_MS.get(load)
    delivered = f"{tail.seen['delivered'] / tail.seconds:,.0f} delivered/s"
    low, high = quantile(seconds, 0.1), quantile(seconds, 0.9)
    lines = [
        Result("tail", f"{name}: p50", "ms", tail.late_ms(0.5), *_spread(tail.late_by_second_ms(0.5))),
        Result(
            "tail", f"{name}: p99", "ms", p99, low, high, yardstick=delivered,
            bar="" if bar is None else f"≤ {bar} ms", holds=None if bar is None else p99 <= bar,
        ),
        result(
            "tail", f"{name}: loop lag p99", "ms", [tail.lag_p99_ms], yardstick=_pressure(tail),
            bar=f"≤ {LAG_BARS_MS[load]} ms" if load in LAG_BARS_MS else "",
            holds=tail.lag_p99_ms <= LAG_BARS_MS[load] if load in LAG_BARS_MS else None,
        ),
    ]  # fmt: skip
    rate = tail.server["said"] / tail.server["seconds"]
    kept = result(
        "tail", f"{name}: dropped", "", [float(tail.dropped)], yardstick=f"said {rate:,.0f}/s",
        bar="keeps up" if load in KEEPS_UP else "", holds=tail.keeps_up if load in KEEPS_UP else None,
    )  # fmt: skip
    if load in KEEPS_UP or not tail.keeps_up:
        lines.append(kept)
    if load in LONG_S:
        flat = tail.growth_mb <= FLAT_MB
        grown = f"{name}: memory grown in {tail.seconds:g} s"
        lines.append(result("tail", grown, "MB", [tail.growth_mb], bar=f"≤ {FLAT_MB} MB", holds=flat))
    if tail.pages_ms:
        lines.append(_pages(tail))
    return lines


def _pages(tail: Tail) -> Result:
    what = f"{name_of(tail.rate, tail.viewers)}: a page of {PAGE_ENTRIES:,} meanwhile"
    holds = statistics.median(tail.pages_ms) <= PAGE_BAR_MS
    return result("tail", what, "ms", tail.pages_ms, bar=f"≤ {PAGE_BAR_MS} ms", holds=holds)


def _spread(values: list[float]) -> tuple[float, float]:
    return quantile(values, 0.1), quantile(values, 0.9)


def _pressure(tail: Tail) -> str:
    """How busy the two processes were, of one core: where the viewers' is near 100 %, they are what is measured."""
    server = tail.server["cpu_s"] / tail.server["seconds"]
    return f"server {server:.0%}, viewers {tail.seen['busy']:.0%} CPU"


def _cpu(tail: Tail, alone: Tail) -> Result:
    bar = CPU_BARS_US[tail.rate, tail.viewers]
    rates = [one.server["cpu_s"] / one.server["seconds"] for one in (tail, alone)]
    us = 1e6 * (rates[0] - rates[1]) / (tail.seen["delivered"] / tail.seconds)
    return result(
        "tail", f"{name_of(tail.rate, tail.viewers)}: CPU per delivered entry", "µs", [us],
        yardstick=f"server {rates[0]:.0%}, without viewers {rates[1]:.0%}", bar=f"≤ {bar:g} µs", holds=us <= bar,
    )  # fmt: skip
