"""A log as a file over HTTP."""

import asyncio
import csv
import io

import httpx
import orjson
import pytest

from taskd.errors import StoreTimeout, StoreUnavailable
from taskd.query.filters import LogFilter
from tests.api.conftest import Serve, Served, Show, Shown
from tests.conftest import read_all
from tests.helpers.gates import gate


async def test_ndjson_is_the_log(shown: Shown) -> None:
    """Between a line that says what it is and one that says that it is whole."""
    task_id = await shown.run(count=30, error="Unter der Straße")
    answer = await shown.http.get(f"/api/tasks/{task_id}/logs/export?format=ndjson&exclude=word 1")
    head, *lines, tail = answer.content.splitlines()
    entries = await read_all(shown.service, task_id, LogFilter(exclude=("word 1",)))
    assert lines == [entry.encoded for entry in entries]
    told = orjson.loads(head)
    assert (told["task"], told["filter"], told["last_seq"]) == (task_id, {"exclude": ["word 1"]}, 33)
    assert orjson.loads(tail) == {"count": len(lines), "complete": True}
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["content-disposition"] == f'attachment; filename="speak-{task_id[-8:]}.ndjson"'


@pytest.mark.parametrize(("form", "media_type"), [("text", "text/plain"), ("csv", "text/csv")])
async def test_text_and_csv_are_marked_as_what_they_are(shown: Shown, form: str, media_type: str) -> None:
    """The backwards order, too."""
    task_id = await shown.run()
    answer = await shown.http.get(f"/api/tasks/{task_id}/logs/export?format={form}&order=desc&source=speak")
    assert answer.headers["content-type"] == f"{media_type}; charset=utf-8"
    assert answer.text.startswith(f"# task: {task_id} (speak)\n# filter: ")
    assert answer.text.endswith("# count: 3, complete: true\n")
    assert answer.text.index("word 3") < answer.text.index("word 1")
    if form == "csv":
        rows = [row for row in csv.reader(io.StringIO(answer.text)) if not row[0].startswith("#")]
        assert [row[0] for row in rows] == ["seq", "4", "3", "2"]


async def test_a_running_task_is_exported_up_to_what_it_had_said(show: Show) -> None:
    """Stored or not."""
    async with show(flush_interval_s=60) as shown:
        task_id = await shown.start(gate="stay")
        await shown.said(task_id, 4)
        answer = await shown.http.get(f"/api/tasks/{task_id}/logs/export?format=ndjson")
        assert len(answer.content.splitlines()) == 6
        gate("stay").set()


async def test_head_says_what_would_come(shown: Shown) -> None:
    """Without reading the log."""
    task_id = await shown.run()
    answer = await shown.http.head(f"/api/tasks/{task_id}/logs/export?format=csv")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"].startswith("text/csv")


@pytest.mark.parametrize(
    ("query", "status"),
    [("format=pdf", 400), ("tail=3", 400), ("offset=3", 400), ("after=99", 400), ("search=(&regex=true", 400)],
)
async def test_what_is_wrong_is_said_before_the_first_byte(shown: Shown, query: str, status: int) -> None:
    """A problem, and no file."""
    task_id = await shown.run()
    assert (await shown.http.get(f"/api/tasks/{task_id}/logs/export?{query}")).status_code == status
    assert (await shown.http.get("/api/tasks/0198/logs/export")).status_code == 404


async def test_a_search_that_takes_too_long_before_the_first_byte_is_a_problem(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503, as of any route."""
    task_id = await shown.run()

    async def never(*_: object, **__: object) -> None:
        raise StoreTimeout("it took too long")

    monkeypatch.setattr(shown.service.store, "page", never)
    answer = await shown.http.get(f"/api/tasks/{task_id}/logs/export?search=x")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"


async def test_an_export_that_breaks_off_says_so_and_is_cut(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reader can tell it from a whole one twice: by the last line, and by the connection."""
    async with serve(page_bytes_max=500) as served:
        task_id = await served.run(count=50)
        page, calls = served.service.store.page, 0

        async def failing(*arguments: object, **named: object) -> object:
            nonlocal calls
            calls += 1
            if calls == 3:
                raise StoreUnavailable("the disk is gone")
            return await page(*arguments, **named)  # type: ignore[arg-type]  # whatever it is called with

        monkeypatch.setattr(served.service.store, "page", failing)
        got: list[bytes] = []

        async def read() -> None:
            async with served.http.stream("GET", f"/api/tasks/{task_id}/logs/export?format=ndjson") as answer:
                async for chunk in answer.aiter_raw():
                    got.append(chunk)

        with pytest.raises(httpx.RemoteProtocolError):
            await read()
        lines = b"".join(got).splitlines()
        assert orjson.loads(lines[-1]) == {"count": len(lines) - 2, "complete": False}


async def test_who_leaves_is_not_exported_to(served: Served) -> None:
    """The seat is free again."""
    task_id = await served.run(count=2_000)
    async with served.http.stream("GET", f"/api/tasks/{task_id}/logs/export") as answer:
        assert answer.status_code == 200
    while served.viewers:
        await asyncio.sleep(0.002)
