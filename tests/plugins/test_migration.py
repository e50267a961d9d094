"""`migration`: a database is at one version or at the next, and what is wrong is found before."""

import asyncio
import os
import random
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.migration.files import File
from plugins.migration.guard import Guard
from taskd.entries import Level
from taskd.errors import ParamsInvalid
from taskd.service import Service
from taskd.tasks import Task
from tests.conftest import messages, read_all
from tests.helpers.waiting import until_said

USERS = "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT);\nINSERT INTO users (name) VALUES ('a;b'), ('c');\n"
MAILS = "ALTER TABLE users ADD COLUMN mail TEXT;\nUPDATE users SET mail = name || '@example.org'"
FOREVER = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
ORDINARY = """
CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT, data TEXT CHECK (json_valid(data)),
  day AS (json_extract(data, '$.day')));
CREATE INDEX notes_by_day ON notes (json_extract(data, '$.day'));
CREATE VIRTUAL TABLE found USING fts5(text, content='notes', content_rowid='id');
CREATE TRIGGER notes_found AFTER INSERT ON notes BEGIN
  INSERT INTO found (rowid, text) VALUES (new.id, CASE new.text WHEN '' THEN NULL ELSE new.text END);
END;
INSERT INTO notes (text, data) VALUES ('hello', '{"day": "2026-12-01"}');
CREATE VIEW marked AS SELECT highlight(found, 0, '<', '>') FROM found WHERE found MATCH 'hello';
SELECT * FROM marked;
INSERT INTO found (found) VALUES ('rebuild');
INSERT INTO found (found) VALUES ('optimize');
DROP VIEW marked;
DROP TRIGGER notes_found;
DROP TABLE found;
CREATE VIRTUAL TABLE old USING fts4(x);
SELECT optimize(old) FROM old;
DROP TABLE old;
ALTER TABLE notes ADD COLUMN year INTEGER;
ALTER TABLE notes RENAME COLUMN text TO body;
ALTER TABLE notes RENAME TO other;
ALTER TABLE other RENAME TO notes;
UPDATE notes SET year = strftime('%Y', day) + 0;
SELECT row_number() OVER (ORDER BY id), json_group_array(body) OVER () FROM notes;
SELECT CAST(x'ff' AS TEXT), printf('%d', abs(random())), total_changes();
PRAGMA defer_foreign_keys = ON; PRAGMA user_version = 7; PRAGMA foreign_key_check; PRAGMA table_info(notes);
PRAGMA integrity_check; PRAGMA optimize; REINDEX; ANALYZE; PRAGMA journal_mode;
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write migrations, given as `_0001_users="SQL"`; returns their directory."""

    def written(**files: str) -> Path:
        directory = tmp_path / "migrations"
        directory.mkdir(exist_ok=True)
        for name, sql in files.items():
            (directory / f"{name.removeprefix('_')}.sql").write_text(sql)
        return directory

    return written


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Where the database is, or will be."""
    return tmp_path / "app.db"


async def run(service: Service, database: Path, directory: Path, **params: Any) -> Task:
    """A migration task, ended."""
    params = {"database": f"sqlite:///{database}", "directory": str(directory), **params}
    task = await service.manager.submit("migration", params)
    return await service.manager.wait(task.id)


def rows(database: Path, sql: str) -> list[tuple[Any, ...]]:
    """What a query answers."""
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(sql).fetchall()


def tables(database: Path) -> list[str]:
    """The tables that there are."""
    return [name for (name,) in rows(database, "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")]


async def test_a_new_database_is_brought_to_the_newest_version(service: Service, write: Write, database: Path) -> None:
    """It is created where it is missing; a second run finds nothing to do."""
    directory = write(_0001_users=USERS, _0002_mails=MAILS)
    task = await run(service, database, directory)
    assert task.result == {"applied": ["0001_users.sql", "0002_mails.sql"], "version": 2}
    assert rows(database, "SELECT mail FROM users") == [("a;b@example.org",), ("c@example.org",)]
    again = await run(service, database, directory)
    assert again.result == {"applied": [], "version": 2}
    assert f"{database} is at version 2; nothing to apply" in messages(await read_all(service, again.id))


async def test_a_path_may_begin_with_two_slashes(service: Service, write: Write, database: Path) -> None:
    """As many do that are put together; it is the same file, and no name of a host."""
    task = await run(service, Path(f"/{database}"), write(_0001_users=USERS))
    assert task.error is None
    assert "users" in tables(database)


async def test_only_what_is_not_applied_is_applied(service: Service, write: Write, database: Path) -> None:
    """`target` stops before the newest; the next run goes on from there."""
    directory = write(_0001_users=USERS, _0002_mails=MAILS)
    first = await run(service, database, directory, target=1)
    assert first.result == {"applied": ["0001_users.sql"], "version": 1}
    second = await run(service, database, directory)
    assert second.result == {"applied": ["0002_mails.sql"], "version": 2}


async def test_a_dry_run_shows_the_plan_and_touches_nothing(service: Service, write: Write, database: Path) -> None:
    """Not even the file is made."""
    task = await run(service, database, write(_0001_users=USERS), dry_run=True)
    assert task.result == {"applied": [], "version": 0, "planned": ["0001_users.sql"]}
    assert "would apply 0001_users.sql: 2 statements" in messages(await read_all(service, task.id))
    assert not database.exists()


async def test_each_statement_is_told_with_its_line_and_rows(service: Service, write: Write, database: Path) -> None:
    """A ';' in a text or in a trigger ends no statement."""
    trigger = "-- why\nCREATE TRIGGER t AFTER INSERT ON users BEGIN\n  SELECT 1; SELECT 2;\nEND;\n\nDELETE FROM users;"
    task = await run(service, database, write(_0001_users=USERS, _0002_trigger=trigger))
    told = [entry.metadata for entry in await read_all(service, task.id) if "rows" in (entry.metadata or {})]
    assert [(metadata["line"], metadata["rows"]) for metadata in told if metadata] == [(1, 0), (2, 2), (2, 0), (6, 2)]
    assert all(metadata and metadata["duration_ms"] >= 0 for metadata in told)


async def test_a_failing_statement_is_shown_and_its_migration_undone(
    service: Service, write: Write, database: Path
) -> None:
    """What came before it in the same file is undone too; what came in earlier files stays."""
    directory = write(_0001_users=USERS, _0002_bad="DELETE FROM users;\n\nINSERT INTO nowhere VALUES (1);\n")
    task = await run(service, database, directory)
    assert "0002_bad.sql, line 3: no such table: nowhere. The statement is: INSERT INTO nowhere" in (task.error or "")
    assert rows(database, "SELECT count(*) FROM users") == [(2,)]
    assert rows(database, "SELECT version, name FROM taskd_migrations") == [(1, "0001_users.sql")]
    errors = [entry for entry in await read_all(service, task.id) if entry.level is Level.ERROR]
    assert (errors[0].metadata or {})["line"] == 3


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "has no migrations"),
        ({"_0001_a": "SELECT 1;", "_0003_c": "SELECT 1;"}, "a gap before 0003_c.sql: expected a migration 0002"),
        ({"_0002_b": "SELECT 1;"}, "a gap before 0002_b.sql: expected a migration 0001"),
        ({"_0001_a": "SELECT 1;", "_0001_b": "SELECT 1;"}, "0001_a.sql and 0001_b.sql have the same number"),
        ({"_1_a": "SELECT 1;"}, "'1_a.sql' is not the name of a migration"),
        ({"_٠٠٠١_a": "SELECT 1;"}, "'٠٠٠١_a.sql' is not the name of a migration"),
        ({"_0001_a\udcff": "SELECT 1;"}, "'0001_a\\udcff.sql' is not the name of a migration"),
        ({"_0001_a\nb": "SELECT 1;"}, "'0001_a\\nb.sql' is not the name of a migration"),
        ({"_0001_a": "-" * (32 * 1_024 * 1_024 + 1)}, "0001_a.sql has more than 32 MiB. Divide it"),
        ({"_0001_a": "SELECT 1;\nSELECT 'open;"}, "the statement that begins on line 2 has no end"),
        ({"_0001_a": "SELECT 1;\ncommit;"}, "0001_a.sql, line 2: COMMIT is not possible here"),
        ({"_0001_a": "/* ; */ VACUUM"}, "0001_a.sql, line 1: VACUUM is not possible here"),
        ({"_0001_a": "SELECT 1;\n/* SELECT 2;"}, "the comment /* on line 2 is never closed"),
        ({"_0001_a": "SELECT 1; -- one\rSELECT 2;"}, "line 1: the comment has a carriage return in it"),
        ({"_0001_a": "SELECT 1;\0"}, "0001_a.sql has a NUL character at byte 9"),
        (
            {"_0001_a": "CREATE TRIGGER t AFTER INSERT ON x BEGIN SELECT 1;"},
            "the trigger that begins on line 1 has no end",
        ),
    ],
)
async def test_what_is_wrong_with_the_files_is_found_before_anything_is_touched(
    service: Service, write: Write, database: Path, files: dict[str, str], told: str
) -> None:
    """The error names the file, and there is no database after it."""
    task = await run(service, database, write(**files))
    assert told in (task.error or "")
    assert not database.exists()


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("SELECT 'a;''b';\nSELECT \"c;\", [d;], `e;` -- f;\n;SELECT 1", [1, 2, 3]),
        ("/* a; */ SELECT 1 /* b; */;\n\n-- 'c;\nSELECT 2", [1, 4]),
        ("CREATE TEMP TRIGGER t AFTER INSERT ON x BEGIN SELECT ';'; SELECT 2; END;\nSELECT 1;", [1, 2]),
        ("create /* a; */ trigger t AFTER INSERT ON x BEGIN\nSELECT 1;\nEND;\nSELECT 1;", [1, 4]),
        ("CREATE/**/TEMPORARY/**/TRIGGER t DELETE ON x BEGIN\nSELECT 1; -- END;\n/* END; */ end\n;SELECT 1;", [1, 4]),
        ("CREATE TRIGGER IF NOT EXISTS [END;] DELETE ON x BEGIN SELECT CASE 1 WHEN 1 THEN 2 END; END;SELECT 1", [1, 1]),
        ("EXPLAIN QUERY PLAN CREATE TRIGGER t DELETE ON x BEGIN SELECT 1;\r\nEND;\r\nSELECT 1;", [1, 3]),
        ("CREATE TRIGGER t DELETE ON x BEGIN SELECT 1;SELECT 2 AS ended; END", [1]),
        ("CREATE TABLE trigger_end (x);\nSELECT 1;\n\ufeffSELECT 2", [1, 2, 3]),
    ],
)
async def test_a_statement_ends_where_sqlite_ends_it(
    service: Service, write: Write, database: Path, text: str, lines: list[int]
) -> None:
    """Quotes of four kinds, comments of two, and triggers may hold a ';'."""
    task = await run(service, database, write(_0001_a=text), dry_run=True)
    told = [(entry.metadata or {}).get("line") for entry in await read_all(service, task.id)]
    assert [line for line in told if line] == lines


async def test_a_large_file_is_split_in_time_that_grows_with_it_alone(
    service: Service, write: Write, database: Path
) -> None:
    """A million lines of data, and one text full of ';', would take for ever if each began again at the start."""
    data = (
        "CREATE TABLE t (x);\n"
        + "INSERT INTO t VALUES (1);\n" * 20_000
        + f"INSERT INTO t VALUES ('{';' * 1_000_000}');"
    )
    task = await run(service, database, write(_0001_a=data), dry_run=True)
    assert any("20,002 statements" in text for text in messages(await read_all(service, task.id)))


async def test_a_database_that_another_program_holds_is_refused_and_left_alone(
    service: Service, write: Write, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a wait; the error says what to do, and the next run works."""
    module = sys.modules[service.plugins["migration"].factory.__module__]
    monkeypatch.setattr(module, "LOCK_WAIT_S", 0.1)
    directory = write(_0001_users=USERS)
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("CREATE TABLE mine (x)")
        other.execute("BEGIN IMMEDIATE")
        task = await run(service, database, directory, backup=False)
    assert "Another program has held its lock" in (task.error or "")
    assert tables(database) == ["mine"]
    assert (await run(service, database, directory)).status == "succeeded"


