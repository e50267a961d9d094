"""
The load benchmark: how near taskd is to what the machine can do.

    python -m benchmarks.load [PART ...] [--quick] [--long] [--seed N] [--json PATH]

Each part is a module of its own, which says what it measures; all of them when none is named. At
the end comes one table, and beside the JSON an SVG. Every bar that does not hold is a line at the
end; the exit code is 0 all the same, for a noisy machine is no fault. 1 means that a part failed.
"""

import argparse
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import backup, busy, capture, emit, ingest, memory, query, recover, stall, tail
from benchmarks.plan import ROOT, Plan
from benchmarks.plot import write_svg
from benchmarks.table import Result, Skipped, machine, table, write_json

RESULTS = ROOT / "benchmarks" / "results"

PARTS: dict[str, Callable[[Plan], list[Result | Skipped]]] = {
    "emit": emit.run,
    "capture": capture.run,
    "ingest": ingest.run,
    "tail": tail.run,
    "stall": stall.run,
    "busy": busy.run,
    "recover": recover.run,
    "memory": memory.run,
    "query": query.run,
    "backup": backup.run,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; the exit code."""
    options = _options(arguments)
    RESULTS.mkdir(exist_ok=True)
    lines: list[Result | Skipped] = []
    # Not in /tmp, which may be memory: a commit has to reach a disk.
    with tempfile.TemporaryDirectory(prefix="run-", dir=RESULTS) as directory:
        plan = Plan(Path(directory), options.seed, options.quick, options.long)
        for part in options.parts or PARTS:
            lines += _measured(part, plan)
    print(f"\n{_title(options.quick)}\n\n{table(lines)}\n")
    asked = {"parts": options.parts or [*PARTS], "quick": options.quick, "long": options.long, "seed": options.seed}
    write_json(options.json, lines, asked)
    write_svg(options.json.with_suffix(".svg"), lines)
    print(f"{options.json} and {options.json.with_suffix('.svg').name} have it too.")
    return _verdict(lines)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.load", description="The load benchmark of taskd.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one or more of {', '.join(PARTS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="a little of everything, to see that it works")
    parser.add_argument("--long", action="store_true", help="the heaviest tails for 60 and 30 s")
    parser.add_argument("--seed", type=int, default=1, help="for what is said (default 1)")
    parser.add_argument("--json", type=Path, default=RESULTS / "latest.json", metavar="PATH", help="where to write")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - PARTS.keys():
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return options


def _measured(part: str, plan: Plan) -> list[Result | Skipped]:
    """One part's lines; where it fails, one that says so: the others are worth their time."""
    try:
        return PARTS[part](plan)
    except Exception as error:
        traceback.print_exc()
        return [Skipped(part, "failed", f"{type(error).__name__}: {error}")]


def _title(quick: bool) -> str:
    told = machine()
    words = f"{told['cores']} cores, {told['system']}, {told['python']}, SQLite {told['sqlite']}"
    return f"{words}; quick: these figures mean nothing" if quick else words


def _verdict(lines: Sequence[Result | Skipped]) -> int:
    for line in lines:
        if isinstance(line, Result) and line.holds is False:
            print(f"does not hold: {line.part}, {line.what}: {line.bar}")
    return int(any(isinstance(line, Skipped) and line.what == "failed" for line in lines))


if __name__ == "__main__":
    sys.exit(main())
