"""
What nobody caught in a task, into its log.

An exception of an asyncio task that nobody awaited is told when that task is collected, in
whatever context that happens; so each asyncio task that a plugin makes is marked with whose it
is, when it is made. A thread's and a destructor's exceptions are told where they happen. All
other exceptions of a plugin end its task, which tells them itself.

Outside of tasks the hooks call those that were there.
"""

import asyncio
import sys
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from taskd.entries import Level
from taskd.speaking import Capturing, current, speaking

_MARK = "_taskd_capturing"


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

    usual: Any = factory or _make

    def make(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any) -> Any:
        task = usual(loop, coroutine, **options)
        capturing = current.get()
        if capturing is not None:
            setattr(task, _MARK, capturing)
        return task

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

    loop.set_task_factory(make)  # type: ignore[arg-type]  # whatever options this Python has
    loop.set_exception_handler(tell)
    try:
        yield
    finally:
        if loop.get_task_factory() is make:
            loop.set_task_factory(factory)
        if loop.get_exception_handler() is tell:
            loop.set_exception_handler(handler)


def _make(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any) -> Any:
    return asyncio.Task(coroutine, loop=loop, **options)


def _whose(context: dict[str, Any]) -> Capturing | None:
    """The task to which an asyncio task or callback belongs; the context of now may be any."""
    task = context.get("task") or context.get("future")
    if task is not None:
        marked: Capturing | None = getattr(task, _MARK, None)
        return marked
    handle = context.get("handle")
    inside = getattr(handle, "_context", None)  # uvloop's has none, and calls us in its context
    return current.get() if inside is None else inside.get(current)
