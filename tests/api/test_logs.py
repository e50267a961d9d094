"""Logs as pages, counts and sources."""

import asyncio
from typing import Any

import pytest

from taskd.errors import StoreTimeout
from taskd.persistence.sqlite.connection import GIVEN_UP
from tests.api.conftest import Served, Show, Shown
from tests.conftest import read_all
from tests.helpers.gates import gate


async def test_a_page_is_made_of_the_entries_own_bytes(shown: Shown) -> None:
    """What was encoded when it was emitted is what is served."""
    task_id = await shown.run(word="ошибка")
    entries = await read_all(shown.service, task_id)
    answer = await shown.http.get(f"/api/tasks/{task_id}/logs")
    assert answer.content.startswith(b'{"entries":[' + b",".join(entry.encoded for entry in entries) + b"],")
    assert answer.json() | {"entries": []} == {
        "entries": [], "total": 5, "offset": 0, "limit": 200, "last_seq": 5, "more": False, "ended": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("query", "seqs"),
    [
        ({"level": "error"}, [5]),
        ({"min_level": "WARNING"}, [5]),
        ({"source": "system"}, [1, 6]),
        ({"source": "speak,system"}, [1, 2, 3, 4, 5, 6]),
        ({"search": "WORD"}, [2, 3, 4]),
        ({"search": "strasse"}, [5]),
        ({"search": "%"}, []),
        ({"exclude": "word", "source": "speak"}, [5]),
        ({"search": "WORD [12]$", "regex": "true"}, [2, 3]),
        ({"search": "(?-i)WORD", "regex": "true"}, []),
        ({"meta.n": "1"}, [3]),
        ({"meta.n": "1", "search": "word 1"}, []),
        ({"meta.a') OR 1=1--": "1"}, []),
        ({"since": "2999-01-01T00:00:00Z"}, []),
        ({"until": "1999-01-01T00:00:00Z"}, []),
        ({"after": 4}, [5, 6]),
        ({"after": 1, "before": 4}, [2, 3]),
        ({"order": "desc", "limit": 2}, [6, 5]),
        ({"offset": 4}, [5, 6]),
        ({"tail": 2}, [5, 6]),
        ({"tail": 1, "search": "word"}, [4]),
    ],
)
async def test_each_filter_reaches_the_page(shown: Shown, query: dict[str, Any], seqs: list[int]) -> None:
    """One value of each parameter, against a log that is known."""
    task_id = await shown.run(count=3, error="Unter der Straße")
    assert [entry["seq"] for entry in await shown.entries(task_id, **query)] == seqs


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("level=LOUD", "level='LOUD'"),
        ("min_level=", "min_level=''"),
        ("source=", "source=''"),
        ("search=", "search=''"),
        ("since=soon", "since='soon'"),
        ("after=-1", "after='-1'"),
        ("after=6", "after='6'"),
        ("before=0", "before='0'"),
        ("order=up", "order='up'"),
        ("offset=x", "offset='x'"),
        ("limit=5001", "limit='5001'"),
        ("tail=0", "tail='0'"),
        ("tail=1&after=1", "after='1'"),
        ("tail=1&order=asc", "order='asc'"),
        ("total=yes", "total='yes'"),
        ("regex=yes", "regex='yes'"),
        ("regex=true&search=a(b", "search='a(b'"),
    ],
)
async def test_a_bad_value_is_named_with_what_was_expected(shown: Shown, query: str, named: str) -> None:
    """400, for every parameter."""
    task_id = await shown.run()
    answer = await shown.http.get(f"/api/tasks/{task_id}/logs?{query}")
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(f"{named}: expected ")


async def test_after_beyond_the_log_is_told_where_the_log_ends(shown: Shown) -> None:
    """Of pages and counts: the reader has the wrong log, or one that was lost."""
    task_id = await shown.run()
    for route in ("logs", "logs/stats", "logs/stream"):
        answer = await shown.http.get(f"/api/tasks/{task_id}/{route}?after=99")
        assert answer.status_code == 400, route
        assert "last_seq" in answer.json()["detail"]
        assert "5" in answer.json()["detail"]