async def test_foreign_keys_cannot_be_switched_within_a_transaction(
    service: Service, write: Write, database: Path
) -> None:
    """SQLite ignores it in silence; the log does not."""
    task = await run(service, database, write(_0001_a="SELECT 1; pragma/**/main.Foreign_Keys(OFF);"))
    told = [entry.message for entry in await read_all(service, task.id) if entry.level is Level.WARNING]
    assert told == ["0001_a.sql:1: within a transaction this has no effect (PRAGMA defer_foreign_keys has)"]
    assert task.status == "succeeded"


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("PRAGMA journal_mode = WAL", "PRAGMA journal_mode has no effect inside a transaction"),
        ("PRAGMA main.'page_size' (512)", "PRAGMA page_size has no effect inside a transaction"),
        ("PRAGMA synchronous = OFF", "set it in the program that uses the database. The statement"),
        ("PRAGMA foreign_key = ON", "SQLite does not know PRAGMA foreign_key"),
        ("EXPLAIN PRAGMA writable_schema = ON", "PRAGMA writable_schema is not allowed in a migration"),
        ("PRAGMA temp_store_directory = '/'", "PRAGMA temp_store_directory is not allowed in a migration"),
        ("PRAGMA hard_heap_limit = 1", "PRAGMA hard_heap_limit is not allowed in a migration"),
        ("EXPLAIN ATTACH 'x' AS y", "ATTACH, DETACH and VACUUM are not allowed"),
        ("SELECT \"Load_Extension\"('x.so')", "the function load_extension is not allowed"),
        ("SELECT fts3_tokenizer('simple', x'4141414141414141')", "the function fts3_tokenizer is not allowed"),
        ("CREATE VIRTUAL TABLE x USING sqlite_dbpage(main)", "of the module sqlite_dbpage are not allowed"),
        ("EXPLAIN COMMIT", "it can neither begin nor end one"),
        ("DELETE FROM taskd_migrations", "only taskd writes to it"),
        ("CREATE TRIGGER x INSERT ON taskd_migrations BEGIN SELECT 1; END", "only taskd writes to it"),
        ("CREATE UNIQUE INDEX x ON taskd_migrations (1 + 0)", "only taskd writes to it"),
        ("SELECT zeroblob(2000000000)", "string or blob too big"),
    ],
)
async def test_what_reaches_beyond_the_database_or_is_in_vain_is_refused(
    service: Service, write: Write, database: Path, sql: str, told: str
) -> None:
    """The error says which and why, and the migration is undone."""
    task = await run(service, database, write(_0001_users=USERS, _0002_a=f"DELETE FROM users;\n{sql}"))
    assert task.status == "failed"
    assert "0002_a.sql, line 2: " in (task.error or "")
    assert told in (task.error or "")
    assert rows(database, "SELECT count(*) FROM users") == [(2,)]


