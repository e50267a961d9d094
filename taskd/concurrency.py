"""Waiting for the first of several things, and not for longer than a time; and what runs beside that which waits."""

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator, Coroutine
from types import TracebackType
from typing import Any


async def first(*awaitables: Any, timeout_s: float | None = None) -> None:
    """
    Return when one of several is done, or the time is up.

    The waits for the others are cancelled; an asyncio task among them goes on.
    """
    waits = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait, awaitable in zip(waits, awaitables, strict=True):
            if wait is not awaitable:
                wait.cancel()


@contextlib.asynccontextmanager
async def beside(coroutine: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    """Have a coroutine that does not end by itself run for the length of a `with` block, as a task of that name."""
    task = asyncio.get_running_loop().create_task(coroutine, name=name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


class Limit:
    """
    A time limit on each of many short waits of one coroutine: `with limit: await …`.

    What takes `seconds` or longer is cancelled and raises `TimeoutError`, as `asyncio.timeout`
    does; but that sets a timer for each wait, and this one for many. Not to be nested in itself.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        # Weakly: the timer outlives the waits, and a task that has ended keeps what it had in hand.
        self._task: weakref.ref[asyncio.Task[Any]] | None = None
        self._waiting = False
        self._until = 0.0
        self._over = False

    def __enter__(self) -> None:
        if self._task is None:
            task = asyncio.current_task()
            assert task is not None
            self._task = weakref.ref(task)
        self._waiting = True
        self._until = self._loop.time() + self._seconds
        if self._timer is None:
            self._timer = self._loop.call_at(self._until, self._look)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting = False
        task = None if self._task is None else self._task()
        if not self._over or task is None:
            return
        self._over = False
        # Somebody else may have cancelled it meanwhile: that counts more.
        if task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _look(self) -> None:
        self._timer = None
        task = None if self._task is None else self._task()
        if not self._waiting or task is None:
            return
        if self._loop.time() < self._until:
            self._timer = self._loop.call_at(self._until, self._look)
        else:
            self._over = True
            task.cancel()
