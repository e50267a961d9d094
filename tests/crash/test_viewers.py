"""Viewers, from outside: a thousand of them, stuck ones, and ones that come and go."""

import resource
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.helpers.bars import TORTURE, Record, scaled
from tests.helpers.crowd import Crowd, handshake, late_ms, with_beats
from tests.helpers.proc import descriptors, memory_bytes, sockets
from tests.helpers.served import Served, wait_until

Shared = Iterator[tuple[Served, int]]

MB = 1_000_000
STREAM = "GET /api/tasks/{}/logs/{} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def asking(task_id: str, kind: str) -> bytes:
    """What asks for a log as `live`, `stream` or `export`."""
    return handshake(task_id) if kind == "live" else STREAM.format(task_id, kind).encode()


def connected(served: Served, asked: bytes = b"") -> socket.socket:
    """A client that takes little at a time, and has asked."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client.settimeout(60)
    client.connect(("127.0.0.1", served.port))
    client.sendall(asked)
    return client


def all_of(client: socket.socket) -> bytes:
    """What comes until the connection ends, however it ends."""
    said = b""
    try:
        while some := client.recv(65_536):
            said += some
    except ConnectionResetError:
        pass
    return said


@contextmanager
def beating(served: Served, directory: Path, **params: Any) -> Iterator[str]:
    """A task that beats until the block ends."""
    gate = directory / f"gate{time.monotonic_ns()}"
    task_id = served.submit("beat", gate=str(gate), **params)
    try:
        yield task_id
    finally:
        gate.touch()


def until_said(served: Served, task_id: str, count: int) -> None:
    wait_until(lambda: served.get(f"/api/tasks/{task_id}")["last_seq"] >= count, 60)


@contextmanager
def shared(directory: Path, *options: str) -> Shared:
    """A server for many tests, and how many sockets it has when nobody is connected."""
    with with_beats(directory, *options) as served:
        yield served, sockets(served.process.pid)


def until_alone(served: Served, least: int) -> None:
    """Wait until nobody is connected."""
    wait_until(lambda: sockets(served.process.pid) <= least)


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """A server as it is by default."""
    with shared(tmp_path_factory.mktemp("patient")) as there:
        yield there


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """One that does not wait long for a client that takes nothing."""
    with shared(tmp_path_factory.mktemp("impatient"), "--send-timeout-s", "1") as there:
        yield there


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """One that does not wait long for requests."""
    options = ("--request-timeout-s", "0.3", "--keep-alive-s", "0.3")
    with shared(tmp_path_factory.mktemp("hasty"), *options) as there:
        yield there


# Many


@pytest.mark.bar("R7")
@pytest.mark.timeout(scaled(60, 900))
def test_many_viewers_of_one_task_each_see_all_of_it_soon(tmp_path: Path, record_property: Record) -> None:
    """All from one process; the others' answers are not held up either."""
    viewers = scaled(60, 1_000)
    with with_beats(tmp_path) as served:
        saw, most = watched(served, tmp_path, viewers, scaled(2, 60))
    record_property("viewers", viewers)
    record_property("p99 ms", round(late_ms(saw, 0.99)))
    record_property("MB", round(most / MB))
    assert most <= 250 * MB
    assert not TORTURE or late_ms(saw, 0.99) <= 500


def watched(served: Served, directory: Path, viewers: int, for_s: float) -> tuple[list[dict[str, Any]], int]:
    """What so many saw of a task at 100 entries/s, all of it in order, and the most memory that it took."""
    start = directory / f"start{time.monotonic_ns()}"
    with beating(served, directory, rate=100, start=str(start)) as task_id:
        crowd = Crowd(served, [task_id], viewers)
        start.touch()
        most, until = 0, time.monotonic() + for_s
        while time.monotonic() < until:
            most = max(most, memory_bytes(served.process.pid))
            assert served.get("/api/health")["status"] == "ok"
            time.sleep(0.2)
    saw = crowd.saw()
    last_seq = served.get(f"/api/tasks/{task_id}")["last_seq"]
    assert all(viewer["ended"] and viewer["ordered"] and viewer["code"] == 1000 for viewer in saw)
    assert {viewer["count"] for viewer in saw if viewer["query"] == ""} == {last_seq}
    return saw, most


