"""
The signals that ask the service to stop: SIGINT, SIGTERM, and SIGHUP when its terminal is closed.

They are in order from the first import to the last line. While modules load nothing is open and
the process just leaves. From then on each is counted, and told on the loop to whoever serves. None
has its default meaning again: one that comes late would turn an orderly end into a death.

While a plugin is imported the loop does not turn, perhaps for ever: then the process leaves at once
too (`leave_while`). No task has begun, and a start may be interrupted anywhere.
"""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

KEEP_INTERVAL_S = 1.0
# What a plugin does not change. With its default meaning, SIGPIPE ends the process when a client leaves; without
# SIGCHLD, no command is seen to end.
PROTECTED = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD})
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
_signal = signal.signal


def leave_while_loading(*, serving: bool) -> None:
    """Let a signal end the process at once: with 0 where it was to serve, else as shells have it."""
    code = 0 if serving else INTERRUPTED
    numbers = stopping() if serving else [signal.SIGINT]
    for number in numbers:
        signal.signal(number, lambda *_: os._exit(code))


def loaded() -> None:
    """For commands other than `serve`: signals have their usual meaning again."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in stopping():
        if number is not signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)


def stopping() -> list[signal.Signals]:
    """The signals that ask for a stop."""
    # Under `nohup` SIGHUP is ignored, and that is meant.
    hangup = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hangup]


class StopSignals:
    """What was asked of the process so far. Made once, in the main thread; it is never undone."""

    def __init__(self) -> None:
        self.asked = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tell: Callable[[], None] = lambda: None
        self._blocked: Callable[[], bool] = lambda: False
        self._leave: Callable[[], None] = lambda: None
        self._numbers = stopping()
        self._others = {number: signal.getsignal(number) for number in (signal.SIGPIPE, signal.SIGCHLD)}
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        for number in self._numbers:
            signal.signal(number, self._come)

    def tell(self, tell: Callable[[], None]) -> None:
        """Have `tell` called on the running loop for each signal, those included that have come already."""
        self._loop, self._tell = asyncio.get_running_loop(), tell
        for _ in range(self.asked):
            tell()

    def leave_while(self, blocked: Callable[[], bool], leave: Callable[[], None]) -> None:
        """Have `leave`, which ends the process, called by a signal that comes while `blocked`."""
        self._blocked, self._leave = blocked, leave

    def leave_if_asked(self) -> None:
        """Leave if a signal has come and the loop is blocked. Called when it begins to be, too."""
        if self.asked and self._blocked():
            self._leave()

    def taken(self) -> bool:
        """Whether somebody has put a handler of his own in the place of one of ours."""
        return any(signal.getsignal(number) != self._come for number in self._numbers)

    async def keep(self) -> None:
        """Take them again, once a second, whatever was done to them, until this is cancelled."""
        while True:
            await asyncio.sleep(KEEP_INTERVAL_S)
            self.take_back()

    def take_back(self) -> None:
        """Put the handlers back, and the signals that the main thread blocks. In the main thread."""
        # Without looking first: C code has handlers that Python does not know of.
        for number in self._numbers:
            _signal(number, self._come)
        for number, handler in self._others.items():
            if signal.getsignal(number) != handler and handler is not None:
                _signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def ask(self) -> None:
        """Ask for the stop as a signal does."""
        self._come(signal.SIGTERM, None)

    def over(self) -> None:
        """All is done: from here on they are ignored."""
        # The interpreter, at its own end, takes handlers away, and with them the process; this it leaves.
        for number in self._numbers:
            signal.signal(number, signal.SIG_IGN)

    def _come(self, number: int, frame: FrameType | None) -> None:
        self.asked += 1
        self.leave_if_asked()
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has closed: there is nothing left to stop
                self._loop.call_soon_threadsafe(self._tell)
