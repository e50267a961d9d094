"""
emit: what `logger.info(message, **two fields)` costs, beside other libraries.

The calls are made by a plugin inside a real `taskd serve`, journal on: 500 of them, timed
together, then a rest of 10 ms, so about 50,000 a second, while the loop publishes and SQLite's
thread commits what was said before. What the call waits for the interpreter's lock is in it. A
value is ns a call of one such round, with the loop around the call (20 to 30 ns) in it.

The peers say the same in the same rounds, each in a process that does nothing else; their call is
wrapped in a function that passes the fields, 50 to 70 ns. In taskd's price are a journal that
survives `kill -9`, the encoding as JSON, masking, and a bound; the line of a FileHandler is in
the kernel when the call returns, that of a QueueHandler in memory.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.peers import PEERS, missing
from benchmarks.plan import ROOT, Plan, ended
from benchmarks.table import Result, Skipped, result
from tests.helpers.served import Served

CALLS = 500
WARM = 20
REST_S = 0.01
BAR_US = 3.0
BAR_RATIO = 0.2


def run(plan: Plan) -> list[Result | Skipped]:
    """taskd, then the peers."""
    rounds = plan.scaled(600, 40)
    plan.tell("emit", f"{rounds} rounds of {CALLS} calls")
    with plan.served("emit") as served:
        ours = _in_us(timed(served, plan.seed, rounds))
    peers: dict[str, list[float]] = {}
    skipped: list[Skipped] = []
    for name in PEERS:
        plan.tell("emit", name)
        if why := missing(name):
            skipped.append(Skipped("emit", name, why))
        else:
            peers[name] = _in_us(peer(name, plan.fresh("peer") / "log", plan.seed, rounds))
    return [*_lines(ours, peers), *skipped]


def timed(served: Served, seed: int, rounds: int) -> list[float]:
    """ns a call, round by round. Raises where an entry was dropped: a drop is cheaper."""
    task = ended(served, served.submit("bench-timed", seed=seed, calls=CALLS, rounds=rounds, warm=WARM, rest_s=REST_S))
    said, told = task["result"]["said"], task["last_seq"]
    if told < said:
        raise RuntimeError(f"of {said:,} entries {said - told:,} were dropped: emit measured nothing")
    times: list[float] = task["result"]["ns"]
    return times


def peer(name: str, path: Path, seed: int, rounds: int) -> list[float]:
    """ns a call of a peer, round by round."""
    command = [sys.executable, "-m", "benchmarks.peers", name, str(path)]
    numbers = [CALLS, rounds, WARM, REST_S, seed]
    answer = subprocess.run(
        [*command, *map(str, numbers)], capture_output=True, text=True, timeout=300, check=True, cwd=ROOT
    )
    times: list[float] = json.loads(answer.stdout)
    return times


def _in_us(times: list[float]) -> list[float]:
    return [ns / 1_000 for ns in times]


def _lines(ours: list[float], peers: dict[str, list[float]]) -> list[Result]:
    mine = statistics.median(ours)
    file_us = statistics.median(peers["FileHandler"])
    lines = [
        result("emit", "logger.info, two fields, journal on", "µs", ours, bar=f"≤ {BAR_US:g} µs", holds=mine <= BAR_US),
        result(
            "emit", "the same, beside FileHandler", "µs", ours,
            yardstick=f"FileHandler {file_us:.1f} µs", ratio=mine / file_us,
            bar=f"≤ {BAR_RATIO:g}", holds=mine / file_us <= BAR_RATIO,
        ),
    ]  # fmt: skip
    for name, times in peers.items():
        ratio = statistics.median(times) / mine
        lines.append(result("emit", name, "µs", times, yardstick=f"taskd {mine:.1f} µs", ratio=ratio))
    return lines
