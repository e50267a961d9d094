"""
How far it is known whose words they are: into threads, and not into other processes.

A thread of Python begins with an empty context. One that a task starts is lent the task's name,
and so is each call that a task hands to a `ThreadPoolExecutor`: its worker threads themselves
belong to nobody, for they serve all. (From 3.14 on Python may have its threads inherit the context,
and does in a build without the interpreter's lock.) A thread that outlives its task keeps the
name: what it says then is on the service's stderr (`taskd.log.late`).

What cannot be reached: the workers of other pools (`multiprocessing.pool.ThreadPool`), for they
may be shared; a queue that hands work from one task to a thread that another has started; threads
that C code makes.

A forked child is another process. It shares the memory of the journal's files, and must not write
there: in it capture ends, its prints and records go where they would go without taskd, and what it
says through a `TaskLogger` goes to its stderr.
"""

import concurrent.futures
import concurrent.futures.thread
import functools
import multiprocessing.pool
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from taskd.capture.current import Capturing, current, mark_owner, speaking, speaking_as
from taskd.log.queue import LogQueue
from taskd.system.fork import children_ended
from taskd.system.hooks import hooked
from taskd.text.sanitise import clean_text

_WORKERS = {getattr(concurrent.futures.thread, "_worker", None), getattr(multiprocessing.pool, "worker", None)} - {None}


@contextmanager
def threads_captured() -> Iterator[None]:
    """Lend a task's name to the threads that it starts, for the length of a `with` block."""
    thread, pool = threading.Thread, concurrent.futures.ThreadPoolExecutor
    started: Any = thread.start
    submitted: Any = pool.submit

    @functools.wraps(started)
    def start(self: threading.Thread) -> None:
        capturing = speaking()
        if getattr(self, "_target", None) in _WORKERS:
            with speaking_as(None):  # it may inherit the context
                started(self)
            return
        if capturing is not None:
            mark_owner(self, capturing)
            vars(self)["run"] = functools.partial(_run, self, capturing, vars(self).get("run"))
        started(self)

    @functools.wraps(submitted)
    def submit(self: concurrent.futures.ThreadPoolExecutor, call: Callable[..., Any], /, *args: Any, **kw: Any) -> Any:
        capturing = speaking()
        if capturing is None:
            return submitted(self, call, *args, **kw)
        return submitted(self, _call, capturing, call, *args, **kw)

    _installed.append(start)
    try:
        with hooked(thread, "start", start), hooked(pool, "submit", submit):
            yield
    finally:
        _installed.remove(start)


def _run(thread: threading.Thread, capturing: Capturing, replaced: Callable[[], object] | None) -> None:
    """Call the thread's own `run` as the task that started it: `replaced` if it had one set on it, else its class's."""
    if replaced is None:
        del vars(thread)["run"]
    else:
        vars(thread)["run"] = replaced
    with speaking_as(capturing):
        thread.run()


def _call(capturing: Capturing, call: Callable[..., Any], /, *args: Any, **kw: Any) -> Any:
    with speaking_as(capturing), children_ended():
        return call(*args, **kw)


_installed: list[object] = []


def _end_in_child() -> None:
    """In a forked child: nobody's words are a task's any more."""
    if not _installed:
        return
    current.set(None)
    # Of this process alone, which has no writer.
    queue: Any = LogQueue
    queue.emit, queue.drain = _say_aside, _drain_nothing
    queue.emit_system = queue.show_progress = queue.later = _say_nothing


def _say_aside(self: LogQueue, level: Any, source: str, message: object, metadata: Any = None) -> None:
    print(f"{level} {source}: {self.masker(clean_text(message))}", file=sys.stderr)


def _say_nothing(self: LogQueue, *_: object) -> None:
    pass


async def _drain_nothing(self: LogQueue) -> None:
    pass


os.register_at_fork(after_in_child=_end_in_child)