@pytest.mark.bar("R8")
@pytest.mark.timeout(scaled(90, 900))
def test_stuck_viewers_are_let_go_and_the_others_do_not_notice(tmp_path: Path, record_property: Record) -> None:
    """A third each of `live`, `stream` and `export`; a stuck one holds neither memory nor descriptors afterwards."""
    healthy, stuck, for_s = scaled(20, 900), scaled(6, 100), scaled(2, 60)
    options = () if TORTURE else ("--send-timeout-s", "1")
    with (
        with_beats(tmp_path, *options) as served,
        beating(served, tmp_path, rate=10, backlog=10_000, filling=500) as long,
    ):
        until_said(served, long, 10_000)
        alone, _ = watched(served, tmp_path, healthy, for_s)
        wait_until(lambda: descriptors(served.process.pid) < 60)
        before = descriptors(served.process.pid), memory_bytes(served.process.pid)
        with ExitStack() as clients:
            for n in range(stuck):
                clients.enter_context(connected(served, asking(long, ("live", "stream", "export")[n % 3])))
            beside, _ = watched(served, tmp_path, healthy, for_s)
            # Though not one of them has left.
            wait_until(lambda: descriptors(served.process.pid) <= before[0] + 3, 5)
        wait_until(lambda: memory_bytes(served.process.pid) <= before[1] + 30 * MB, 30)
        after = descriptors(served.process.pid), memory_bytes(served.process.pid)
    p99 = late_ms(alone, 0.99), late_ms(beside, 0.99)
    record_property("stuck", stuck)
    record_property("p99 ms alone, beside", f"{p99[0]:.0f}, {p99[1]:.0f}")
    record_property("MB before, after", f"{before[1] / MB:.0f}, {after[1] / MB:.0f}")
    record_property("descriptors before, after", f"{before[0]}, {after[0]}")
    assert not TORTURE or p99[1] <= 1.2 * p99[0] + 20


@pytest.mark.bar("R8")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["live", "stream", "export"])
def test_a_stuck_viewer_is_let_go_within_half_a_minute(
    tmp_path: Path, request: pytest.FixtureRequest, kind: str, record_property: Record
) -> None:
    """With what is set by default in the long form; it has not left, and does not read."""
    served, least = request.getfixturevalue("patient" if TORTURE else "impatient")
    with beating(served, tmp_path, rate=1, backlog=5_000, filling=1_000) as task_id:
        until_said(served, task_id, 5_000)
        until_alone(served, least)
        with connected(served, asking(task_id, kind)) as client:
            client.recv(1)
            began = time.monotonic()
            assert sockets(served.process.pid) > least
            wait_until(lambda: sockets(served.process.pid) <= least, 60)
            released_s = time.monotonic() - began
    record_property(f"{kind} released after s", round(released_s, 1))
    assert released_s <= 30


@pytest.mark.bar("R9")
@pytest.mark.timeout(scaled(90, 900))
def test_viewers_that_come_and_go_miss_nothing_and_see_nothing_twice(tmp_path: Path, record_property: Record) -> None:
    """Under load, with filters, closing in every way, reading at any pace."""
    viewers, leaves = scaled(10, 50), scaled(4, 20)
    with with_beats(tmp_path) as served, ExitStack() as beats:
        tasks = [beats.enter_context(beating(served, tmp_path, rate=rate, backlog=2_000)) for rate in (100, 1_000)]
        crowd = Crowd(served, tasks, viewers, leaves=leaves, keeps=True)
        time.sleep(scaled(3, 30))
        beats.close()
        saw = crowd.saw()
        for viewer in saw:
            assert viewer["ended"]
            assert viewer["seqs"] == matches(served, viewer["task"], viewer["query"])
    record_property("reconnects", sum(viewer["left"] for viewer in saw))
    record_property("entries seen", sum(viewer["count"] for viewer in saw))
    record_property("gaps, twice", 0)
    assert sum(viewer["left"] for viewer in saw) >= scaled(20, 1_000)


def matches(served: Served, task_id: str, query: str) -> list[int]:
    """The store's answer."""
    seqs: list[int] = []
    more = True
    while more:
        page = served.get(f"/api/tasks/{task_id}/logs?limit=5000&after={seqs[-1] if seqs else 0}&{query}")
        seqs += [entry["seq"] for entry in page["entries"]]
        more = page["more"]
    return seqs


# Slow, gone, and rude


@contextmanager
def long_log(served: Served, directory: Path) -> Iterator[str]:
    """A running task with more in its log than all buffers hold."""
    with beating(served, directory, rate=1, backlog=4_000, filling=500) as task_id:
        until_said(served, task_id, 4_000)
        yield task_id


@pytest.mark.parametrize("kind", ["live", "stream", "export"])
def test_a_client_that_reads_a_byte_now_and_then_is_let_go(
    tmp_path: Path, impatient: tuple[Served, int], kind: str
) -> None:
    """The kernel hands over by pieces, and a byte is none: it does not hold its seat for ever."""
    served, least = impatient
    with long_log(served, tmp_path) as task_id:
        until_alone(served, least)
        with connected(served, asking(task_id, kind)) as client:
            client.recv(1)
            assert sockets(served.process.pid) > least

            def is_let_go() -> bool:
                client.recv(1)
                return sockets(served.process.pid) <= least

            wait_until(is_let_go, 40)


def test_a_slow_reader_that_goes_on_reading_gets_everything(tmp_path: Path, impatient: tuple[Served, int]) -> None:
    """Ten times as long as it could take at once: it is served from the store, and is not let go."""
    served, _ = impatient
    with beating(served, tmp_path, rate=1, backlog=2_000, filling=500) as task_id:
        until_said(served, task_id, 2_000)
    served.wait_end(task_id)
    said = b""
    with connected(served, asking(task_id, "export")) as client:
        while some := client.recv(65_536):
            said += some
            time.sleep(0.01)
    assert b"# count: 2003, complete: true" in said


