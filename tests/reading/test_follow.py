"""
Every reader gets every match once, in order: whatever the filter, however slow it reads,
however often it goes and comes back, and whenever batches are committed.

The random schedules below run the real path on a real store. Three orders carry it: pending
is looked at before the store, pending is forgotten after the commit, and a lagged reader does
not see the end. Exchange any of them and these tests fail.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from taskd.entries import Level
from taskd.errors import ParameterInvalid, TaskNotFound
from taskd.log import catch_up
from taskd.persistence.base import LogPersistenceService, Span
from taskd.query.filters import LogFilter
from taskd.reading.follow import CaughtUp, End, Entries, Event, Idle, ProgressChanged, TaskChanged, follow
from taskd.settings import Settings
from taskd.stores import open_persistence
from tests.helpers.live_log import FILTERS, emit, first, live_log, read
from tests.helpers.stores import stored


@pytest.mark.parametrize("seed", range(40))
async def test_every_reader_gets_every_match_once_and_in_order(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random producers, flushes, filters, queues, pages, speeds and reconnections."""
    rng = random.Random(seed)
    # Few entries, so that there are whole pages to be read again, and some that end early.
    monkeypatch.setattr(catch_up, "PAGE_ENTRIES", rng.randrange(1, 30))
    monkeypatch.setattr(catch_up, "PAGE_BYTES_MAX", rng.choice([1, 500, 10_000]))
    settings: dict[str, Any] = {
        "flush_interval_s": rng.choice([0.001, 0.005, 0.05]),
        "batch_max": rng.randrange(1, 40),
        "subscriber_queue_max": rng.randrange(1, 20),
    }
    async with live_log(tmp_path, rng, **settings) as log, asyncio.TaskGroup() as group:
        readers = [(one, group.create_task(read(log, rng, one, slow=bool(k % 2)))) for k, one in enumerate(FILTERS * 2)]
        await emit(log, rng, 250)
        log.end()
    async with open_persistence(Settings(data_dir=tmp_path)) as store:
        whole = await stored(store, log.task_id)
    assert [entry.seq for entry in whole] == [*range(1, 251)]
    for log_filter, reader in readers:
        assert reader.result() == [entry for entry in whole if log_filter.matches(entry)]


def seqs(events: list[Event]) -> list[int]:
    """The seqs in a list of events."""
    return [entry.seq for event in events if isinstance(event, Entries) for entry in event.entries]


async def test_a_reader_of_an_ended_task_gets_entries_caught_up_end(tmp_path: Path) -> None:
    """In this order, and nothing else."""
    async with live_log(tmp_path) as log:
        log.logger.info("one")
        log.end()
        await first(follow(log, log.task_id, LogFilter(), page_entries=9), End)
        events = [event async for event in follow(log, log.task_id, LogFilter(), page_entries=9)]
    assert [type(event) for event in events] == [Entries, CaughtUp, End]
    assert isinstance(events[2], End)
    assert (events[2].last_seq, events[2].task.status) == (1, "succeeded")


async def test_caught_up_comes_once_also_for_a_reader_that_lags(tmp_path: Path) -> None:
    """Joining again is nobody's business."""
    async with live_log(tmp_path, subscriber_queue_max=2, flush_interval_s=0.001) as log:
        events = follow(log, log.task_id, LogFilter(), page_entries=9)
        kinds = [await anext(events)]
        for number in range(50):
            log.logger.info(f"{number}")
        await log.logger.drain()
        log.end()
        kinds += [event async for event in events]
    assert sum(isinstance(event, CaughtUp) for event in kinds) == 1
    assert sum(len(event.entries) for event in kinds if isinstance(event, Entries)) == 50


async def test_what_came_meanwhile_says_that_there_is_more_but_for_the_last_of_it(tmp_path: Path) -> None:
    """Or whoever gathers live entries for a moment would rest with thousands at hand, and never catch up."""
    async with live_log(tmp_path) as log, aclosing(follow(log, log.task_id, LogFilter(), page_entries=5)) as events:
        assert await anext(events) == CaughtUp(0)
        reading = asyncio.ensure_future(anext(events))
        for number in range(4):
            # Published four at a time, which never fill an event of five.
            for _ in range(4):
                log.logger.info(f"{number}")
            assert log.writer(log.task_id).last_seq == 4 * (number + 1)  # type: ignore[union-attr]
        got = [await reading, *[await anext(events) for _ in range(3)]]
    assert seqs(got) == list(range(1, 17))
    assert [event.more for event in got if isinstance(event, Entries)] == [True, True, True, False]