async def test_a_page_stops_at_its_bytes_and_says_that_there_is_more(show: Show) -> None:
    """Reading on with `after` gives every entry once."""
    async with show(page_bytes_max=600) as shown:
        task_id = await shown.run(count=20)
        seqs: list[int] = []
        more = True
        while more:
            answer = await shown.http.get(f"/api/tasks/{task_id}/logs?after={seqs[-1] if seqs else 0}")
            assert len(answer.content) < 800
            seqs += [entry["seq"] for entry in answer.json()["entries"]]
            more = answer.json()["more"]
        assert seqs == list(range(1, 23))


async def test_an_entry_larger_than_a_page_has_a_page_of_its_own(show: Show) -> None:
    """A bound must not make an entry unreadable."""
    async with show(page_bytes_max=10) as shown:
        task_id = await shown.run()
        page = (await shown.http.get(f"/api/tasks/{task_id}/logs")).json()
        assert ([entry["seq"] for entry in page["entries"]], page["more"]) == ([1], True)


async def test_a_total_that_needs_a_scan_is_only_counted_when_asked_for(shown: Shown) -> None:
    """null, unless total=true; kept counts are always there."""
    task_id = await shown.run()
    for query, total in (("level=INFO", 5), ("search=word", None), ("search=word&total=true", 3)):
        page = (await shown.http.get(f"/api/tasks/{task_id}/logs?{query}")).json()
        assert page["total"] == total, query


async def test_pending_entries_are_read_like_stored_ones(show: Show) -> None:
    """Pages, counts and sources do not wait for a flush."""
    async with show(flush_interval_s=60) as shown:
        task_id = await shown.start(gate="stay")
        await shown.said(task_id, 4)
        page = (await shown.http.get(f"/api/tasks/{task_id}/logs")).json()
        stats = (await shown.http.get(f"/api/tasks/{task_id}/logs/stats")).json()
        sources = (await shown.http.get(f"/api/tasks/{task_id}/logs/sources")).json()
        assert ([entry["seq"] for entry in page["entries"]], page["ended"]) == ([1, 2, 3, 4], False)
        assert stats["total"] == page["total"] == page["last_seq"] == 4
        assert sources == {"sources": ["speak", "system"]}
        gate("stay").set()


@pytest.mark.parametrize("route", ["logs?search=x", "logs/outline", "logs/next?search=x", "logs/stats?search=x"])
async def test_a_search_whose_client_leaves_is_abandoned(
    served: Served, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    """What the store does for it is cancelled."""
    task_id = await served.run()
    begun, abandoned = asyncio.Event(), asyncio.Event()

    async def endless(*_: object, **__: object) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            abandoned.set()

    for method in ("page", "stats", "outline"):
        monkeypatch.setattr(served.service.store, method, endless)
    asking = asyncio.create_task(served.http.get(f"/api/tasks/{task_id}/{route}"))
    await begun.wait()
    asking.cancel()
    await abandoned.wait()


async def test_a_search_that_takes_too_long_says_so(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """A 503 that names the limit and when to try again: never half of an answer."""
    task_id = await shown.run()

    async def too_long(*_: object, **__: object) -> None:
        raise StoreTimeout(GIVEN_UP)

    monkeypatch.setattr(shown.service.store, "page", too_long)
    answer = await shown.http.get(f"/api/tasks/{task_id}/logs?search=x")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
    assert "query_timeout_s" in answer.json()["detail"]


async def test_stats_count_the_matches_by_level_and_source(shown: Shown) -> None:
    """Under the same filters as the page."""
    task_id = await shown.run(error="broken")
    stats = (await shown.http.get(f"/api/tasks/{task_id}/logs/stats?source=speak")).json()
    assert (stats["total"], stats["by_source"]) == (4, {"speak": 4})
    assert {level: n for level, n in stats["by_level"].items() if n} == {"INFO": 3, "ERROR": 1}
    assert stats["first_timestamp"] <= stats["last_timestamp"]
    empty = (await shown.http.get(f"/api/tasks/{task_id}/logs/stats?search=nothing")).json()
    assert (empty["total"], empty["first_timestamp"], empty["last_timestamp"]) == (0, None, None)
