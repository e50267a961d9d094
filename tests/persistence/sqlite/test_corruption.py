"""A damaged database: what counts as one, how it is set aside, and what does not count."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from taskd.errors import StoreCorrupt, StoreError, StoreUnavailable
from taskd.persistence.base import Span, TaskFilter
from taskd.persistence.sqlite.connection import store_error
from taskd.persistence.sqlite.corruption import Soundness
from taskd.persistence.sqlite.store import SqliteStore
from taskd.query.filters import LogFilter
from taskd.settings import MIB, Settings
from taskd.stores import open_persistence, set_aside_database
from tests.conftest import running_service
from tests.helpers.stores import created, entries, entry, stored

STAMP = "20261125T000000Z"


def error_of(code: int, kind: type[sqlite3.Error]) -> sqlite3.Error:
    error = kind("it says")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize("code", [sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, 267, 523, 779])
async def test_what_sqlite_calls_corrupt_counts(code: int) -> None:
    """With all its extended codes."""
    soundness = Soundness()
    assert isinstance(soundness.told(error_of(code, sqlite3.DatabaseError)), StoreCorrupt)
    assert soundness.corrupt.is_set()
    assert "it says" in soundness.reason


NOT_CORRUPT = ("IOERR", "IOERR_FSYNC", "IOERR_CORRUPTFS", "FULL", "BUSY", "LOCKED", "PERM", "READONLY", "CANTOPEN")


@pytest.mark.parametrize("name", NOT_CORRUPT)
async def test_a_disk_that_fails_is_full_or_locked_does_not_count(name: str) -> None:
    soundness = Soundness()
    code = getattr(sqlite3, f"SQLITE_{name}", 8_458)
    assert isinstance(soundness.told(error_of(code, sqlite3.OperationalError)), StoreUnavailable)
    assert not soundness.corrupt.is_set()


async def filled(tmp_path: Path) -> str:
    """A database with a log, closed; the task's id."""
    async with open_persistence(Settings(data_dir=tmp_path)) as store:
        task_id = await created(store)
        await store.append(task_id, [entry(seq, f"said {seq} " + "x" * 500) for seq in range(1, 501)])
    return task_id