@pytest.mark.parametrize("kind", ["live", "stream", "export"])
@pytest.mark.parametrize("how", ["fin", "reset", "half"])
def test_a_client_that_leaves_in_the_middle_is_let_go(
    tmp_path: Path, patient: tuple[Served, int], kind: str, how: str
) -> None:
    """With a FIN, a reset, or by closing its own side alone; though the log is silent."""
    served, least = patient
    with beating(served, tmp_path, rate=0, backlog=2_000, filling=500) as task_id:
        until_said(served, task_id, 2_000)
        until_alone(served, least)
        with connected(served, asking(task_id, kind)) as client:
            client.recv(3_000)
            assert sockets(served.process.pid) > least
            if how == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if how == "half":
                client.shutdown(socket.SHUT_WR)
                all_of(client)
            else:
                client.close()
            until_alone(served, least)


def test_a_client_that_asks_again_behind_a_stream_is_noticed_when_it_leaves(
    tmp_path: Path, patient: tuple[Served, int]
) -> None:
    """What was sent behind is not answered, and does not hide that nobody is there any more."""
    served, least = patient
    with beating(served, tmp_path, rate=0) as task_id:
        until_said(served, task_id, 1)
        until_alone(served, least)
        with connected(served, asking(task_id, "stream") + STREAM.format(task_id, "stats").encode()) as client:
            assert client.recv(65_536).startswith(b"HTTP/1.1 200")
            assert sockets(served.process.pid) > least
        until_alone(served, least)


def test_pings_of_a_client_that_does_not_read_are_not_kept(tmp_path: Path) -> None:
    """A million of them would be a hundred megabytes of pongs."""
    ping = bytes([0x89, 0x80 | 125]) + bytes(4) + b"x" * 125
    with with_beats(tmp_path, "--send-timeout-s", "1") as served, long_log(served, tmp_path) as task_id:
        before = memory_bytes(served.process.pid)
        with connected(served, asking(task_id, "live")) as client, suppress(ConnectionError):
            for _ in range(10_000):
                client.sendall(ping * 100)
        assert memory_bytes(served.process.pid) < before + 30 * MB


# Connections


def test_seats_are_taken_and_everything_else_is_answered(tmp_path: Path) -> None:
    """Viewers do not keep out who asks how things are."""
    few = with_beats(tmp_path, "--viewers-max", "3", "--connections-max", "5")
    with few as served, beating(served, tmp_path, rate=0) as task_id, ExitStack() as clients:
        for _ in range(3):
            client = clients.enter_context(connected(served, asking(task_id, "live")))
            assert b" 101 " in client.recv(1_000)
        assert served.get("/api/health")["status"] == "ok"
        refused = clients.enter_context(connected(served, asking(task_id, "stream")))
        assert refused.recv(1_000).startswith(b"HTTP/1.1 503")


def test_idle_connections_make_room_for_those_that_ask(tmp_path: Path) -> None:
    """However many do nothing."""
    with with_beats(tmp_path, "--viewers-max", "3", "--connections-max", "4") as served, ExitStack() as clients:
        idle = [clients.enter_context(connected(served, b"GET / HT")) for _ in range(20)]
        assert served.get("/api/health")["status"] == "ok"
        assert all_of(idle[0]) == b""


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (b"GET /api/health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ", 408),
        (b"POST /api/tasks HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{", 408),
        (b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 40_000, 431),
        (handshake("x").replace(b"\r\n\r\n", b"\r\nX: " + b"x" * 9_000 + b"\r\n\r\n"), 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ],
)
def test_a_request_that_does_not_come_or_is_none_is_told_so(
    hasty: tuple[Served, int], asked: bytes, status: int
) -> None:
    """With a problem, and the connection is closed."""
    with connected(hasty[0], asked) as client:
        head, _, body = all_of(client).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert orjson.loads(body)["status"] == status


def test_a_connection_that_says_nothing_is_closed(hasty: tuple[Served, int]) -> None:
    """New, or after an answer."""
    with connected(hasty[0]) as client:
        assert all_of(client) == b""
    with connected(hasty[0], b"GET /api/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n") as client:
        assert all_of(client).startswith(b"HTTP/1.1 200")


def test_a_system_with_few_descriptors_gets_few_connections(tmp_path: Path) -> None:
    """They are never all used up: a connection too many is refused, and the service works on."""
    served = with_beats(tmp_path)
    served.before_start = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 128))
    with served, ExitStack() as clients:
        assert any("64 connections" in line for line in served.said)
        for _ in range(300):
            clients.enter_context(connected(served))
        for _ in range(5):
            assert httpx.get(f"{served.url}/api/health", trust_env=False).status_code == 200
        assert served.wait_end(served.submit("talk"))["status"] == "succeeded"
