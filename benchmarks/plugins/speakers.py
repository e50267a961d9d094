"""
The plugins that load the server: each speaks at a given pace and tells how it went.

They run inside `taskd serve` as any plugin does, through the public `context.logger`. Where one
must not be ahead of the store it awaits `logger.drain()`, which is back-pressure that any plugin
may use.
"""

import asyncio
import contextlib
import gc
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from benchmarks.proc import memory_of
from benchmarks.words import LEVELS, LINES, SOURCES, lines, messages
from taskd import Plugin, TaskContext

LINE = LINES - 1
TURN_S = 0.002
# What one turn may have to make up for; what is beyond is not said, and shows as a lower rate.
BURST_MAX = 5_000
LAG_PROBE_S = 0.005
MEMORY_PROBE_S = 0.25

Say = Callable[[int], None]


def voices_of(context: TaskContext) -> list[Callable[..., None]]:
    """The methods that say `lines`: of each source its levels."""
    loggers = [context.logger.with_source(f"load.{number}") for number in range(SOURCES)]
    return [getattr(logger, level) for logger in loggers for level in LEVELS]


async def opened(gate: str) -> None:
    """Wait until the file is there."""
    while not Path(gate).exists():
        await asyncio.sleep(0.02)


async def paced(say: Say, rate: float, seconds: float) -> int:
    """Say `rate` entries a second, in turns of 2 ms; how many were said."""
    said = 0
    started = time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        due = min(int(elapsed * rate) - said, BURST_MAX)
        for n in range(said, said + due):
            say(n)
        said += max(due, 0)
        await asyncio.sleep(TURN_S)
    return said


@contextlib.asynccontextmanager
async def probed() -> AsyncIterator[tuple[list[float], list[int]]]:
    """How late the loop comes to what is due (s), and the process's own memory (bytes), over time."""
    lags: list[float] = []
    memory: list[int] = []

    async def watch_lag() -> None:
        while True:
            due = time.perf_counter() + LAG_PROBE_S
            await asyncio.sleep(LAG_PROBE_S)
            lags.append(time.perf_counter() - due)

    async def watch_memory() -> None:
        while True:
            memory.append(memory_of().get("RssAnon", 0))
            await asyncio.sleep(MEMORY_PROBE_S)

    probes = [asyncio.create_task(watch_lag(), name="lag"), asyncio.create_task(watch_memory(), name="memory")]
    try:
        yield lags, memory
    finally:
        for probe in probes:
            probe.cancel()
        await asyncio.wait(probes)


class Timed(Plugin):
    """Times its own calls, in rounds, while the writer works."""

    name = "bench-timed"

    async def execute(self, params: Any, context: TaskContext) -> object:
        lines = messages(params["seed"])[: params["calls"]]
        info = context.logger.info
        rounds: list[float] = []
        for _ in range(params["warm"] + params["rounds"]):
            started = time.perf_counter_ns()
            for n, message in enumerate(lines):
                info(message, n=n, took_ms=n)
            rounds.append((time.perf_counter_ns() - started) / len(lines))
            await asyncio.sleep(params["rest_s"])
        return {"ns": rounds[params["warm"] :], "said": len(rounds) * len(lines)}


class Crowd:
    """The bursting tasks of this process: they begin together and are done together."""

    def __init__(self) -> None:
        self.waiting = 0
        self.go = asyncio.Event()
        self.left = 0


_crowd: Crowd | None = None


def crowd() -> Crowd:
    """The one crowd; made when the first of it comes."""
    global _crowd
    _crowd = _crowd or Crowd()
    return _crowd


class Burst(Plugin):
    """Says chunks as fast as it can, and lets at most two of them wait for their commit."""

    name = "bench-burst"

    async def execute(self, params: Any, context: TaskContext) -> None:
        voices, said_lines = voices_of(context), lines(params["seed"])
        waiting: deque[asyncio.Task[None]] = deque()
        crowd().waiting += 1
        await crowd().go.wait()
        for start in range(0, params["entries"], params["chunk"]):
            end = min(start + params["chunk"], params["entries"])
            for burst in range(start, end, params["burst"]):
                for n in range(burst, min(burst + params["burst"], end)):
                    voice, message = said_lines[n & LINE]
                    voices[voice](message, n=n, took_ms=n & LINE)
                await asyncio.sleep(0)
            waiting.append(asyncio.create_task(context.logger.drain(), name="drain"))
            if len(waiting) > 1:
                await waiting.popleft()
        for one in waiting:
            await one
        crowd().left -= 1