@pytest.mark.parametrize(
    "schema",
    [
        "CREATE TRIGGER x AFTER INSERT ON users BEGIN SELECT {call}; END",
        "CREATE VIEW evil AS SELECT {call}; CREATE TRIGGER x AFTER INSERT ON users BEGIN SELECT * FROM evil; END",
        "CREATE TABLE more (x, y DEFAULT ({call})); CREATE TRIGGER x AFTER INSERT ON users BEGIN "
        "INSERT INTO more (x) VALUES (1); END",
    ],
)
async def test_what_a_database_brings_along_is_not_trusted(
    service: Service, write: Write, database: Path, schema: str
) -> None:
    """Its triggers, views and defaults run inside the migration, and may do no more than that."""
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(USERS + schema.format(call="fts3_tokenizer('simple', x'4141414141414141')"))
    task = await run(service, database, write(_0001_a="INSERT INTO users (name) VALUES ('x')"))
    assert task.status == "failed"
    assert "fts3_tokenizer" in (task.error or "")


CHAIN = {
    "common table expressions": "WITH a0 AS (SELECT 1 a)"
    + "".join(f", a{i} AS (SELECT * FROM a{i - 1})" for i in range(1, 30_000))
    + " SELECT * FROM a29999",
    "views": "CREATE VIEW v0 AS SELECT 1 a;"
    + "".join(f"CREATE VIEW v{i} AS SELECT * FROM v{i - 1};" for i in range(1, 20_000)),
    "triggers": "".join(
        f"CREATE TABLE t{i} (a); CREATE TRIGGER r{i} AFTER INSERT ON t{i} BEGIN INSERT INTO t{i + 1} VALUES (1); END;"
        for i in range(7_000)
    ),
}


