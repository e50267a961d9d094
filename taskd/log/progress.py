"""
`Progress` and `Group`: how far something is, and what belongs together.

A progress may change a million times a second. What becomes of that is bounded for each
progress by itself: viewers are shown at most ten changes a second, the last one always, and the
log keeps the first, the last and at most one a second. A total that is not known is None. Several
progresses at once have ids of their own, and any thread may move one.
"""

import asyncio
import concurrent.futures
import math
import secrets
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from taskd.text.sanitise import clean_text
from taskd.text.sources import clean_source

if TYPE_CHECKING:
    from taskd.log.logger import TaskLogger

# The end is shown at once, whenever the change before it was. With it, ten gaps of eleven frames
# still take over a second.
PROGRESS_FRAME_S = 0.112
PROGRESS_ENTRY_S = 1.0


class Progress:
    """How far something is; `TaskLogger.progress` makes it. Safe to use from any thread."""

    def __init__(self, logger: "TaskLogger", label: str, total: float | None, unit: str) -> None:
        self.current: float = 0
        self.total = None if total is None else as_number(total)
        self._label = clean_text(label)
        self._unit = clean_text(unit)
        self._id = new_id()
        self._logger = logger
        # A source is masked when an entry takes it; what is only shown is no entry.
        self._source = clean_source(logger.masker(logger.source))
        self._done = False
        self._shown_at = self._said_at = -math.inf
        self._show_later = False
        # Reentrant: a signal handler may advance what it interrupts.
        self._lock = threading.RLock()

    def advance(self, n: float = 1) -> None:
        """`n` more are done."""
        more = as_number(n) or 0
        with self._lock:
            self.current = as_number(self.current + more) or 0
            due = self._due()
        self._tell(due, None)

    def update(self, current: float, message: str | None = None) -> None:
        """`current` are done in all; `message` says more than the numbers do."""
        number = as_number(current) or 0
        with self._lock:
            self.current = number
            due = self._due()
        self._tell(due, message)

    def __enter__(self) -> Self:
        self._tell((True, True), None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish("stopped" if error is not None else None)

    def finish(self, message: str | None = None) -> None:
        """Say and show the last state: it is done with."""
        self._done = True
        self._tell((True, True), message)

    def _due(self) -> tuple[bool, bool]:
        """Whether this change is to be said, and shown. Under the lock: only one thread gets a yes."""
        now = time.monotonic()
        # The last number is said at the end, once.
        finished = self.total is not None and self.current >= self.total
        say = now - self._said_at >= PROGRESS_ENTRY_S and not finished
        show = now - self._shown_at >= PROGRESS_FRAME_S
        if say:
            self._said_at = now
        if show:
            self._shown_at = now
        elif not self._show_later:
            # Were this the last change for a while, viewers would stay at an old number.
            self._show_later = True
            self._logger.queue.later(PROGRESS_FRAME_S - (now - self._shown_at), self._show_now)
        return say, show

    def _show_now(self) -> None:
        with self._lock:
            self._show_later = False
            show = not self._done and self._due()[1]
        if show:
            self._show()

    # Not under the lock: a thread may have to wait here for room, and the loop must not wait for it.

    def _tell(self, due: tuple[bool, bool], message: str | None) -> None:
        say, show = due
        if say:
            self._said_at = time.monotonic()
            self._logger.info(self._told(message), **self._fields(), progress=self._as_metadata())
        if show:
            self._show()

    def _show(self) -> None:
        self._shown_at = time.monotonic()
        self._logger.queue.show_progress(self._source, self._as_metadata())

    def _told(self, message: str | None) -> str:
        """What an entry says."""
        return f"{self._label}: {self._numbers()}" + (f", {message}" if message else "")

    def _fields(self) -> dict[str, Any]:
        """What an entry's metadata has beside the progress."""
        return {}

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
    """A part of a log with a title; `TaskLogger.group` makes it. Groups may be nested."""

    def __init__(self, logger: "TaskLogger", title: str) -> None:
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
        group = {"id": self._id, "event": "end", "title": self._title}
        self._logger.info(f"{self._title}: {_ended(error, f'after {took_s:.1f} s')}", group=group)


def _ended(error: BaseException | None, after: str) -> str:
    """How a group ended. A thread that was asked to stop raises the `CancelledError` of `concurrent.futures`."""
    if error is None:
        return f"done {after}"
    if isinstance(error, asyncio.CancelledError | concurrent.futures.CancelledError):
        return f"cancelled {after}"
    return f"failed {after} ({type(error).__name__})"


def new_id() -> str:
    """A short name for a progress or a group, unlike any other of its task."""
    return secrets.token_hex(4)


def as_number(value: object) -> float | None:
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
