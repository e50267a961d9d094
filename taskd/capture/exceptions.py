"""
What nobody caught in a task, into its log.

asyncio reports an exception that nobody retrieved when its future or task is collected, in whatever
context that happens, and closes an async generator that was left unfinished then too. So each of them
belongs to the task that made it: futures are marked when they are made, an asyncio task has its context
(before Python 3.12 it is marked too), and the owner of a generator is noted at its first step. The hooks
are in the classes of the loops, so a loop that a plugin runs in a thread is heard as well, and no plugin
takes them out by a handler or a task factory of its own.

A thread's and a destructor's exceptions are reported where they happen. All other exceptions of a plugin
end its task, which reports them itself. Outside of tasks the hooks call what was there before.
"""

import asyncio
import concurrent.futures
import sys
import threading
import weakref
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import Context
from typing import Any

from taskd.capture.current import Capturing, current, mark_of, mark_owner, marked_owner, speaking, speaking_as
from taskd.entries import Level
from taskd.system.hooks import hooked

# Generators noted before those that have ended are looked for.
GENERATORS_MIN = 1_000


@contextmanager
def uncaught_captured() -> Iterator[None]:
    """Hook what Python calls for an exception that nobody caught, for the length of a `with` block."""
    thread_hook, unraisable_hook = threading.excepthook, sys.unraisablehook

    def in_thread(told: threading.ExceptHookArgs, /) -> None:
        # The hook may be called outside of the thread's context.
        capturing = marked_owner(told.thread)
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

    with hooked(threading, "excepthook", in_thread), hooked(sys, "unraisablehook", unraisable), _futures_captured():
        yield


def _tell(capturing: Capturing, message: str, error: BaseException) -> None:
    capturing.logger.tell_exception(Level.ERROR, message, error, {})


@contextmanager
def _futures_captured() -> Iterator[None]:
    """Call back about a future of a pool as the task that made it: a thread that serves all does it."""
    kind: Any = concurrent.futures.Future
    made, invoked = kind.__init__, kind._invoke_callbacks

    def make(self: Any) -> None:
        made(self)
        if (capturing := current.get()) is not None:
            mark_owner(self, capturing)

    def invoke(self: Any) -> None:
        with speaking_as(marked_owner(self)):
            invoked(self)

    with hooked(kind, "__init__", make), hooked(kind, "_invoke_callbacks", invoke):
        yield


@contextmanager
def loops_captured(loop: asyncio.AbstractEventLoop | None) -> Iterator[None]:
    """Have asyncio's loops, and those of the kind of `loop`, report to the task to which a thing belongs."""
    with ExitStack() as stack:
        # A loop that runs has given Python its hooks already: once more when they are ours, and when they are not.
        stack.callback(_set_generator_hooks, loop)
        stack.enter_context(_loops_captured(asyncio.BaseEventLoop))
        if loop is not None and not isinstance(loop, asyncio.BaseEventLoop):
            stack.enter_context(_loops_captured(type(loop)))
        _set_generator_hooks(loop)
        yield


def _set_generator_hooks(loop: Any) -> None:
    if loop is not None:
        sys.set_asyncgen_hooks(loop._asyncgen_firstiter_hook, loop._asyncgen_finalizer_hook)


# From 3.12 an asyncio task gives its context.
_MARKS_NEEDED = not hasattr(asyncio.Task, "get_context")


@contextmanager
def _loops_captured(kind: Any) -> Iterator[None]:
    make_future, make_task, report = kind.create_future, kind.create_task, kind.call_exception_handler
    begun, left = kind._asyncgen_firstiter_hook, kind._asyncgen_finalizer_hook
    generators = _Generators()

    def create_future(loop: Any) -> Any:
        future = make_future(loop)
        if (capturing := current.get()) is not None:
            mark_owner(future, capturing)
        return future

    def create_task(loop: Any, coroutine: Any, **options: Any) -> Any:
        task = make_task(loop, coroutine, **options)
        mark_owner(task, current.get())
        return task

    def call_exception_handler(loop: Any, context: dict[str, Any]) -> None:
        with speaking_as(_whose(context)):
            report(loop, context)

    def firstiter(loop: Any, generator: AsyncGenerator[Any, Any]) -> None:
        generators.note(generator)
        begun(loop, generator)

    def finalizer(loop: Any, generator: AsyncGenerator[Any, Any]) -> None:
        with speaking_as(generators.owner(generator)):
            left(loop, generator)

    with ExitStack() as stack:
        if _MARKS_NEEDED:
            stack.enter_context(hooked(kind, "create_task", create_task))
        stack.enter_context(hooked(kind, "create_future", create_future))
        stack.enter_context(hooked(kind, "call_exception_handler", call_exception_handler))
        stack.enter_context(hooked(kind, "_asyncgen_firstiter_hook", firstiter))
        stack.enter_context(hooked(kind, "_asyncgen_finalizer_hook", finalizer))
        yield


class _Generators:
    """
    Whose the asynchronous generators are that tasks have begun.

    By identity, because a generator's weak references are gone when its finalizer is called.
    """

    def __init__(self) -> None:
        self._owners: dict[int, tuple[weakref.ref[Any], Capturing]] = {}
        self._entries_max = GENERATORS_MIN

    def note(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Note that the generator belongs to the task that speaks now."""
        capturing = current.get()
        if capturing is None:
            self._owners.pop(id(generator), None)
            return
        if len(self._owners) >= self._entries_max:
            self._forget_ended()
        self._owners[id(generator)] = weakref.ref(generator), capturing

    def owner(self, generator: AsyncGenerator[Any, Any]) -> Capturing | None:
        """Return the task that began it, once; if that is not known, the one that speaks now."""
        _, capturing = self._owners.pop(id(generator), (None, current.get()))
        return capturing

    def _forget_ended(self) -> None:
        for key, (generator, _) in list(self._owners.items()):
            if generator() is None:
                self._owners.pop(key, None)
        self._entries_max = max(GENERATORS_MIN, 2 * len(self._owners))


def owner_of(task: "asyncio.Task[Any]") -> Capturing | None:
    """Whose an asyncio task is. From any thread."""
    if _MARKS_NEEDED:
        return mark_of(task)
    known = _context_of(task)
    return None if known is None else known.get(current)


def _whose(context: dict[str, Any]) -> Capturing | None:
    """The task to which an asyncio task, future or callback belongs; the context of now may be any."""
    known = _context_of(context.get("task") or context.get("future") or context.get("handle"))
    if known is not None:
        return known.get(current)
    # uvloop's handles have no context, and it calls us in it.
    return marked_owner(context.get("task") or context.get("future"))


def _context_of(thing: Any) -> Context | None:
    """The context of an asyncio task or handle, where it can be known."""
    context = thing.get_context() if hasattr(thing, "get_context") else getattr(thing, "_context", None)
    return context if isinstance(context, Context) else None