class Conductor(Plugin):
    """Lets `tasks` bursting tasks begin, and measures until the last of their entries is committed."""

    name = "bench-conductor"

    async def execute(self, params: Any, context: TaskContext) -> object:
        while crowd().waiting < params["tasks"]:
            await asyncio.sleep(0.01)
        crowd().left = params["tasks"]
        async with probed() as (lags, memory):
            started, cpu_s = time.perf_counter(), time.process_time()
            crowd().go.set()
            while crowd().left:
                await asyncio.sleep(0.001)
            seconds = time.perf_counter() - started
            cpu_s = time.process_time() - cpu_s
        return {"seconds": seconds, "cpu_s": cpu_s, "lags_s": lags, "memory": memory}


class Paced(Plugin):
    """Says entries that carry the time, at a rate, once a file is there."""

    name = "bench-paced"

    async def execute(self, params: Any, context: TaskContext) -> object:
        voices, said_lines = voices_of(context), lines(params["seed"])
        clock = time.monotonic_ns

        def say(n: int) -> None:
            voice, message = said_lines[n & LINE]
            voices[voice](message, n=n, t=clock())

        def warm(n: int) -> None:
            voice, message = said_lines[n & LINE]
            voices[voice](message, n=n, warm=clock())

        await opened(params["gate"])
        warmed = await paced(warm, params["rate"], params["warm_s"])
        async with probed() as (lags, memory):
            started, cpu_s = time.perf_counter(), time.process_time()
            said = await paced(say, params["rate"], params["seconds"])
            seconds = time.perf_counter() - started
            cpu_s = time.process_time() - cpu_s
        return {
            "said": said, "warmed": warmed, "seconds": seconds, "cpu_s": cpu_s, "lags_s": lags, "memory": memory
        }  # fmt: skip


class Busy(Plugin):
    """Says entries at a rate and spends the rest of 90 % of the loop's time on nothing."""

    name = "bench-busy"

    async def execute(self, params: Any, context: TaskContext) -> object:
        voices, said_lines = voices_of(context), lines(params["seed"])
        rate, seconds, share = params["rate"], params["seconds"], params["share"]
        said, held_s = 0, 0.0
        draining: asyncio.Task[None] | None = None
        started = left = time.perf_counter()
        said_s = 0.0
        while draining is None or not draining.done():
            back = time.perf_counter()
            elapsed = back - started
            if elapsed < seconds:
                for n in range(said, int(elapsed * rate)):
                    voice, message = said_lines[n & LINE]
                    voices[voice](message, n=n, took_ms=n & LINE)
                said = max(said, int(elapsed * rate))
                said_s += time.perf_counter() - back
            elif draining is None:
                draining = asyncio.create_task(context.logger.drain(), name="drain")
            # What it was away is the tenth that others had.
            until = back + (back - left) * share / (1 - share)
            while time.perf_counter() < until:
                pass
            left = time.perf_counter()
            held_s += left - back
            await asyncio.sleep(0.001)
        took_s = time.perf_counter() - started
        return {"said": said, "seconds": took_s, "held": held_s / took_s, "said_s": said_s}


class Hoard(Plugin):
    """Says entries while the store is locked, and writes to a file what they took."""

    name = "bench-hoard"

    async def execute(self, params: Any, context: TaskContext) -> None:
        voices, said_lines = voices_of(context), lines(params["seed"])
        await opened(params["gate"])
        gc.collect()
        before = memory_of()
        for n in range(params["entries"]):
            voice, message = said_lines[n & LINE]
            voices[voice](message, n=n, took_ms=n & LINE)
            if n % 1_000 == 999:
                await asyncio.sleep(0.002)
        await asyncio.sleep(0.2)  # the writer takes the last of them
        gc.collect()
        report = Path(params["report"])
        partial = report.with_suffix(".partial")
        partial.write_text(json.dumps({"before": before, "after": memory_of()}))
        partial.rename(report)
