"""
`LateWords`: what the code of a task prints, logs and raises after the task's log has closed.

A child task, a thread or a timer may outlive its task. Its words have no log any more, so each entry
becomes one line on the service's stderr, with the name of the task. A forgotten loop must not fill
the disk: a period has at most `LINES_MAX` lines of one task, and its end reports how many were
suppressed. Each period with suppressed lines doubles the next one, up to `PERIOD_MAX_S`.
"""

import logging
import os
import threading
from collections.abc import Callable
from typing import Any

import orjson

from taskd.entries import Level
from taskd.text.escape import shown

LINES_MAX = 20
PERIOD_S = 60.0
PERIOD_MAX_S = 3_600.0
CHARACTERS_MAX = 1_000

Later = Callable[[float, Callable[[], None]], None]

_log = logging.getLogger("taskd.late")


class LateWords:
    """The late words of the task that `name` names. `later(delay_s, function)` calls on the loop."""

    def __init__(self, name: str, later: Later) -> None:
        self._name = name
        self._later = later
        # Reentrant: a destructor with late words may interrupt.
        self._lock = threading.RLock()
        self._period_s = PERIOD_S
        self._lines = 0

    def take(self, level: Level, source: str, message: str, body: bytes) -> None:
        """Report an entry that came too late, unless the period is full. From any thread, under any lock."""
        with self._lock:
            self._lines += 1
            lines = self._lines
        if lines == 1:
            self._later(self._period_s, self._end_period)
        if lines <= LINES_MAX:
            number = logging.ERROR if level is Level.ERROR else logging.WARNING
            line = _line(message, orjson.loads(body)["metadata"] or {})
            # On the loop, because a handler may do anything and the caller may hold the queue's lock.
            self._later(0, lambda: _log.log(number, "%s, after its end, %s: %s", self._name, source, line))

    def _end_period(self) -> None:
        with self._lock:
            suppressed, period_s = max(0, self._lines - LINES_MAX), self._period_s
            self._lines = 0
            self._period_s = min(2 * period_s, PERIOD_MAX_S) if suppressed else PERIOD_S
        if suppressed:
            _log.warning("%s, after its end: %s more lines in %g s", self._name, f"{suppressed:,}", period_s)


def _line(message: str, metadata: dict[str, Any]) -> str:
    """Return an entry in one line; of a traceback, what was raised and where."""
    raised = metadata.get("exception")
    if not isinstance(raised, dict):
        return shown(message[:CHARACTERS_MAX])
    error = f"{message.partition(chr(10))[0]}: {raised.get('type')}: {raised.get('message')}"
    frames = raised.get("frames")
    place = f" ({os.path.basename(frames[-1]['file'])}:{frames[-1]['line']})" if frames else ""
    return shown(error[:CHARACTERS_MAX] + place)
