"""
What lagged readers of a live log read again, read once for all of them.

A stall that makes one reader lag makes all of them lag, and what they then have to read is the same.
If each asked the store for its own matches, ten readers would read ten times what one task says,
with what it says meanwhile on top: under load they would fall behind further with every second. So a
page is read once, whole, and each reader picks from it what its filter lets through.
"""

import asyncio
import contextlib
from collections.abc import Iterator

from taskd.entries import LogEntry
from taskd.persistence.base import LogPersistenceService, Span
from taskd.query.filters import LogFilter
from taskd.settings import KIB

PAGE_ENTRIES = 2_000
PAGE_BYTES_MAX = 1_024 * KIB
# Some readers are a little ahead of others. So much is in memory for a log, and only while it is needed.
PAGES_KEPT = 3

_EVERYTHING = LogFilter()


class Rereading:
    """The pages of one log that its lagged readers read just now."""

    def __init__(self, task_id: str, store: LogPersistenceService) -> None:
        self._task_id = task_id
        self._store = store
        self._pages: dict[int, asyncio.Task[list[LogEntry]]] = {}
        self._readers = 0

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """To be held by a reader while it reads; pages are kept as long as there is one."""
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            if not self._readers:
                for page in self._pages.values():
                    page.cancel()
                self._pages.clear()

    async def after(self, seq: int, before: int) -> list[LogEntry]:
        """
        Some entries that follow `seq` without a hole, one at least; all up to `before` must be stored.

        The list belongs to others, too. Raises `StoreError`, and `TaskNotFound` where the task was deleted.
        """
        number = seq // PAGE_ENTRIES
        first = number * PAGE_ENTRIES
        if first + PAGE_ENTRIES >= before:  # a page that still grows is not kept
            return await self._read(seq, before)
        page = await self._page(number, first)
        entries = page[seq - first :]
        # A page of large entries ends early.
        return entries or await self._read(seq, before)

    async def _page(self, number: int, first: int) -> list[LogEntry]:
        page = self._pages.get(number)
        if page is None:
            if len(self._pages) >= PAGES_KEPT:
                del self._pages[min(self._pages)]
            reading = self._read(first, first + PAGE_ENTRIES + 1)
            page = self._pages[number] = asyncio.create_task(reading, name=f"page {number} of {self._task_id}")
        try:
            # A reader that leaves does not take it from the others.
            return await asyncio.shield(page)
        except BaseException:
            if page.done() and self._pages.get(number) is page:
                del self._pages[number]
            raise

    async def _read(self, after: int, before: int) -> list[LogEntry]:
        entries, _ = await self._store.page(
            self._task_id, _EVERYTHING, Span(after, before),
            order="asc", offset=0, limit=PAGE_ENTRIES, bytes_max=PAGE_BYTES_MAX,
        )  # fmt: skip
        return entries