@pytest.mark.parametrize("by", CHAIN)
def test_queries_inside_each_other_do_not_end_the_process(by: str) -> None:
    """SQLite calls itself for each of them, until the stack of its thread is at its end."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        counted = map(Guard(connection).count, [s.sql for s in File(1, "0001_a.sql", "", CHAIN[by]).statements()])
        with pytest.raises(sqlite3.OperationalError, match="has more than 5,000 queries"):
            list(counted)


async def test_queries_that_a_database_brings_along_are_counted(
    service: Service, write: Write, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is a text, a name or a comment is none of them."""
    guard = sys.modules[service.plugins["migration"].factory.__module__ + ".guard"]
    monkeypatch.setattr(guard, "QUERIES_MAX", 4)
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript("CREATE VIEW a AS SELECT 1; CREATE VIEW b AS SELECT * FROM a;")
    hidden = "SELECT 'select', 1 \"update\", 2 [insert], 3 `delete` /* select */ -- select\n"
    directory = write(_0001_a=hidden + "FROM (SELECT * FROM b)")
    assert (await run(service, database, directory)).error is None
    write(_0002_b="SELECT * FROM (SELECT * FROM (SELECT * FROM b))")
    assert "has more than 4 queries" in ((await run(service, database, directory)).error or "")


