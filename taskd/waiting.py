"""Waiting for the first of several things."""

import asyncio
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
