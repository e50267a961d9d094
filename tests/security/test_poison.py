"""
The poison list in every place where a task can say something, in a real server.

It is stored as what JSON and SQLite hold, its neighbours are intact, the writer lives, and whatever
reads it gets valid UTF-8 and JSON.
"""

import json
import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.helpers.bars import Record, scaled
from tests.security.conftest import Target, target
from tests.security.poisoned.poison import POISON

ROOT = Path(__file__).parents[2]
PLUGINS = Path(__file__).parent / "poisoned"
JSON = {"Content-Type": "application/json"}
# The short form takes one case in so many.
SHARE = scaled(7, 1)
DRAWN = scaled(150, 5_000)
ENDS = range(0, len(POISON), scaled(9, 1))


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    directory = tmp_path_factory.mktemp("poisoned")
    with target(directory, "--plugins", str(PLUGINS), PYTHONPATH=str(ROOT)) as served:
        yield served
        served.check()


@pytest.mark.bar("R16")
@pytest.mark.timeout(scaled(120, 3_000))
def test_what_no_log_can_hold_is_held_everywhere_and_its_neighbours_are_intact(
    poisoned: Target, record_property: Record
) -> None:
    """The list, in every place."""
    task = poisoned.run_task("every", of=SHARE)
    check_all(poisoned, task)
    record_property("cases of the list", task["result"]["cases"])


@pytest.mark.bar("R16")
@pytest.mark.timeout(scaled(120, 3_000))
def test_what_hypothesis_makes_up_is_held_too(poisoned: Target, record_property: Record) -> None:
    """Nested, mixed, in any place."""
    task = poisoned.run_task("drawn", cases=DRAWN, seed=16)
    check_all(poisoned, task)
    record_property("cases of hypothesis", task["result"]["cases"])


@pytest.mark.bar("R16")
@pytest.mark.timeout(scaled(120, 3_000))
def test_a_task_may_end_with_any_of_it(poisoned: Target, record_property: Record) -> None:
    """Returned, in a list, or raised: a result and an error are what JSON holds."""
    for place in ENDS:
        for how, status in (("return", "succeeded"), ("list", "succeeded"), ("raise", "failed")):
            task = poisoned.run_task("end", place=place, how=how)
            assert task["status"] == status, (POISON[place], task)
            assert (
                how == "list" and task["result"] is not None and task["result"][1] == {"beside": "intact"}
            ) or how != "list"
            check_entries(entries_of(poisoned, task["id"]), 1)
    check_tasks(poisoned)
    record_property("ends", 3 * len(ENDS))


@pytest.mark.bar("R16")
def test_a_program_may_write_any_bytes(poisoned: Target) -> None:
    """What is no UTF-8, what a terminal obeys, what has no end of line."""
    written = [
        b"\xff\xfe\0\x80",
        b"\xed\xa0\x80\n",
        b"\x1b]0;x\x07\r\r\r\n",
        b"a" * 50_000,
        b"\r" * 500,
        b"\xe2\x82",
        b"\xef\xbb\xbf\n",
    ]
    task = poisoned.run_task("written", hex=[data.hex() for data in written])
    check_all(poisoned, task)


@pytest.mark.bar("R16")
@pytest.mark.parametrize(
    ("params", "statuses"),
    [
        (rb'{"a": "\ud800"}', (201, 400)), (rb'{"\ud800": 1}', (201, 400)), (rb'{"a": "\u0000"}', (201,)),
        (b'{"a": 9223372036854775808}', (201,)), (b'{"a": -99999999999999999999}', (422,)), (b'{"a": 1e999}', (422,)),
        (b'{"a": NaN}', (400,)), (b'{"a": Infinity}', (400,)), (b'{"a": 1, "a": 2}', (422,)),
        (b'{"__proto__": {"x": 1}}', (201,)),
        (b'{"a": ' + b"[" * 250 + b"]" * 250 + b"}", (201, 400)), (b'{"a": ' + b"[" * 1_000 + b"]" * 1_000 + b"}",
        (400,)),
        (b'{"a": ' + b"[" * 200_000 + b"}", (400,)), (b'{"a": "\xff"}', (400,)), (b'{"a": "\xed\xa0\x80"}', (400,)),
        (b'{"a": ' + b"9" * 5_000 + b"}", (422,)), (b'{"' + b"k" * 100_000 + b'": 1}', (201,)),
        ('{"a": "\u202e\u2028\x7f\ufeff"}'.encode(), (201,)), (rb'{"a": "\x1b"}', (400,)),
    ],
)  # fmt: skip
def test_params_may_be_any_json(poisoned: Target, params: bytes, statuses: tuple[int, ...]) -> None:
    """Taken or refused, and shown as JSON ever after. (orjson CVE-2024-27454)"""
    body = b'{"plugin": "odd", "params": ' + params + b"}"
    answer = poisoned.http("POST", "/api/tasks", content=body, headers=JSON)
    assert answer.status_code in statuses, answer.text
    strict(answer.content)
    if answer.status_code == 201:
        check_tasks(poisoned)


