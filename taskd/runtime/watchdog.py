"""
`Watchdog`: who holds the event loop.

Everything shares one loop: while a plugin computes or sleeps without an `await`, no other task
runs, no viewer is served and no question answered. What says so must be a thread of its own.

The loop beats, several times a second; the thread looks whether it still does. Where it has not
for `loop_block_warn_s`, the thread finds the task whose code the loop is in, and where in it, and
says so at once: in the task's log, which is in the journal while the block lasts, and in one line
on stderr. The first beat after it says how long it was. The loop's lag is measured on the way.

The thread calls nothing that is not ours, holds no lock while it prints, and outlives whatever
goes wrong in it. C code that keeps the interpreter's lock stops this thread too; it is then seen
in the moment in which it lets go, which is still in the same task.
"""

import asyncio
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from os.path import basename
from time import monotonic
from typing import Any

from taskd.entries import Level
from taskd.metrics import Metrics
from taskd.runtime.live_task import LiveTask
from taskd.settings import Settings
from taskd.text.tracebacks import stack_frames, stack_text

BEAT_S = 0.1
# How often the thread looks, in times that a block is told after.
LOOKS = 4
STOP_WAIT_S = 1.0
# How often it is checked that the thread lives and the loop beats.
CHECK_S = 1.0
RECENT_S = 60.0
LINES_MAX = 20

ADVICE = "everything else waits for it. What takes long belongs in a thread: await context.run_in_thread(…)"

TaskOf = Callable[["asyncio.Task[Any]"], LiveTask | None]


@dataclass(frozen=True, slots=True)
class Block:
    """The loop stands: in whose code (None: of no task that is known), where, how long when that was seen."""

    live: LiveTask | None = None
    where: str = ""
    late_s: float = 0.0
    told: bool = False

    @property
    def plugin(self) -> str:
        """Whose plugin's code it is, or nothing."""
        return self.live.plugin.name if self.live else ""

    @property
    def who(self) -> str:
        """The same in words."""
        return f"task {self.live.row.id} ({self.plugin})" if self.live else "no task that is known"


class WatchdogDied(Exception):
    """The watchdog does not watch any more."""


