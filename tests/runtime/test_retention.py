"""What is deleted without anybody asking: how old, how much at once, and not because a clock is wrong."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from taskd.concurrency import beside
from taskd.entries import Level, LogEntry, timestamp_of
from taskd.persistence.base import LogPersistenceService, TaskFilter
from taskd.runtime import retention as module
from taskd.runtime.deletion import Deletions, deleting
from taskd.runtime.retention import DAY_US, Retention
from taskd.settings import MIB, Settings
from taskd.stores import open_persistence
from taskd.system.supervision import Supervisor
from taskd.tasks import Task, TaskEnd, TaskIds, TaskStatus, first_id_of
from tests.conftest import running_service

DAY_S = 86_400
ALL = TaskFilter()


class Clock:
    """The wall clock, which can be set, and the clocks that cannot."""

    CLOCK_BOOTTIME = CLOCK_MONOTONIC = 0

    def __init__(self) -> None:
        self.now = 1_795_392_000.0
        self.passed = 1_000.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.passed += seconds

    def time(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return int(self.now * 1_000_000) * 1_000

    def monotonic(self) -> float:
        return self.passed

    def clock_gettime(self, which: int) -> float:
        return self.passed


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@asynccontextmanager
async def retained(
    tmp_path: Path, newest: str | None = None, **settings: Any
) -> AsyncIterator[tuple[LogPersistenceService, Retention]]:
    """A store with deletions, and a retention whose passes the test makes."""
    chosen = Settings(data_dir=tmp_path, **settings)
    async with open_persistence(chosen) as store, deleting(store, tmp_path / "tasks", Supervisor(chosen)) as deletions:
        yield store, Retention(chosen, store, deletions, newest)


async def made(
    store: LogPersistenceService, count: int, days_ago: float, clock: Clock, *, ended: bool = True, said: int = 1
) -> list[str]:
    """So many tasks that were created, and ended, so many days ago."""
    ids = []
    us = int(clock.now * 1_000_000 - days_ago * DAY_US)
    for number in range(count):
        at = timestamp_of(us)
        task_id = f"{first_id_of(at)}-7000-8000-{time.monotonic_ns() + number:012x}"
        ids.append(task_id)
        await store.create_task(Task(task_id, "mine", {}, TaskStatus.QUEUED, at), [])
        entries = [LogEntry.make(seq, at, Level.INFO, "mine", "x" * 200, None) for seq in range(1, said + 1)]
        await store.append(task_id, entries, end=TaskEnd(TaskStatus.SUCCEEDED, at) if ended else None)
    return ids


async def left(store: LogPersistenceService) -> set[str]:
    return {task.id for task in (await store.tasks(ALL, 1_000, MIB))[0]}


async def test_what_ended_longer_ago_than_the_days_is_deleted_with_its_files(tmp_path: Path, clock: Clock) -> None:
    """And nothing else: not what has not ended, and not what is from the future."""
    async with retained(tmp_path, retention_days=30) as (store, retention):
        kept = {*await made(store, 5, 29.9, clock), *await made(store, 1, 99, clock, ended=False)}
        kept |= {*await made(store, 6, -3_650, clock)}
        old = await made(store, 1, 30.1, clock)
        (tmp_path / "tasks" / old[0]).mkdir(parents=True)
        assert await retention.make_pass() == 1
        assert await left(store) == kept
        assert not (tmp_path / "tasks" / old[0]).exists()
        assert await store.hidden_tasks() == []
        assert await retention.make_pass() == 0


async def test_ids_that_run_ahead_of_a_clock_keep_nothing_for_ever(tmp_path: Path, clock: Clock) -> None:
    """After the clock was set back a new id sorts after the newest, and says nothing of its task's age."""
    async with retained(tmp_path, retention_days=30) as (store, retention):
        await made(store, 1, -3_650, clock)
        old = Task(
            TaskIds(await store.newest_task_id())(), "mine", {}, TaskStatus.QUEUED, "2000-01-01T00:00:00.000000Z"
        )
        await store.create_task(old, [])
        await store.append(old.id, [], end=TaskEnd(TaskStatus.SUCCEEDED, "2000-01-02T00:00:00.000000Z"))
        assert await retention.make_pass() == 1
        assert old.id not in await left(store)


async def test_a_pass_deletes_a_tenth_at_most_and_the_oldest_first(tmp_path: Path, clock: Clock) -> None:
    """What is due goes all the same, pass by pass; of fewer than ten tasks one goes."""
    async with retained(tmp_path, retention_days=30) as (store, retention):
        ids = await made(store, 25, 40, clock) + await made(store, 15, 35, clock)
        deleted = []
        while ids:
            deleted.append(await retention.make_pass())
            ids = ids[deleted[-1] :]
            assert await left(store) == set(ids)
        assert deleted[:5] == [4, 3, 3, 3, 2]
        assert max(deleted[5:]) <= 2
        assert sum(deleted) == 40


