"""
`Handoff`: the accepted entries of one task, on their way from the loop to the writer.

It is an `asyncio.Queue` without a bound, because `LogQueue` bounds the entries that it accepts, and
with one consumer. The consumer is woken by `wake_at` entries, not by each, and then takes all of
them: in a flood a whole batch costs one switch of coroutines.
"""

import asyncio
from collections import deque

from taskd.entries import LogEntry


class Handoff(asyncio.Queue[LogEntry]):
    """
    The queue proper. Used on the loop alone.

    `LogQueue.emit` appends to `entries` itself, and calls `wake` if the consumer is `waiting` and there
    are enough. Through `put_nowait` an emit would take longer by a tenth.
    """

    def __init__(self) -> None:
        super().__init__()
        # How many entries wake the consumer: one by one only while that is needed.
        self.wake_at = 1
        self.waiting: asyncio.Future[None] | None = None
        self._woken = False

    def _init(self, maxsize: int) -> None:
        self.entries: deque[LogEntry] = deque()

    def qsize(self) -> int:
        """Return how many entries wait to be taken."""
        return len(self.entries)

    def put_nowait(self, item: LogEntry) -> None:
        """Append an entry, and wake the consumer if there are enough."""
        self.entries.append(item)
        if self.waiting is not None and len(self.entries) >= self.wake_at:
            self.wake()

    async def take(self) -> list[LogEntry]:
        """
        Wait for `wake_at` entries or for `wake`, then return all entries, in order.

        May be cancelled: entries that were not returned are still queued.
        """
        if not self._woken and len(self.entries) < self.wake_at:
            self.waiting = asyncio.get_running_loop().create_future()
            try:
                await self.waiting
            finally:
                self.waiting = None
        self._woken = False
        return self.take_rest()

    def take_rest(self) -> list[LogEntry]:
        """Return all entries without waiting."""
        # Exchanged, not emptied: a signal handler that logs may add to it meanwhile.
        taken, self.entries = self.entries, deque()
        return list(taken)

    def wake(self) -> None:
        """Let `take` return, now or when it is called next."""
        self._woken = True
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_result(None)
