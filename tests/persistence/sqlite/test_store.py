"""What is true of the store in SQLite alone: files, versions, locks, limits."""

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest

from taskd import shipped
from taskd.errors import SettingsError, StoreError, StoreNewer, StoreTimeout, StoreUnavailable
from taskd.persistence.base import Span
from taskd.persistence.sqlite.connection import check_wanted, connect, interruptible
from taskd.persistence.sqlite.schema import SCHEMA_VERSION
from taskd.query.filters import LogFilter
from taskd.settings import Settings
from taskd.stores import open_persistence
from tests.helpers.stores import created, entries, entry, new_task, stored


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


VERSION_1 = """
PRAGMA application_id = 1952543595;
CREATE TABLE tasks (id TEXT PRIMARY KEY, plugin TEXT NOT NULL, params_json TEXT NOT NULL, secrets_json TEXT,
  status TEXT NOT NULL, created_at TEXT NOT NULL, started_at TEXT, finished_at TEXT, result_json TEXT, error TEXT,
  retry_of TEXT, last_seq INTEGER NOT NULL DEFAULT 0, progress_json TEXT, deleted_at TEXT);
CREATE TABLE task_logs (id INTEGER PRIMARY KEY AUTOINCREMENT, task_id TEXT NOT NULL REFERENCES tasks (id),
  seq INTEGER NOT NULL, timestamp TEXT NOT NULL, level TEXT NOT NULL, source TEXT NOT NULL, message TEXT NOT NULL,
  metadata_json TEXT, UNIQUE (task_id, seq));
CREATE TABLE log_counts (task_id TEXT NOT NULL, level TEXT NOT NULL, source TEXT NOT NULL, count INTEGER NOT NULL,
  first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL, first_timestamp TEXT NOT NULL, last_timestamp TEXT NOT NULL,
  PRIMARY KEY (task_id, level, source)) WITHOUT ROWID;
INSERT INTO tasks (id, plugin, params_json, status, created_at, last_seq)
  VALUES ('old', 'mine', '{}', 'succeeded', '2026-11-23T00:00:00.000000Z', 2);
INSERT INTO task_logs (task_id, seq, timestamp, level, source, message) VALUES
  ('old', 1, '2026-11-23T00:00:00.000000Z', 'INFO', 's', 'said ONCE'), ('old', 2, '2026-11-23T00:00:00.000001Z',
  'INFO', 's', 'said twice');
PRAGMA user_version = 1;
"""


async def test_a_database_of_an_older_taskd_is_brought_up_to_date(tmp_path: Path) -> None:
    """With all that is in it, and with the tables of a new one; opened again, it is left as it is."""
    with sqlite3.connect(tmp_path / "taskd.db") as older:
        older.executescript(VERSION_1)
    older.close()
    for _ in range(2):
        async with open_persistence(Settings(data_dir=tmp_path)) as store:
            assert await store.count("old", LogFilter(search=("once",)), Span()) == 1
    fresh = sqlite3.connect(":memory:")
    fresh.executescript(shipped.SCHEMA.read_text())
    upgraded = sqlite3.connect(tmp_path / "taskd.db")
    added = (
        "SELECT name, sql FROM sqlite_master WHERE name LIKE 'log\\_%' ESCAPE '\\' AND name <> 'log_counts' ORDER BY 1"
    )
    assert upgraded.execute(added).fetchall() == fresh.execute(added).fetchall()
    names = "SELECT name FROM sqlite_master WHERE type IN ('table', 'index') ORDER BY 1"
    assert upgraded.execute(names).fetchall() == fresh.execute(names).fetchall()
    assert upgraded.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    fresh.close()
    upgraded.close()


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
        last_seq = 0
        while not last_seq:
            with contextlib.suppress(StoreTimeout):  # on a busy machine a short query takes 10 ms, too
                last_seq = (await store.task(task_id)).last_seq
        assert last_seq == 30_000


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


async def test_a_read_that_is_given_up_in_the_middle_leaves_no_transaction_open(tmp_path: Path) -> None:
    """While a statement of it is under way, the interrupt holds for its ROLLBACK too."""
    rows = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"

    def read(raw: sqlite3.Connection) -> None:
        raw.execute("BEGIN")
        try:
            cursor = raw.execute(rows)
            while True:
                cursor.fetchone()
                check_wanted(raw)
        finally:
            raw.execute("ROLLBACK")

    async with connect(str(tmp_path / "one.db")) as connection:
        for _ in range(20):
            with pytest.raises(StoreTimeout):
                await interruptible(connection, read, 0.01)
            assert not connection.in_transaction


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
async def test_what_would_end_the_process_in_a_thread_of_the_database_fails_the_operation_alone(
    tmp_path: Path, error: type[BaseException]
) -> None:
    """A plugin can raise it in any thread; in the loop it would end the service."""

    def interrupted(raw: sqlite3.Connection) -> None:
        raise error

    async with connect(str(tmp_path / "one.db")) as connection:
        with pytest.raises(StoreUnavailable, match="ended the thread"):
            await interruptible(connection, interrupted, 5)
        assert await interruptible(connection, lambda raw: raw.execute("SELECT 1").fetchone(), 5) == (1,)