async def test_by_size_the_oldest_go_one_by_one_until_it_fits(tmp_path: Path, clock: Clock) -> None:
    """At most a tenth a pass too; what has not ended stays, and that it is too large is said."""
    async with retained(tmp_path, retention_bytes_max=1_048_576) as (store, retention):
        running = await made(store, 1, 99, clock, ended=False, said=1_000)
        ids = await made(store, 20, 3, clock, said=300)
        assert await retention.make_pass() == 2
        assert await left(store) == {*running, *ids[2:]}
        while await retention.make_pass():
            pass
        assert await store.used_bytes() <= 1_048_576
        assert len(await left(store)) > 1
        await store.append(
            running[0],
            [LogEntry.make(n, timestamp_of(0), Level.INFO, "s", "x" * 900, None) for n in range(1_001, 2_500)],
        )
        while await retention.make_pass():
            pass
        assert await left(store) == set(running)
        assert "no ended task is left" in retention.notices[0]


@pytest.mark.parametrize("jump_s", [3_600, DAY_S, 3_650 * DAY_S, -3_600, -DAY_S, -3_650 * DAY_S])
async def test_a_jump_of_the_clock_suspends_deletions_by_age_and_is_said(
    tmp_path: Path, clock: Clock, jump_s: int
) -> None:
    """For a while; by size they go on."""
    async with retained(tmp_path, retention_days=0.01, retention_bytes_max=1_048_576) as (store, retention):
        await made(store, 20, 0, clock, said=300)
        clock.sleep(60)
        clock.now += jump_s
        assert await retention.make_pass() == 2
        assert f"set {'forward' if jump_s > 0 else 'back'} by {abs(jump_s):,.0f} s" in retention.notices[0]
        while await retention.make_pass():
            pass
        kept = await left(store)
        assert len(kept) > 5
        clock.now -= jump_s
        await retention.make_pass()
        clock.sleep(DAY_S - 1)
        assert (await retention.make_pass(), await left(store)) == (0, kept)
        clock.sleep(1)
        assert await retention.make_pass() == 1
        assert retention.notices == []


async def test_a_clock_that_is_put_right_bit_by_bit_does_not_jump(tmp_path: Path, clock: Clock) -> None:
    """However far it goes in all."""
    async with retained(tmp_path, retention_days=1) as (store, retention):
        await made(store, 1, 2, clock)
        for _ in range(10):
            clock.sleep(60)
            clock.now += 200
            assert not retention.suspended
            await retention.make_pass()
        assert await left(store) == set()


async def test_a_start_at_which_all_would_be_too_old_waits_first(tmp_path: Path, clock: Clock) -> None:
    """The clock of a machine may be wrong from its start."""
    long_ago = timestamp_of(int((clock.now - 2 * DAY_S) * 1_000_000))
    async with retained(tmp_path, newest=long_ago, retention_days=1) as (store, retention):
        await made(store, 3, 2, clock)
        assert await retention.make_pass() == 0
        assert "all that is stored is older" in retention.notices[0]
        clock.sleep(DAY_S)
        assert await retention.make_pass() == 1


async def test_who_keeps_everything_is_told_nothing(tmp_path: Path, clock: Clock) -> None:
    """By default tasks are not deleted, however old all of them are."""
    async with retained(tmp_path, newest=timestamp_of(int((clock.now - 2 * DAY_S) * 1_000_000))) as (_, retention):
        assert retention.notices == []


async def test_the_first_pass_comes_an_interval_after_the_start(tmp_path: Path) -> None:
    """Or a service that is started again and again would delete a tenth each time."""
    async with retained(tmp_path, retention_days=0.000001, retention_interval_s=0.5) as (_, retention):
        began = time.monotonic()
        async with beside(retention.run(), "retention"):
            while not retention.passes:
                await asyncio.sleep(0.01)
        assert time.monotonic() - began >= 0.5


async def test_a_deletion_that_a_death_broke_off_is_finished_after_the_start(tmp_path: Path) -> None:
    """Rows and files; until then the task is not there."""
    clock = Clock()
    files = tmp_path / "data" / "tasks"
    files.mkdir(parents=True)
    async with open_persistence(Settings(data_dir=tmp_path / "data")) as store:
        [task_id] = await made(store, 1, 1, clock, said=2_000)
        assert await store.hide_tasks([task_id]) == [task_id]
    (files / task_id).mkdir()
    async with running_service(tmp_path) as service:
        assert (await service.manager.tasks())[0] == []
        while await service.store.hidden_tasks() or any(files.iterdir()):
            await asyncio.sleep(0.01)


async def test_a_deletion_waits_for_a_store_that_fails(tmp_path: Path) -> None:
    """And what was hidden goes when it works again."""
    clock = Clock()
    settings = Settings(data_dir=tmp_path)
    async with open_persistence(settings) as store:
        [task_id] = await made(store, 1, 1, clock)
        await store.hide_tasks([task_id])
        other = sqlite3.connect(tmp_path / "taskd.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        deletions = Deletions(store, tmp_path / "tasks")
        running = asyncio.create_task(deletions.run())
        await asyncio.wait([running], timeout=1.0)
        assert await store.hidden_tasks() == [task_id]
        other.execute("ROLLBACK")
        other.close()
        await deletions.settled()
        assert await store.hidden_tasks() == []
        running.cancel()
        await asyncio.wait([running])
