"""Waiting with a limit."""

import asyncio

import pytest

from taskd.concurrency import Limit


async def test_a_wait_within_the_limit_returns_as_if_there_were_none() -> None:
    """However many there are, one after another."""
    limit = Limit(60)
    for _ in range(3):
        with limit:
            assert await asyncio.sleep(0, "there") == "there"


async def test_each_wait_has_the_whole_time() -> None:
    """Together they may take longer than the limit."""
    limit = Limit(0.2)
    for _ in range(4):
        with limit:
            await asyncio.sleep(0.1)


async def test_a_wait_that_takes_too_long_is_a_timeout_each_time() -> None:
    """And the coroutine goes on, as not cancelled."""
    limit = Limit(0.01)
    for _ in range(2):
        with pytest.raises(TimeoutError), limit:
            await asyncio.Event().wait()
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_time_outside_the_waits_does_not_count() -> None:
    """What the coroutine does between them is nobody's wait."""
    limit = Limit(0.02)
    with limit:
        await asyncio.sleep(0)
    await asyncio.sleep(0.1)
    with limit:
        await asyncio.sleep(0)


async def test_a_cancellation_from_outside_is_no_timeout() -> None:
    """It goes through."""

    async def wait() -> None:
        with Limit(60):
            await asyncio.Event().wait()

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
