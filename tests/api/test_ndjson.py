"""A log as lines of JSON, to its end."""

import asyncio
import socket

import httpx
import orjson
import pytest

from tests.api.conftest import Serve, Served, Shown
from tests.helpers.gates import gate
from tests.helpers.waiting import until


async def test_an_ended_log_is_its_entries_a_line_each(shown: Shown) -> None:
    """Stored ones, in order, as NDJSON."""
    task_id = await shown.run()
    answer = await shown.http.get(f"/api/tasks/{task_id}/logs/stream")
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.text.endswith("}\n")
    assert [orjson.loads(line)["seq"] for line in answer.text.splitlines()] == [1, 2, 3, 4, 5]


async def test_a_running_log_is_followed_to_its_end(served: Served) -> None:
    """What comes later comes over the same connection, and then it ends."""
    task_id = await served.start(gate="more", more=2)
    seqs = []
    async with served.http.stream("GET", f"/api/tasks/{task_id}/logs/stream") as answer:
        async for line in answer.aiter_lines():
            seqs.append(orjson.loads(line)["seq"])
            if seqs[-1] == 4:
                gate("more").set()
    assert seqs == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("query", "seqs"),
    [("after=3", [4, 5]), ("tail=1", [5]), ("search=word", [2, 3, 4]), ("source=system", [1, 5])],
)
async def test_a_stream_takes_the_filters_of_live(shown: Shown, query: str, seqs: list[int]) -> None:
    """And after and tail."""
    task_id = await shown.run()
    answer = await shown.http.get(f"/api/tasks/{task_id}/logs/stream?{query}")
    assert [orjson.loads(line)["seq"] for line in answer.text.splitlines()] == seqs


@pytest.mark.parametrize(
    "query", ["before=3", "until=2026-01-01T00:00:00Z", "order=desc", "offset=1", "limit=1", "total=true"]
)
async def test_a_stream_refuses_what_only_a_page_has(shown: Shown, query: str) -> None:
    """400 that names it."""
    task_id = await shown.run()
    answer = await shown.http.get(f"/api/tasks/{task_id}/logs/stream?{query}")
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(query.partition("=")[0])


async def test_a_head_request_does_not_follow(shown: Shown) -> None:
    """It has no body to wait for."""
    task_id = await shown.start(gate="stay")
    answer = await shown.http.head(f"/api/tasks/{task_id}/logs/stream")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
    gate("stay").set()


async def test_a_reader_that_leaves_is_released(served: Served) -> None:
    """Its seat and its subscription, though nothing is being sent."""
    task_id = await served.start(gate="stay")
    async with served.http.stream("GET", f"/api/tasks/{task_id}/logs/stream") as answer:
        async for _ in answer.aiter_lines():
            break
        assert served.viewers == 1

    async def released() -> bool:
        writer = served.service.manager.writer(task_id)
        return writer is not None and writer.hub.readers == 0 and served.viewers == 0

    await until(released)


async def test_a_stream_that_stops_before_the_end_is_cut(served: Served) -> None:
    """So that a part of a log is never taken for the whole."""
    task_id = await served.start(gate="stay")
    lines: list[str] = []
    reading = asyncio.create_task(read_lines(served, task_id, lines), name="reading")
    await served.said(task_id, 4)

    async def reading_live() -> bool:
        return len(lines) == 4

    await until(reading_live)
    served.service.manager.writer(task_id).hub.close()  # type: ignore[union-attr] # it runs
    with pytest.raises(httpx.RemoteProtocolError):
        await reading
    gate("stay").set()


async def read_lines(served: Served, task_id: str, lines: list[str]) -> None:
    """Add the stream's lines to `lines` as they come."""
    async with served.http.stream("GET", f"/api/tasks/{task_id}/logs/stream") as answer:
        async for line in answer.aiter_lines():
            lines.append(line)


async def test_readers_over_the_limit_are_refused(serve: Serve) -> None:
    """503 with a time to come back, whichever way the seat is taken."""
    async with serve(viewers_max=1) as served:
        task_id = await served.start(gate="stay")
        async with served.live(task_id) as connection:
            await connection.recv()
            answer = await served.http.get(f"/api/tasks/{task_id}/logs/stream")
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        gate("stay").set()


async def test_a_client_that_takes_nothing_is_dropped(serve: Serve) -> None:
    """It frees its seat after send_timeout_s."""
    async with serve(send_timeout_s=0.2) as served:
        task_id = await served.run(count=20_000, word="x" * 1_000)
        with socket.socket() as stuck:
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            stuck.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(stuck, ("127.0.0.1", served.port))
            request = f"GET /api/tasks/{task_id}/logs/stream HTTP/1.1\r\nHost: localhost\r\n\r\n"
            await loop.sock_sendall(stuck, request.encode())
            await until(lambda: has_viewers(served, 1))
            await until(lambda: has_viewers(served, 0))


async def has_viewers(served: Served, count: int) -> bool:
    """Whether that many follow."""
    return served.viewers == count
