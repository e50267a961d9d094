"""
Whose words these are: the context variable that names the task which is speaking.

A context variable is inherited by child tasks, by `asyncio.to_thread`, by callbacks, and by
whatever is run in a copy of the context. What is captured elsewhere (`streams`,
`stdlib_logging`, `exceptions`) asks `speaking()`, and without an answer leaves everything as it
would be without taskd.
"""

import codecs
import contextlib
import copy
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from taskd.capture.output import Speech
from taskd.entries import Level
from taskd.log.logger import TaskLogger

# What stdlib logging writes to stderr before it tells how a handler failed.
LOGGING_ERROR = "--- Logging error ---"
# How long the beginning of a line waits for its end when the task has ended.
LATE_REST_S = 0.5


class Capturing:
    """One task's captured speech: its logger, and the lines not yet ended."""

    def __init__(self, logger: TaskLogger) -> None:
        self.logger = logger
        self.finished = False
        self.quiet = False
        # What the task has put in the place of `sys.stdout` and `sys.stderr`.
        self.replaced: dict[str, Any] = {}
        self.decoders: dict[tuple[str, int], codecs.IncrementalDecoder] = {}
        self._speakers: dict[str, TaskLogger] = {}
        self._speeches: dict[tuple[str, int], Speech] = {}
        # Copies (`muted`) end when this one does.
        self._whole = self
        self.ending = False
        # Reentrant: a signal handler may print in the middle of a print.
        self._lock = threading.RLock()

    def speaker(self, source: str) -> TaskLogger:
        """The task's logger of that source; made once, for a log call is a few microseconds."""
        speaker = self._speakers.get(source)
        if speaker is None:
            speaker = self._speakers[source] = self.logger.with_source(source)
        return speaker

    def write(self, stream: str, text: str) -> None:
        """Say each whole line in `text`; what is left waits for the next write of the same thread."""
        if self.quiet:
            if not text.startswith(LOGGING_ERROR):
                return
            self.quiet = False  # a handler has failed: that is said nowhere else
        place = stream, threading.get_ident()
        with self._lock:
            speech = self._speeches.get(place) or self._new_speech(place)
            lines = speech.lines.feed(text)
            if self._whole.finished and not self._whole.ending:
                # `print` writes the end of a line by itself, so the rest waits a little for it.
                self._whole.ending = True
                self.logger.queue.later(LATE_REST_S, self._whole.say_rest)
        # Not under the lock: a thread may wait here for room in the queue.
        if self.finished:
            speech.finish(lines)
        elif lines:
            speech.say(lines)

    def finish(self) -> None:
        """The task has ended: say what was written without an end of line."""
        self.finished = True
        self.say_rest()

    def say_rest(self) -> None:
        """Say what was written without an end of line."""
        with self._lock:
            self.ending = False
            rest = [(speech, speech.lines.end()) for speech in self._speeches.values()]
        for speech, lines in rest:
            speech.finish(lines)

    def muted(self) -> "Capturing":
        """The same without what is written to the streams: for handlers of a record that is said already."""
        other = copy.copy(self)
        other.quiet = True
        return other

    def _new_speech(self, place: tuple[str, int]) -> Speech:
        level = Level.INFO if place[0] == "stdout" else Level.WARNING
        speech = self._speeches[place] = Speech(self.speaker(place[0]), level)
        return speech


current: ContextVar[Capturing | None] = ContextVar("taskd_capturing", default=None)

# Returns the task that speaks here and now, if any.
speaking: Callable[[], Capturing | None] = current.get


@contextlib.contextmanager
def speaking_as(capturing: Capturing | None) -> Iterator[None]:
    """Let the code of a `with` block speak for that task, or for none."""
    token = current.set(capturing)
    try:
        yield
    finally:
        current.reset(token)


_MARK = "_taskd_capturing"


def mark_owner(thing: object, capturing: Capturing | None) -> None:
    """Note at a future, task or thread whose it is: it may end in any context."""
    with contextlib.suppress(AttributeError):  # of a kind that takes no attribute
        setattr(thing, _MARK, capturing)


def mark_of(thing: object) -> Capturing | None:
    """Return the task that is noted at it, if one is."""
    return getattr(thing, _MARK, None)


def marked_owner(thing: object) -> Capturing | None:
    """Return the task that is noted at it; if nothing was noted, the one that speaks here and now."""
    capturing: Capturing | None = getattr(thing, _MARK, current.get())
    return capturing
