"""A search finds what a list would, whatever of the log is indexed, and how far the index had come when it died."""

import asyncio
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.logs import RARE, RARE_RUSSIAN, task_of, write_logs
from taskd.entries import Level, LogEntry, timestamp_of
from taskd.errors import StoreTimeout, TaskNotFound
from taskd.persistence.base import Span
from taskd.persistence.sqlite.blocks import BLOCK_ENTRIES
from taskd.persistence.sqlite.search import ENTRY_COLUMNS, searching
from taskd.query.casefold import FOLDING_MAX, folds_to_ascii, may_contain
from taskd.query.counts import LogCounts
from taskd.query.filters import SQL_FUNCTIONS, LogFilter
from taskd.query.outline import Outline, make_bins
from taskd.query.regex import compile_lines, compile_pattern
from taskd.settings import Settings
from taskd.stores import open_persistence
from taskd.tasks import Task, TaskEnd, TaskStatus
from tests.helpers.waiting import until

TASK = task_of(0)
COUNT = 2 * BLOCK_ENTRIES + 2_500
END_US = 1_795_392_000_000_000 + COUNT * 20

# What a log has that folds, repeats, breaks lines or looks like a query; put among the lines of `write_logs`.
SAID = [
    "STRASSE und Straße", "ſingle", "273 \u212aelvin", "ŉ ﬁn", "İstanbul", "Σίσυφος ΟΔΟΣ", "50% of \"it\"",
    "a\nb timeout", "", "timeout timeout", "ОШИБКА чтения", "😀 ok", "x" * 300,
]  # fmt: skip
NEEDLES = [
    "timeout", "TIMEOUT w", RARE, RARE_RUSSIAN, "сервером", "ошибка", "strasse", "s", "ms", "kelvin", "odd", 'of "it"',
    "nowhere", "нигде", "i\u0307", "fin", "5", "\n", "took 7", "😀", "xxxx", "οδος", " 77",
]  # fmt: skip
PATTERNS = [
    "^$",
    "^timeout",
    "ms 1*7$",
    r"\bfin",
    "(?-i)STR",
    r"\A273",
    "(a+)+$",
    "ошибка|саксофон",
    "a.b",
    "(?s)a.b",
    "x{300}",
]


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One log: as it is stored, with blocks alone, with an index that ends in the middle, and with all of it."""
    directory = tmp_path_factory.mktemp("search")
    path = directory / "rows.db"
    write_logs(path, [COUNT, 500], 1)
    rng = random.Random(1)
    with sqlite3.connect(path) as connection:
        said = [(text, rng.randrange(1, COUNT)) for text in SAID * 3]
        connection.executemany(f"UPDATE task_logs SET message = ? WHERE task_id = '{TASK}' AND seq = ?", said)
    connection.close()
    paths = {"rows": path}
    for name, entries_min in (("blocks", COUNT + 1), ("whole", 1_000)):
        paths[name] = Path(shutil.copy(path, directory / f"{name}.db"))
        asyncio.run(indexed(paths[name], entries_min))
    paths["half"] = Path(shutil.copy(paths["whole"], directory / "half.db"))
    with sqlite3.connect(paths["half"]) as connection:
        connection.execute("UPDATE log_indexes SET blocks = 1, searchable = 7000")
    connection.close()
    return paths


async def indexed(path: Path, entries_min: int) -> None:
    """Open the database until everything that is due is indexed."""
    settings = Settings(data_dir=path.parent, database=f"sqlite:///{path}", index_entries_min=entries_min)
    async with open_persistence(settings):
        while not is_indexed(path, entries_min):
            await asyncio.sleep(0.01)


def is_indexed(path: Path, entries_min: int) -> bool:
    with sqlite3.connect(path) as connection:
        rows = connection.execute(
            "SELECT last_seq, coalesce(blocks, 0), coalesce(searchable, 0) "
            "FROM tasks LEFT JOIN log_indexes ON task_id = id"
        ).fetchall()
    connection.close()
    return all(
        blocks == last_seq // BLOCK_ENTRIES and (searchable == last_seq or last_seq < entries_min)
        for last_seq, blocks, searchable in rows
    )


@pytest.fixture(scope="module")
def entries(databases: dict[str, Path]) -> list[LogEntry]:
    connection = sqlite3.connect(databases["rows"])
    sql = f"SELECT {ENTRY_COLUMNS} FROM task_logs WHERE task_id = ? ORDER BY seq"
    found = [LogEntry.from_row(row) for row in connection.execute(sql, (TASK,))]
    connection.close()
    return found


@pytest.fixture
def connections(databases: dict[str, Path]) -> Iterator[dict[str, sqlite3.Connection]]:
    opened = {of: sqlite3.connect(path, isolation_level=None) for of, path in databases.items()}
    for connection in opened.values():
        for name, arguments, function in SQL_FUNCTIONS:
            connection.create_function(name, arguments, function, deterministic=True)
    yield opened
    for connection in opened.values():
        connection.close()


def random_filter(rng: random.Random) -> LogFilter:
    regex = rng.random() < 0.25
    texts = PATTERNS if regex else NEEDLES
    moments = sorted(timestamp_of(END_US - rng.randrange(COUNT * 20)) for _ in range(2))
    return LogFilter(
        levels=rng.choice([None, None, None, frozenset({Level.ERROR}), frozenset({Level.INFO, Level.WARNING})]),
        sources=rng.choice([(), (), (), ("load.3",), ("load.*",), ("nobody",)]),
        search=tuple(rng.sample(texts, rng.choice([0, 1, 1, 1, 2]))),
        exclude=tuple(rng.sample(texts, rng.choice([0, 0, 0, 1]))),
        since=rng.choice([None, None, None, moments[0]]),
        until=rng.choice([None, None, None, moments[1]]),
        regex=regex,
        fields=rng.choice([(), (), (), (("worker", "w3"),), (("n", "777"),), (("took_ms", "15.0"),)]),
    )


@pytest.mark.parametrize("seed", range(50))
def test_a_search_finds_what_a_list_has(
    connections: dict[str, sqlite3.Connection], entries: list[LogEntry], seed: int
) -> None:
    """Pages from both ends, with offset; counts, the n-th last, stats, and the outline: random filters."""
    rng = random.Random(seed)
    log_filter = random_filter(rng)
    after, before = rng.choice([(0, None), (rng.randrange(COUNT), None), (rng.randrange(COUNT), rng.randrange(COUNT))])
    matches = [e for e in entries[after : before and max(before - 1, 0)] if log_filter.matches(e)]
    offset, limit, n = rng.choice([0, 0, 300]), rng.choice([1, 40, 700]), rng.randrange(1, 300)
    expected = Outline(make_bins(entries[0].timestamp, entries[-1].timestamp, log_filter, 60))
    for one in matches:
        expected.add(one.seq, one.timestamp, one.level, one.source)
    for of, connection in connections.items():
        outline = Outline(make_bins(entries[0].timestamp, entries[-1].timestamp, log_filter, 60))
        with searching(connection, TASK, log_filter, Span(after, before)) as search:
            assert search.page("asc", offset, limit, 10**9) == (
                matches[offset : offset + limit], len(matches) > offset + limit,
            ), of  # fmt: skip
            assert search.page("desc", offset, limit, 10**9)[0] == matches[::-1][offset : offset + limit], of
            assert search.count() == len(matches), of
            assert search.nth_last(n) == (matches[-n:][0].seq if matches else None), of
            assert search.stats() == LogCounts.of(matches).stats(LogFilter()), of
            search.outline(outline)
        assert (outline.total, outline.anchors, outline.bins) == (expected.total, expected.anchors, expected.bins), of
        assert outline.stats().by_level == expected.stats().by_level, of
        assert outline.stats().by_source == expected.stats().by_source, of


def test_a_log_is_searchable_after_its_end_and_costs_a_third_of_its_size_at_most(databases: dict[str, Path]) -> None:
    """And what is shorter than the setting says is not in the index."""
    with sqlite3.connect(databases["whole"]) as connection:
        rows = "SELECT count(*) FROM log_search WHERE log_search MATCH '\"xyl\"'"
        assert connection.execute(rows).fetchone() == (3,)
        assert connection.execute("SELECT task_id FROM log_indexes").fetchall() == [(TASK,)]
    connection.close()
    sizes = {name: pages_of(path) for name, path in databases.items()}
    assert sizes["whole"] < 1.35 * sizes["rows"]


def pages_of(path: Path) -> int:
    with sqlite3.connect(path) as connection:
        pages: int = connection.execute("PRAGMA page_count").fetchone()[0]
        free: int = connection.execute("PRAGMA freelist_count").fetchone()[0]
    connection.close()
    return pages - free


async def test_a_deleted_task_leaves_nothing_in_the_index(databases: dict[str, Path], tmp_path: Path) -> None:
    """Neither blocks nor pieces; what is written later is found, and only that."""
    path = Path(shutil.copy(databases["whole"], tmp_path / "taskd.db"))
    async with open_persistence(Settings(data_dir=tmp_path)) as store:
        assert await store.hide_tasks([TASK]) == [TASK]
        await store.purge([TASK])
        with pytest.raises(TaskNotFound):
            await store.page(TASK, LogFilter(), Span(), order="asc", offset=0, limit=9, bytes_max=99)
    with sqlite3.connect(path) as connection:
        for table in ("log_blocks", "log_indexes"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM log_search WHERE log_search MATCH '\"tim\"'").fetchone() == (0,)
    connection.close()


async def test_a_running_task_gets_blocks_and_is_indexed_at_its_end(tmp_path: Path) -> None:
    """Without the service being opened again."""
    settings = Settings(data_dir=tmp_path, index_entries_min=100)
    async with open_persistence(settings) as store:
        task = Task(task_of(7), "mine", {}, TaskStatus.QUEUED, timestamp_of(1))
        await store.create_task(task, [])
        said = [LogEntry.make(seq, timestamp_of(seq), Level.INFO, "s", f"said {seq}", None) for seq in range(1, 9_001)]
        await store.append(task.id, said)
        path = tmp_path / "taskd.db"
        await until(lambda: state(path) == [(1, 0)])
        await store.append(task.id, [], end=TaskEnd(TaskStatus.SUCCEEDED, timestamp_of(2)))
        await until(lambda: state(path) == [(1, 9_000)])
        assert await store.count(task.id, LogFilter(search=("said 777",)), Span()) == 11


def state(path: Path) -> list[Any]:
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT blocks, searchable FROM log_indexes").fetchall()
    connection.close()
    return rows


INDEXING = """
import asyncio, sys
from pathlib import Path
from taskd.stores import open_persistence
from taskd.persistence.sqlite import indexer
from taskd.settings import Settings

