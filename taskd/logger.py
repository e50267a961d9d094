"""
`TaskLogger`: what a plugin speaks through.

A logger is a source and a queue. A call costs microseconds, never waits on the loop, never
touches the database and never raises for what it is given: what cannot be stored becomes
text that can. `message` is taken as it is, never formatted with `%` or `{}`; fields belong
to the call, as keyword arguments. What a habit of other loggers puts behind the message is
kept, as the field `args`.
"""

import sys
from typing import Any, cast

from taskd.entries import Level
from taskd.masking import Masker
from taskd.progress import Group, Progress
from taskd.queue import LogQueue
from taskd.sanitise import clean_text
from taskd.sources import clean_source
from taskd.tracebacks import exception_metadata, exception_text

_DEBUG, _INFO, _WARNING, _ERROR = Level
_LEVELS = {**{level.value: level for level in Level}, "WARN": _WARNING, "CRITICAL": _ERROR, "FATAL": _ERROR}


class TaskLogger:
    """Says things in one task's log, as one source. Safe to call from any thread."""

    __slots__ = ("_queue", "source")

    def __init__(self, queue: LogQueue, source: str) -> None:
        self._queue = queue
        # Masked before it is cut, or half of a secret would be left.
        self.source = clean_source(queue.masker(clean_text(source)))

    def debug(self, message: object, /, *more: object, **metadata: Any) -> None:
        """Say something that matters only when looking for a fault."""
        self._queue.emit(_DEBUG, self.source, message, _with(more, metadata) if more else metadata)

    def info(self, message: object, /, *more: object, **metadata: Any) -> None:
        """Say what happens."""
        self._queue.emit(_INFO, self.source, message, _with(more, metadata) if more else metadata)

    def warning(self, message: object, /, *more: object, **metadata: Any) -> None:
        """Say what is wrong, but did not stop the task."""
        self._queue.emit(_WARNING, self.source, message, _with(more, metadata) if more else metadata)

    def error(self, message: object, /, *more: object, **metadata: Any) -> None:
        """Say what failed."""
        self._queue.emit(_ERROR, self.source, message, _with(more, metadata) if more else metadata)

    def exception(self, message: object, /, **metadata: Any) -> None:
        """Say what failed, with the exception that is being handled: as text and as `metadata.exception`."""
        error = sys.exc_info()[1]
        if error is None:
            self._queue.emit(_ERROR, self.source, message, metadata)
        else:
            self.tell_exception(_ERROR, message, error, metadata)

    def tell_exception(
        self, level: Level, message: object, error: BaseException, metadata: dict[str, Any], stack: str | None = None
    ) -> None:
        """Say a message with an exception, as text below it (above `stack`) and as `metadata.exception`."""
        mask = self._queue.masker
        text = f"{clean_text(message)}\n{exception_text(error, mask)}" + (f"\n{stack}" if stack else "")
        self._queue.emit(level, self.source, text, {**metadata, "exception": exception_metadata(error, mask)})

    def say(self, level: Level, message: object, metadata: dict[str, Any] | None) -> None:
        """Say something whose fields come in a dict, with any keys."""
        self._queue.emit(level, self.source, message, metadata)

    def log(self, level: Level | str | int, message: object, /, **metadata: Any) -> None:
        """Say something at `level`: a `Level`, its name in any case, or a number of stdlib logging's."""
        self._queue.emit(as_level(level), self.source, message, metadata)

    def with_source(self, source: str) -> "TaskLogger":
        """A logger of the same task that speaks as `source` (at most 64 characters)."""
        return TaskLogger(self._queue, source)

    def progress(self, label: str, total: float | None = None, unit: str = "") -> Progress:
        """A progress to be used as a context manager; `total=None` where the end is not known."""
        return Progress(self, label, total, unit)

    def group(self, title: str) -> Group:
        """A context manager: what is said inside belongs together. Groups may be nested."""
        return Group(self, title)

    @property
    def queue(self) -> LogQueue:
        """Where what is said goes: for what speaks on behalf of a program."""
        return self._queue

    @property
    def masker(self) -> Masker:
        """What hides the task's secrets."""
        return self._queue.masker

    async def drain(self) -> None:
        """Flush now; return when all that this task has said so far is committed."""
        await self._queue.drain()


def _with(more: tuple[object, ...], metadata: dict[str, Any]) -> dict[str, Any]:
    return {"args": list(more), **metadata}


def as_level(level: object) -> Level:
    """The level that a name, or a number of stdlib logging's, means; INFO for what means none."""
    kind = type(level)  # not what it says it is: its own code may raise
    if kind is Level:
        return cast(Level, level)
    if issubclass(kind, int):
        number = int.__index__(cast(int, level))
        return _ERROR if number >= 40 else _WARNING if number >= 30 else _INFO if number >= 20 else _DEBUG
    return _LEVELS.get(str.upper(cast(str, level)), _INFO) if issubclass(kind, str) else _INFO
