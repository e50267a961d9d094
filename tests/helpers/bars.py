"""
The bars R1 to R17, R20 and R23: what is promised under faults, load and attack, measured.

A test that shows a bar is marked with it, `@pytest.mark.bar("R3")`, and says what it measured with
pytest's `record_property`. It has two sizes: short in `make test`, where `scaled(2, 100)` is 2, and
its full one in `make torture`, where it is 100. `make torture` ends with the table of all bars and
keeps it in `benchmarks/results/torture.json`; a run of some of them renews those alone.
"""

import os
import platform
import sqlite3
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import orjson
import pytest

TORTURE = os.environ.get("TASKD_TORTURE") == "1"
RESULTS = Path(__file__).parent.parent.parent / "benchmarks" / "results" / "torture.json"
BARS = {
    "R1": "kill -9 x 100 under 5,000 entries/s in 20 tasks: 0 lost, 0 duplicated, no gap, integrity_check ok",
    "R2": "restart with a 1 GB database: healthy in 3 s, orphans interrupted exactly once",
    "R3": "disk full, then space: up, readable, new tasks refused clearly, stored in order, 0 lost",
    "R4": "store locked from outside for 30 s: 0 lost, live tail unchanged, reads fine",
    "R5": "I/O and fsync errors three times in a row: retried, 0 lost",
    "R6": "corrupt database or WAL x 100: kept as .corrupt-<time>, a new one begun and said, no crash loop",
    "R7": "1,000 viewers of a task at 100 entries/s: p99 <= 500 ms, 0 gaps, <= 250 MB",
    "R8": "100 stuck and 900 healthy viewers: stuck released <= 30 s, healthy within 20 %, back to baseline",
    "R9": "1,000 random reconnects under load with filters: 0 gaps, 0 duplicates",
    "R10": "1 M entries flat out: others' p99 <= 250 ms, memory <= +200 MB, drops counted to the entry",
    "R11": "10,000 creations at once: accepted to the limit, the rest 429 with Retry-After, no 5xx",
    "R12": "a loop blocked for 5 s: task and stack named in its log and /metrics, and while it lasts",
    "R13": "SIGTERM x 100 with 50 running tasks: exit 0 <= 10 s, every entry and status, viewers closed",
    "R14": "clock jumps of an hour, a day, ten years: order unchanged, durations >= 0, retention <= 10 % a pass",
    "R15": "schemathesis, all checks, and a WebSocket fuzz: no 5xx, no schema violation, no crash",
    "R16": "the poison list x every field: stored escaped, neighbours intact, writer alive",
    "R17": "one hour at 500 entries/s with a reader holding a snapshot: memory and descriptors flat, WAL bounded",
    "R20": "1,000 random git configurations, hostile .git directories: no program, nothing outside, the loop goes on",
    "R23": "each long-lived part made to raise: in health and on stderr, started again, its work goes on",
}

T = TypeVar("T")
# pytest's `record_property`.
Record = Callable[[str, object], None]


def scaled(short: T, long: T) -> T:
    """A size of a test: `short` in `make test`, `long` in `make torture`."""
    return long if TORTURE else short


@dataclass
class Shown:
    """What the tests of one bar showed."""

    holds: bool = True
    seconds: float = 0.0
    figures: dict[str, object] = field(default_factory=dict)


class Bars:
    """A pytest plugin that gathers what the bars' tests measured, prints the table and keeps it."""

    def __init__(self) -> None:
        self.shown: dict[str, Shown] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        for bar in (mark.args[0] for mark in item.iter_markers("bar")):
            shown = self.shown.setdefault(bar, Shown())
            shown.holds &= report.passed
            shown.seconds += report.duration
            if report.when == "call":
                shown.figures |= dict(item.user_properties)
        return report

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if not (TORTURE and self.shown):
            return
        terminalreporter.section("bars")
        for bar in sorted(self.shown, key=_number):
            shown = self.shown[bar]
            figures = ", ".join(f"{name} {value}" for name, value in shown.figures.items())
            holds = "holds" if shown.holds else "FAILS"
            terminalreporter.write_line(f"{bar:4} {holds} {shown.seconds:7.0f} s  {BARS[bar]}")
            terminalreporter.write_line(f"                       {figures}")
        _keep(self.shown)


def _keep(shown: dict[str, Shown]) -> None:
    kept = orjson.loads(RESULTS.read_bytes()) if RESULTS.exists() else {}
    for bar, one in shown.items():
        kept[bar] = {
            "bar": BARS[bar],
            "holds": one.holds,
            "seconds": round(one.seconds, 1),
            "figures": one.figures,
            "on": time.strftime("%Y-%m-%d"),
            "machine": f"{os.cpu_count()} CPUs, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}",
        }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    ordered = {bar: kept[bar] for bar in sorted(kept, key=_number)}
    RESULTS.write_bytes(orjson.dumps(ordered, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def _number(bar: str) -> int:
    return int(bar.removeprefix("R"))
