"""A task that floods is limited, and its log says by how much."""

import asyncio
import threading
from types import SimpleNamespace

import pytest

from taskd.entries import SYSTEM, Level, LogEntry
from taskd.log import rate_limit
from taskd.log.queue import LogQueue
from taskd.settings import Settings


class Clock:
    """A `time.monotonic` that stands still until it is moved."""

    now = 1_000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(rate_limit, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def queue_of(entries_per_s_max: int) -> LogQueue:
    return LogQueue(Settings(entries_per_s_max=entries_per_s_max), lambda source, progress: None)


def say(queue: LogQueue, *numbers: int) -> None:
    for number in numbers:
        queue.emit(Level.INFO, "plugin", str(number))


def suppressed(entries: list[LogEntry]) -> list[int]:
    return [(entry.metadata or {})["suppressed"] for entry in entries if entry.source == SYSTEM]


async def test_it_is_off_unless_asked_for() -> None:
    """Then nothing is asked at an entry."""
    assert queue_of(0)._flood is None


async def test_what_is_over_the_limit_is_counted_and_told_in_its_place(clock: Clock) -> None:
    """Before the next entry, with the time; seqs have no holes."""
    queue = queue_of(3)
    say(queue, *range(10))
    clock.now += 1
    say(queue, 10)
    entries = queue.take_rest()
    assert [entry.seq for entry in entries] == [1, 2, 3, 4, 5]
    assert [entry.message for entry in entries if entry.source != SYSTEM] == ["0", "1", "2", "10"]
    note = entries[3]
    assert (note.source, note.level) == (SYSTEM, Level.WARNING)
    assert note.message.startswith("7 entries were suppressed here, since ")
    told = note.metadata or {}
    assert told["suppressed"] == 7
    assert told["since"] <= told["until"]


async def test_it_is_told_also_where_nothing_is_said_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the second is over."""
    monkeypatch.setattr(rate_limit, "WINDOW_S", 0.05)
    queue = queue_of(1)
    say(queue, 1)
    while queue.last_seq < 2:
        say(queue, 2)
        await asyncio.sleep(0.001)
    assert suppressed(queue.take_rest())


async def test_the_end_of_the_log_tells_what_was_suppressed_last(clock: Clock) -> None:
    """The words of taskd itself are neither counted nor suppressed."""
    queue = queue_of(2)
    say(queue, 1, 2, 3)
    for _ in range(5):
        queue.emit_system(Level.INFO, "mine")
    queue.close()
    entries = queue.take_rest()
    assert [entry.message for entry in entries[:-1]] == ["1", "2", *["mine"] * 5]
    assert suppressed(entries[-1:]) == [1]


async def test_the_limit_is_of_one_task(clock: Clock) -> None:
    """Another's has its own."""
    one, other = queue_of(1), queue_of(1)
    say(one, 1, 2)
    say(other, 1)
    assert (one.last_seq, other.last_seq) == (1, 1)


async def test_threads_share_it_and_every_entry_is_counted(clock: Clock) -> None:
    """What was said is there or was suppressed."""
    queue = queue_of(100)
    threads = [threading.Thread(target=say, args=(queue, *range(500))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    queue.close()
    entries = queue.take_rest()
    assert (len(entries), suppressed(entries)) == (101, [1_900])
