"""Waiting on the loop, with a limit."""

import asyncio
import inspect
from collections.abc import Callable
from contextlib import aclosing

from taskd.query.filters import LogFilter
from taskd.reading.follow import Entries, follow
from taskd.service import Service
from tests.conftest import messages

LIMIT_S = 50  # a test that waits longer is ended by its own limit, which does not name the condition


async def until(condition: Callable[[], object]) -> None:
    """Wait until `condition` returns, or its coroutine returns, a true value."""
    async with asyncio.timeout(LIMIT_S):
        while not await _outcome(condition):
            await asyncio.sleep(0.001)


async def _outcome(condition: Callable[[], object]) -> object:
    outcome = condition()
    return await outcome if inspect.isawaitable(outcome) else outcome


async def until_said(service: Service, task_id: str, message: str) -> None:
    """Wait until a task has logged `message`."""
    async with aclosing(follow(service.manager, task_id, LogFilter(), page_entries=100)) as events:
        async for event in events:
            if isinstance(event, Entries) and message in messages(event.entries):
                return
    raise AssertionError(f"the task ended without the entry {message!r}")