def test_a_byte_order_mark_is_no_json(poisoned: Target) -> None:
    """RFC 8259 (8.1)."""
    answer = poisoned.http("POST", "/api/tasks", content=b'\xef\xbb\xbf{"plugin": "odd"}', headers=JSON)
    assert answer.status_code == 400


def test_what_a_plugin_says_of_itself_is_shown_as_json(poisoned: Target) -> None:
    """And listed in a pipe and a terminal without a fault."""
    plugins = strict(poisoned.http("GET", "/api/plugins").content)["plugins"]
    assert "odd" in [plugin["name"] for plugin in plugins]
    assert poisoned.taskd("plugins").returncode == 0


def strict(data: bytes) -> Any:
    """JSON as RFC 8259 has it: UTF-8, no NaN, no lone surrogate, each name once, nothing but finite numbers."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs), "a name twice"
        return dict(pairs)

    def number(text: str) -> float:
        assert math.isfinite(float(text)), text
        return float(text)

    value = json.loads(data.decode("utf-8"), parse_constant=refuse, object_pairs_hook=members, parse_float=number)
    json.dumps(value, ensure_ascii=False).encode()  # raises for a lone surrogate
    return value


def check_all(served: Target, task: dict[str, Any]) -> None:
    """All that reads a log has it whole; the store too."""
    assert task["status"] == "succeeded", task["error"]
    entries = entries_of(served, task["id"])
    check_entries(entries, task["result"]["cases"] + 1)
    path = f"/api/tasks/{task['id']}/logs"
    streamed = served.http("GET", f"{path}/stream").content.split(b"\n")[:-1]
    assert [strict(line) for line in streamed] == entries
    assert framed(served, f"{path}/live") == entries
    exported = served.http("GET", f"{path}/export?format=ndjson").content.split(b"\n")[:-1]
    assert [strict(line) for line in exported][1:-1] == entries
    for form in ("text", "csv"):
        assert served.http("GET", f"{path}/export?format={form}").content.decode("utf-8")
    for route in ("/stats", "/sources", "/outline", "/next", "?search=intact&meta.n=1&limit=5"):
        strict(served.http("GET", path + route).content)
    check_store(served, task["id"], len(entries))


def check_entries(entries: list[dict[str, Any]], neighbours: int) -> None:
    """In order, without a hole, and each neighbour once with what it said."""
    assert [entry["seq"] for entry in entries] == [*range(1, len(entries) + 1)]
    said = [entry for entry in entries if entry["source"] == "neighbour" and entry["message"] == "intact"]
    assert [entry["metadata"] for entry in said] == [{"n": n} for n in range(1, neighbours + 1)]
    for entry in entries:
        assert entry["source"].isprintable()
        assert len(entry["source"]) <= 64
        assert "\0" not in entry["message"]
        if entry["metadata"] and "beside" in entry["metadata"]:
            assert entry["metadata"]["beside"] == "intact"


def check_store(served: Target, task_id: str, count: int) -> None:
    """Each row is text that any client of SQLite reads, and its metadata is JSON."""
    with sqlite3.connect(f"file:{served.data_dir / 'taskd.db'}?mode=ro", uri=True) as database:
        rows = database.execute(
            "SELECT message, source, metadata_json FROM task_logs WHERE task_id = ?", [task_id]
        ).fetchall()
        faults = "SELECT count(*) FROM task_logs WHERE metadata_json IS NOT NULL AND NOT json_valid(metadata_json)"
        assert database.execute(faults).fetchone() == (0,)
        assert database.execute("PRAGMA quick_check").fetchone() == ("ok",)
    database.close()
    assert len(rows) == count
    assert all(isinstance(value, str | None) for row in rows for value in row)


def check_tasks(served: Target) -> None:
    """The list of tasks is JSON whatever their params, results and errors are."""
    assert strict(served.http("GET", "/api/tasks?limit=200").content)["tasks"]


def entries_of(served: Target, task_id: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    more = True
    while more:
        after = entries[-1]["seq"] if entries else 0
        page = strict(served.http("GET", f"/api/tasks/{task_id}/logs?limit=5000&after={after}").content)
        entries += page["entries"]
        more = page["more"]
    return entries


def framed(served: Target, path: str) -> list[dict[str, Any]]:
    """The entries of a live log's frames."""
    entries: list[dict[str, Any]] = []
    with connect(f"ws://127.0.0.1:{served.port}{path}", proxy=None, max_size=None) as connection:
        for message in connection:
            frame = strict(message.encode() if isinstance(message, str) else message)
            entries += frame.get("entries", [])
    return entries