class Watchdog:
    """Watches the running loop for one service. Made on that loop; `run` is its life."""

    def __init__(self, settings: Settings, metrics: Metrics, task_of: TaskOf) -> None:
        self._warn_s = settings.loop_block_warn_s
        self._told_max = settings.loop_block_told_max
        self._metrics = metrics
        self._task_of = task_of
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        # Between the thread that finds a block and the beat that ends it.
        self._lock = threading.Lock()
        self._due = monotonic()
        self._looked_at = self._due
        self._suspect: asyncio.Task[Any] | None = None
        self._block: Block | None = None
        self._lines: deque[str] = deque(maxlen=LINES_MAX)
        self._told: deque[tuple[float, str]] = deque()
        self._longest: dict[str, float] = {}
        self._last = ""
        self._last_at = 0.0

    async def run(self) -> None:
        """Watch until this is cancelled. Raises `WatchdogDied` if the thread ends or the loop's beats stop."""
        stopped = threading.Event()
        thread = threading.Thread(target=self._watch, args=(stopped,), name="watchdog", daemon=True)
        self._looked_at = self._due = monotonic()
        self._timer = self._loop.call_soon(self._beat)
        thread.start()
        try:
            while True:
                await asyncio.sleep(CHECK_S)
                if not thread.is_alive():
                    raise WatchdogDied("something has ended its thread")
                if self._is_late():
                    await asyncio.sleep(2 * BEAT_S)  # after a block, a beat may be due in this very turn
                    if self._is_late():
                        raise WatchdogDied("the loop does not call it any more")
        finally:
            self._timer.cancel()
            stopped.set()
            # Not for ever: it may be held up by whatever reads our stderr.
            thread.join(STOP_WAIT_S)

    def _is_late(self) -> bool:
        return monotonic() - self._due >= CHECK_S

    @property
    def recent(self) -> str | None:
        """What held the loop in the last minute, in words; None where nothing did."""
        if not self._last or monotonic() - self._last_at >= RECENT_S:
            return None
        return f"In the last minute {self._last}; {ADVICE}."

    # On the loop

    def _beat(self) -> None:
        late_s = max(0.0, monotonic() - self._due)
        try:
            self._note(late_s)
        finally:  # a beat that failed must not be the last one
            self._due = monotonic() + BEAT_S
            self._timer = self._loop.call_later(BEAT_S, self._beat)

    def _note(self, late_s: float) -> None:
        self._metrics.loop_lag_seconds.observe(late_s)
        # It may have been seen in the moment in which it ended: then this is a beat later.
        if late_s < self._warn_s and self._block is None:
            return
        with self._lock:
            block, self._block = self._block or Block(told=self._may_tell(None)), None
            self._due = monotonic()
            self._end(block, max(late_s, block.late_s))

    def _end(self, block: Block, seconds: float) -> None:
        """The loop turns again. On the loop, and before the task can end: its log is still open."""
        metrics = self._metrics
        metrics.loop_blocks.labels(block.plugin).inc()
        if not block.told:
            metrics.loop_blocks_untold.inc()
        elif block.live is not None and not block.live.queue.closed:
            message = f"the event loop turns again: this task held it for {seconds:.1f} s"
            block.live.queue.emit_system(Level.WARNING, message, {"blocked_s": round(seconds, 3)})
        self._longest[block.plugin] = max(seconds, self._longest.get(block.plugin, 0.0))
        metrics.loop_block_longest_seconds.labels(block.plugin).set(self._longest[block.plugin])
        metrics.loop_block_last_seconds.clear()
        task_id = block.live.row.id if block.live else ""
        metrics.loop_block_last_seconds.labels(block.plugin, task_id, block.where).set(seconds)
        self._last_at = monotonic()
        self._last = f"the event loop stood still for {seconds:.1f} s, held by {block.who}{_at(block.where)}"
        if block.told:
            self._lines.append(self._last)

    # In the thread

    def _watch(self, stopped: threading.Event) -> None:
        while not stopped.wait(self._warn_s / LOOKS):
            # A watchdog that has died would say nothing more, and nobody would know.
            with suppress(Exception):
                self._look()
            while self._lines:
                _print(self._lines.popleft())

    def _look(self) -> None:
        now = monotonic()
        overslept = now - self._looked_at > 2 * self._warn_s / LOOKS
        self._looked_at = now
        running = asyncio.current_task(self._loop)
        # Seen once it may be any: when the loop has just got going again, or in a crowd of small ones.
        # But where this thread was stopped too there is one look, and it must do; unless it shows
        # nobody, and then it was the whole process that was stopped.
        same, self._suspect = running is self._suspect, running
        known = running is not None if overslept else same
        if not known:
            return
        with self._lock:
            late_s = monotonic() - self._due
            if self._block is None and late_s >= self._warn_s:
                self._block = self._found(running, late_s)

    def _found(self, running: "asyncio.Task[Any] | None", late_s: float) -> Block:
        """Name who holds the loop, and say so."""
        live = None if running is None else self._task_of(running)
        frames = stack_frames(sys._current_frames().get(self._loop_thread))
        where = _where(frames)
        block = Block(live, where, late_s, self._may_tell(live))
        if block.told:
            self._lines.append(f"the event loop has stood still for {late_s:.1f} s, held by {block.who}{_at(where)}")
        if block.told and live is not None and not live.queue.closed:
            message = f"this task has held the event loop for {late_s:.1f} s, and {ADVICE}\n{stack_text(frames)}"
            live.queue.emit_system(Level.WARNING, message, {"blocked_s": round(late_s, 3), "frames": frames})
        return block

    def _may_tell(self, live: LiveTask | None) -> bool:
        """Whether one more block of this task may be told in this minute."""
        now, who = monotonic(), live.row.id if live else ""
        while self._told and now - self._told[0][0] >= RECENT_S:
            self._told.popleft()
        if sum(one == who for _, one in self._told) >= self._told_max:
            return False
        self._told.append((now, who))
        return True


def _where(frames: list[dict[str, Any]]) -> str:
    """The newest frame in a plugin's own code, or else the newest."""
    frame = next((each for each in reversed(frames) if "own" in each), frames[-1] if frames else None)
    return f"{basename(frame['file'])}:{frame['line']} in {frame['function']}" if frame else ""


def _at(where: str) -> str:
    return f", at {where}" if where else ""


def _print(line: str) -> None:
    with suppress(OSError, ValueError):  # nobody reads it, or it is closed
        print(f"taskd: WARNING taskd.runtime.watchdog: {line}", file=sys.stderr, flush=True)
