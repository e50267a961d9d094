"""A log over a WebSocket: frames, their order, and every way it can end."""

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketState
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from taskd.api import websocket as route
from taskd.api.viewers import Pace
from taskd.entries import Level, LogEntry
from taskd.errors import StoreUnavailable
from taskd.log.hub import Matches
from taskd.query.parameters import LogQuery
from taskd.reading.follow import CaughtUp, Entries, Event
from tests.api.conftest import Serve, Served, each_frame, frames
from tests.helpers.gates import gate
from tests.helpers.waiting import until


def types(seen: list[dict[str, Any]]) -> list[str]:
    """The kinds of frames, one after another."""
    return [frame["type"] for frame in seen]


def seqs(seen: list[dict[str, Any]]) -> list[int]:
    """The seqs of all entries in frames."""
    return [entry["seq"] for frame in seen if frame["type"] == "entries" for entry in frame["entries"]]


# What is sent


async def test_an_ended_task_gives_hello_entries_caught_up_and_end(served: Served) -> None:
    """And nothing else; then close 1000."""
    task_id = await served.run()
    async with served.live(task_id) as connection:
        seen = await frames(connection)
        assert connection.close_code == 1000
    assert types(seen) == ["hello", "entries", "caught_up", "end"]
    assert seqs(seen) == [1, 2, 3, 4, 5]
    assert [frame["last_seq"] for frame in seen if "last_seq" in frame] == [5, 5, 5]
    assert (seen[0]["task"]["id"], seen[-1]["task"]["status"]) == (task_id, "succeeded")


async def test_a_running_task_is_caught_up_with_and_followed_to_its_end(served: Served) -> None:
    """Stored or pending first, then live, in order, each once."""
    task_id = await served.start(gate="more", more=3)
    await served.said(task_id, 4)
    seen = []
    async with served.live(task_id) as connection:
        async for frame in each_frame(connection):
            seen.append(frame)
            if frame["type"] == "caught_up":
                assert seqs(seen) == [1, 2, 3, 4]
                gate("more").set()
    assert seqs(seen) == list(range(1, 9))
    assert types(seen)[-2:] == ["task", "end"]


async def test_whoever_comes_back_with_after_misses_nothing_and_repeats_nothing(served: Served) -> None:
    """From every place in the log."""
    task_id = await served.run()
    for after in range(6):
        async with served.live(task_id, f"after={after}") as connection:
            assert seqs(await frames(connection)) == list(range(after + 1, 6))


@pytest.mark.parametrize(
    ("query", "found"),
    [("search=MORE", [5, 6]), ("source=later", [5, 6]), ("min_level=error", []), ("after=5", [6, 7]),
     ("tail=2", [3, 4, 5, 6, 7]), ("exclude=word&source=speak,later", [5, 6])],
)  # fmt: skip
async def test_filters_hold_for_stored_and_live_alike(served: Served, query: str, found: list[int]) -> None:
    """The log was at 4 when the reader came, or (for after=5) at 6."""
    task_id = await served.start(gate="more", more=2)
    await served.said(task_id, 4)
    if query == "after=5":
        gate("more").set()
        await served.service.manager.wait(task_id)
    async with served.live(task_id, query) as connection:
        gate("more").set()
        assert seqs(await frames(connection)) == found


async def test_progress_reaches_every_reader_whatever_the_filter(served: Served) -> None:
    """With its source, as entries carry it."""
    task_id = await served.start("advance")
    async with served.live(task_id, "search=nothing") as connection:
        seen = []
        async for frame in each_frame(connection):
            seen.append(frame)
            if frame["type"] == "caught_up":
                gate("advance").set()
    progress = [frame for frame in seen if frame["type"] == "progress"]
    assert progress[-1]["source"] == "advance"
    assert progress[-1]["progress"] | {"id": 0} == {
        "id": 0, "label": "copying", "current": 2, "total": 2, "unit": "files", "done": True,
    }  # fmt: skip
    assert seqs(seen) == []


async def test_a_silent_log_is_pinged_with_the_seq_that_was_reached(serve: Serve) -> None:
    """So a reader knows that it has everything, and that the connection lives."""
    async with serve(ping_interval_s=0.05) as served:
        task_id = await served.start(gate="stay")
        async with served.live(task_id) as connection:
            async for frame in each_frame(connection):
                if frame["type"] == "ping":
                    break
            assert frame == {"type": "ping", "last_seq": 4}
        gate("stay").set()