async def test_a_record_is_in_the_database_whatever_a_migration_names_its_own_tables(
    service: Service, write: Write, database: Path
) -> None:
    """A temporary table of the same name would otherwise take it, and be gone with it."""
    temporary = "CREATE TEMP TABLE taskd_migrations (version, name, checksum, duration_ms);"
    directory = write(_0001_users=temporary + USERS, _0002_mails=MAILS)
    task = await run(service, database, directory)
    assert task.result == {"applied": ["0001_users.sql", "0002_mails.sql"], "version": 2}
    assert rows(database, "SELECT version FROM taskd_migrations") == [(1,), (2,)]


@pytest.mark.parametrize("part", ["", "-journal", "-wal", "-shm"])
async def test_a_pipe_in_the_place_of_the_database_is_not_waited_for(
    service: Service, write: Write, database: Path, part: str
) -> None:
    """SQLite opens it and waits for the other end, where it cannot be interrupted."""
    if part:
        database.touch()
    os.mkfifo(f"{database}{part}")
    async with asyncio.timeout(10):
        task = await run(service, database, write(_0001_users=USERS))
    assert f"{database}{part} is not a regular file" in (task.error or "")


async def test_ordinary_statements_are_not_refused(service: Service, write: Write, database: Path) -> None:
    """Tables, indexes, triggers and views that change, JSON, windows, dates and full-text search."""
    task = await run(service, database, write(_0001_users=USERS, _0002_all=ORDINARY))
    assert task.error is None
    assert rows(database, "SELECT body, year FROM notes") == [("hello", 2026)]


