"""
Calling a plugin: whatever it does, there is an outcome.

A coroutine function runs on the loop. Anything else is an old plugin: it runs in a thread of
its own, with the context variables of its task, so that its prints and its logging reach its
log. A thread cannot be stopped: its outcome is awaited, cancelled or not. It is a daemon
thread, so that one which never returns does not keep the process.

What it returns is the result, unless that is work which nobody would do: then the task fails.
"""

import asyncio
import concurrent.futures
import contextlib
import contextvars
import inspect
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass, field
from types import CoroutineType
from typing import Any

from taskd.capture.current import Capturing, current
from taskd.runtime import shared_state
from taskd.runtime.context import TaskContext
from taskd.runtime.plugins import LoadedPlugin
from taskd.system.fork import children_ended

UNDONE = (Generator, AsyncGenerator, map, filter, concurrent.futures.Future)


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    How `execute` ended: by returning `result`, by raising `error`, or (neither) cancelled.

    `cancellation` is what was raised in it then; it knows where, and may know why.
    """

    result: Any = None
    error: BaseException | None = None
    cancelled: bool = False
    cancellation: BaseException | None = field(default=None, compare=False)


async def execute(plugin: LoadedPlugin, context: TaskContext) -> Outcome:
    """Run the plugin's `execute`. Raises nothing but CancelledError before it has begun."""
    capturing = Capturing(context.logger)
    shared = shared_state.state()
    token = current.set(capturing)
    try:
        with children_ended():
            return Outcome(result=await _call(plugin, context))
    except asyncio.CancelledError as error:
        return Outcome(cancelled=True, cancellation=_without_own_frames(error))
    except BaseException as error:  # SystemExit too: out of an asyncio task it would stop the loop
        return Outcome(error=_without_own_frames(error))
    finally:
        current.reset(token)
        capturing.finish()
        shared_state.take_back(shared)


async def _call(plugin: LoadedPlugin, context: TaskContext) -> Any:
    more = {"context": context} if plugin.takes_context else {}
    if plugin.is_async:
        return _done(await plugin.factory().execute(context.params, **more))
    result = await _in_thread(lambda: plugin.factory().execute(context.params, **more), f"plugin {context.task_id}")
    # A function that is not a coroutine function may still return an awaitable.
    return _done(await result if inspect.isawaitable(result) else result)


def _done(result: Any) -> Any:
    """The result. Raises `TypeError` for one that is work not done yet."""
    kind = type(result)  # not the result itself: a proxy may raise anything when it is looked at
    if hasattr(kind, "__await__"):
        if kind is CoroutineType:
            result.close()
        raise TypeError(f"execute returned a value of type {kind.__name__} that nobody awaits: write `return await …`")
    if issubclass(kind, UNDONE):
        raise TypeError(f"execute returned a value of type {kind.__name__}, whose work nobody does: return its result")
    return result


async def _in_thread(function: Callable[[], Any], name: str) -> Any:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Outcome] = loop.create_future()

    def run() -> None:
        try:
            outcome = Outcome(result=function())
        except BaseException as error:
            outcome = Outcome(error=error)
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
            loop.call_soon_threadsafe(done.set_result, outcome)

    threading.Thread(target=contextvars.copy_context().run, args=(run,), name=name, daemon=True).start()
    while not done.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(done)
    outcome = done.result()
    if outcome.error is not None:
        raise outcome.error
    return outcome.result


def _without_own_frames(error: BaseException) -> BaseException:
    """The error with a traceback that begins in the plugin, not here."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    # Not the error's own method: it may have been replaced by anything.
    return BaseException.with_traceback(error, trace)
