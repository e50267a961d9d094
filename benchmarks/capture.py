"""
capture: what it costs to be captured, and what it costs a task that says nothing.

A call of stdlib logging and a print are timed as `emit` times its calls: 500 of them in a plugin
inside a real `taskd serve`, journal on, then a rest. Beside them stands the stdlib's own
FileHandler with the same call (`benchmarks.peers`), in a process that does nothing else. In both
are the stdlib's record, with its search for the caller; in ours an entry in a journal that
survives `kill -9`.

The silent task does the same work with capture installed and without (`benchmarks.silent`). The
ratio is the median of the pairs' ratios; that of `children` shows the mark that each asyncio task
gets, for an exception that nobody awaits.
"""

import json
import statistics
import subprocess
import sys

from benchmarks.emit import CALLS, REST_S, WARM, peer
from benchmarks.plan import ROOT, Plan, ended
from benchmarks.table import Result, Skipped, result

BAR_FILE = 1.0
BAR_SILENT = 1.02


def run(plan: Plan) -> list[Result | Skipped]:
    """The speaking plugin, its yardstick, then the silent work."""
    rounds = plan.scaled(300, 20)
    plan.tell("capture", f"{rounds} rounds of {CALLS} records and prints")
    told = _spoken(plan, rounds)
    plan.tell("capture", "FileHandler")
    file_us = statistics.median(peer("FileHandler", plan.fresh("peer") / "log", plan.seed, rounds)) / 1_000
    plan.tell("capture", "a task that says nothing")
    return [*_spoken_lines(told, file_us), *_silent_lines(plan.scaled(60, 4))]


def _spoken(plan: Plan, rounds: int) -> dict[str, list[float]]:
    """µs a call. Raises where an entry was dropped: a drop is cheaper."""
    with plan.served("capture") as served:
        params = {"seed": plan.seed, "calls": CALLS, "rounds": rounds, "warm": WARM, "rest_s": REST_S}
        task = ended(served, served.submit("bench-captured", **params))
    told = task["result"]
    if task["last_seq"] < told["said"]:
        raise RuntimeError(f"of {told['said']:,} entries {told['said'] - task['last_seq']:,} were dropped")
    return {kind: [ns / 1_000 for ns in told[kind]] for kind in ("records", "prints")}


def _spoken_lines(told: dict[str, list[float]], file_us: float) -> list[Result | Skipped]:
    ratio = statistics.median(told["records"]) / file_us
    beside = f"FileHandler {file_us:.1f} µs"
    return [
        result(
            "capture", "stdlib logging.info, captured", "µs", told["records"],
            yardstick=beside, ratio=ratio, bar="< FileHandler", holds=ratio < BAR_FILE,
        ),
        result("capture", "print, captured", "µs", told["prints"]),
    ]  # fmt: skip


def _silent_lines(rounds: int) -> list[Result | Skipped]:
    command = [sys.executable, "-m", "benchmarks.silent", str(rounds)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True, cwd=ROOT)
    told: dict[str, list[tuple[float, float]]] = json.loads(answer.stdout)
    ratio = {kind: statistics.median([ours / plain for plain, ours in pairs]) for kind, pairs in told.items()}
    lines: list[Result | Skipped] = []
    for kind, what in (("work", "a silent step of work"), ("children", "a silent child task")):
        plain = statistics.median([plain for plain, _ in told[kind]]) / 1_000
        bar = {"bar": f"≤ {BAR_SILENT:g}", "holds": ratio[kind] <= BAR_SILENT} if kind == "work" else {}
        values = [ours / 1_000 for _, ours in told[kind]]
        yardstick = f"without capture {plain:.2f} µs"
        lines.append(result("capture", what, "µs", values, yardstick=yardstick, ratio=ratio[kind], **bar))  # type: ignore[arg-type]  # two of its options
    return lines
