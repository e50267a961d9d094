"""
Whose words these are: the context variable that names the task which is speaking.

A context variable is inherited by child tasks, by `asyncio.to_thread`, by callbacks, and by
whatever is run in a copy of the context. What is captured elsewhere (`taskd.streams`,
`taskd.records`, `taskd.uncaught`) asks `speaking()`, and without an answer leaves everything as it
would be without taskd.
"""

import codecs
import copy
import threading
from contextvars import ContextVar
from typing import Any

from taskd.entries import Level
from taskd.logger import TaskLogger
from taskd.speech import Speech

# What stdlib logging writes to stderr before it tells how a handler failed.
LOGGING_ERROR = "--- Logging error ---"


class Capturing:
    """One task's captured speech: its logger, and the lines not yet ended."""

    def __init__(self, logger: TaskLogger) -> None:
        self.logger = logger
        self.finished = False
        self.lent_by: Capturing | None = None
        self.quiet = False
        # What the task has put in the place of `sys.stdout` and `sys.stderr`.
        self.replaced: dict[str, Any] = {}
        self.decoders: dict[tuple[str, int], codecs.IncrementalDecoder] = {}
        self._speakers: dict[str, TaskLogger] = {}
        self._speeches: dict[tuple[str, int], Speech] = {}
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
            if self.finished:  # nobody comes any more to say the rest
                lines += speech.lines.end()
        # Not under the lock: a thread may wait here for room in the queue.
        if self.finished:
            speech.finish(lines)
        elif lines:
            speech.say(lines)

    def finish(self) -> None:
        """The task has ended: say what was written without an end of line."""
        self.finished = True
        with self._lock:
            rest = [(speech, speech.lines.end()) for speech in self._speeches.values()]
        for speech, lines in rest:
            speech.finish(lines)

    def lent(self) -> "Capturing":
        """The same for a thread that the task has started: it may outlive the task and serve others."""
        other = copy.copy(self)
        other.lent_by = self.lent_by or self
        return other

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


def speaking() -> Capturing | None:
    """The task that speaks here and now, if any."""
    capturing = current.get()
    if capturing is not None and capturing.lent_by is not None and capturing.lent_by.finished:
        return None
    return capturing