async def test_a_queued_task_tells_when_it_starts(serve: Serve) -> None:
    """A task frame for each change of status."""
    async with serve(tasks_running_max=1) as served:
        first, second = await served.start(gate="first"), await served.start()
        async with served.live(second) as connection:
            statuses = []
            async for frame in each_frame(connection):
                if "task" in frame:
                    statuses.append(frame["task"]["status"])
                if frame["type"] == "caught_up":
                    gate("first").set()
        assert statuses == ["queued", "running", "succeeded", "succeeded"]
        await served.service.manager.wait(first)


# How it is cut into frames


def entry(seq: int, size: int) -> LogEntry:
    """An entry with a message of `size` bytes."""
    return LogEntry.make(seq, "2026-11-23T14:11:42.123456Z", Level.INFO, "git", "x" * size, None)


@given(
    sizes=st.lists(st.integers(0, 3_000), max_size=40),
    cuts=st.sets(st.integers(1, 39)),
    entries_max=st.integers(1, 10),
    bytes_max=st.integers(1, 6_000),
)
def test_frames_hold_all_entries_in_order_within_both_limits(
    sizes: list[int], cuts: set[int], entries_max: int, bytes_max: int
) -> None:
    """Only an entry that is larger than a frame may exceed its bytes, and then it is alone."""
    entries = [entry(seq, size) for seq, size in enumerate(sizes, 1)]
    ends = [0, *sorted(cut for cut in cuts if cut < len(sizes)), len(sizes)]
    matches = [Matches(entries[start:end]) for start, end in pairwise(ends) if start < end]
    made = list(route.entries_frames(matches, entries_max, bytes_max)) if matches else []
    held = [orjson.loads(frame)["entries"] for frame in made]
    assert [each["seq"] for frame in held for each in frame] == list(range(1, len(sizes) + 1))
    for frame, each in zip(made, held, strict=True):
        assert 1 <= len(each) <= entries_max
        assert len(frame) <= bytes_max or len(each) == 1


async def test_a_long_log_comes_in_frames_of_the_set_size(serve: Serve) -> None:
    """As many entries as fit, over a real connection."""
    async with serve(frame_entries_max=100) as served:
        task_id = await served.run(count=1_000)
        async with served.live(task_id) as connection:
            sizes = [len(frame["entries"]) async for frame in each_frame(connection) if "entries" in frame]
        assert sizes == [100] * 10 + [2]


async def test_the_pace_gathers_live_entries_but_never_what_is_stored_or_at_hand() -> None:
    """Rest only after caught_up, and only after entries behind which there are no more yet."""
    clock = asyncio.get_running_loop()
    pace = Pace(interval_s=0.02)
    last, some = Entries([Matches([entry(1, 1)])]), Entries([Matches([entry(1, 1)])], more=True)

    async def rests(event: Event) -> bool:
        begun = clock.time()
        await pace.rest(event)
        return clock.time() - begun >= 0.015

    assert [await rests(event) for event in (last, some, CaughtUp(2), some, last)] == [False] * 4 + [True]


async def test_where_the_loop_is_full_a_viewer_is_served_less_often() -> None:
    """A rest that ended late makes the next one longer, and one that did not does not."""
    loop = asyncio.get_running_loop()
    pace, last = Pace(interval_s=0.01), Entries([Matches([entry(1, 1)])])
    await pace.rest(CaughtUp(1))
    loop.call_later(0.005, time.sleep, 0.1)
    await pace.rest(last)
    begun = loop.time()
    await pace.rest(last)
    assert loop.time() - begun >= 0.1


async def test_what_is_said_in_one_breath_shares_a_frame(serve: Serve) -> None:
    """A frame an entry is what makes fan-out collapse."""
    async with serve() as served:
        task_id = await served.start(gate="more", more=200)
        await served.said(task_id, 4)
        async with served.live(task_id) as connection:
            live_frames = 0
            async for frame in each_frame(connection):
                if frame["type"] == "caught_up":
                    gate("more").set()
                live_frames += frame["type"] == "entries"
        assert live_frames <= 10


