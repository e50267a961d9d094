"""The plugin that speaks as old code does: through stdlib logging and print."""

import asyncio
import logging
import time
from typing import Any

from benchmarks.words import messages
from taskd import Plugin, TaskContext


class Captured(Plugin):
    """Times its own calls, in rounds, while the writer works."""

    name = "bench-captured"

    async def execute(self, params: Any, context: TaskContext) -> object:
        logger = logging.getLogger("bench")
        lines = messages(params["seed"])[: params["calls"]]
        records: list[float] = []
        prints: list[float] = []
        for _ in range(params["warm"] + params["rounds"]):
            started = time.perf_counter_ns()
            for n, message in enumerate(lines):
                logger.info("%s n=%d took_ms=%d", message, n, n)
            records.append((time.perf_counter_ns() - started) / len(lines))
            await asyncio.sleep(params["rest_s"])
            started = time.perf_counter_ns()
            for message in lines:
                print(message)
            prints.append((time.perf_counter_ns() - started) / len(lines))
            await asyncio.sleep(params["rest_s"])
        warm = params["warm"]
        return {"records": records[warm:], "prints": prints[warm:], "said": 2 * len(records) * len(lines)}
