"""What is true of the store in SQLite alone: files, versions, locks, limits."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from taskd import shipped
from taskd.errors import SettingsError, StoreError, StoreNewer, StoreTimeout, StoreUnavailable
from taskd.filters import LogFilter
from taskd.persistence import open_persistence
from taskd.persistence.base import Span
from taskd.persistence.schema import SCHEMA_VERSION
from taskd.settings import Settings
from tests.persistence.test_contract import created, entries, entry, new_task, stored


async def test_what_was_stored_is_there_after_opening_again(tmp_path: Path) -> None:
    """A store is a file."""
    settings = Settings(data_dir=tmp_path)
    async with open_persistence(settings) as store:
        task_id = await created(store)
        await store.append(task_id, entries(range(1, 400)))
    async with open_persistence(settings) as store:
        assert await stored(store, task_id) == entries(range(1, 400))


async def test_the_schema_on_disk_is_the_one_in_schema_sql(tmp_path: Path) -> None:
    """And has the number that the code says."""
    async with open_persistence(Settings(data_dir=tmp_path)):
        pass
    fresh = sqlite3.connect(":memory:")
    fresh.executescript(shipped.SCHEMA.read_text())
    opened = sqlite3.connect(tmp_path / "taskd.db")
    everything = "SELECT type, name, sql FROM sqlite_master ORDER BY name"
    assert opened.execute(everything).fetchall() == fresh.execute(everything).fetchall()
    assert fresh.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    fresh.close()
    opened.close()


async def test_a_database_of_a_newer_taskd_is_refused_and_left_alone(tmp_path: Path) -> None:
    """It would not know what it does not know."""
    path = tmp_path / "taskd.db"
    with sqlite3.connect(path) as newer:
        newer.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    newer.close()
    before = path.read_bytes()
    with pytest.raises(StoreNewer, match=r"newer taskd"):
        async with open_persistence(Settings(data_dir=tmp_path)):
            pass
    assert path.read_bytes() == before


async def test_what_is_not_taskds_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    """A database of somebody else's, and a file that is no database."""
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE theirs (a)")
    other.close()
    for content in (path.read_bytes(), b"not a database at all, but long enough to look at" * 100):
        path.write_bytes(content)
        with pytest.raises(StoreError, match=r"other\.db"):
            async with open_persistence(Settings(data_dir=tmp_path, database=f"sqlite:///{path}")):
                pass
        assert path.read_bytes() == content


@pytest.mark.parametrize("url", ["postgres://x/y", "sqlite://", "sqlite:///", "taskd.db", "sqlite:relative"])
async def test_a_database_url_that_means_nothing_is_a_bad_setting(url: str) -> None:
    """The message says what was expected."""
    with pytest.raises(SettingsError, match=r"expected sqlite:///"):
        open_persistence(Settings(database=url))


async def test_while_another_process_holds_the_lock_writing_is_unavailable_and_reading_works(tmp_path: Path) -> None:
    """And afterwards it works again, on the same connections."""
    async with open_persistence(Settings(data_dir=tmp_path)) as store:
        task_id = await created(store)
        await store.append(task_id, entries([1]))
        other = sqlite3.connect(tmp_path / "taskd.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            await store.append(task_id, entries([2]))
        assert await stored(store, task_id) == entries([1])
        other.execute("ROLLBACK")
        other.close()
        await store.append(task_id, entries([2]))
        assert await stored(store, task_id) == entries([1, 2])


async def test_a_query_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    """And its connection serves the next one."""
    settings = Settings(data_dir=tmp_path, query_timeout_s=0.01, readers=1)
    async with open_persistence(settings) as store:
        task_id = await created(store)
        await store.append(task_id, [entry(seq, "ä" * 500) for seq in range(1, 30_001)])
        with pytest.raises(StoreTimeout):
            await store.count(task_id, LogFilter(search=("nobody said ä",)), Span())
        assert (await store.task(task_id)).last_seq == 30_000


async def test_the_store_does_what_waits_before_it_closes(tmp_path: Path) -> None:
    """And refuses what comes later."""
    settings = Settings(data_dir=tmp_path)
    async with open_persistence(settings) as store:
        tasks = [new_task() for _ in range(50)]
        creating = [asyncio.ensure_future(store.create_task(task, [])) for task in tasks]
        await asyncio.sleep(0)
    await asyncio.gather(*creating)
    with pytest.raises(StoreUnavailable):
        await store.create_task(new_task(), [])
    async with open_persistence(settings) as store:
        assert len(await store.unended_tasks()) == 50
