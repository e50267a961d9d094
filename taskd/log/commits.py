"""
`CommitWaiters`: the callers of `drain`, each until the seq that it waits for is committed.

A caller waits on the loop or in a thread of its own. The queue guards this with its lock; only
`finish` is called without the lock, because it wakes the callers.
"""

import asyncio
import concurrent.futures
from collections.abc import Iterable

# A future of the loop, or one for a thread, which may run another loop.
Waiter = asyncio.Future[None] | concurrent.futures.Future[None]


class CommitWaiters:
    """Those who wait for commits of one log."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Waiter]] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, seq: int, waiter: Waiter) -> None:
        """Let `waiter` wait until all entries up to `seq` are committed."""
        self._waiting.append((seq, waiter))

    def take(self, seq: int) -> list[Waiter]:
        """Remove and return the waiters for entries up to `seq`."""
        taken = [waiter for wanted, waiter in self._waiting if wanted <= seq]
        self._waiting = [(wanted, waiter) for wanted, waiter in self._waiting if wanted > seq]
        return taken

    def take_all(self) -> list[Waiter]:
        """Remove and return all waiters."""
        taken, self._waiting = self._waiting, []
        return [waiter for _, waiter in taken]


def finish(waiters: Iterable[Waiter]) -> None:
    """Wake the waiters, except those that were cancelled. On the loop."""
    for waiter in waiters:
        if isinstance(waiter, asyncio.Future):
            if not waiter.done():
                waiter.set_result(None)
        elif waiter.set_running_or_notify_cancel():
            waiter.set_result(None)
