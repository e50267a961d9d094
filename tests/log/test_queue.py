"""Whoever emits, from wherever: seqs without holes, in the order of the queue, within the bounds."""

import asyncio
import threading
from collections import deque
from collections.abc import Iterable
from typing import Any

import pytest

from taskd.entries import SYSTEM, Level, LogEntry
from taskd.log.queue import OTHER_SOURCES, SOURCES_CUT, LogQueue
from taskd.settings import KIB, Settings
from taskd.text.masking import Masker
from taskd.text.sources import SOURCES_MAX
from tests.helpers.waiting import until

INFO = Level.INFO


def make_queue(**settings: Any) -> LogQueue:
    return LogQueue(Settings(**settings), masker=Masker(), on_progress=lambda source, progress: None)


def say(queue: LogQueue, *messages: object, source: str = "p") -> None:
    for message in messages:
        queue.emit(INFO, source, message)


def commit(queue: LogQueue, entries: list[LogEntry]) -> None:
    """Give the room of `entries` back, as the writer does after their commit."""
    queue.committed(len(entries), sum(len(entry.encoded) for entry in entries), entries[-1].seq)


def seqs(entries: list[LogEntry]) -> list[int]:
    return [entry.seq for entry in entries]


def told(entries: list[LogEntry]) -> list[str]:
    return [entry.message for entry in entries]


async def take_until(queue: LogQueue, seq: int) -> list[LogEntry]:
    """All entries up to `seq`, as they come."""
    taken: list[LogEntry] = []
    async with asyncio.timeout(10):
        while not taken or taken[-1].seq < seq:
            taken += await queue.take()
    return taken


# Order


async def test_seqs_begin_at_one_and_have_no_holes() -> None:
    """What is taken is what was said, numbered."""
    queue = make_queue()
    say(queue, "a", "b", "c")
    entries = await queue.take()
    assert (seqs(entries), told(entries), queue.last_seq) == ([1, 2, 3], ["a", "b", "c"], 3)


async def test_many_threads_and_the_loop_share_one_order() -> None:
    """The queue's order is the order of seqs, dense, and each speaker's words stay in their order."""
    queue = make_queue()

    def speak(name: str) -> None:
        for number in range(300):
            queue.emit(INFO, name, number)

    threads = [asyncio.create_task(asyncio.to_thread(speak, f"t{number}")) for number in range(6)]
    taken: list[LogEntry] = []
    for number in range(300):
        queue.emit(INFO, "loop", number)
        await asyncio.sleep(0)
        taken += queue.take_rest()
    await asyncio.gather(*threads)
    async with asyncio.timeout(10):
        while len(taken) < 7 * 300:
            taken += await queue.take()
    assert seqs(taken) == list(range(1, 7 * 300 + 1))
    for name in ("loop", "t0", "t5"):
        assert told([entry for entry in taken if entry.source == name]) == [str(number) for number in range(300)]


async def test_what_a_thread_said_before_the_loop_is_queued_before_it() -> None:
    """A hand-over that is still on its way does not let the loop's next entry overtake."""
    queue = make_queue()
    thread = threading.Thread(target=say, args=(queue, "thread"))
    thread.start()
    thread.join()
    say(queue, "loop")
    assert told(queue.take_rest()) == ["thread", "loop"]


async def test_an_entry_handed_over_while_the_loop_empties_the_deque_is_not_left_there() -> None:
    """Between a thread's look at the deque and its entry in it, the loop may have seen it empty."""
    queue = make_queue()
    loop_thread = threading.get_ident()
    empty = threading.Event()

    class Handed(deque[LogEntry]):
        def __len__(self) -> int:
            length = super().__len__()
            if length == 0 and threading.get_ident() == loop_thread:
                empty.set()
            return length

        def extend(self, entries: Iterable[LogEntry]) -> None:
            if len(self):
                empty.wait(0.3)
            super().extend(entries)

    queue._from_threads = Handed()
    first, second = (threading.Thread(target=say, args=(queue, name)) for name in "ab")
    first.start()
    first.join()
    second.start()
    async with asyncio.timeout(3):
        assert told(await take_until(queue, 2)) == ["a", "b"]


async def test_an_object_whose_repr_logs_is_told_after_what_it_says() -> None:
    """Foreign code runs before the entry has its place, so nothing is out of order."""
    queue = make_queue()

    class Talking:
        def __repr__(self) -> str:
            say(queue, "from within")
            return "talking"

    say(queue, Talking())
    queue.emit(INFO, "p", "meta", {"value": Talking()})
    entries = queue.take_rest()
    assert told(entries) == ["from within", "talking", "from within", "meta"]
    assert seqs(entries) == [1, 2, 3, 4]


