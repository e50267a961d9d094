"""
query: what it takes to read a log of a million entries, beside other logs, over HTTP.

The logs are written straight into the database (`benchmarks.logs`): one task of 1 M entries and
ten of 100,000 (with `--long` 99 of 90,909, so that there are 10 M rows), in the order in which a service
would have stored them. Then a real `taskd serve` on it is asked, over one connection that stays
open; a value is the time from the request to the last byte of the answer, the median of several.
The yardstick of searches is the plain scan in the same run: sqlite3 from Python, `count(*)` of
`message LIKE '%…%'` over the same million rows, which ignores case in ASCII alone.

Everything is asked three times: while the text is not indexed, as it is while a task runs (the
setting `index_entries_min` is above the log's size); when it is indexed; and so while another task
says 20,000 entries/s. In the end as many random filters as it takes are compared with a list.
"""

import functools
import http.client
import json
import random
import sqlite3
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from benchmarks.logs import COMMON, COMMON_RUSSIAN, RARE, RARE_RUSSIAN, task_of, write_logs
from benchmarks.plan import PLUGINS, ROOT, Plan
from benchmarks.proc import memory_of
from benchmarks.table import Result, Skipped, result
from taskd.entries import LogEntry
from taskd.query.parameters import LOGS, parse_query
from tests.helpers.served import Served

PART = "query"
ROUNDS = 7
INDEX_WAIT_S = 900
INGEST_RATE = 20_000
MB = 1_000_000
NEVER = 1_000_000_000

SCAN = "SELECT count(*) FROM task_logs WHERE task_id = ? AND message LIKE ?"
DUE = """
SELECT count(*) FROM tasks LEFT JOIN log_indexes ON task_id = id
WHERE status = 'succeeded'
AND (coalesce(blocks, 0) < last_seq / 8192 OR (last_seq >= ? AND coalesce(searchable, 0) < last_seq))
"""


@dataclass(frozen=True, slots=True)
class Question:
    """One request: its name, route and query; at most `ms` or `scans` times the scan, where there is a bar."""

    name: str
    route: str
    asked: tuple[tuple[str, str], ...] = ()
    ms: float | None = None
    scans: float | None = None
    indexed_ms: float | None = None


