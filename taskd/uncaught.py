"""
What nobody caught in a task, into its log.

An exception of an asyncio task that nobody awaited is told when that task is collected, in
whatever context that happens; so each asyncio task that a plugin makes is marked with whose it
is, when it is made (where Python does not know its context itself). A thread's and a destructor's
exceptions are told where they happen. All other exceptions of a plugin end its task, which tells
them itself.

Outside of tasks the hooks call those that were there.
"""

import asyncio
import contextlib
import sys
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context
from typing import Any

from taskd.entries import Level
from taskd.speaking import Capturing, current, speaking


@contextmanager
def uncaught_captured() -> Iterator[None]:
    """Hook what Python calls for an exception that nobody caught, for the length of a `with` block."""
    thread_hook, unraisable_hook = threading.excepthook, sys.unraisablehook

    def in_thread(told: threading.ExceptHookArgs, /) -> None:
        capturing = speaking()
        if capturing is None or told.exc_value is None or isinstance(told.exc_value, SystemExit):
            thread_hook(told)
            return
        name = told.thread.name if told.thread is not None else "unknown"
        _tell(capturing, f"uncaught exception in thread {name}", told.exc_value)

    def unraisable(told: "sys.UnraisableHookArgs", /) -> None:
        capturing = speaking()
        if capturing is None or told.exc_value is None:
            unraisable_hook(told)
            return
        # Not the object: it may be half destroyed, and to keep it would bring it back to life.
        _tell(capturing, f"{told.err_msg or 'exception ignored'} in {type(told.object).__name__}", told.exc_value)

    threading.excepthook, sys.unraisablehook = in_thread, unraisable
    try:
        yield
    finally:
        if threading.excepthook is in_thread:
            threading.excepthook = thread_hook
        if sys.unraisablehook is unraisable:
            sys.unraisablehook = unraisable_hook


def _tell(capturing: Capturing, message: str, error: BaseException) -> None:
    capturing.logger.tell_exception(Level.ERROR, message, error, {})


@contextmanager
def loop_captured(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Have the loop tell what its asyncio tasks and callbacks raised to the task that they belong to."""
    factory, handler = loop.get_task_factory(), loop.get_exception_handler()
    make = _marking(factory) if _MARKS_NEEDED else factory

    def tell(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        token = current.set(_whose(context))
        try:
            # By default that is a record of the logger `asyncio`.
            if handler is None:
                loop.default_exception_handler(context)
            else:
                handler(loop, context)
        finally:
            current.reset(token)

    loop.set_task_factory(make)
    loop.set_exception_handler(tell)
    try:
        yield
    finally:
        if loop.get_task_factory() is make:
            loop.set_task_factory(factory)
        if loop.get_exception_handler() is tell:
            loop.set_exception_handler(handler)


# From 3.12 an asyncio task tells its context.
_MARKS_NEEDED = not hasattr(asyncio.Task, "get_context")


_Task: Any = asyncio.Task


def _marking(factory: Any) -> Any:
    """A task factory that marks each asyncio task with whose it is."""

    def make(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any) -> Any:
        task = _Task(coroutine, loop=loop, **options) if factory is None else factory(loop, coroutine, **options)
        if (capturing := current.get()) is not None:
            with contextlib.suppress(AttributeError):  # of another kind, made by somebody's factory
                task._taskd_capturing = capturing
        return task

    return make


def owner_of(task: "asyncio.Task[Any]") -> Capturing | None:
    """Whose an asyncio task is. From any thread."""
    if _MARKS_NEEDED:
        return getattr(task, "_taskd_capturing", None)
    known = _context_of(task)
    return None if known is None else known.get(current)


def _whose(context: dict[str, Any]) -> Capturing | None:
    """The task to which an asyncio task or callback belongs; the context of now may be any."""
    task = context.get("task") or context.get("future")
    if isinstance(task, asyncio.Task):
        return owner_of(task)
    known = _context_of(task or context.get("handle"))
    # A plain future has none. uvloop's handles have none either, and it calls us in it.
    return current.get() if known is None else known.get(current)


def _context_of(thing: Any) -> Context | None:
    """The context of an asyncio task or handle, where it can be known."""
    context = thing.get_context() if hasattr(thing, "get_context") else getattr(thing, "_context", None)
    return context if isinstance(context, Context) else None
