"""
`FloodLimit`: so many entries a second of one task, and no more.

Off by default. What is over the limit is *suppressed*: it costs no more than to be counted, and
gets no seq. When the second is over, an entry of `system` in its place says how many were
suppressed and over what time. taskd's own words are not counted and never suppressed. A message
that is split counts once.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

from taskd.entries import Level, timestamp_now

WINDOW_S = 1.0

Tell = Callable[[Level, str, dict[str, Any]], None]
Later = Callable[[float, Callable[[], None]], None]


class FloodLimit:
    """
    The limit of one task. Any thread may ask.

    `tell` says something as `system`; `later(delay_s, function)` calls on the loop.
    """

    def __init__(self, entries_per_s_max: int, tell: Tell, later: Later) -> None:
        self._entries_max = entries_per_s_max
        self._tell = tell
        self._later = later
        self._lock = threading.RLock()
        self._window_ends = 0.0
        self._entries = 0
        self._suppressed = 0
        self.suppressed_ever = 0
        self._since = ""

    def suppresses(self) -> bool:
        """Count one entry; True where it is one too many."""
        with self._lock:
            now = time.monotonic()
            if now < self._window_ends:
                self._entries += 1
                if self._entries <= self._entries_max:
                    return False
                self._suppress(self._window_ends - now)
                return True
            self._window_ends = now + WINDOW_S
            self._entries = 1
        # Not under the lock: this is an emit of its own.
        self.tell()
        return False

    def tell(self) -> None:
        """Say what was suppressed since the last time, if anything was."""
        with self._lock:
            suppressed, since, self._suppressed = self._suppressed, self._since, 0
        if suppressed:
            until = timestamp_now()
            message = f"{suppressed:,} entries were suppressed here, since {since}: over {self._entries_max:,} a second"
            self._tell(Level.WARNING, message, {"suppressed": suppressed, "since": since, "until": until})

    def _suppress(self, rest_s: float) -> None:
        self._suppressed += 1
        self.suppressed_ever += 1
        if self._suppressed == 1:
            self._since = timestamp_now()
            # Said also where the task says nothing more.
            self._later(rest_s, self.tell)
