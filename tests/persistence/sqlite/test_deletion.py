"""Deleting in bites beside what is stored, and giving the disk back."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from taskd.errors import TaskNotFound
from taskd.persistence.base import LogPersistenceService, Span
from taskd.persistence.sqlite.deletion import FREE_PAGES_KEPT, FREE_PART_KEPT
from taskd.query.filters import LogFilter
from taskd.reading.follow import End, Entries, follow
from taskd.settings import Settings
from taskd.stores import open_persistence
from tests.conftest import running_service
from tests.helpers.stores import ENDED, created, entries, entry

ALL = LogFilter()


async def ended_task(store: LogPersistenceService, said: int) -> str:
    task_id = await created(store)
    await store.append(task_id, [entry(seq, "said at some length " * 10) for seq in range(1, said + 1)], end=ENDED)
    return task_id


def pages(path: Path) -> tuple[int, int]:
    """All, and those that are free."""
    with sqlite3.connect(path) as connection:
        all_pages, free = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count")
        )
    connection.close()
    return all_pages, free


async def test_what_is_deleted_leaves_the_file_but_for_what_is_kept_for_the_next(tmp_path: Path) -> None:
    """And what stays is whole."""
    path = tmp_path / "taskd.db"
    async with open_persistence(Settings(data_dir=tmp_path)) as store:
        gone, kept = await ended_task(store, 20_000), await ended_task(store, 500)
        before, _ = pages(path)
        await store.hide_tasks([gone])
        await store.purge([gone])
        await store.give_back()
        assert await store.count(kept, ALL, Span()) == 500
    after, free = pages(path)
    assert path.stat().st_size == after * 4_096
    assert free <= max(FREE_PAGES_KEPT, after // FREE_PART_KEPT)
    assert after < before / 4
    check_whole(path)


async def test_a_database_made_without_it_keeps_its_size_and_uses_it_again(tmp_path: Path) -> None:
    """Nothing is done that only VACUUM could do."""
    path = tmp_path / "taskd.db"
    with sqlite3.connect(path) as older:
        older.execute("PRAGMA journal_mode = WAL")  # the file is begun, without auto_vacuum
    older.close()
    async with open_persistence(Settings(data_dir=tmp_path)) as store:
        await store.append(await created(store), entries([1]))
        gone = await ended_task(store, 5_000)
        before = await store.used_bytes()
        await store.hide_tasks([gone])
        await store.purge([gone])
        await store.give_back()
        assert await store.used_bytes() < before / 2
        size, _ = pages(path)
        await ended_task(store, 4_000)
        assert pages(path)[0] <= size
    check_whole(path)


def check_whole(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()


async def test_bites_wait_for_what_is_to_be_stored(tmp_path: Path) -> None:
    """Each batch is committed while a deletion is under way, and the deletion goes on too."""
    async with open_persistence(Settings(data_dir=tmp_path)) as store:
        gone, running = await ended_task(store, 30_000), await created(store)
        await store.hide_tasks([gone])
        purging = asyncio.create_task(store.purge([gone]))
        seq = 0
        while not purging.done():
            seq += 1
            await store.append(running, entries([seq]))
        assert seq > 10
        await purging
        assert await store.hidden_tasks() == []


async def test_who_reads_a_log_that_is_deleted_does_not_see_an_end(tmp_path: Path) -> None:
    """But what was there, as far as it came, and then that it is gone."""
    async with running_service(tmp_path) as service:
        task_id = await ended_task(service.store, 10_000)
        seqs: list[int] = []

        async def read() -> None:
            async for event in follow(service.manager, task_id, ALL, page_entries=100):
                assert not isinstance(event, End)
                if isinstance(event, Entries):
                    seqs.extend(one.seq for one in event.entries)
                if len(seqs) == 100:
                    await service.manager.delete(task_id)

        with pytest.raises(TaskNotFound):
            await read()
        assert seqs == [*range(1, len(seqs) + 1)]
        assert 100 <= len(seqs) < 10_000
