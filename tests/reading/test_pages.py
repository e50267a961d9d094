"""A page, stats and sources see stored and pending entries alike, as of one moment."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from taskd.entries import LogEntry
from taskd.errors import ParameterInvalid, TaskNotFound
from taskd.query.counts import LogCounts
from taskd.query.filters import LogFilter
from taskd.query.parameters import LogQuery
from taskd.reading.pages import Page, read_page, read_sources, read_stats
from tests.helpers.live_log import live_log
from tests.helpers.pages import FILTERS, emit, naive, whole


def random_query(rng: random.Random, last_seq: int) -> LogQuery:
    log_filter = rng.choice(FILTERS)
    if rng.random() < 0.3:
        return LogQuery(log_filter, tail=rng.randrange(1, 80))
    return LogQuery(
        log_filter,
        after=rng.choice([0, rng.randrange(last_seq + 1)]),
        before=rng.choice([None, rng.randrange(1, last_seq + 20)]),
        order=rng.choice(["asc", "desc"]),
        offset=rng.choice([0, 0, rng.randrange(60)]),
        limit=rng.randrange(1, 60),
        total=rng.random() < 0.5,
    )


@pytest.mark.parametrize("seed", range(15))
async def test_a_page_is_what_the_contract_words_whatever_is_stored_and_pending(tmp_path: Path, seed: int) -> None:
    """Random queries while batches are committed at random, against a list."""
    rng = random.Random(seed)
    settings: dict[str, Any] = {"batch_max": rng.randrange(1, 50), "flush_interval_s": 0.003}
    async with live_log(tmp_path, rng, **settings) as log:
        log.page_bytes_max = 1_000_000
        for _ in range(8):
            emit(log, rng, rng.randrange(40))
            await asyncio.sleep(0.001)
            entries = await whole(log)
            query = random_query(rng, len(entries))
            page = await read_page(log, log.task_id, query)
            assert (page.entries, page.ended) == (naive(entries, query), False)
            check_rest(page, query, entries)
        log.end()
        await log.ended.wait()
        query = random_query(rng, len(entries))
        page = await read_page(log, log.task_id, query)
        assert (page.entries, page.ended) == (naive(await whole(log), query), True)


def check_rest(page: Page, query: LogQuery, entries: list[LogEntry]) -> None:
    """What a page says besides its entries."""
    matches = [entry for entry in entries if query.filter.matches(entry)]
    assert page.total == (len(matches) if query.total or query.filter.counted else None)
    assert page.last_seq == len(entries)
    if query.tail is None:
        one_more = LogQuery(query.filter, query.after, query.before, query.order, query.offset, query.limit + 1)
        assert page.more == (len(naive(entries, one_more)) > len(page.entries))


@pytest.mark.parametrize("seed", range(6))
async def test_stats_count_what_the_page_would_show(tmp_path: Path, seed: int) -> None:
    """By level, by source, first and last time: stored and pending."""
    rng = random.Random(seed)
    async with live_log(tmp_path, batch_max=rng.randrange(5, 60)) as log:
        log.page_bytes_max = 1_000_000
        emit(log, rng, 150)
        await asyncio.sleep(0.003)
        entries = await whole(log)
        for log_filter in FILTERS:
            after = rng.choice([0, rng.randrange(len(entries))])
            query = LogQuery(log_filter, after=after, before=rng.choice([None, 100]))
            shown = naive(entries, LogQuery(log_filter, after=after, before=query.before, limit=5_000))
            assert await read_stats(log, log.task_id, query) == LogCounts.of(shown).stats(LogFilter())
        assert await read_sources(log, log.task_id) == ["a", "b", "b.c"]


async def test_a_page_stops_at_its_bytes_and_says_that_there_is_more(tmp_path: Path) -> None:
    """Walking on by `after` gets everything; one entry may be larger than a page."""
    async with live_log(tmp_path) as log:
        log.page_bytes_max = 500
        for number in range(20):
            log.logger.info("x" * (900 if number == 7 else 100))
        await log.logger.drain()
        seen: list[int] = []
        page = await read_page(log, log.task_id, LogQuery(limit=50))
        while page.more:
            seen += [entry.seq for entry in page.entries]
            page = await read_page(log, log.task_id, LogQuery(limit=50, after=seen[-1]))
        assert seen + [entry.seq for entry in page.entries] == [*range(1, 21)]


async def test_an_after_that_cannot_be_is_refused(tmp_path: Path) -> None:
    """It names the last seq there is."""
    async with live_log(tmp_path) as log:
        log.logger.info("one")
        await log.logger.drain()
        for read in (read_page, read_stats):
            with pytest.raises(ParameterInvalid, match="at most 1"):
                await read(log, log.task_id, LogQuery(after=2))


async def test_a_task_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    """By all three."""
    async with live_log(tmp_path) as log:
        log.end()
        await log.ended.wait()
        with pytest.raises(TaskNotFound):
            await read_page(log, "nobody", LogQuery())
        with pytest.raises(TaskNotFound):
            await read_stats(log, "nobody", LogQuery())
        with pytest.raises(TaskNotFound):
            await read_sources(log, "nobody")
