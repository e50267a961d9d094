"""An outline adds up, whatever the clock did, and its anchors are places to read from."""

import asyncio
import itertools
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskd.entries import Level, LogEntry, timestamp_of
from taskd.query.filters import LogFilter
from taskd.query.outline import ANCHOR_ENTRIES, Outline, make_bins
from taskd.query.parameters import LogQuery
from taskd.reading.pages import read_all, read_next, read_outline, read_page
from tests.helpers.live_log import LiveLog, live_log
from tests.helpers.pages import FILTERS, emit, naive, whole

START_US = 1_795_000_000_000_000


def outlined(entries: Sequence[LogEntry], query: LogQuery) -> dict[str, Any]:
    """The outline as the contract words it, over a list."""
    matches = naive(list(entries), replace(query, limit=len(entries) + 1, offset=0, order="asc", tail=None))
    bins: list[Any] = []
    if entries:
        for one in make_bins(entries[0].timestamp, entries[-1].timestamp, query.filter, query.bins):
            bins.append([one.start, one.end, 0, 0, None])
    for entry in matches:
        place = max((i for i, one in enumerate(bins) if one[0] <= entry.timestamp), default=0)
        bins[place][2] += 1
        bins[place][3] += entry.level is Level.ERROR
        bins[place][4] = bins[place][4] or entry.seq
    return {"total": len(matches), "bins": bins, "anchors": [entry.seq for entry in matches[::ANCHOR_ENTRIES]]}


async def all_of(log: LiveLog, rng: random.Random) -> list[LogEntry]:
    """The log, of which the newest entries are pending."""
    await log.logger.drain()
    last_seq = log.hub.last_seq
    emit(log, rng, 30)
    while log.hub.last_seq < last_seq + 30:
        await asyncio.sleep(0)
    return await whole(log)


def shown(outline: Outline) -> dict[str, Any]:
    bins = [[one.start, one.end, one.count, one.errors, one.first_seq] for one in outline.bins]
    return {"total": outline.total, "bins": bins, "anchors": outline.anchors}


@given(st.integers(0, 10_000_000), st.integers(-5_000_000, 5_000_000), st.integers(1, 300))
def test_bins_are_equal_lie_end_to_end_and_cover_the_time(start: int, length: int, count: int) -> None:
    """And are never more than was asked for."""
    first, last = timestamp_of(START_US + start), timestamp_of(START_US + start + length)
    bins = make_bins(first, last, LogFilter(), count)
    assert 1 <= len(bins) <= count
    assert bins[0].start == min(first, last)
    assert bins[-1].start <= max(first, last) < bins[-1].end
    assert all(one.end == two.start for one, two in itertools.pairwise(bins))


def test_since_and_until_narrow_the_time_that_is_cut() -> None:
    """What lies outside is not worth a bin."""
    first, last = timestamp_of(START_US), timestamp_of(START_US + 1_000)
    log_filter = LogFilter(since=timestamp_of(START_US + 100), until=timestamp_of(START_US + 200))
    bins = make_bins(first, last, log_filter, 10)
    assert (bins[0].start, bins[-1].end, len(bins)) == (log_filter.since, log_filter.until, 10)
    assert len(make_bins(first, last, LogFilter(since=timestamp_of(START_US + 5_000)), 10)) == 1
    assert make_bins(None, None, log_filter, 10) == []


def test_a_clock_that_was_set_back_loses_no_entry() -> None:
    """What lies beyond either end counts in the bin there."""
    outline = Outline(make_bins(timestamp_of(START_US), timestamp_of(START_US + 99), LogFilter(), 10))
    for seq, us in enumerate((0, -5_000, 7_000, 50, 99), 1):
        outline.add(seq, timestamp_of(START_US + us), Level.ERROR, "s")
    assert [one.count for one in outline.bins] == [2, 0, 0, 0, 0, 1, 0, 0, 0, 2]
    assert sum(one.errors for one in outline.bins) == outline.total == 5
    assert [one.first_seq for one in outline.bins if one.count] == [1, 4, 3]


@pytest.mark.parametrize("seed", range(8))
async def test_an_outline_is_that_of_the_list(tmp_path: Path, seed: int) -> None:
    """Whatever is stored and what pending, under any filter and span."""
    rng = random.Random(seed)
    async with live_log(tmp_path, rng, batch_max=rng.randrange(200, 2_000), flush_interval_s=0.003) as log:
        log.page_bytes_max = 10_000_000
        emit(log, rng, rng.randrange(2_300, 4_500))
        entries = await all_of(log, rng)
        for log_filter in FILTERS:
            after = rng.choice([0, rng.randrange(len(entries))])
            before = rng.choice([None, rng.randrange(1, len(entries) + 9)])
            query = LogQuery(log_filter, after=after, before=before, bins=rng.randrange(1, 90))
            outline, last_seq = await read_outline(log, log.task_id, query)
            assert (shown(outline), last_seq) == (outlined(entries, query), len(entries))


async def test_the_outline_of_an_empty_log_is_empty(tmp_path: Path) -> None:
    """No bins, no anchors, no fault."""
    async with live_log(tmp_path) as log:
        outline, last_seq = await read_outline(log, log.task_id, LogQuery())
        assert (shown(outline), last_seq) == ({"total": 0, "bins": [], "anchors": []}, 0)


@pytest.mark.parametrize("seed", range(8))
async def test_next_is_the_nearest_match_and_knows_its_place(tmp_path: Path, seed: int) -> None:
    """Forwards and backwards, strictly beyond, stored and pending."""
    rng = random.Random(seed)
    async with live_log(tmp_path, batch_max=rng.randrange(5, 90)) as log:
        log.page_bytes_max = 10_000_000
        emit(log, rng, 200)
        entries = await all_of(log, rng)
        for log_filter in FILTERS:
            span = LogQuery(log_filter, after=rng.choice([0, 50]), before=rng.choice([None, 150]))
            matches = naive(entries, replace(span, limit=5_000))
            origin = rng.choice([None, 0, rng.randrange(240)])
            forward = await read_next(log, log.task_id, replace(span, origin=origin, direction="next"))
            back = await read_next(log, log.task_id, replace(span, origin=origin, direction="previous"))
            beyond = [entry for entry in matches if entry.seq > (origin or 0)]
            below = [entry for entry in matches if origin is None or entry.seq < origin]
            for nearest, wanted in ((forward, beyond[:1]), (back, below[-1:])):
                assert (nearest is None) == (not wanted)
                if nearest is not None:
                    ordinal = matches.index(wanted[0]) + 1
                    assert (nearest.entry, nearest.ordinal, nearest.total) == (wanted[0], ordinal, len(matches))


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_everything_is_read_page_by_page_up_to_one_last_seq(tmp_path: Path, order: Any) -> None:
    """What is said meanwhile does not belong to it; what is stored meanwhile comes once."""
    rng = random.Random(1)
    async with live_log(tmp_path, batch_max=40) as log:
        log.page_bytes_max = 2_000
        emit(log, rng, 300)
        query = LogQuery(LogFilter(sources=("b.*",)), order=order)
        await log.logger.drain()
        seen: list[LogEntry] = []
        async for entries in read_all(log, log.task_id, query, 280):
            seen += entries
            emit(log, rng, 3)
        log.page_bytes_max = 10_000_000
        everything = (await read_page(log, log.task_id, LogQuery(limit=5_000))).entries[:280]
        assert seen == naive(everything, replace(query, limit=5_000))
