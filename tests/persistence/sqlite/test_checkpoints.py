"""The write-ahead log shrinks when it can, and who keeps it from that is told of."""

import asyncio
import logging
import sqlite3
from pathlib import Path

import pytest

from taskd.persistence.base import LogPersistenceService
from taskd.persistence.sqlite import checkpoints
from taskd.settings import Settings
from taskd.stores import open_persistence
from tests.helpers.stores import created, entry

LARGE = 262_144


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is large, and how long is long, at a size for tests."""
    monkeypatch.setattr(checkpoints, "LOOK_S", 0.05)
    monkeypatch.setattr(checkpoints, "RETRY_MAX_S", 0.1)
    monkeypatch.setattr(checkpoints, "LARGE_BYTES", LARGE)


def log_bytes(tmp_path: Path) -> int:
    """How large the write-ahead log is."""
    return (tmp_path / "taskd.db-wal").stat().st_size


async def say_much(store: LogPersistenceService) -> None:
    task_id = await created(store)
    await store.append(task_id, [entry(seq, "said at some length " * 10) for seq in range(1, 3_001)])


async def test_a_large_log_is_emptied_beside_what_is_stored(tmp_path: Path) -> None:
    """Without anybody having to be quiet."""
    async with open_persistence(Settings(data_dir=tmp_path)) as store:
        await say_much(store)
        while log_bytes(tmp_path) >= LARGE:
            await asyncio.sleep(0.01)
        assert store.notice is None


async def test_a_small_log_is_emptied_when_nothing_was_written_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was committed is then in the database's own file."""
    monkeypatch.setattr(checkpoints, "LARGE_BYTES", 1_000_000_000)
    monkeypatch.setattr(checkpoints, "QUIET_BYTES", 0)
    monkeypatch.setattr(checkpoints, "QUIET_S", 0.2)
    async with open_persistence(Settings(data_dir=tmp_path)) as store:
        await store.append(await created(store), [entry(1, "said")])
        while log_bytes(tmp_path):
            await asyncio.sleep(0.01)


async def test_who_keeps_the_log_from_shrinking_is_told_of_until_it_lets_go(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With its size and what to do; then it shrinks by itself."""
    async with open_persistence(Settings(data_dir=tmp_path, query_timeout_s=0.1)) as store:
        other = sqlite3.connect(tmp_path / "taskd.db", isolation_level=None)
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM tasks").fetchone()
        with caplog.at_level(logging.WARNING, "taskd.store"):
            await say_much(store)
            while store.notice is None:
                await asyncio.sleep(0.01)
            assert "taskd.db-wal has " in store.notice
            assert "another program" in store.notice
            other.close()
            while log_bytes(tmp_path) or store.notice:
                await asyncio.sleep(0.01)
        assert ["has shrunk" in said for said in caplog.messages] == [False, True]