async def test_what_a_migration_sets_does_not_hold_for_the_next(service: Service, write: Write, database: Path) -> None:
    """Each has a connection of its own: whether they run at once or one by one is the same."""
    leaves = "CREATE TEMP TABLE users (x); PRAGMA recursive_triggers = ON;"
    task = await run(service, database, write(_0001_users=USERS, _0002_a=leaves, _0003_mails=MAILS))
    assert (task.result or task.error) == {
        "applied": ["0001_users.sql", "0002_a.sql", "0003_mails.sql"], "version": 3,
    }  # fmt: skip


async def test_waiting_for_a_lock_can_be_cancelled(service: Service, write: Write, database: Path) -> None:
    """SQLite itself would wait to the end of its time."""
    directory = write(_0001_users=USERS)
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("CREATE TABLE mine (x)")
        other.execute("BEGIN IMMEDIATE")
        params = {"database": f"sqlite:///{database}", "directory": str(directory), "backup": False}
        task = await service.manager.submit("migration", params)
        await until_said(service, task.id, f"{database} is at version 0; to apply: 1 migration")
        await service.manager.cancel(task.id)
        assert (await service.manager.wait(task.id)).status == "cancelled"


STATEMENTS = [
    "SELECT 1",
    "SELECT 'a;b' , \"c;--\" , [d;/*] , `e;'`",
    "CREATE TRIGGER IF NOT EXISTS t AFTER INSERT ON x BEGIN SELECT CASE 1 WHEN 1 THEN 'END;' END ; SELECT 2 ; END",
    "CREATE TEMP TRIGGER begin_end AFTER UPDATE OF b ON x BEGIN DELETE FROM y ; END",
    "EXPLAIN QUERY PLAN SELECT 2",
    "INSERT INTO x VALUES ( '--' , x'00' )",
]
GAPS = [" ", "\n", "\r\n", "\t ", "/* ; END; */", "-- ; 'END;\n", "-- x\r\n", " /**/ ", "\f", "/*'*/\n"]


@given(statements=st.lists(st.sampled_from(STATEMENTS), min_size=1, max_size=6), seed=st.integers())
def test_formatting_changes_nothing_of_where_statements_end(statements: list[str], seed: int) -> None:
    """However many blanks and comments there are between the words, and in whatever case they are written."""
    rng = random.Random(seed)

    def formatted(statement: str) -> str:
        words = [rng.choice([str.upper, str.lower, str.title])(word) for word in statement.split(" ")]
        return "".join(word + rng.choice(GAPS) for word in words[:-1]) + words[-1]

    written = [formatted(statement) for statement in statements]
    text = "".join(rng.choice(["", "\ufeff", *GAPS]) + one + rng.choice(["", *GAPS]) + ";" for one in written)
    found = [
        statement.sql
        for statement in File(1, "0001_a.sql", "", text.removesuffix(rng.choice([";", "no"]))).statements()
    ]
    assert len(found) == len(written)
    assert all(sql.startswith(one) for sql, one in zip(found, written, strict=True))


async def test_a_changed_file_is_refused(service: Service, write: Write, database: Path) -> None:
    """What was applied is history: a checksum guards it."""
    await run(service, database, write(_0001_users=USERS))
    task = await run(service, database, write(_0001_users=USERS + "-- better", _0002_mails=MAILS))
    assert "0001_users.sql is not what was applied as version 1" in (task.error or "")
    assert rows(database, "SELECT max(version) FROM taskd_migrations") == [(1,)]


async def test_a_missing_file_is_refused(service: Service, write: Write, database: Path) -> None:
    """A database that is ahead of its files is not touched."""
    directory = write(_0001_users=USERS, _0002_mails=MAILS)
    await run(service, database, directory)
    (directory / "0002_mails.sql").unlink()
    task = await run(service, database, directory)
    assert "has 0002_mails.sql applied, and there is no such file" in (task.error or "")


@pytest.mark.parametrize(
    ("target", "told"),
    [
        (0, "target 0: the database is at version 1, and migrations are never undone."),
        (3, "target 3: expected at most 2, the newest migration."),
    ],
)
async def test_a_target_that_cannot_be_reached_is_refused(
    service: Service, write: Write, database: Path, target: int, told: str
) -> None:
    """There is no way back, and nothing beyond the newest."""
    directory = write(_0001_users=USERS, _0002_mails=MAILS)
    await run(service, database, directory, target=1)
    task = await run(service, database, directory, target=target)
    assert told in (task.error or "")