def overwrite(path: Path, place: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(content)


def pages_gone(path: Path) -> None:
    overwrite(path, 4 * 4_096, b"\xff" * 40 * 4_096)


def head_gone(path: Path) -> None:
    overwrite(path, 0, bytes(100))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def schema_changed(path: Path) -> None:
    data = path.read_bytes()
    overwrite(path, data.index(b"started_at    TEXT"), b"started_it")


def schema_no_text(path: Path) -> None:
    data = path.read_bytes()
    overwrite(path, data.index(b"started_at    TEXT"), b"started_at \xff")


def level_changed(path: Path) -> None:
    data = path.read_bytes()
    overwrite(path, data.index(b"INFO", data.index(b"said 250 ") - 40), b"INFA")


@pytest.mark.parametrize("damage", [pages_gone, head_gone, cut, schema_changed, schema_no_text, level_changed])
async def test_damage_is_found_at_the_start(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """And the file is left as it is, until somebody sets it aside."""
    await filled(tmp_path)
    path = tmp_path / "taskd.db"
    damage(path)
    before = path.read_bytes()
    with pytest.raises(StoreCorrupt, match=r"taskd\.db is damaged"):
        async with open_persistence(Settings(data_dir=tmp_path)):
            pass
    assert path.read_bytes() == before


async def test_a_database_that_was_cut_to_nothing_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    """SQLite would remove the log beside it, with all that it has."""
    await filled(tmp_path)
    os.truncate(tmp_path / "taskd.db", 0)
    (tmp_path / "taskd.db-wal").write_bytes(b"x" * 5_000)
    with pytest.raises(StoreCorrupt, match="write-ahead log"):
        async with open_persistence(Settings(data_dir=tmp_path)):
            pass
    assert (tmp_path / "taskd.db-wal").stat().st_size == 5_000


async def test_it_is_set_aside_with_its_log_after_what_belongs_to_it(tmp_path: Path) -> None:
    """Nothing is overwritten, and a new one can be begun."""
    await filled(tmp_path)
    settings = Settings(data_dir=tmp_path)
    there: list[bool] = []
    (tmp_path / "taskd.db-wal").write_bytes(b"its log")
    for name in (f"taskd.db.corrupt-{STAMP}", f"taskd.db.corrupt-{STAMP}-2"):
        content = (tmp_path / "taskd.db").read_bytes()
        kept = set_aside_database(settings, STAMP, lambda: there.append((tmp_path / "taskd.db").exists()))
        assert kept == str(tmp_path / name)
        assert Path(kept).read_bytes() == content
        (tmp_path / "taskd.db").write_bytes(b"another")
    assert (tmp_path / f"taskd.db.corrupt-{STAMP}-wal").read_bytes() == b"its log"
    assert there == [True, True]


async def test_a_file_elsewhere_is_taskds_only_by_its_head(tmp_path: Path) -> None:
    """A text that was named by mistake is somebody's."""
    await filled(tmp_path)
    path = (tmp_path / "taskd.db").rename(tmp_path / "other.db")
    settings = Settings(data_dir=tmp_path, database=f"sqlite:///{path}")
    pages_gone(path)
    with pytest.raises(StoreCorrupt):
        async with open_persistence(settings):
            pass
    head_gone(path)
    with pytest.raises(StoreError, match="cannot be opened") as raised:
        async with open_persistence(settings):
            pass
    assert not isinstance(raised.value, StoreCorrupt)


@pytest.mark.parametrize(("make", "told"), [(os.mkfifo, "expected a regular file"), (os.mkdir, "directory")])
async def test_what_is_no_file_is_refused_in_words(make: Callable[[Path], None], told: str, tmp_path: Path) -> None:
    """A named pipe can be opened, and cannot be read from its start."""
    make(tmp_path / "taskd.db")
    with pytest.raises(StoreError, match=told):
        async with open_persistence(Settings(data_dir=tmp_path)):
            pass


async def test_a_log_whose_end_sqlite_passes_over_is_copied_and_told_of(tmp_path: Path) -> None:
    """Otherwise what it had committed would be gone without a word."""
    log = tmp_path / "taskd.db-wal"
    async with open_persistence(Settings(data_dir=tmp_path)) as store:
        task_id = await created(store)
        for seq in range(1, 21):
            await store.append(task_id, entries([seq]))
        files = {path: path.read_bytes() for path in (tmp_path / "taskd.db", log)}
    for damaged in (False, True):
        for path, content in files.items():
            path.write_bytes(content)
        if damaged:
            overwrite(log, log.stat().st_size // 2, b"\xff")
        async with open_persistence(Settings(data_dir=tmp_path)) as store:
            seqs = [one.seq for one in await stored(store, task_id)]
            assert seqs == [*range(1, len(seqs) + 1)]
            assert (len(seqs) < 20, bool(store.notices)) == (damaged, damaged)
    [copy] = tmp_path.glob("taskd.db-wal.corrupt-*")
    assert len(copy.read_bytes()) == len(files[log])


async def test_text_that_is_no_utf_8_is_shown_with_marks(tmp_path: Path) -> None:
    """SQLite does not look at it; the other entries are as they were."""
    task_id = await filled(tmp_path)
    path = tmp_path / "taskd.db"
    data = path.read_bytes()
    overwrite(path, data.index(b"said 250 "), b"s\xff\xfe")
    async with open_persistence(Settings(data_dir=tmp_path)) as store:
        found, _ = await store.page(
            task_id, LogFilter(), Span(), order="asc", offset=0, limit=500, bytes_max=10_000_000
        )
        assert [one.seq for one in found] == [*range(1, 501)]
        assert found[249].message.startswith("s\ufffd\ufffdd 250 ")
        assert not store.corrupt.is_set()


async def test_a_row_of_nonsense_does_not_take_the_list_of_tasks_with_it(tmp_path: Path) -> None:
    task_id = await filled(tmp_path)
    with closing(sqlite3.connect(tmp_path / "taskd.db", isolation_level=None)) as other:
        other.execute("PRAGMA ignore_check_constraints = ON")
        nonsense = ("{", "nonsense", "[", "many")
        other.execute("UPDATE tasks SET params_json = ?, progress_json = ?, result_json = ?, last_seq = ?", nonsense)
    async with open_persistence(Settings(data_dir=tmp_path)) as store:
        [task], _ = await store.tasks(TaskFilter(), 10, MIB)
    assert (task.id, task.params, task.progress, task.result, task.last_seq) == (task_id, {}, None, None, 0)


async def test_after_an_error_of_the_disk_the_next_transaction_gets_a_new_connection(tmp_path: Path) -> None:
    """And what failed is told for a while, or until something works."""
    used: list[sqlite3.Connection] = []

    def write(connection: sqlite3.Connection, code: int | None = None) -> None:
        used.append(connection)
        if code is not None:
            raise error_of(code, sqlite3.OperationalError)

    async with open_persistence(Settings(data_dir=tmp_path)) as store:
        assert isinstance(store, SqliteStore)
        committer: Any = store._committer
        await committer.do(write)
        with pytest.raises(StoreUnavailable):
            await committer.do(lambda raw: write(raw, sqlite3.SQLITE_IOERR_FSYNC))
        assert "it says" in (store.fault or "")
        await committer.do(write)
        with pytest.raises(StoreUnavailable):
            await committer.do(lambda raw: write(raw, sqlite3.SQLITE_BUSY))
        await committer.do(write)
        assert store.fault is None
    assert used[0] is used[1]
    assert used[2] is not used[1]
    assert used[2] is used[3] is used[4]


async def test_a_service_whose_database_is_damaged_begins_a_new_one_and_says_so(tmp_path: Path) -> None:
    """The journal, which has entries of the old one's tasks, is kept too."""
    settings = Settings(data_dir=tmp_path / "data")
    settings.data_dir.mkdir()
    await filled(settings.data_dir)
    head_gone(settings.data_dir / "taskd.db")
    journal = settings.data_dir / "journal"
    journal.mkdir()
    (journal / "000001.journal").write_bytes(b"taskd 01" + bytes(100))
    async with running_service(tmp_path) as service:
        [notice] = service.notices
        assert (service.health().problems, service.health().refusing) == ([notice], False)
        assert await service.manager.tasks() == ([], None)
    [kept], [kept_journal] = (
        settings.data_dir.glob("taskd.db.corrupt-*[Z]"), settings.data_dir.glob("journal.corrupt-*")
    )  # fmt: skip
    assert str(kept) in notice
    assert str(kept_journal) in notice
    assert (kept_journal / "000001.journal").exists()


def test_an_error_that_is_not_sqlites_has_no_code() -> None:
    """Python raises one for text that it cannot decode."""
    assert isinstance(store_error(sqlite3.OperationalError("Could not decode")), StoreUnavailable)
