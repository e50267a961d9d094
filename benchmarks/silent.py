"""
What capture costs a task that says nothing: the same work with capture installed and without.

    python -m benchmarks.silent ROUNDS

prints a JSON object: for each kind of work the ns of a step, round by round, in pairs. A round
without capture and one with it follow each other, in turns which of them comes first, in one
process on one loop, so that the machine's noise is in both. With capture, the work is done as a
task's: the context variable is set.
"""

import asyncio
import contextlib
import hashlib
import json
import sys
import time
from collections.abc import Awaitable, Callable

import uvloop

from taskd.capture.current import Capturing, current
from taskd.capture.install import capture_installed
from taskd.entries import Level
from taskd.log.logger import TaskLogger
from taskd.log.queue import LogQueue
from taskd.settings import Settings

STEPS = 2_000


async def work() -> None:
    """Compute something, and await."""
    for step in range(STEPS):
        hashlib.sha256(str(step).encode()).hexdigest()
        await asyncio.sleep(0)


async def children() -> None:
    """Start a child task, and await it."""
    for _ in range(STEPS):
        await asyncio.create_task(asyncio.sleep(0))


KINDS: dict[str, Callable[[], Awaitable[None]]] = {"work": work, "children": children}


async def timed(kind: Callable[[], Awaitable[None]], capturing: Capturing | None) -> float:
    """The ns of a step."""
    with contextlib.ExitStack() as stack:
        if capturing is not None:
            stack.enter_context(capture_installed(Level.INFO))
        current.set(capturing)
        started = time.perf_counter_ns()
        await kind()
        took = time.perf_counter_ns() - started
        current.set(None)
    return took / STEPS


async def measured(rounds: int) -> dict[str, list[tuple[float, float]]]:
    """For each kind of work its rounds: without capture, with it."""
    queue = LogQueue(Settings(), lambda source, progress: None)
    capturing = Capturing(TaskLogger(queue, "bench"))
    told: dict[str, list[tuple[float, float]]] = {}
    for name, kind in KINDS.items():
        pairs = []
        for number in range(rounds + 2):
            ways = [None, capturing] if number % 2 else [capturing, None]
            took = {way is not None: await timed(kind, way) for way in ways}
            pairs.append((took[False], took[True]))
        told[name] = pairs[2:]
    return told


if __name__ == "__main__":
    print(json.dumps(uvloop.run(measured(int(sys.argv[1])))))