@pytest.mark.parametrize(("backup", "copies"), [(True, 1), (False, 0)])
async def test_a_copy_is_made_before(service: Service, write: Write, database: Path, backup: bool, copies: int) -> None:
    """The task's own directory has the database as it was."""
    await run(service, database, write(_0001_users=USERS))
    task = await run(service, database, write(_0002_mails=MAILS), backup=backup)
    kept = list((service.settings.data_dir / "tasks" / task.id).glob("*"))
    assert [path.name for path in kept] == ["app.db.before"] * copies
    assert all(len(rows(path, "SELECT * FROM taskd_migrations")) == 1 for path in kept)


@pytest.mark.parametrize(("letters", "status"), [(122, "succeeded"), (126, "failed"), (200, "failed")])
async def test_a_long_name_is_copied_or_told(
    service: Service, write: Write, tmp_path: Path, letters: int, status: str
) -> None:
    """The copy's name is cut where a file's name ends; what SQLite cannot open is told as that."""
    database = tmp_path / ("é" * letters)
    if letters == 122:
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("CREATE TABLE mine (x)")
    task = await run(service, database, write(_0001_users=USERS))
    assert (task.status, "unable to open database file" in (task.error or "")) == (status, status == "failed")


async def test_two_at_once_do_not_interleave(service: Service, write: Write, database: Path) -> None:
    """Each migration is applied exactly once, and both tasks succeed."""
    files = {f"_{number:04}_t": f"CREATE TABLE t{number} (x);" for number in range(1, 21)}
    directory = write(**files)
    tasks = await asyncio.gather(*(run(service, database, directory) for _ in range(4)))
    assert {(task.status, (task.result or {})["version"]) for task in tasks} == {("succeeded", 20)}
    assert sum(len((task.result or {})["applied"]) for task in tasks) == 20
    assert len(tables(database)) == 21


async def test_cancelling_undoes_the_migration_that_runs(service: Service, write: Write, database: Path) -> None:
    """A statement that never ends is interrupted; the database is as before."""
    await run(service, database, write(_0001_users=USERS))
    directory = write(_0002_forever=f"DELETE FROM users;\n{FOREVER};")
    params = {"database": f"sqlite:///{database}", "directory": str(directory)}
    task = await service.manager.submit("migration", params)
    await until_said(service, task.id, "0002_forever.sql:1 DELETE FROM users;")
    await service.manager.cancel(task.id)
    assert (await service.manager.wait(task.id)).status == "cancelled"
    assert rows(database, "SELECT count(*) FROM users") == [(2,)]


async def test_a_file_that_is_no_database_is_told(service: Service, write: Write, database: Path) -> None:
    """And left as it is."""
    database.write_text("something else " * 100)
    task = await run(service, database, write(_0001_users=USERS))
    assert "file is not a database. Give the file of an SQLite database" in (task.error or "")
    assert database.read_text().startswith("something else")


@pytest.mark.parametrize(
    "url", ["sqlite:///relative.db", "/app.db", "postgresql://localhost/app", "sqlite:////", "sqlite:////a\0"]
)
async def test_only_an_absolute_sqlite_database_is_accepted(service: Service, url: str) -> None:
    """Before there is a task."""
    with pytest.raises(ParamsInvalid) as refused:
        await service.manager.submit("migration", {"database": url, "directory": "/migrations"})
    assert [fault["path"] for fault in refused.value.faults] == ["params.database"]


async def test_a_path_is_answered_with_the_database_that_it_means(service: Service) -> None:
    """Four slashes are nobody's first guess."""
    with pytest.raises(ParamsInvalid, match=r"e\.g\. sqlite:////abs/lib\.db"):
        await service.manager.submit("migration", {"database": "/abs/lib.db", "directory": "/migrations"})
