"""
`TaskLogger`: what a plugin speaks through.

A logger is a source and a queue. A call costs microseconds, never waits on the loop, never
touches the database and never raises for what it is given: what cannot be stored becomes
text that can. `message` is taken as it is, never formatted with `%` or `{}`; fields belong
to the call, as keyword arguments. `exc_info` adds an exception, as in stdlib logging. What a habit of
other loggers puts behind the message is kept, as the field `args`; their `extra`, `stack_info` and
`stacklevel` are fields like others.
"""

import sys
from typing import Any, cast

from taskd.entries import Level
from taskd.log.progress import Group, Progress
from taskd.log.queue import LogQueue
from taskd.text.masking import Masker
from taskd.text.sanitise import RAISED, clean_text
from taskd.text.sources import clean_source
from taskd.text.tracebacks import exception_metadata, exception_text

_DEBUG, _INFO, _WARNING, _ERROR = Level
_LEVELS = {**{level.value: level for level in Level}, "WARN": _WARNING, "CRITICAL": _ERROR, "FATAL": _ERROR}


class TaskLogger:
    """Says things in one task's log, as one source. Safe to call from any thread."""

    __slots__ = ("_bound", "_queue", "source")

    def __init__(self, queue: LogQueue, source: str, bound: dict[str, Any] | None = None) -> None:
        self._queue = queue
        self._bound = bound
        # Masked before it is cut, or half of a secret would be left.
        self.source = clean_source(queue.masker(clean_text(source)))

    def debug(self, message: object, /, *more: object, **metadata: Any) -> None:
        """Say something that matters only when looking for a fault."""
        if more or self._bound or "exc_info" in metadata:
            self._say_more(_DEBUG, message, more, metadata)
        else:
            self._queue.emit(_DEBUG, self.source, message, metadata)

    def info(self, message: object, /, *more: object, **metadata: Any) -> None:
        """Say what happens."""
        if more or self._bound or "exc_info" in metadata:
            self._say_more(_INFO, message, more, metadata)
        else:
            self._queue.emit(_INFO, self.source, message, metadata)

    def warning(self, message: object, /, *more: object, **metadata: Any) -> None:
        """Say what is wrong, but did not stop the task."""
        if more or self._bound or "exc_info" in metadata:
            self._say_more(_WARNING, message, more, metadata)
        else:
            self._queue.emit(_WARNING, self.source, message, metadata)

    def error(self, message: object, /, *more: object, **metadata: Any) -> None:
        """Say what failed."""
        if more or self._bound or "exc_info" in metadata:
            self._say_more(_ERROR, message, more, metadata)
        else:
            self._queue.emit(_ERROR, self.source, message, metadata)

    def critical(self, message: object, /, *more: object, **metadata: Any) -> None:
        """Log an ERROR with `levelname` CRITICAL in its metadata, as a captured record of that level has it."""
        self._say_more(_ERROR, message, more, {"levelname": "CRITICAL", **metadata})

    def exception(self, message: object, /, *more: object, **metadata: Any) -> None:
        """Say what failed, with the exception that is being handled: as text and as `metadata.exception`."""
        self._say_more(_ERROR, message, more, {"exc_info": True, **metadata})

    def log(self, level: Level | str | int, message: object, /, *more: object, **metadata: Any) -> None:
        """Say something at `level`: a `Level`, its name in any case, or a number of stdlib logging's."""
        self._say_more(as_level(level), message, more, metadata)

    def _say_more(self, level: Level, message: object, more: tuple[object, ...], metadata: dict[str, Any]) -> None:
        fields = {**self._bound, **metadata} if self._bound else metadata
        error = error_in(fields.pop("exc_info", None))
        if more:
            fields = {"args": list(more), **fields}
        if error is None:
            self._queue.emit(level, self.source, message, fields)
        else:
            self.tell_exception(level, message, error, fields)

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

    def with_source(self, source: str) -> "TaskLogger":
        """A logger of the same task that speaks as `source` (at most 64 characters)."""
        return TaskLogger(self._queue, source, self._bound)

    def bind(self, /, **metadata: Any) -> "TaskLogger":
        """Return a logger of this source that adds `metadata` to every call; a call's own fields win."""
        return TaskLogger(self._queue, self.source, {**(self._bound or {}), **metadata})

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


def error_in(exc_info: object) -> BaseException | None:
    """Return the exception that `exc_info` means, as stdlib logging takes it: one, a tuple with one, or True."""
    try:
        if isinstance(exc_info, BaseException):
            return exc_info
        if isinstance(exc_info, tuple):
            return next((one for one in exc_info if isinstance(one, BaseException)), None)
        return sys.exc_info()[1] if exc_info else None
    except RAISED:  # an object without a class or a truth value
        return None


def as_level(level: object) -> Level:
    """The level that a name, or a number of stdlib logging's, means; INFO for what means none."""
    kind = type(level)  # not what it says it is: its own code may raise
    if kind is Level:
        return cast(Level, level)
    if issubclass(kind, int):
        number = int.__index__(cast(int, level))
        return _ERROR if number >= 40 else _WARNING if number >= 30 else _INFO if number >= 20 else _DEBUG
    return _LEVELS.get(str.upper(cast(str, level)), _INFO) if issubclass(kind, str) else _INFO