async def test_a_destructor_that_logs_in_the_middle_of_an_emit_comes_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Garbage is collected anywhere, also between a seq and its place in the queue."""
    queue = make_queue()

    class Talking:
        def __del__(self) -> None:
            say(queue, "last words")

    kept = [Talking()]

    def collecting() -> str:
        kept.clear()
        return "2026-11-23T14:11:42.123456Z"

    monkeypatch.setattr("taskd.log.queue.timestamp_now", collecting)
    say(queue, "a", "b")
    entries = queue.take_rest()
    assert (seqs(entries), told(entries)) == ([1, 2, 3], ["a", "last words", "b"])


# Bounds


async def test_on_the_loop_what_has_no_room_is_dropped_and_told_at_its_place() -> None:
    """The refused have no seq; the next accepted one comes after a note that counts them."""
    queue = make_queue(queue_max=2, batch_max=2)
    say(queue, "a", "b", "lost", "lost", "lost")
    taken = queue.take_rest()
    commit(queue, taken)
    say(queue, "c")
    entries = taken + queue.take_rest()
    assert seqs(entries) == [1, 2, 3, 4]
    note = entries[2]
    assert (note.source, note.level, note.metadata and note.metadata["dropped"]) == (SYSTEM, Level.WARNING, 3)
    assert note.message.startswith("3 entries were dropped here")
    assert entries[3].message == "c"


async def test_a_note_says_over_what_time_entries_were_dropped() -> None:
    """From the first that was refused to the one that was accepted."""
    queue = make_queue(queue_max=1, batch_max=1)
    say(queue, "a", "lost")
    commit(queue, queue.take_rest())
    say(queue, "b")
    note = queue.take_rest()[0]
    assert note.metadata is not None
    assert note.metadata["since"] <= note.metadata["until"] == note.timestamp


async def test_each_gap_has_its_own_note() -> None:
    """What was told once is not told again."""
    queue = make_queue(queue_max=1, batch_max=1)
    counts = []
    for _ in range(2):
        say(queue, "a", "lost")
        entries = queue.take_rest()
        counts += [entry.metadata["dropped"] for entry in entries if entry.metadata]
        queue.committed(1, len(entries[-1].encoded), entries[-1].seq)
        while queue._entries:  # the notes take room of their own
            queue.committed(1, 0, entries[-1].seq)
    say(queue, "end")
    assert [*counts, (queue.take_rest()[0].metadata or {})["dropped"]] == [1, 1]


async def test_the_bound_covers_what_was_taken_and_is_not_committed() -> None:
    """While the store is locked, a writer that keeps taking does not make room."""
    queue = make_queue(queue_max=2, batch_max=1)
    say(queue, "a", "b")
    taken = queue.take_rest()
    say(queue, "lost")
    assert queue.last_seq == 2
    commit(queue, taken[:1])
    say(queue, "c")
    assert queue.last_seq == 4  # the note, and c


async def test_bytes_are_bounded_like_entries() -> None:
    """A few large entries fill the queue as many small ones do."""
    queue = make_queue(queue_bytes_max=64 * KIB, message_bytes_max=8 * KIB, metadata_bytes_max=8 * KIB)
    say(queue, *["x" * 7_000] * 20)
    taken = queue.take_rest()
    size = sum(len(entry.encoded) for entry in taken)
    assert 64 * KIB - 7_200 < size <= 64 * KIB


async def test_the_words_of_taskd_are_never_refused() -> None:
    """How a task ended is told also where its plugin has filled the queue."""
    queue = make_queue(queue_max=1, batch_max=1)
    say(queue, "a", "lost")
    queue.emit_system(Level.ERROR, "failed", {"a": 1})
    entries = queue.take_rest()
    assert seqs(entries) == [1, 2, 3]
    assert told(entries)[2] == "failed"
    assert entries[2].source == SYSTEM


async def test_a_thread_waits_for_room_and_is_then_accepted() -> None:
    """What can wait loses nothing."""
    queue = make_queue(queue_max=1, batch_max=1, thread_wait_s=30)
    say(queue, "a")
    waiting = asyncio.create_task(asyncio.to_thread(say, queue, "b"))
    assert not (await asyncio.wait([waiting], timeout=0.05))[0]
    commit(queue, await queue.take())
    await waiting
    assert told(await take_until(queue, 2)) == ["b"]


async def test_while_a_thread_waits_the_loop_is_not_held_up() -> None:
    """The wait lets go of the lock: taskd's own words and the loop's drops go on."""
    queue = make_queue(queue_max=1, batch_max=1, thread_wait_s=30)
    say(queue, "a")
    waiting = asyncio.create_task(asyncio.to_thread(say, queue, "b"))
    await asyncio.wait([waiting], timeout=0.05)
    queue.emit_system(INFO, "still here")
    assert told(queue.take_rest()) == ["a", "still here"]
    queue.close()
    await waiting


async def test_a_thread_that_waited_in_vain_drops_and_counts() -> None:
    """After `thread_wait_s` it goes on with its work."""
    queue = make_queue(queue_max=1, batch_max=1, thread_wait_s=0.01)
    say(queue, "a")
    await asyncio.to_thread(say, queue, "lost")
    commit(queue, queue.take_rest())
    say(queue, "b")
    assert [entry.metadata and entry.metadata["dropped"] for entry in queue.take_rest()] == [1, None]


async def test_past_a_thousand_sources_the_others_share_one() -> None:
    """A plugin that invents names cannot fill the table of counts; the log reports it, and keeps each name."""
    queue = make_queue()
    for number in range(SOURCES_MAX + 3):
        say(queue, "m", source=f"s{number}")
    say(queue, "m", source="s0")
    entries = queue.take_rest()[SOURCES_MAX - 1 :]
    assert [entry.source for entry in entries] == [f"s{SOURCES_MAX - 1}", SYSTEM, *[OTHER_SOURCES] * 3, "s0"]
    assert entries[1].message == SOURCES_CUT
    assert [entry.metadata for entry in entries[2:4]] == [{"source": f"s{SOURCES_MAX + n}"} for n in range(2)]


# What an entry becomes


async def test_a_long_message_is_split_over_entries_that_say_so() -> None:
    """The parts have one timestamp, next seqs, and join back; metadata is the first's."""
    queue = make_queue(message_bytes_max=64)
    text = "ß€😀x" * 50
    queue.emit(INFO, "p", text, {"a": 1})
    first, *others = queue.take_rest()
    assert "".join(told([first, *others])) == text
    assert first.metadata == {"a": 1}
    assert others
    assert all(other.metadata == {"continued": True} for other in others)
    assert {entry.timestamp for entry in others} == {first.timestamp}


