"""
Plugins that say what a test of the page needs, when it needs it.

A `gate` is the path of a file: the plugin waits until the test makes it.
"""

import asyncio
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from taskd import Plugin, TaskContext

TURN_S = 0.005
UNDRAINED_MAX = 20_000
LEVELS = ("info", "info", "info", "debug", "info", "info", "warning", "info", "info", "info")


async def opened(gate: str | None) -> None:
    """Wait until the file is there."""
    while gate and not Path(gate).exists():
        await asyncio.sleep(0.01)


class Say(Plugin):
    """Says just what it is given, waits for its gate, says the rest, and fails if it is told to."""

    name = "say"
    title = "Say"

    class Entry(BaseModel):
        message: str
        level: str = "INFO"
        source: str | None = None
        metadata: dict[str, Any] = Field(default_factory=dict)

    class Params(BaseModel):
        entries: list["Say.Entry"] = Field(default_factory=list)
        gate: str | None = None
        then: list["Say.Entry"] = Field(default_factory=list)
        fail: str | None = None

    async def execute(self, params: Params, context: TaskContext) -> None:
        self._say(params.entries, context)
        await opened(params.gate)
        self._say(params.then, context)
        if params.fail:
            raise RuntimeError(params.fail)

    def _say(self, entries: list[Entry], context: TaskContext) -> None:
        for each in entries:
            logger = context.logger.with_source(each.source) if each.source else context.logger
            logger.log(each.level, each.message, **each.metadata)


class Rate(Plugin):
    """Says `count` lines, `rate` a second (0: as fast as they are stored); every `error_every`th is an error."""

    name = "rate"
    title = "Rate"

    class Params(BaseModel):
        count: int = Field(1_000, ge=0)
        rate: float = Field(0, ge=0)
        error_every: int = Field(0, ge=0)
        sources: int = Field(4, ge=1)
        gate: str | None = None

    async def execute(self, params: Params, context: TaskContext) -> int:
        await opened(params.gate)
        loggers = [context.logger.with_source(f"source.{n}") for n in range(params.sources)]
        said, started = 0, time.perf_counter()
        while said < params.count:
            due = int((time.perf_counter() - started) * params.rate) if params.rate else said + UNDRAINED_MAX
            for n in range(said, min(due, params.count)):
                error = params.error_every and (n + 1) % params.error_every == 0
                level = "error" if error else LEVELS[n % len(LEVELS)]
                loggers[n % params.sources].log(level, f"line {n + 1} of {params.count}: the quick brown fox", n=n + 1)
            said = max(said, min(due, params.count))
            if params.rate:
                await asyncio.sleep(TURN_S)
            else:
                await context.logger.drain()
        return said


class Steps(Plugin):
    """Reports two progresses, one with a known total and one without, in two groups; waits in the middle."""

    name = "steps"
    title = "Steps"

    class Params(BaseModel):
        total: int = Field(10, ge=1)
        gate: str | None = None
        fail: bool = False

    async def execute(self, params: Params, context: TaskContext) -> None:
        log = context.logger
        with log.group("prepare"):
            log.info("looking around")
            with log.progress("files found", unit="files") as found:
                found.advance(params.total)
        with log.group("copy"), log.progress("copying", total=params.total, unit="files") as copied:
            copied.advance(params.total // 2)
            await opened(params.gate)
            if params.fail:
                raise OSError("no space left on device")
            copied.advance(params.total - params.total // 2)
            log.warning("one file was newer")
