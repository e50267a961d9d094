"""
The service's own words on stdout and stderr: whoever reads them, or does not, the service goes on.

A pipe whose reader sleeps, a terminal that is stopped, a reader that has gone: a write to one of them
waits for ever or fails, and on the loop it would take everything with it. So a thread writes, nobody
waits for it, what it cannot write is let go, and what has no room (`WAITING_MAX`) is dropped.
"""

import asyncio
import contextlib
import io
import os
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TextIO

from taskd.text.escape import shown

WAITING_MAX = 1_000
DRAIN_WAIT_S = 0.5
KEEP_INTERVAL_S = 1.0
_STREAMS = ((1, "stdout"), (2, "stderr"))


def open_missing_streams() -> None:
    """
    Give the descriptors 0 to 2 to the null device where they are closed (`2>&-`).

    Otherwise the next file that is opened has one of them, and gets every word meant for stderr.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.FileIO(0, "r", closefd=False), "utf-8")
    for descriptor, name in _STREAMS:
        if getattr(sys, name) is None:
            nowhere = io.FileIO(descriptor, "w", closefd=False)
            setattr(sys, name, io.TextIOWrapper(io.BufferedWriter(nowhere), "utf-8", "backslashreplace"))


def say(words: str) -> None:
    """A word to the person, beside the log and not in it."""
    with contextlib.suppress(OSError):  # a stderr that fails has no other place
        print(f"taskd: {shown(words)}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def patient_streams() -> Iterator[Callable[[], None]]:
    """
    `sys.stdout` and `sys.stderr` never wait and never fail, for the length of a `with` block.

    Gives what is to be called before the process is ended inside the block.
    """
    before = {name: getattr(sys, name) for _, name in _STREAMS}
    outlets = [_Outlet(descriptor) for descriptor, _ in _STREAMS]
    texts = {name: _text(outlet, before[name]) for outlet, (_, name) in zip(outlets, _STREAMS, strict=True)}
    for name, text in texts.items():
        setattr(sys, name, text)

    def drain() -> None:
        deadline = time.monotonic() + DRAIN_WAIT_S
        for outlet, text in zip(outlets, texts.values(), strict=True):
            with contextlib.suppress(ValueError):  # a plugin has closed or detached it
                text.flush()
            outlet.drain(deadline)

    try:
        yield drain
    finally:
        drain()
        for _, name in _STREAMS:
            setattr(sys, name, before[name])


class ConsoleDied(Exception):
    """What is written on stdout or stderr waited, for its thread had ended."""


async def keep_writing() -> None:
    """Look, for ever, whether the threads that write live. Raises `ConsoleDied` after it had to start one again."""
    while True:
        await asyncio.sleep(KEEP_INTERVAL_S)
        revived = [outlet for outlet in _outlets if outlet.revive()]
        if revived:
            raise ConsoleDied("something has ended a thread that writes stdout or stderr")


def _text(outlet: "_Outlet", like: TextIO) -> TextIO:
    like.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(outlet), like.encoding, errors="backslashreplace", newline="\n", line_buffering=True
    )


_outlets: list["_Outlet"] = []


class _Outlet(io.RawIOBase):
    """One descriptor, written by a thread of its own."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        # A copy: a plugin may close the descriptor, or have it lead elsewhere.
        self._own = os.dup(descriptor)
        self._process = os.getpid()
        # Appended to by any thread, also again by a destructor in the middle of it; an item leaves when it is written.
        self._waiting: deque[bytes | threading.Event] = deque()
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._starting = threading.Lock()
        _outlets.append(self)
        self._thread = self._start()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: object, /) -> int:
        words = bytes(data)  # type: ignore[call-overload]  # a buffer, of whatever kind
        if os.getpid() != self._process:
            self._write(words)  # a forked child has no thread that would
        elif len(self._waiting) < WAITING_MAX:
            self._put(words)
        return len(words)

    def drain(self, deadline: float) -> None:
        """Wait until all has been written that was said so far, or the deadline is there."""
        written = threading.Event()
        self._put(written)
        written.wait(max(0.0, deadline - time.monotonic()))

    def _put(self, item: bytes | threading.Event) -> None:
        self._waiting.append(item)
        self._wake.put(None)

    def _start(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, name=f"console {self._descriptor}", daemon=True)
        thread.start()
        return thread

    def revive(self) -> bool:
        """Start the thread again if something has ended it, and write what waits; whether that was so."""
        if self._thread.is_alive() or not self._starting.acquire(blocking=False):
            return False
        try:
            self._thread = self._start()
        except RuntimeError:  # no thread can be had now: it is tried again
            return False
        finally:
            self._starting.release()
        return True

    def _run(self) -> None:
        while True:
            while self._waiting:
                item = self._waiting[0]
                if isinstance(item, threading.Event):
                    item.set()
                else:
                    self._write(item)
                self._waiting.popleft()
            self._wake.get()

    def _write(self, words: bytes) -> None:
        with contextlib.suppress(OSError):
            while words:
                words = words[os.write(self._own, words) :]
