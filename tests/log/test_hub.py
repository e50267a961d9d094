"""A reader gets its matches in order, or is lagged; it is neither waited for nor cut short."""

import asyncio
from typing import Any

from taskd.entries import Level, LogEntry, timestamp_of
from taskd.log.hub import PROGRESS_IDS_MAX, LogHub, Subscription, Taken
from taskd.query.filters import LogFilter
from taskd.tasks import Task, TaskStatus

EVERYTHING = LogFilter()
ERRORS = LogFilter(levels=frozenset({Level.ERROR}))
TASK = Task("id", "git", {}, TaskStatus.RUNNING, "t")
ENDED = Task("id", "git", {}, TaskStatus.SUCCEEDED, "t")


def entries(first: int, last: int, level: Level = Level.INFO) -> list[LogEntry]:
    return [LogEntry.make(seq, timestamp_of(seq), level, "git", "m", None) for seq in range(first, last + 1)]


def make_hub(entries_max: int = 10, bytes_max: int = 100_000) -> LogHub:
    return LogHub(entries_max, bytes_max)


async def taken_by(reader: Subscription) -> Taken:
    async with asyncio.timeout(5):
        return await reader.take()


def seqs(taken: Taken) -> list[int]:
    return [entry.seq for matches in taken.matches for entry in matches.entries]


async def test_a_reader_takes_all_matches_since_it_last_took() -> None:
    """In seq order, each once, from its subscription on."""
    hub = make_hub()
    hub.publish(entries(1, 2))
    reader = hub.subscribe(EVERYTHING)
    hub.publish(entries(3, 4))
    hub.publish(entries(5, 5))
    assert seqs(await taken_by(reader)) == [3, 4, 5]
    hub.publish(entries(6, 6))
    assert seqs(await taken_by(reader)) == [6]


async def test_a_reader_gets_only_what_its_filter_lets_through() -> None:
    """What matches nobody wakes nobody."""
    hub = make_hub()
    reader = hub.subscribe(ERRORS)
    hub.publish(entries(1, 3))
    assert reader.idle
    hub.publish(entries(4, 4, Level.ERROR))
    taken = await taken_by(reader)
    assert (seqs(taken), taken.last_seq) == ([4], 4)


async def test_a_take_says_up_to_which_seq_it_is_complete() -> None:
    """Also past entries that did not match, so the reader may come back from there."""
    hub = make_hub()
    reader = hub.subscribe(ERRORS)
    hub.publish([*entries(1, 1, Level.ERROR), *entries(2, 5)])
    assert (await taken_by(reader)).last_seq == 5


async def test_a_cancelled_take_loses_nothing() -> None:
    """What was not returned is there for the next take."""
    hub = make_hub()
    reader = hub.subscribe(EVERYTHING)
    taking = asyncio.create_task(reader.take())
    await asyncio.sleep(0)
    hub.publish(entries(1, 1))
    taking.cancel()
    await asyncio.wait([taking])
    assert taking.cancelled()
    assert seqs(await taken_by(reader)) == [1]


async def test_a_reader_with_too_many_entries_is_lagged() -> None:
    """Up to the bound it keeps up; one more and it must go back to the store."""
    hub = make_hub(entries_max=3)
    reader = hub.subscribe(EVERYTHING)
    hub.publish(entries(1, 3))
    assert not reader.lagged
    hub.publish(entries(4, 4))
    taken = await taken_by(reader)
    assert (taken.lagged, taken.matches) == (True, [])


async def test_a_reader_with_too_many_bytes_is_lagged() -> None:
    """Large entries count for what they weigh."""
    batch = entries(1, 2)
    hub = make_hub(bytes_max=sum(len(entry.encoded) for entry in batch))
    reader = hub.subscribe(EVERYTHING)
    hub.publish(batch)
    assert not reader.lagged
    hub.publish(entries(3, 3))
    assert reader.lagged


async def test_taking_makes_room_again() -> None:
    """A reader that takes in time is never lagged, however long the log."""
    hub = make_hub(entries_max=2)
    reader = hub.subscribe(EVERYTHING)
    for seq in range(1, 20, 2):
        hub.publish(entries(seq, seq + 1))
        assert seqs(await taken_by(reader)) == [seq, seq + 1]


async def test_a_lagged_reader_gets_no_more_entries() -> None:
    """It would have a hole in what it reads."""
    hub = make_hub(entries_max=1)
    reader = hub.subscribe(EVERYTHING)
    hub.publish(entries(1, 2))
    await taken_by(reader)
    hub.publish(entries(3, 3))
    hub.publish_task(TASK)
    taken = await taken_by(reader)
    assert (taken.matches, taken.lagged, reader.idle) == ([], True, False)


