"""A task that speaks, without the rest of a task: for tests of what is captured."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any

from taskd.capture.current import Capturing, current
from taskd.capture.install import capture_installed
from taskd.entries import Level, LogEntry
from taskd.log.logger import TaskLogger
from taskd.log.queue import LogQueue
from taskd.settings import Settings
from taskd.text.masking import Masker


def captured(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., Coroutine[Any, Any, None]]:
    """Capture is installed for the test. (Not in a fixture: the test runner sets the streams after those.)"""

    @functools.wraps(test)
    async def installed(*arguments: Any, **named: Any) -> None:
        with capture_installed(Level.INFO):
            await test(*arguments, **named)

    return installed


class Speaker:
    """A task that speaks: its queue, and how to run things as it."""

    def __init__(self) -> None:
        self.shown: list[dict[str, Any]] = []
        self.queue = LogQueue(
            Settings(), masker=Masker(), on_progress=lambda source, progress: self.shown.append(progress)
        )
        self.capturing = Capturing(TaskLogger(self.queue, "plugin"))

    async def run(self, function: Callable[[], Coroutine[Any, Any, None] | None]) -> None:
        """Run `function` as this task does, to its end."""

        async def running() -> None:
            current.set(self.capturing)
            coroutine = function()
            if coroutine is not None:
                await coroutine
            self.capturing.finish()

        await asyncio.create_task(running())

    def entries(self) -> list[LogEntry]:
        return self.queue.take_rest()

    def told(self) -> list[tuple[str, str, str]]:
        return [(entry.source, entry.level.value, entry.message) for entry in self.entries()]