# How it is refused


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("level=LOUD", "level='LOUD'"),
        ("after=99", "after='99'"),
        ("after=-1", "after='-1'"),
        ("tail=0", "tail='0'"),
        ("tail=1&after=1", "after='1'"),
        ("before=3", "before='3'"),
        ("until=2026-01-01T00:00:00Z", "until="),
        ("order=asc", "order='asc'"),
        ("offset=1", "offset='1'"),
        ("limit=1", "limit='1'"),
        ("total=true", "total='true'"),
        ("levle=ERROR", "levle='ERROR'"),
        ("token=secret", "token='secret'"),
    ],
)
async def test_a_bad_parameter_is_refused_before_the_upgrade(served: Served, query: str, named: str) -> None:
    """400 with the problem that HTTP gives."""
    task_id = await served.run()
    with pytest.raises(InvalidStatus) as refused:
        await served.live(task_id, query)
    response = refused.value.response
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"
    assert orjson.loads(response.body)["detail"].startswith(named)


async def test_what_is_not_there_is_refused_before_the_upgrade(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """404 for a task and for a path; a refusal is nobody's fault, so nothing is logged."""
    for task_id in ("nobody", "nobody/nowhere"):
        with pytest.raises(InvalidStatus) as refused:
            await served.live(task_id)
        assert refused.value.response.status_code == 404
        assert orjson.loads(refused.value.response.body)["status"] == 404
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_plain_http_is_told_to_upgrade(served: Served) -> None:
    """426, and to what."""
    answer = await served.http.get("/api/tasks/any/logs/live")
    assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")


async def test_viewers_over_the_limit_are_refused_until_one_leaves(serve: Serve) -> None:
    """503 before the upgrade; a seat that was left is free at once."""
    async with serve(viewers_max=1) as served:
        task_id = await served.start(gate="stay")
        async with served.live(task_id) as connection:
            await connection.recv()
            with pytest.raises(InvalidStatus) as refused:
                await served.live(task_id)
            assert refused.value.response.status_code == 503
        await until(lambda: left(served))
        async with served.live(task_id) as connection:
            assert await connection.recv()


async def test_a_fault_before_the_upgrade_is_a_problem_without_internals(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """500, as over HTTP."""

    async def fail(_: str) -> None:
        raise RuntimeError("hunter2")

    monkeypatch.setattr(served.service.manager, "task", fail)
    with pytest.raises(InvalidStatus) as refused:
        await served.live("any")
    assert refused.value.response.status_code == 500
    assert b"hunter2" not in refused.value.response.body


# How it ends


async def until_closed(connection: ClientConnection) -> list[dict[str, Any]]:
    """All frames until the close, whatever its code."""
    seen = []
    try:
        while True:
            seen.append(orjson.loads(await connection.recv()))
    except ConnectionClosed:
        return seen


async def left(served: Served) -> bool:
    """Whether nobody follows any more."""
    return served.viewers == 0


async def readers_of(served: Served, task_id: str) -> int:
    """How many subscriptions the task's log has."""
    writer = served.service.manager.writer(task_id)
    return writer.hub.readers if writer else 0


async def test_a_viewer_who_leaves_is_released_at_once(served: Served) -> None:
    """Its seat and its subscription, though nothing is being sent."""
    task_id = await served.start(gate="stay")
    async with served.live(task_id) as connection:
        await connection.recv()
        await until(lambda: has_readers(served, task_id, 1))
    await until(lambda: has_readers(served, task_id, 0))
    await until(lambda: left(served))


async def has_readers(served: Served, task_id: str, count: int) -> bool:
    """Whether the task's log has that many readers."""
    return await readers_of(served, task_id) == count


async def test_a_viewer_whose_connection_breaks_is_released(served: Served) -> None:
    """Without a close frame, as when a laptop is shut."""
    task_id = await served.start(gate="stay")
    async with served.live(task_id) as connection:
        await connection.recv()
        connection.transport.abort()
        await until(lambda: left(served))


async def test_a_viewer_is_sent_away_when_the_service_stops(serve: Serve) -> None:
    """1001 and no end: the log may go on, so come back."""
    async with serve(shutdown_grace_s=0, shutdown_deadline_s=0) as served:
        task_id = await served.start(gate="stay")
        async with served.live(task_id) as connection:
            await connection.recv()
            served.service.manager.writer(task_id).hub.close()  # type: ignore[union-attr] # it runs
            seen = await until_closed(connection)
            assert connection.close_code == 1001
            assert "end" not in types(seen)
        gate("stay").set()


async def test_a_viewer_of_a_task_that_ends_with_the_service_sees_its_end(served: Served) -> None:
    """Interrupted is an end like others: 1000."""
    task_id = await served.start(gate="stay")
    async with served.live(task_id) as connection:
        await connection.recv()
        stopping = asyncio.create_task(served.service.stop(), name="stop")
        served.service.hurry()
        seen = await frames(connection)
        assert connection.close_code == 1000
        assert seen[-1]["task"]["status"] == "interrupted"
        await stopping


async def test_a_fault_on_the_way_closes_with_1011(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader comes back with after; it is never told an end that is none."""

    async def broken(*_: object, **__: object) -> AsyncIterator[Event]:
        yield CaughtUp(1)
        raise StoreUnavailable("The disk is full.")

    task_id = await served.run()
    monkeypatch.setattr(route, "follow", broken)
    async with served.live(task_id) as connection:
        assert types(await until_closed(connection)) == ["hello", "caught_up"]
        assert connection.close_code == 1011


async def test_what_a_client_says_is_ignored_up_to_a_limit(serve: Serve) -> None:
    """Then 1008: it was asked to say nothing."""
    async with serve(websocket_input_bytes_max=100) as served:
        task_id = await served.start(gate="stay")
        async with served.live(task_id) as connection:
            await connection.send("x" * 50)
            await connection.send(b"x" * 30)
            assert await connection.recv()
            for _ in range(20):
                await connection.send("")
            await until_closed(connection)
            assert connection.close_code == 1008
        gate("stay").set()


async def test_a_client_that_has_gone_and_said_too_much_is_no_fault(served: Served) -> None:
    """Both are found out in one turn: what was closed is not closed again."""
    task = await served.service.manager.task(await served.run())
    said = iter([{"type": "websocket.connect"}])

    async def receive() -> Message:
        return next(said, {"type": "websocket.receive", "bytes": b"x" * 9_000})

    async def send(message: Message) -> None:
        if message["type"] == "websocket.send":
            raise OSError

    websocket = WebSocket({"type": "websocket", "app": served.app}, receive, send)
    await websocket.accept()
    await route.View(websocket, task, LogQuery()).run()
    assert websocket.application_state is WebSocketState.DISCONNECTED


async def test_a_client_that_takes_nothing_is_dropped(serve: Serve) -> None:
    """After send_timeout_s, however full the buffers are; others are not held up."""
    async with serve(send_timeout_s=0.2) as served:
        task_id = await served.run(count=20_000, word="x" * 1_000)
        with socket.socket() as stuck:
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            stuck.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(stuck, ("127.0.0.1", served.port))
            await loop.sock_sendall(stuck, handshake(task_id))
            await until(lambda: has_viewers(served, 1))
            async with served.live(task_id, "tail=5") as connection:
                assert len(seqs(await frames(connection))) == 5
            await until(lambda: left(served))


async def has_viewers(served: Served, count: int) -> bool:
    """Whether that many follow."""
    return served.viewers == count


def handshake(task_id: str) -> bytes:
    """A WebSocket's first request, by hand."""
    return (
        f"GET /api/tasks/{task_id}/logs/live HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ).encode()


async def test_frames_are_not_compressed(served: Served) -> None:
    """permessage-deflate costs six times the time, and invites bombs: it is not offered."""
    task_id = await served.run()
    address = f"ws://127.0.0.1:{served.port}/api/tasks/{task_id}/logs/live"
    async with connect(address, proxy=None, compression="deflate") as connection:
        assert connection.protocol.extensions == []


async def test_many_viewers_with_different_filters_each_get_the_stores_answer(served: Served) -> None:
    """While the task runs, in one order, whatever they ask for."""
    task_id = await served.start(gate="more", more=300)
    queries = ["", "search=1", "source=later", "exclude=2&min_level=info", "tail=3"] * 4

    async def view(query: str) -> list[int]:
        async with served.live(task_id, query) as connection:
            return seqs(await frames(connection))

    views = [asyncio.create_task(view(query), name=query) for query in queries]
    await until(lambda: has_readers(served, task_id, len(queries)))
    gate("more").set()
    given = dict(zip(queries, await asyncio.gather(*views), strict=True))
    for query in queries[:4]:
        stored = [each["seq"] for each in await served.entries(task_id, **dict(_pairs(query)))]
        assert given[query] == stored


def _pairs(query: str) -> list[tuple[str, str]]:
    return [(name, value) for name, _, value in (part.partition("=") for part in query.split("&")) if name]


async def test_closing_is_tidy_for_a_reader_that_waits_for_it(served: Served) -> None:
    """The end is a clean close, not a cut."""
    task_id = await served.run()
    async with served.live(task_id, "after=5") as connection:
        await until_closed(connection)
        assert (connection.close_code, connection.protocol.close_rcvd_then_sent) == (1000, True)
