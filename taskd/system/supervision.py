"""
`Supervisor`: keeps the long-lived coroutines of a process running, and reports each that dies.

Such a coroutine is a *part*. It ends when the service ends it and never by itself. If it raises,
returns or is cancelled by anything else, it has died: the supervisor logs the cause, counts the
death and starts the part again, later each time. `problems` names the part from its death until
it has run for longer than before, so that health is `degraded` meanwhile.

The supervisor is no coroutine itself. Callbacks of the loop do its work, and nothing can cancel them.
"""

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from os.path import basename
from time import monotonic
from typing import Any

from taskd.metrics import Metrics
from taskd.settings import Settings
from taskd.text.tracebacks import exception_line

# A part counts as healthy again when it has lived twice as long as before its death, within these bounds.
PROOF_MIN_S = 1.0
PROOF_MAX_S = 60.0
# The same cause of death is logged again after this time.
LOG_AGAIN_S = 3_600.0
CAUSES_MAX = 100
# How often a part may die while it finishes its work.
FINISH_DEATHS_MAX = 3

Run = Callable[[], Coroutine[Any, Any, None]]

_log = logging.getLogger("taskd.supervision")


class Returned(Exception):
    """The coroutine returned, although it should run until it is ended."""


class Supervisor:
    """The parts of one process. Made on the loop that runs them, or before it runs."""

    def __init__(self, settings: Settings) -> None:
        self.metrics = Metrics()
        self.delay_s = settings.restart_delay_s
        self.delay_max_s = settings.restart_delay_max_s
        self._parts: set[Part] = set()
        self._logged: dict[str, float] = {}

    @property
    def problems(self) -> list[str]:
        """A sentence for each part that has died and has not proved healthy again."""
        return sorted(part.problem for part in self._parts if part.problem)

    def start(self, name: str, run: Run) -> "Part":
        """Call `run` for a coroutine, and again each time that it has died, until the part is closed or finished."""
        part = Part(name, run, self)
        self._parts.add(part)
        part.begin()
        return part

    @asynccontextmanager
    async def running(self, name: str, run: Run) -> AsyncIterator[None]:
        """Keep a part running for the length of a `with` block."""
        part = self.start(name, run)
        try:
            yield
        finally:
            await part.close()

    def forget(self, part: "Part") -> None:
        """The part has ended."""
        self._parts.discard(part)

    def report(self, part: "Part", error: BaseException) -> None:
        """Count a death and log it, the same cause once an hour."""
        self.metrics.restarts.labels(part.name).inc()
        now, cause = monotonic(), f"{part.name}: {part.cause}"
        if now - self._logged.get(cause, -LOG_AGAIN_S) < LOG_AGAIN_S:
            return
        if len(self._logged) >= CAUSES_MAX:
            self._logged.clear()
        self._logged[cause] = now
        _log.error("%s", part.problem, exc_info=error)


class Part:
    """One long-lived coroutine, under its name in health, logs and metrics."""

    def __init__(self, name: str, run: Run, supervisor: Supervisor) -> None:
        self.name = name
        self.cause = ""
        self._run = run
        self._supervisor = supervisor
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._again: asyncio.TimerHandle | None = None
        self._again_at = 0.0
        self._began = 0.0
        self._delay_s = 0.0
        self._proof_s = 0.0
        self._closing = False
        self._finishing = False
        self._deaths = 0
        self._ended = asyncio.Event()

    @property
    def problem(self) -> str | None:
        """What is wrong with it, in a sentence; None if nothing is."""
        now = monotonic()
        if not self.cause or (self._again is None and now - self._began >= self._proof_s):
            return None
        again = "runs again" if self._again is None else f"is started again in {max(0, self._again_at - now):.1f} s"
        return f"taskd's {self.name} died ({self.cause}). It {again}."

    def begin(self) -> None:
        """Start the coroutine."""
        self._again = None
        self._began = monotonic()
        try:
            self._task = self._loop.create_task(self._run(), name=self.name)
        except BaseException as error:  # no memory is left, for one: try again as after any other death
            self._died(error)
        else:
            self._task.add_done_callback(self._done)

    async def close(self) -> None:
        """Cancel the coroutine and wait for its end."""
        self._closing = True
        if self._again is not None:
            self._again.cancel()
            self._end()
        elif self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])

    async def finish(self) -> bool:
        """
        Wait until the coroutine returns by itself; whether it did.

        It may die `FINISH_DEATHS_MAX` times on the way.
        """
        self._finishing = True
        if self._again is not None:
            self._again.cancel()
            self.begin()
        await self._ended.wait()
        return self._deaths < FINISH_DEATHS_MAX

    def _done(self, task: "asyncio.Task[None]") -> None:
        error = asyncio.CancelledError("something outside of taskd") if task.cancelled() else task.exception()
        if self._closing or (self._finishing and error is None):
            self._end()
        else:
            self._died(error or Returned("it should run until it is ended"))

    def _died(self, error: BaseException) -> None:
        lived_s = monotonic() - self._began
        recovered = lived_s >= self._proof_s
        supervisor = self._supervisor
        self._delay_s = supervisor.delay_s if recovered else min(2 * self._delay_s, supervisor.delay_max_s)
        self._proof_s = min(max(2 * lived_s, PROOF_MIN_S), PROOF_MAX_S)
        if self._finishing:
            self._deaths += 1
            self._delay_s = 0.0
        # Before anything that might fail.
        if self._deaths < FINISH_DEATHS_MAX:
            self._again_at = monotonic() + self._delay_s
            self._again = self._loop.call_later(self._delay_s, self.begin)
        else:
            self._end()
        self.cause = f"{exception_line(error)}{_place(error)}"
        supervisor.report(self, error)

    def _end(self) -> None:
        self._supervisor.forget(self)
        self._ended.set()


def _place(error: BaseException) -> str:
    """Where an error was raised, as ` at file:line`, or nothing."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" at {basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""