async def test_a_message_that_could_fill_the_queue_is_cut_and_says_so() -> None:
    """One call does not take all the room there is."""
    queue = make_queue(queue_bytes_max=64 * KIB, message_bytes_max=1 * KIB, metadata_bytes_max=1 * KIB)
    say(queue, "x" * 1_000_000)
    assert told(queue.take_rest())[-1].endswith(f" <{1_000_000 - 8 * KIB:,} more characters cut>")


@pytest.mark.parametrize("secret", ["hunter" * 20, "http://me:" + "hunter" * 20 + "@host"])
@pytest.mark.parametrize("shown", range(1, 121, 7))
async def test_no_cut_leaves_a_part_of_a_secret(secret: str, shown: int) -> None:
    """Neither that of a message nor that of a key, wherever it lies; half of a secret is not recognised."""
    queue = make_queue(queue_bytes_max=64 * KIB, message_bytes_max=1 * KIB, metadata_bytes_max=4 * KIB)
    if "://" not in secret:  # a password there is known by its place
        queue.masker.add(secret)
    begun = len(secret) - 120 + shown
    queue.emit(INFO, "p", secret * 9 + "x" * (8 * KIB - 9 * len(secret) - begun) + secret + "y" * 100_000)
    queue.emit(INFO, "p", "x" * (8 * KIB - begun) + secret + "y" * 100_000)
    queue.emit(INFO, "p", "key", {"k" * (256 - begun) + secret: 1})
    assert b"hunt" not in b"".join(entry.encoded for entry in queue.take_rest())


async def test_secrets_are_hidden_before_anybody_sees_the_entry() -> None:
    """Message, metadata and source are masked in the encoding that store and readers get."""
    queue = make_queue()
    queue.masker.add("hunter22")
    queue.emit(INFO, "on hunter22", "got hunter22", {"key": ["hunter22"], "hunter22": 1, "url": "x://u:pw@h"})
    entry = queue.take_rest()[0]
    assert b"hunter22" not in entry.encoded
    assert b":pw@" not in entry.encoded
    assert "hunter22" not in entry.source


async def test_a_secret_across_two_parts_of_a_message_is_hidden() -> None:
    """Masking comes before splitting."""
    queue = make_queue(message_bytes_max=64)
    queue.masker.add("hunter22")
    say(queue, "x" * 60 + "hunter22" + "y" * 60)
    assert "".join(told(queue.take_rest())) == "x" * 60 + "***" + "y" * 60


async def test_progress_is_shown_on_the_loop_and_masked() -> None:
    """From a thread too, and without a place in the log."""
    shown: list[tuple[str, dict[str, Any], int]] = []
    queue = LogQueue(
        Settings(), masker=Masker(), on_progress=lambda *progress: shown.append((*progress, threading.get_ident()))
    )
    queue.masker.add("hunter22")
    queue.show_progress("p", {"id": "1"})
    await asyncio.to_thread(queue.show_progress, "p", {"label": "hunter22"})
    while len(shown) < 2:
        await asyncio.sleep(0)
    here = threading.get_ident()
    assert shown == [("p", {"id": "1"}, here), ("p", {"label": "***"}, here)]
    assert queue.last_seq == 0