def questions(entries: int) -> list[Question]:
    """All that is asked of the log of `entries`."""
    deep = str(entries * 99 // 100)
    page = (("limit", "1000"),)
    searches = [
        ("rare", RARE, 1.6), ("common", COMMON, 1.6), ("none", "nowhere at all", 1.6),
        ("rare, Russian", RARE_RUSSIAN, 3.0), ("common, Russian", COMMON_RUSSIAN, 3.0),
        ("none, Russian", "нигде вовсе", 3.0),
    ]  # fmt: skip
    return [
        Question("first page of 1,000", "logs", page, ms=8),
        Question("page of 1,000 at 99 %, after", "logs", (*page, ("after", deep)), ms=8),
        Question("page of 1,000 at 99 %, offset", "logs", (*page, ("offset", deep))),
        Question("tail of 1,000", "logs", (("tail", "1000"),), ms=8),
        Question("level page", "logs", (("level", "ERROR"),), ms=10),
        Question("source page", "logs", (("source", "load.3"),), ms=10),
        Question("level and source, none", "logs", (("level", "ERROR"), ("source", "load.3")), ms=10),
        *(
            Question(f"search {name}", "logs", (("search", text),), scans=s, indexed_ms=30)
            for name, text, s in searches
        ),
        Question("search of 2 characters, none", "logs", (("search", "qz"),)),
        Question("exact count of a common word", "logs", (("search", COMMON), ("total", "true")), scans=1.5),
        Question("regex, none", "logs", (("search", r"timeout.*xyzzy\d+"), ("regex", "true")), scans=4),
        Question("regex of words' ends, none", "logs", (("search", r"^xyzzy\b"), ("regex", "true")), scans=4),
        Question("regex (a+)+$, none", "logs", (("search", "(x+x+)+y$"), ("regex", "true"))),
        Question("meta, one", "logs", (("meta.n", str(entries * 3 // 4)),)),
        Question("stats", "logs/stats", ms=10),
        Question("stats of ERROR", "logs/stats", (("level", "ERROR"),), ms=10),
        Question("sources", "logs/sources", ms=10),
        Question("next", "logs/next", (("from", deep),), ms=10),
        Question("next ERROR", "logs/next", (("from", deep), ("level", "ERROR")), ms=10),
        Question("outline", "logs/outline", ms=30),
        Question("outline of ERROR", "logs/outline", (("level", "ERROR"),)),
        Question("outline of a rare word", "logs/outline", (("search", RARE),)),
    ]


def run(plan: Plan) -> list[Result | Skipped]:
    """All lines."""
    entries = plan.scaled(1_000_000, 30_000)
    others = [entries // 11] * 99 if plan.long else [entries // 10] * 10
    directory = plan.fresh(PART)
    path = directory / "data" / "taskd.db"
    path.parent.mkdir()
    plan.tell(PART, f"writing {entries + sum(others):,} rows")
    write_logs(path, [entries, *others], plan.seed)
    size = path.stat().st_size
    lines: list[Result | Skipped] = []
    with _served(directory, "--index-entries-min", str(NEVER)) as served:
        _until_indexed(path, NEVER)
        lines += _asked(plan, served, path, "not indexed", entries)
        lines += _exported(plan, served, entries)
    plan.tell(PART, "indexing")
    with _served(directory) as served:
        started = time.perf_counter()
        _until_indexed(path, entries, task_of(0))
        lines.append(
            _line("indexing of the log after its end", "s", [time.perf_counter() - started], 30 * entries / 1e6)
        )
        _until_indexed(path, 20_000)
        grown = (path.stat().st_size - size) / size
        lines.append(_line("disk for the indexes", "%", [100 * grown], 35))
        lines += _asked(plan, served, path, "indexed", entries)
        plan.tell(PART, "with a list")
        lines.append(_compared(served, path, task_of(1), plan.scaled(200, 20), plan.seed))
        with _ingesting(served, plan):
            lines += _asked(plan, served, path, "indexed, 20,000 entries/s come in", entries)
    return lines


@contextmanager
def _served(directory: Path, *options: str) -> Iterator[Served]:
    with Served(directory, "--plugins", str(PLUGINS), *options, PYTHONPATH=str(ROOT)) as served:
        yield served


def _until_indexed(path: Path, entries_min: int, task_id: str | None = None) -> None:
    connection = sqlite3.connect(path)
    sql, values = (f"{DUE} AND id = ?", (entries_min, task_id)) if task_id else (DUE, (entries_min,))
    deadline = time.monotonic() + INDEX_WAIT_S
    try:
        while connection.execute(sql, values).fetchone()[0]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the indexes were not made within {INDEX_WAIT_S} s")
            time.sleep(0.2)
    finally:
        connection.close()


class _Asker:
    """One connection that stays open."""

    def __init__(self, served: Served) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)

    def get(self, task_id: str, question: Question) -> bytes:
        """The body of a good answer, or of one that there is no match."""
        path = f"/api/tasks/{task_id}/{question.route}?{urlencode(question.asked)}"
        self._connection.request("GET", path)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status not in (200, 404):
            raise RuntimeError(f"{path} was answered {answer.status}: {body.decode()}")
        return body

    def close(self) -> None:
        self._connection.close()


def _asked(plan: Plan, served: Served, path: Path, state: str, entries: int) -> list[Result | Skipped]:
    asker = _Asker(served)
    scan_ms = _scan_ms(path)
    lines: list[Result | Skipped] = [result(PART, f"plain LIKE scan beside: {state}", "ms", scan_ms)]
    indexed = state != "not indexed"
    for question in questions(entries):
        plan.tell(PART, f"{state}: {question.name}")
        took_ms = [_took_ms(functools.partial(asker.get, task_of(0), question)) for _ in range(ROUNDS)]
        lines.append(_line_of(question, state, took_ms, statistics.median(scan_ms), indexed))
    asker.close()
    return lines


def _line_of(question: Question, state: str, took_ms: list[float], scan_ms: float, indexed: bool) -> Result:
    median = statistics.median(took_ms)
    ratio = median / scan_ms if question.scans is not None else None
    bar_ms = question.indexed_ms if indexed and question.indexed_ms is not None else question.ms
    if bar_ms is not None:
        bar, holds = f"≤ {bar_ms:g} ms", median <= bar_ms
    elif ratio is not None and question.scans is not None:
        bar, holds = f"≤ {question.scans:g} × scan", ratio <= question.scans
    else:
        return result(PART, f"{question.name}: {state}", "ms", took_ms, yardstick=f"scan {scan_ms:.0f} ms")
    return result(
        PART, f"{question.name}: {state}", "ms", took_ms,
        yardstick=f"scan {scan_ms:.0f} ms" if ratio is not None else "", ratio=ratio, bar=bar, holds=holds,
    )  # fmt: skip


def _scan_ms(path: Path) -> list[float]:
    connection = sqlite3.connect(path)
    took = [_took_ms(lambda: connection.execute(SCAN, (task_of(0), "%nowhere at all%")).fetchone()) for _ in range(5)]
    connection.close()
    return took


def _took_ms(do: Callable[[], object]) -> float:
    started = time.perf_counter()
    do()
    return 1_000 * (time.perf_counter() - started)


def _line(what: str, unit: str, values: list[float], bar: float) -> Result:
    return result(PART, what, unit, values, bar=f"≤ {bar:g} {unit}", holds=statistics.median(values) <= bar)


def _exported(plan: Plan, served: Served, entries: int) -> list[Result | Skipped]:
    """How fast a whole log comes in each format, and what the server's memory grows by meanwhile."""
    lines: list[Result | Skipped] = []
    for form in ("ndjson", "text", "csv"):
        plan.tell(PART, f"export as {form}")
        before = memory_of(served.process.pid).get("RssAnon", 0)
        peak, started = before, time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
        connection.request("GET", f"/api/tasks/{task_of(0)}/logs/export?format={form}")
        answer = connection.getresponse()
        last = b""
        while chunk := answer.read(1 << 20):
            last = (last + chunk)[-100:]
            peak = max(peak, memory_of(served.process.pid).get("RssAnon", 0))
        took_s = time.perf_counter() - started
        connection.close()
        if str(entries).encode() not in last.splitlines()[-1]:
            raise RuntimeError(f"the export as {form} is not complete: {last!r}")
        rate = entries / took_s
        lines.append(
            result(PART, f"export as {form}", "entries/s", [rate], bar="≥ 150,000/s", holds=rate >= 150_000)
        )  # fmt: skip
        lines.append(_line(f"export as {form}: memory grown", "MB", [(peak - before) / MB], 50))
    return lines


@contextmanager
def _ingesting(served: Served, plan: Plan) -> Iterator[None]:
    """While a task says 20,000 entries a second."""
    gate = served.data_dir / "gate"
    gate.touch()
    task_id = served.submit(
        "bench-paced", seed=plan.seed, gate=str(gate), rate=INGEST_RATE, warm_s=1, seconds=plan.scaled(600, 30)
    )
    said = threading.Event()
    while not said.wait(0.1) and served.get(f"/api/tasks/{task_id}")["last_seq"] < INGEST_RATE:
        pass
    yield
    served.taskd("cancel", task_id)


def _compared(served: Served, path: Path, task_id: str, count: int, seed: int) -> Result:
    """Pages and totals under random filters, against the rows read as a list; how many differ."""
    connection = sqlite3.connect(path)
    sql = "SELECT seq, timestamp, level, source, message, metadata_json FROM task_logs WHERE task_id = ? ORDER BY seq"
    entries = [LogEntry.from_row(row) for row in connection.execute(sql, (task_id,))]
    connection.close()
    asker, rng, wrong = _Asker(served), random.Random(seed), 0
    for _ in range(count):
        asked = (*_random_filter(rng, entries), ("limit", "1000"), ("total", "true"))
        page = json.loads(asker.get(task_id, Question("", "logs", asked)))
        log_filter = parse_query(asked, LOGS).filter
        matches = [entry for entry in entries if log_filter.matches(entry)]
        seqs = [entry["seq"] for entry in page["entries"]]
        wrong += page["total"] != len(matches) or seqs != [entry.seq for entry in matches[:1_000]]
    asker.close()
    return result(PART, f"answers that differ from a list's, of {count}", "", [wrong], bar="0", holds=wrong == 0)


def _random_filter(rng: random.Random, entries: list[LogEntry]) -> list[tuple[str, str]]:
    """One to three conditions, most of them with something that the log has."""
    message = rng.choice(entries).message
    start = rng.randrange(max(1, len(message) - 8))
    piece = message[start : start + rng.randrange(2, 9)]
    spelt = rng.choice([str.upper, str.lower, str.title])(piece)
    choices = [
        [("search", spelt)],
        [("exclude", spelt)],
        [("search", rng.choice([RARE, RARE_RUSSIAN, COMMON_RUSSIAN, "nowhere", "took 7"]))],
        [("search", rng.choice([r"took \d{2} ms", "^alpha", r"\d7$", "(?-i)RUSSIAN|Сер"])), ("regex", "true")],
        [("level", rng.choice(["ERROR", "WARNING,ERROR", "debug"]))],
        [("source", rng.choice(["load.3", "load.1,load.2", "load.*", "nobody"]))],
        [("meta.worker", f"w{rng.randrange(20)}")],
        [("since", rng.choice(entries).timestamp)],
        [("until", rng.choice(entries).timestamp)],
    ]
    return [pair for chosen in rng.sample(choices, rng.randrange(1, 4)) for pair in chosen]
