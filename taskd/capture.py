"""
Words that were not said through a `TaskLogger`, into the log of the task that said them.

`print` (anything written to `sys.stdout` or `sys.stderr`) and stdlib `logging` are hooked
once per process, and a context variable says whose task is speaking. Overlapping tasks,
child tasks and `asyncio.to_thread` inherit the variable, so each keeps its own words; a hook
put in and taken out per task would lose them where tasks overlap. Outside a task everything
behaves as if taskd were not there.

Logging is hooked where records pass (`Logger.callHandlers`), not by a handler on the root
logger, for `logging.config.dictConfig` removes those. taskd's own loggers are never
captured: what they say about a task is for the operator, and no loop can form.
"""

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TextIO

from taskd.entries import Level
from taskd.logger import TaskLogger, as_level
from taskd.sanitise import clean_text
from taskd.tracebacks import exception_line

PARTIAL_CHARACTERS_MAX = 65_536


class Capturing:
    """One task's captured speech: its logger, and the lines not yet ended."""

    def __init__(self, logger: TaskLogger) -> None:
        self.logger = logger
        self._partial: dict[tuple[str, int], str] = {}
        self._lock = threading.RLock()

    def write(self, stream: str, text: str) -> None:
        """Say each whole line in `text`; keep what is left for the next write of the same thread."""
        place = stream, threading.get_ident()
        with self._lock:
            *lines, rest = (self._partial.pop(place, "") + text).split("\n")
            if 0 < len(rest) <= PARTIAL_CHARACTERS_MAX:
                self._partial[place] = rest
        for line in lines:
            self._say(stream, line)
        if len(rest) > PARTIAL_CHARACTERS_MAX:
            self._say(stream, rest)

    def finish(self) -> None:
        """Say what was written without an end of line."""
        with self._lock:
            rest, self._partial = self._partial, {}
        for (stream, _), line in rest.items():
            self._say(stream, line)

    def _say(self, stream: str, line: str) -> None:
        level = Level.INFO if stream == "stdout" else Level.WARNING
        self.logger.with_source(stream).log(level, line.removesuffix("\r"))


current: ContextVar[Capturing | None] = ContextVar("taskd_capturing", default=None)


@contextmanager
def capture_installed(level: Level) -> Iterator[None]:
    """
    Hook print and logging for the length of a `with` block, once per process.

    `level` applies inside tasks to loggers that set none themselves.
    """
    streams = sys.stdout, sys.stderr
    handle, enabled = logging.Logger.callHandlers, logging.Logger.isEnabledFor
    proxies = _Stream("stdout", streams[0]), _Stream("stderr", streams[1])
    sys.stdout, sys.stderr = proxies
    logging.Logger.callHandlers = _calling(handle)  # type: ignore[method-assign]  # see the module's docstring
    logging.Logger.isEnabledFor = _enabling(enabled, logging.getLevelNamesMapping()[level])  # type: ignore[method-assign]
    try:
        yield
    finally:
        logging.Logger.callHandlers = handle  # type: ignore[method-assign]
        logging.Logger.isEnabledFor = enabled  # type: ignore[method-assign]
        # Whoever replaced a stream meanwhile keeps it.
        if sys.stdout is proxies[0]:
            sys.stdout = streams[0]
        if sys.stderr is proxies[1]:
            sys.stderr = streams[1]


class _Stream:
    """Stands in for `sys.stdout` or `sys.stderr`: a task's words go to its log, others' pass through."""

    def __init__(self, name: str, stream: TextIO) -> None:
        self._name = name
        self._stream = stream

    def write(self, text: str) -> int:
        capturing = current.get()
        if capturing is None:
            return self._stream.write(text)
        capturing.write(self._name, text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def isatty(self) -> bool:
        return current.get() is None and self._stream.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _calling(handle: Any) -> Any:
    def call_handlers(self: logging.Logger, record: logging.LogRecord) -> None:
        capturing = current.get()
        if capturing is None or _is_own(self.name):
            # Its handlers may write to a stream that is captured.
            token = current.set(None)
            try:
                handle(self, record)
            finally:
                current.reset(token)
        else:
            _say_record(capturing.logger, record)

    return call_handlers


def _enabling(enabled: Any, capture_level: int) -> Any:
    def is_enabled_for(self: logging.Logger, level: int) -> bool:
        if current.get() is None or _is_own(self.name) or _has_own_level(self):
            return bool(enabled(self, level))
        return level >= capture_level and level > self.manager.disable and not self.disabled

    return is_enabled_for


def _say_record(logger: TaskLogger, record: logging.LogRecord) -> None:
    try:
        message = record.getMessage()
    except Exception as error:  # as `logging` itself: a bad format must not fail the task
        message = f"{clean_text(record.msg)} % {clean_text(record.args)} ({exception_line(error)})"
    speaker = logger.with_source(record.name)
    raised = record.exc_info[1] if record.exc_info else None
    if raised is None:
        speaker.log(as_level(record.levelno), message)
    else:
        speaker.tell_exception(as_level(record.levelno), message, raised, {})


def _has_own_level(logger: logging.Logger) -> bool:
    """Whether it, or one above it other than the root, was given a level."""
    above: logging.Logger | None = logger
    while above is not None and above.parent is not None:
        if above.level:
            return True
        above = above.parent
    return False


def _is_own(name: str) -> bool:
    return name == "taskd" or name.startswith("taskd.")
