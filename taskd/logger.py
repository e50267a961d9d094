"""
`TaskLogger`: what a plugin speaks through.

A logger is a source and a queue. A call costs microseconds, never waits on the loop, never
touches the database and never raises for what it is given: what cannot be stored becomes
text that can. `message` is taken as it is, never formatted with `%` or `{}`; fields belong
to the call, as keyword arguments.
"""

import math
import secrets
import sys
import time
from types import TracebackType
from typing import Any, Self

from taskd.entries import Level
from taskd.queue import LogQueue
from taskd.sanitise import clean_source, clean_text
from taskd.tracebacks import exception_metadata, exception_text

PROGRESS_FRAME_S = 0.105
PROGRESS_ENTRY_S = 1.0

_DEBUG, _INFO, _WARNING, _ERROR = Level
_LEVELS = {**{level.value: level for level in Level}, "WARN": _WARNING, "CRITICAL": _ERROR, "FATAL": _ERROR}


class TaskLogger:
    """Says things in one task's log, as one source. Safe to call from any thread."""

    __slots__ = ("_queue", "source")

    def __init__(self, queue: LogQueue, source: str) -> None:
        self._queue = queue
        self.source = clean_source(source)

    def debug(self, message: object, /, **metadata: Any) -> None:
        """Say something that matters only when looking for a fault."""
        self._queue.emit(_DEBUG, self.source, message, metadata)

    def info(self, message: object, /, **metadata: Any) -> None:
        """Say what happens."""
        self._queue.emit(_INFO, self.source, message, metadata)

    def warning(self, message: object, /, **metadata: Any) -> None:
        """Say what is wrong, but did not stop the task."""
        self._queue.emit(_WARNING, self.source, message, metadata)

    def error(self, message: object, /, **metadata: Any) -> None:
        """Say what failed."""
        self._queue.emit(_ERROR, self.source, message, metadata)

    def exception(self, message: object, /, **metadata: Any) -> None:
        """Say what failed, with the exception that is being handled: as text and as `metadata.exception`."""
        error = sys.exc_info()[1]
        if error is None:
            self._queue.emit(_ERROR, self.source, message, metadata)
        else:
            self.tell_exception(_ERROR, message, error, metadata)

    def tell_exception(self, level: Level, message: object, error: BaseException, metadata: dict[str, Any]) -> None:
        """Say a message with an exception, as text below it and as `metadata.exception`."""
        mask = self._queue.masker
        text = f"{clean_text(message)}\n{exception_text(error, mask)}"
        self._queue.emit(level, self.source, text, {"exception": exception_metadata(error, mask), **metadata})

    def log(self, level: Level | str | int, message: object, /, **metadata: Any) -> None:
        """Say something at `level`: a `Level`, its name in any case, or a number of stdlib logging's."""
        self._queue.emit(as_level(level), self.source, message, metadata)

    def with_source(self, source: str) -> "TaskLogger":
        """A logger of the same task that speaks as `source` (at most 64 characters)."""
        return TaskLogger(self._queue, source)

    def progress(self, label: str, total: float | None = None, unit: str = "") -> "Progress":
        """A progress to be used as a context manager; `total=None` where the end is not known."""
        return Progress(self, self._queue, label, total, unit)

    def group(self, title: str) -> "Group":
        """A context manager: what is said inside belongs together. Groups may be nested."""
        return Group(self, title)

    async def drain(self) -> None:
        """Flush now; return when all that this task has said so far is committed."""
        await self._queue.drain()


class Progress:
    """
    How far something is. Calls are cheap: a viewer sees at most ten changes a second, and the
    log keeps the first, the last and at most one a second.
    """

    def __init__(self, logger: TaskLogger, queue: LogQueue, label: str, total: float | None, unit: str) -> None:
        self.current: float = 0
        self.total = None if total is None else _as_number(total)
        self._label = clean_text(label)
        self._unit = clean_text(unit)
        self._id = new_id()
        self._logger = logger
        self._queue = queue
        self._done = False
        self._shown_at = self._said_at = 0.0
        self._show_later = False

    def advance(self, n: float = 1) -> None:
        """`n` more are done."""
        self.update(self.current + (_as_number(n) or 0))

    def update(self, current: float, message: str | None = None) -> None:
        """`current` are done in all; `message` says more than the numbers do."""
        self.current = _as_number(current) or 0
        now = time.monotonic()
        finished = self.total is not None and self.current >= self.total
        # The last number is said at the end, once.
        if now - self._said_at >= PROGRESS_ENTRY_S and not finished:
            self._say(message)
        elif now - self._shown_at >= PROGRESS_FRAME_S:
            self._show()
        elif not self._show_later:
            # Were this the last change for a while, viewers would stay at an old number.
            self._show_later = True
            self._queue.later(PROGRESS_FRAME_S, self._show_now)

    def __enter__(self) -> Self:
        self._say()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done = True
        self._say("stopped" if error is not None else None)

    def _show_now(self) -> None:
        self._show_later = False
        if not self._done and time.monotonic() - self._shown_at >= PROGRESS_FRAME_S / 2:
            self._show()

    def _show(self) -> None:
        self._shown_at = time.monotonic()
        self._queue.show_progress(self._logger.source, self._as_metadata())

    def _say(self, message: str | None = None) -> None:
        self._said_at = time.monotonic()
        text = f"{self._label}: {self._numbers()}" + (f", {message}" if message else "")
        self._logger.info(text, progress=self._as_metadata())
        # Shown too, for viewers whose filter leaves the entry out.
        self._show()

    def _numbers(self) -> str:
        of = "" if self.total is None else f"/{_number(self.total)}"
        return f"{_number(self.current)}{of} {self._unit}".rstrip()

    def _as_metadata(self) -> dict[str, Any]:
        return {
            "id": self._id,
            "label": self._label,
            "current": self.current,
            "total": self.total,
            "unit": self._unit,
            "done": self._done,
        }


class Group:
    """A part of a log with a title; `TaskLogger.group` makes it."""

    def __init__(self, logger: TaskLogger, title: str) -> None:
        self._logger = logger
        self._title = clean_text(title)
        self._id = new_id()
        self._started_at = 0.0

    def __enter__(self) -> Self:
        self._started_at = time.monotonic()
        self._logger.info(self._title, group={"id": self._id, "event": "start", "title": self._title})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        took_s = time.monotonic() - self._started_at
        how = "done" if error is None else f"left by {type(error).__name__}"
        group = {"id": self._id, "event": "end", "title": self._title}
        self._logger.info(f"{self._title}: {how} after {took_s:.1f} s", group=group)


def as_level(level: object) -> Level:
    """The level that a name, or a number of stdlib logging's, means; INFO for what means none."""
    if isinstance(level, Level):
        return level
    if isinstance(level, int):
        return _ERROR if level >= 40 else _WARNING if level >= 30 else _INFO if level >= 20 else _DEBUG
    return _LEVELS.get(str.upper(level), _INFO) if isinstance(level, str) else _INFO


def new_id() -> str:
    """A short name for a progress or a group, unlike any other of its task."""
    return secrets.token_hex(4)


def _as_number(value: object) -> float | None:
    """A finite number, as a plain int or float; None for what is none (a log call does not raise)."""
    if type(value) is int and abs(value) < 2**53:
        return value
    try:
        number = float(value)  # type: ignore[arg-type]  # a Decimal, a Fraction, "100"; else it raises
    except Exception:
        return None
    return number if math.isfinite(number) else None


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"
