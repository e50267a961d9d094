"""
Calling a plugin: whatever it does, there is an outcome.

A coroutine function runs on the loop. Anything else is an old plugin: it runs in a thread of
its own, with the context variables of its task, so that its prints and its logging reach its
log. A thread cannot be stopped: its outcome is awaited, cancelled or not. It is a daemon
thread, so that one which never returns does not keep the process.

What it returns is the result, unless that is work which nobody would do: then the task fails.

The ending is the outcome as it is stored and logged. A task that was asked to stop and returned,
or was cancelled, is `cancelled` (`interrupted` if the service stopped), whatever it returned. If
its plugin raised it is `failed`, also when asked to stop. A plugin that is cancelled without a
request has a fault of its own, and is `failed`.
"""

import asyncio
import concurrent.futures
import contextlib
import contextvars
import inspect
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass, field
from datetime import datetime
from types import CoroutineType
from typing import Any

import orjson

from taskd.capture.current import Capturing, current
from taskd.entries import Level, timestamp_now
from taskd.errors import PluginError
from taskd.runtime import shared_state
from taskd.runtime.context import TaskContext
from taskd.runtime.plugins import LoadedPlugin
from taskd.runtime.results import RESULT_BYTES_MAX, ResultTooLarge, encode_result
from taskd.system.fork import children_ended
from taskd.tasks import TaskEnd, TaskStatus
from taskd.text.masking import Masker
from taskd.text.tracebacks import exception_line, exception_metadata, exception_text

Words = tuple[Level, str, dict[str, Any] | None]

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


@dataclass(frozen=True, slots=True)
class Ending:
    """A task's end, its result decoded, and what `system` says of it in the log."""

    end: TaskEnd
    result: Any
    words: list[Words]


def ending_of(outcome: Outcome, stop_as: TaskStatus | None, started_at: str | None, masker: Masker) -> Ending:
    """The ending that an outcome is. `stop_as`: the task was asked to stop, and then ends as this."""
    # The clock may have been set back meanwhile: a task does not end before it has started.
    finished_at = max(timestamp_now(), started_at or "")
    after = f"after {_seconds(started_at, finished_at)}" if started_at else "before it ran"
    if outcome.error is not None:
        return _failed(outcome.error, finished_at, after, masker)
    if stop_as is None and outcome.cancelled:
        return _cancelled_within(outcome.cancellation, finished_at, after, masker)
    result, words = _result(outcome.result, masker)
    status = stop_as or TaskStatus.SUCCEEDED
    level = Level.INFO if status is TaskStatus.SUCCEEDED else Level.WARNING
    end = TaskEnd(status, finished_at, orjson.dumps(result).decode())
    return Ending(end, result, [*words, (level, f"{status} {after}", None)])


def _failed(error: BaseException, finished_at: str, after: str, masker: Masker) -> Ending:
    if isinstance(error, PluginError):
        # Its text is for the person who started the task: neither a type nor a traceback adds to it.
        line = exception_line(error, masker)
        return _failure(line.partition(": ")[2] or line, None, finished_at, after, masker)
    return _failure(exception_line(error, masker), error, finished_at, after, masker)


def _cancelled_within(error: BaseException | None, finished_at: str, after: str, masker: Masker) -> Ending:
    """Cancelled, though nobody had asked for it: where and, if it was said, why."""
    line = "CancelledError: the plugin was cancelled from within, and nobody asked for it"
    reason = exception_line(error, masker).partition(": ")[2] if error is not None else ""
    return _failure(f"{line}: {reason}" if reason else line, error, finished_at, after, masker)


def _failure(line: str, error: BaseException | None, finished_at: str, after: str, masker: Masker) -> Ending:
    """One entry for one failure, with the traceback below its first line: it is counted once."""
    text, metadata = f"failed {after}: {line}", None
    if error is not None:
        text = f"{text}\n{exception_text(error, masker)}"
        metadata = {"exception": exception_metadata(error, masker)}
    return Ending(TaskEnd(TaskStatus.FAILED, finished_at, None, line), None, [(Level.ERROR, text, metadata)])


def _result(value: Any, masker: Masker) -> tuple[Any, list[Words]]:
    """The result as JSON has it, masked; with words where it could not be kept."""
    try:
        encoded, cuts = encode_result(value)
    except ResultTooLarge as error:
        return None, [(Level.WARNING, f"the result is not kept: {error}", None)]
    if len(encoded) > RESULT_BYTES_MAX:
        size = f"it has {len(encoded):,} bytes, and {RESULT_BYTES_MAX:,} is the limit"
        return None, [(Level.WARNING, f"the result is not kept: {size}", None)]
    words: list[Words] = [(Level.WARNING, masker(f"the result was cut: {'; '.join(cuts)}"), None)] if cuts else []
    return masker.value(orjson.loads(encoded)), words


def _seconds(started_at: str, finished_at: str) -> str:
    took = datetime.fromisoformat(finished_at) - datetime.fromisoformat(started_at)
    return f"{took.total_seconds():,.1f} s"