async def test_what_lagged_readers_missed_is_read_once_for_all_of_them_and_without_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or each stall under load would leave all of them behind, further with every second."""
    monkeypatch.setattr(catch_up, "PAGE_ENTRIES", 100)
    async with live_log(tmp_path, subscriber_queue_max=10) as log, contextlib.AsyncExitStack() as stack:
        store = log.store = CountingStore(log.store)
        log.writer(log.task_id).rereading = catch_up.Rereading(log.task_id, store)  # type: ignore[union-attr]
        filters = [LogFilter(), LogFilter(search=("7",)), LogFilter(exclude=("7",)), LogFilter(levels=frozenset(Level))]
        readers = [follow(log, log.task_id, one, page_entries=1_000) for one in filters]
        for events in readers:
            await stack.enter_async_context(aclosing(events))
            assert await anext(events) == CaughtUp(0)
        for number in range(300):
            log.logger.info(f"{number}")
        await log.logger.drain()
        got = await asyncio.gather(*(take(events, 300 if n != 1 else 57) for n, events in enumerate(readers[:2])))
        assert [seqs(events) for events in got] == [[*range(1, 301)], [n + 1 for n in range(300) if "7" in f"{n}"]]
    assert store.spans == [(0, 101), (100, 201), (200, 301)]
    assert all(event.more for events in got for event in events if isinstance(event, Entries))


class CountingStore:
    """The real store; `spans` are those of which pages were asked."""

    def __init__(self, store: LogPersistenceService) -> None:
        self.spans: list[tuple[int, int | None]] = []
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def page(self, task_id: str, log_filter: LogFilter, span: Span, **rest: Any) -> Any:
        self.spans.append((span.after, span.before))
        return await self._store.page(task_id, log_filter, span, **rest)


async def take(events: AsyncIterator[Event], count: int) -> list[Event]:
    """The next events, until they have so many entries."""
    taken: list[Event] = []
    while len(seqs(taken)) < count:
        taken.append(await anext(events))
    return taken


async def test_idle_says_up_to_where_a_reader_has_every_match(tmp_path: Path) -> None:
    """Also where what was said meanwhile did not match: that seq serves as `after` too."""
    async with live_log(tmp_path) as log:
        nothing = LogFilter(search=("nobody says this",))
        async with aclosing(follow(log, log.task_id, nothing, page_entries=9, idle_s=0.01)) as events:
            assert await anext(events) == CaughtUp(0)
            for number in range(7):
                log.logger.info(f"{number}")
            while (event := await anext(events)) != Idle(7):
                assert event == Idle(0)


async def test_tail_begins_at_the_nth_last_match_and_then_follows(tmp_path: Path) -> None:
    """Stored or pending."""
    async with live_log(tmp_path) as log:
        for number in range(1, 31):
            log.logger.info(f"{number}")
            if number == 20:
                await log.logger.drain()
        ones = LogFilter(search=("1",))  # 1 10-19 21 31
        while log.hub.last_seq < 30:
            await asyncio.sleep(0)
        async with aclosing(follow(log, log.task_id, ones, tail=3, page_entries=9)) as events:
            assert seqs([await anext(events), await anext(events)]) == [18, 19, 21]
            await first(events, CaughtUp)
            log.logger.info("31")
            assert seqs([await first(events, Entries)]) == [31]


async def test_progress_and_status_reach_a_reader_whatever_its_filter(tmp_path: Path) -> None:
    """They are about the task, not of its log."""
    async with live_log(tmp_path) as log:
        nothing = LogFilter(search=("nobody says this",))
        async with aclosing(follow(log, log.task_id, nothing, page_entries=9)) as events:
            await first(events, CaughtUp)
            with log.logger.progress("files", total=3) as bar:
                bar.advance()
                shown = await first(events, ProgressChanged)
            assert (shown.source, shown.progress["label"]) == ("a", "files")
            task = await log.store.task(log.task_id)
            log.hub.publish_task(task)
            assert (await first(events, TaskChanged)).task == task


async def test_a_reader_sent_away_gets_no_end_and_misses_nothing_when_it_comes_back(tmp_path: Path) -> None:
    """The service stops: what follows is for the next connection."""
    async with live_log(tmp_path) as log:
        log.logger.info("one")
        await log.logger.drain()
        events = follow(log, log.task_id, LogFilter(), page_entries=9)
        assert await first(events, CaughtUp) == CaughtUp(1)
        log.hub.close()
        assert [event async for event in events] == []
        log.logger.info("two")
        log.end()
        await log.ended.wait()
        rest = [event async for event in follow(log, log.task_id, LogFilter(), after=1, page_entries=9)]
    assert [entry.message for event in rest if isinstance(event, Entries) for entry in event.entries] == ["two"]


async def test_an_after_that_cannot_be_is_refused(tmp_path: Path) -> None:
    """It names the last seq there is."""
    async with live_log(tmp_path) as log:
        with pytest.raises(ParameterInvalid, match="at most 0"):
            await anext(follow(log, log.task_id, LogFilter(), after=1, page_entries=9))


async def test_a_task_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    """At the first event, not by silence."""
    async with live_log(tmp_path) as log:
        log.end()
        await first(follow(log, log.task_id, LogFilter(), page_entries=9), End)
        with pytest.raises(TaskNotFound):
            await anext(follow(log, "nobody", LogFilter(), page_entries=9))