async def test_a_lagged_reader_does_not_see_the_end() -> None:
    """It would stop with entries missing."""
    hub = make_hub(entries_max=1)
    reader = hub.subscribe(EVERYTHING)
    hub.publish(entries(1, 2))
    hub.end(ENDED)
    taken = await taken_by(reader)
    assert (taken.lagged, taken.ended) == (True, None)


async def test_a_reader_that_kept_up_sees_the_end_with_the_last_entries() -> None:
    """Nothing follows an end, and nothing is missing before it."""
    hub = make_hub()
    reader = hub.subscribe(EVERYTHING)
    hub.publish(entries(1, 2))
    hub.end(ENDED)
    taken = await taken_by(reader)
    assert (seqs(taken), taken.ended, taken.closed) == ([1, 2], ENDED, False)


async def test_a_slow_reader_does_not_slow_the_others() -> None:
    """One that never takes is lagged; its neighbour with the same filter goes on."""
    hub = make_hub(entries_max=2)
    hub.subscribe(EVERYTHING)
    healthy = hub.subscribe(EVERYTHING)
    for seq in range(1, 10):
        hub.publish(entries(seq, seq))
        assert seqs(await taken_by(healthy)) == [seq]
    assert not healthy.lagged


async def test_equal_filters_share_the_filtering() -> None:
    """A hundred viewers of one page cost one look at each entry."""
    looked = []

    class Counting(LogFilter):
        __slots__ = ()

        def matches_rest(self, entry: LogEntry) -> bool:
            looked.append(entry.seq)
            return super().matches_rest(entry)

    hub = make_hub()
    readers = [hub.subscribe(Counting(search=("M",), regex=True)) for _ in range(100)]
    hub.publish(entries(1, 3))
    assert looked == [1, 2, 3]
    assert [seqs(await taken_by(reader)) for reader in readers] == [[1, 2, 3]] * 100


async def test_of_a_progress_only_the_newest_state_is_kept() -> None:
    """Each progress by itself, whatever the reader's filter."""
    hub = make_hub()
    reader = hub.subscribe(ERRORS)
    for current in range(5):
        hub.publish_progress("git", {"id": "a", "current": current})
        hub.publish_progress("git", {"id": "b", "current": -current})
    taken = await taken_by(reader)
    assert taken.progress == [("git", {"id": "a", "current": 4}), ("git", {"id": "b", "current": -4})]


async def test_how_many_progresses_are_kept_is_bounded() -> None:
    """Past the bound new ones wait for the reader; those known go on."""
    hub = make_hub()
    reader = hub.subscribe(EVERYTHING)
    for number in range(PROGRESS_IDS_MAX + 10):
        hub.publish_progress("git", {"id": str(number), "current": 0})
    hub.publish_progress("git", {"id": "0", "current": 1})
    taken = await taken_by(reader)
    assert len(taken.progress) == PROGRESS_IDS_MAX
    assert taken.progress[0] == ("git", {"id": "0", "current": 1})


async def test_a_change_of_status_reaches_every_reader() -> None:
    """And is told once."""
    hub = make_hub()
    reader = hub.subscribe(ERRORS)
    hub.publish_task(TASK)
    assert (await taken_by(reader)).task is TASK
    hub.publish_progress("git", {"id": "a"})
    assert (await taken_by(reader)).task is None


async def test_a_closed_reader_is_told_and_given_nothing_more() -> None:
    """Leaving twice is harmless, and the hub forgets it."""
    hub = make_hub()
    reader, other = hub.subscribe(EVERYTHING), hub.subscribe(EVERYTHING)
    reader.close()
    reader.close()
    hub.publish(entries(1, 1))
    taken = await taken_by(reader)
    assert (taken.closed, taken.matches, hub.readers) == (True, [], 1)
    other.close()
    assert hub.readers == 0


async def test_closing_the_hub_sends_every_reader_away_without_an_end() -> None:
    """They come back with `after`; what they had not taken is in the store."""
    hub = make_hub()
    readers = [hub.subscribe(log_filter) for log_filter in (EVERYTHING, ERRORS)]
    hub.close()
    for reader in readers:
        taken = await taken_by(reader)
        assert (taken.closed, taken.ended) == (True, None)
    assert hub.readers == 0


async def test_a_reader_that_comes_after_the_close_is_sent_away_too() -> None:
    """It does not wait for what will not come."""
    hub = make_hub()
    hub.close()
    assert (await taken_by(hub.subscribe(EVERYTHING))).closed


async def test_a_reader_is_idle_when_every_match_so_far_is_with_it() -> None:
    """Then, and only then, may a ping say up to where it is complete."""
    hub = make_hub()
    reader = hub.subscribe(EVERYTHING)
    states: list[Any] = [reader.idle]
    hub.publish(entries(1, 1))
    states.append(reader.idle)
    await taken_by(reader)
    states.append(reader.idle)
    assert states == [True, False, True]
