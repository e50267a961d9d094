"""
stall: how long viewers are late after all of them stood still.

One task says 30,000 entries a second to the ten viewers of `tail`, whose process is stopped (SIGSTOP)
for a while, longer than what is kept in memory for a reader: all of them lag, and have to read from the
store what they missed while more is said. A value is the number of seconds in which the p99 of what came
was late; what came during the stop counts as late too. 0 seconds are impossible, and where readers do
not catch up it is all seconds until the end of the log, and those after it.
"""

import os
import signal
import subprocess
import time

from benchmarks.plan import Plan
from benchmarks.table import Result, Skipped, result
from benchmarks.tail import name_of, watched

RATE, VIEWERS = 30_000, 10
STOPS_S = (1.5, 4.0)
BEFORE_S = 4.0
LATE_MS = 100


def run(plan: Plan) -> list[Result | Skipped]:
    """Each stop in rounds, on servers of their own."""
    stops = STOPS_S[:1] if plan.quick else STOPS_S
    return [_line(stop_s, [_late_seconds(plan, stop_s) for _ in range(plan.scaled(3, 1))]) for stop_s in stops]


def _late_seconds(plan: Plan, stop_s: float) -> float:
    def stop(viewers: subprocess.Popen[str]) -> None:
        time.sleep(plan.scaled(int(BEFORE_S), 1))
        os.kill(viewers.pid, signal.SIGSTOP)
        time.sleep(stop_s)
        os.kill(viewers.pid, signal.SIGCONT)

    tail = watched(plan, RATE, VIEWERS, stop)
    if tail.seen["lost"] or not tail.seen["ordered"]:
        raise RuntimeError(f"viewers lost entries after a stop of {stop_s:g} s")
    return float(sum(late_ms > LATE_MS for late_ms in tail.late_by_second_ms(0.99)))


def _line(stop_s: float, seconds: list[float]) -> Result:
    what = f"{name_of(RATE, VIEWERS)}, stopped for {stop_s:g} s: late by over {LATE_MS} ms"
    return result("stall", what, "s", seconds)