# The writer's end


async def test_taking_waits_for_the_first_entry() -> None:
    """And a cancelled take has taken nothing."""
    queue = make_queue()
    taking = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    taking.cancel()
    await asyncio.wait([taking])
    taking = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    say(queue, "a", "b")
    assert told(await taking) == ["a", "b"]


async def test_a_taker_sleeps_until_there_are_as_many_as_wake_it() -> None:
    """Fewer it finds when it asks; the end and a flush wake it all the same."""
    queue = make_queue()
    queue.handoff.wake_at = 3
    taking = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    say(queue, "1", "2")
    await asyncio.sleep(0)
    assert not taking.done()
    say(queue, "3")
    assert seqs(await taking) == [1, 2, 3]
    say(queue, "4")
    assert seqs(queue.take_rest()) == [4]
    say(queue, "5")
    draining = asyncio.create_task(queue.drain())
    taken = await queue.take()
    assert seqs(taken) == [5]
    commit(queue, taken)
    await draining


async def test_draining_returns_when_all_said_before_is_committed() -> None:
    """It asks the writer to flush now, and does not wait for what is said later."""
    queue = make_queue()
    say(queue, "a", "b")
    draining = asyncio.create_task(queue.drain())
    taken = await queue.take()
    while not queue.flush_asked:
        assert await queue.take() == []
    say(queue, "later")
    commit(queue, taken[:1])
    await asyncio.sleep(0)
    assert not draining.done()
    commit(queue, taken[1:])
    async with asyncio.timeout(5):
        await draining
    assert not queue.flush_asked


async def test_draining_a_log_that_is_stored_returns_at_once() -> None:
    """Nothing said is nothing to wait for."""
    queue = make_queue()
    await queue.drain()
    say(queue, "a")
    commit(queue, queue.take_rest())
    await queue.drain()
    assert not queue.flush_asked


async def test_a_synchronous_plugin_may_drain_in_a_loop_of_its_own() -> None:
    """The wait is not bound to the service's loop."""
    queue = make_queue()
    say(queue, "a")
    draining = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(queue.drain())))
    taken = await queue.take()
    while not queue.flush_asked:
        await queue.take()
    commit(queue, taken)
    async with asyncio.timeout(5):
        await draining


async def test_a_cancelled_drain_does_not_disturb_the_writer() -> None:
    """The commit it waited for comes all the same, and the next drain works."""
    queue = make_queue()
    say(queue, "a")
    draining = asyncio.create_task(queue.drain())
    await asyncio.sleep(0)
    draining.cancel()
    await asyncio.wait([draining])
    commit(queue, queue.take_rest())
    await queue.drain()


async def test_after_the_close_nothing_is_accepted_and_the_operator_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A thread that outlives its task cannot add to a log that has ended."""
    queue = make_queue()
    say(queue, "a")
    queue.close()
    queue.close()
    await asyncio.to_thread(say, queue, "too late")
    assert told(await queue.take()) == ["a"]
    assert queue.last_seq == 1
    await until(lambda: "too late" in caplog.text)


async def test_the_close_wakes_a_writer_that_waits() -> None:
    """There may be nothing to take, and it must still come to its end."""
    queue = make_queue()
    taking = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.close()
    async with asyncio.timeout(5):
        assert await taking == []


async def test_what_was_dropped_last_is_told_at_the_close() -> None:
    """A log that ends while entries are refused still counts them."""
    queue = make_queue(queue_max=1, batch_max=1)
    say(queue, "a", "lost", "lost")
    queue.close()
    entries = queue.take_rest()
    assert [entry.metadata and entry.metadata.get("dropped") for entry in entries] == [None, 2, None]


async def test_what_threads_handed_over_before_the_close_is_in_the_log() -> None:
    """An accepted entry is never lost to the end."""
    queue = make_queue()
    thread = threading.Thread(target=say, args=(queue, "a", "b"))
    thread.start()
    thread.join()
    queue.close()
    assert told(queue.take_rest()) == ["a", "b"]


async def test_the_close_releases_a_thread_that_waits_for_room() -> None:
    """It does not hold its `thread_wait_s` when nothing can come any more."""
    queue = make_queue(queue_max=1, batch_max=1, thread_wait_s=600)
    say(queue, "a")
    waiting = asyncio.create_task(asyncio.to_thread(say, queue, "b"))
    await asyncio.wait([waiting], timeout=0.05)
    queue.close()
    async with asyncio.timeout(5):
        await waiting
