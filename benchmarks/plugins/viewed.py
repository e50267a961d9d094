"""
The log that the page's benchmark looks at: long from the start, then growing at a given pace.

Every line that is said at a pace says when, so that whoever sees it painted knows how late it is.
"""

import time
from typing import Any

from benchmarks.plugins.speakers import opened, paced
from taskd import Plugin, TaskContext

SOURCES = 8
DRAIN_EVERY = 20_000
LEVELS = ("info",) * 24 + ("warning",)
WORDS = "loading batch shard commit retry connection timeout value parsed record"


class Viewed(Plugin):
    """Says `count` lines as fast as they are stored, waits for its gate, and then says `rate` a second."""

    name = "viewed"

    async def execute(self, params: dict[str, Any], context: TaskContext) -> int:
        loggers = [context.logger.with_source(f"part.{number}") for number in range(SOURCES)]

        def say(n: int) -> None:
            level = "error" if n % 100 == 99 else LEVELS[n % len(LEVELS)]
            green = "\x1b[32mOK\x1b[0m " if n % 50 == 0 else ""
            loggers[n % SOURCES].log(level, f"{green}{WORDS} at {time.time() * 1_000:.1f} number {n}")

        count = int(params.get("count", 0))
        for n in range(count):
            say(n)
            if n % DRAIN_EVERY == 0:
                await context.logger.drain()
        await context.logger.drain()
        await opened(params["gate"])
        return count + await paced(lambda n: say(count + n), float(params["rate"]), float(params["seconds"]))