indexer.BITE_ENTRIES_MAX = 250

async def main():
    path = Path(sys.argv[1])
    async with open_persistence(Settings(data_dir=path.parent, database=f"sqlite:///{path}", index_entries_min=100)):
        print("open", flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


def test_an_index_whose_making_is_killed_anywhere_is_finished_and_right(
    databases: dict[str, Path], entries: list[LogEntry], tmp_path: Path
) -> None:
    """`kill -9` at five moments, of which each has more than the one before, and right answers at each."""
    path = Path(shutil.copy(databases["rows"], tmp_path / "killed.db"))
    log_filter = LogFilter(search=("timeout",), exclude=("alpha",))
    wanted = [entry.seq for entry in entries if log_filter.matches(entry)]
    rng, reached = random.Random(3), 0
    for _ in range(5):
        process = subprocess.Popen([sys.executable, "-c", INDEXING, str(path)], stdout=subprocess.PIPE)
        assert process.stdout
        process.stdout.readline()
        target = min(reached + rng.randrange(500, 3_000), COUNT)
        while reached < target:
            reached = max([searchable for _, searchable in state(path)], default=0)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert found_in(path, log_filter) == wanted
    asyncio.run(indexed(path, 100))
    assert found_in(path, log_filter) == wanted
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO log_search (log_search) VALUES ('integrity-check')")
    connection.close()


def found_in(path: Path, log_filter: LogFilter) -> list[int]:
    connection = sqlite3.connect(path, isolation_level=None)
    for name, arguments, function in SQL_FUNCTIONS:
        connection.create_function(name, arguments, function)
    with searching(connection, TASK, log_filter, Span()) as search:
        seqs = [entry.seq for entry in search.page("asc", 0, COUNT, 10**9)[0]]
    connection.close()
    return seqs


async def test_a_search_that_is_left_is_broken_off(databases: dict[str, Path], tmp_path: Path) -> None:
    """The connection serves the next at once; a search that takes too long is given up and says so."""
    Path(shutil.copy(databases["rows"], tmp_path / "taskd.db"))
    slow = LogFilter(search=("(x+x+)+y(.*z)+$",), regex=True, exclude=("(a|b)+c",))
    async with open_persistence(Settings(data_dir=tmp_path, readers=1)) as store:
        reading = asyncio.ensure_future(store.count(TASK, slow, Span()))
        await asyncio.sleep(0)
        reading.cancel()
        assert await store.count(TASK, LogFilter(), Span()) == COUNT
    async with open_persistence(Settings(data_dir=tmp_path, query_timeout_s=0.001)) as store:
        # Several: if the loop is late, a search is over before anything looks at the time.
        searches = [store.count(TASK, slow, Span()) for _ in range(50)]
        outcomes = await asyncio.gather(*searches, return_exceptions=True)
        assert any(isinstance(outcome, StoreTimeout) for outcome in outcomes)


def test_nothing_folds_beyond_what_the_tables_are_made_of() -> None:
    """If a later Unicode has such, the limit must grow."""
    assert not [one for one in map(chr, range(FOLDING_MAX + 1, 0x110000)) if one.casefold() != one]


@pytest.mark.parametrize("text", [*SAID, "Ünïcode", "ǰ", "ẞ", "ΐ", "ﬃ"])
def test_what_is_said_not_to_be_in_many_messages_is_in_none(text: str) -> None:
    """Any piece of the folded text, of a message among others; and what may fold to ASCII is seen."""
    folded = text.casefold()
    joined = f"other\n{text}\nothers".encode()
    for start in range(len(folded)):
        for end in range(start + 1, min(len(folded), start + 4) + 1):
            assert compile_pattern(may_contain(folded[start:end]))(joined)
    folds = any(not one.isascii() and any(part.isascii() for part in one.casefold()) for one in text)
    assert compile_pattern(folds_to_ascii())(joined) == folds


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_that_is_in_a_message_may_be_in_many(pattern: str) -> None:
    """At the beginning, in the middle and at the end of them."""
    test = compile_lines(pattern)
    for message in [
        "",
        "timeout 5",
        "took ms 117",
        "a fin",
        "STR",
        "273",
        "b aaa",
        "САКСОФОН",
        "a-b",
        "a\nb",
        "x" * 300,
    ]:
        if test is not None and compile_pattern(pattern)(message.encode()):
            for joined in (message, f"{message}\nq", f"q\n{message}", f"q\n{message}\nq"):
                assert test(joined.encode())
