"""The writer: when it flushes, what it does when it cannot, and how it ends."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

from taskd.query.filters import LogFilter
from taskd.reading.follow import CaughtUp, Entries, follow
from taskd.settings import Settings
from taskd.stores import open_persistence
from tests.helpers.live_log import LiveLog, first, live_log
from tests.helpers.stores import stored
from tests.helpers.waiting import until


async def stored_seqs(log: LiveLog) -> list[int]:
    return [entry.seq for entry in await stored(log.store, log.task_id)]


async def test_an_entry_is_stored_after_the_interval_though_more_keep_coming(tmp_path: Path) -> None:
    """The timer starts at the first pending entry and no later one moves it."""
    async with live_log(tmp_path, flush_interval_s=0.1) as log:
        log.logger.info("first")
        while not await stored_seqs(log):
            log.logger.info("more")
            await asyncio.sleep(0.01)
        assert len(await stored_seqs(log)) >= 2


async def test_nothing_is_stored_before_the_interval_is_over(tmp_path: Path) -> None:
    """A batch, not an entry, is what is committed."""
    async with live_log(tmp_path, flush_interval_s=60) as log:
        log.logger.info("one")
        writer = log.writer(log.task_id)
        assert writer is not None
        await until(lambda: writer.pending)
        assert await stored_seqs(log) == []


async def test_a_question_is_answered_with_what_was_just_said(tmp_path: Path) -> None:
    """Though nobody follows, and so nobody has woken the writer for it."""
    async with live_log(tmp_path, flush_interval_s=60) as log:
        writer = log.writer(log.task_id)
        assert writer is not None
        for n in range(1, 6):
            log.logger.info(f"{n}")
            assert writer.last_seq == n
            assert writer.pending == n
            assert sum(writer.counts.by_level.values()) == n
            assert [entry.seq for entry in writer.snapshot(LogFilter()).pending] == list(range(1, n + 1))
            subscription, snapshot = writer.join(LogFilter(), n - 1)
            assert [entry.seq for entry in snapshot.pending] == [n]
            assert subscription.idle
            subscription.close()


async def test_the_newest_progress_is_known_though_an_older_one_is_taken_from_the_queue_later(tmp_path: Path) -> None:
    """Shown at once, and told by an entry that nobody has asked for yet: the one that was said last counts."""
    async with live_log(tmp_path, flush_interval_s=60) as log:
        writer = log.writer(log.task_id)
        assert writer is not None
        with log.logger.progress("files", total=10) as bar:
            assert writer.last_seq == 1
            log.logger.info("stays in the queue", progress={"id": "other", "current": 1})
            await asyncio.sleep(0.12)
            bar.update(5)
            assert writer.last_seq == 2
            assert (writer.progress or {})["current"] == 5


async def test_what_is_said_during_a_flush_is_stored_an_interval_later(tmp_path: Path) -> None:
    """Nothing more need be said for it, and nobody need ask."""
    async with live_log(tmp_path, flush_interval_s=0.05) as log:
        for _ in range(40):
            log.logger.info("said")
            await asyncio.sleep(0.007)
        while len(await stored_seqs(log)) < 40:
            await asyncio.sleep(0.01)


async def test_a_full_batch_is_stored_at_once(tmp_path: Path) -> None:
    """However long the interval."""
    async with live_log(tmp_path, flush_interval_s=60, batch_max=10) as log:
        for _ in range(25):
            log.logger.info("said")
        writer = log.writer(log.task_id)
        assert writer is not None
        await until(lambda: log.hub.last_seq == 25 and writer.pending == 5)
        assert await stored_seqs(log) == [*range(1, 21)]


async def test_drain_returns_when_all_said_so_far_is_committed(tmp_path: Path) -> None:
    """However long the interval."""
    async with live_log(tmp_path, flush_interval_s=60) as log:
        for number in range(1, 30):
            log.logger.info("said")
            await log.logger.drain()
            assert len(await stored_seqs(log)) == number


async def test_drain_works_from_a_loop_of_another_thread(tmp_path: Path) -> None:
    """An old plugin may run a loop of its own."""

    def in_thread() -> None:
        log.logger.info("from a thread")
        asyncio.run(log.logger.drain())

    async with live_log(tmp_path, flush_interval_s=60) as log:
        await asyncio.to_thread(in_thread)
        assert await stored_seqs(log) == [1]


async def test_a_locked_store_stops_neither_the_task_nor_the_live_tail(tmp_path: Path) -> None:
    """Entries wait in memory, readers have them, and they are stored in order when it works again."""
    async with live_log(tmp_path, flush_interval_s=0.01, retry_delay_s=0.01) as log:
        other = sqlite3.connect(tmp_path / "taskd.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        writer = log.writer(log.task_id)
        assert writer is not None
        events = follow(log, log.task_id, LogFilter(), page_entries=100)
        assert await first(events, CaughtUp) == CaughtUp(0)
        for number in range(1, 200):
            log.logger.info(f"{number}")
        await until(lambda: writer.failing)
        assert "locked" in str(writer.failing)
        assert (await first(events, Entries)).entries[0].message == "1"
        other.execute("ROLLBACK")
        other.close()
        await until(lambda: not writer.pending)
        assert writer.failing is None
        assert await stored_seqs(log) == [*range(1, 200)]


async def test_what_waits_for_a_locked_store_is_bounded_and_drops_are_told_at_their_place(tmp_path: Path) -> None:
    """Queue and pending together: a bound that ended at the queue would bound nothing."""
    settings: dict[str, Any] = {"queue_max": 100, "batch_max": 10, "flush_interval_s": 0.001, "retry_delay_s": 0.01}
    async with live_log(tmp_path, **settings) as log:
        other = sqlite3.connect(tmp_path / "taskd.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        for number in range(1, 251):
            log.logger.info(f"{number}")
            await asyncio.sleep(0)
        other.execute("ROLLBACK")
        other.close()
        await log.logger.drain()
        log.logger.info("after")
        await log.logger.drain()
        entries = await stored(log.store, log.task_id)
    assert [entry.message for entry in entries[:100]] == [f"{number}" for number in range(1, 101)]
    assert [entry.message for entry in entries[101:]] == ["after"]
    assert (entries[100].source, entries[100].metadata and entries[100].metadata["dropped"]) == ("system", 150)
    assert [entry.seq for entry in entries] == [*range(1, 103)]


async def test_the_end_is_stored_with_the_last_entries(tmp_path: Path) -> None:
    """Whoever sees the final status can read the whole log: no moment has the one without the other."""
    async with live_log(tmp_path, flush_interval_s=60, batch_max=1_000) as log:
        for _ in range(5_000):
            log.logger.info("said")
        log.end()
        while not (task := await log.store.task(log.task_id)).status.ended:
            assert task.last_seq < 5_000
        assert task.last_seq == len(await stored_seqs(log)) == 5_000


async def test_a_cancelled_drain_does_not_disturb_the_writer(tmp_path: Path) -> None:
    """Plugin code may be cancelled anywhere."""
    async with live_log(tmp_path, flush_interval_s=0.01) as log:
        for _ in range(50):
            log.logger.info("said")
            draining = asyncio.ensure_future(log.logger.drain())
            await asyncio.sleep(0)
            draining.cancel()
            await asyncio.wait([draining])
        await log.logger.drain()
        assert len(await stored_seqs(log)) == 50


async def test_an_abandoned_writer_ends_though_the_store_never_works(tmp_path: Path) -> None:
    """At a stop whose deadline is over; what is unstored stays so, and the task is not shown as ended."""
    async with live_log(tmp_path, retry_delay_s=0.01) as log:
        other = sqlite3.connect(tmp_path / "taskd.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        log.logger.info("lost")
        writer = log.writer(log.task_id)
        assert writer is not None
        log.end()
        await until(lambda: writer.failing)
        writer.abandon()
        await log.ended.wait()
        assert not writer.stored_end
        other.close()
    async with open_persistence(Settings(data_dir=tmp_path)) as store:
        assert not (await store.task(log.task_id)).status.ended


async def test_many_logs_are_written_at_once(tmp_path: Path) -> None:
    """Their batches share transactions; each log is whole."""
    settings = Settings(data_dir=tmp_path)
    async with open_persistence(settings) as store, asyncio.TaskGroup() as group:
        logs = [LiveLog(store, settings) for _ in range(100)]
        for log in logs:
            await log.create()
            group.create_task(log.run())
            for number in range(1_000):
                log.logger.info(f"{number}")
            log.end()
        await asyncio.gather(*(log.ended.wait() for log in logs))
        assert [len(await stored_seqs(log)) for log in logs] == [1_000] * 100
