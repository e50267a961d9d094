"""
What was measured, as a table, as JSON and as words about the machine.

A value is a median; its spread is what the middle 80 % of the rounds lie between (all of them,
where they are under ten). Where the yardstick is measured beside each round, the ratio is the
median of the rounds' ratios: the machine's noise is then in both.
"""

import json
import os
import platform
import sqlite3
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HEADINGS = ("part", "what", "measured", "spread", "yardstick", "ratio", "bar", "holds")
FEW = 10


@dataclass(frozen=True, slots=True)
class Result:
    """One line: `value`, between `low` and `high`, in `unit`; against a bar where there is one."""

    part: str
    what: str
    unit: str
    value: float
    low: float
    high: float
    yardstick: str = ""
    ratio: float | None = None
    bar: str = ""
    holds: bool | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """What was not measured, and why."""

    part: str
    what: str
    why: str


def result(
    part: str,
    what: str,
    unit: str,
    values: Sequence[float],
    *,
    yardstick: str = "",
    ratio: float | None = None,
    bar: str = "",
    holds: bool | None = None,
) -> Result:
    """The median and spread of `values` as a line."""
    low, high = (min(values), max(values)) if len(values) < FEW else (quantile(values, 0.1), quantile(values, 0.9))
    return Result(part, what, unit, statistics.median(values), low, high, yardstick, ratio, bar, holds)


def quantile(values: Iterable[float], share: float) -> float:
    """The value below which `share` of them lie; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def table(lines: Sequence[Result | Skipped]) -> str:
    """All lines under their headings, in columns; it is Markdown too."""
    rows = [HEADINGS, *(_cells(line) for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    rows.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |" for row in rows
    )


def _cells(line: Result | Skipped) -> tuple[str, ...]:
    if isinstance(line, Skipped):
        return (line.part, line.what, "skipped", "", line.why, "", "", "")
    return (
        line.part,
        line.what,
        f"{shown(line.value)} {line.unit}".strip(),
        "" if line.low == line.high else f"{shown(line.low)} to {shown(line.high)}",
        line.yardstick,
        "" if line.ratio is None else f"{line.ratio:.2f}",
        line.bar,
        "" if line.holds is None else "yes" if line.holds else "NO",
    )


def shown(value: float) -> str:
    """A number with as many digits as matter."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def machine() -> dict[str, str | int]:
    """The machine in general terms."""
    return {
        "cores": os.cpu_count() or 0,
        "system": platform.system(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": sqlite3.sqlite_version,
    }


def write_json(path: Path, lines: Sequence[Result | Skipped], options: dict[str, Any]) -> None:
    """Everything, for programs to compare."""
    told = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "options": options,
        "results": [asdict(line) for line in lines if isinstance(line, Result)],
        "skipped": [asdict(line) for line in lines if isinstance(line, Skipped)],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told, indent=2) + "\n")
