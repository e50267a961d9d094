"""
`in_thread`: run a blocking function beside the loop, in a thread that no plugin can take away.

`asyncio.to_thread` uses the loop's default executor. A plugin that replaces or shuts down that
executor would take deletions, retention and the journal's sync with it, so nothing of taskd uses
it. Each call has a daemon thread of its own, which costs about 60 µs and never keeps the
process from ending.
"""

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

# What `stop` interrupts may not have begun yet, so it is called again.
STOP_INTERVAL_S = 1.0

T = TypeVar("T")


async def in_thread(function: Callable[[], T], *, name: str, stop: Callable[[], None] | None = None) -> T:
    """
    Call `function` in a thread named `name`, within the caller's context variables, and return its result.

    A thread cannot be cancelled. When the caller is, `stop` is called, at once and then every
    second, until the function has ended; only then is CancelledError raised. Raises what
    `function` raises, and `RuntimeError` if the system allows no more threads.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            result = function()
        except BaseException as error:
            report = _raising(done, error)
        else:
            report = _returning(done, result)
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
            loop.call_soon_threadsafe(report)

    threading.Thread(target=contextvars.copy_context().run, args=(run,), name=name, daemon=True).start()
    cancellation: asyncio.CancelledError | None = None
    while not done.done():
        if cancellation is not None and stop is not None:
            stop()
        try:
            await asyncio.wait([done], timeout=None if cancellation is None else STOP_INTERVAL_S)
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is not None:
        done.exception()  # retrieved, so that asyncio does not report it as forgotten
        raise cancellation
    return done.result()


def _returning(done: "asyncio.Future[T]", result: T) -> Callable[[], None]:
    return lambda: done.set_result(result)


def _raising(done: "asyncio.Future[T]", error: BaseException) -> Callable[[], None]:
    # A future refuses StopIteration; everything else it holds as it is.
    kept = RuntimeError("the function raised StopIteration") if isinstance(error, StopIteration) else error
    return lambda: done.set_exception(kept)
