"""Bodies and WebSockets beyond what anybody needs: refused, and forgotten."""

import gzip
import socket
import struct
import zlib

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.security.conftest import KEY, UPGRADE, Target

JSON = "Content-Type: application/json"
BODY_BYTES_MAX = 1_048_576


def test_a_body_over_the_limit_is_refused_whatever_it_declares(here: Target) -> None:
    """Declared, and in chunks that declare nothing."""
    declared = here.ask("POST /api/tasks HTTP/1.1", "Host: localhost", JSON, "Content-Length: 999999999999")
    assert declared.status == 413
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    head = f"POST /api/tasks HTTP/1.1\r\nHost: localhost\r\n{JSON}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    assert here.send(head + chunk * 17 + b"0\r\n\r\n").status == 413


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_packed_body_is_not_unpacked(here: Target, coding: str) -> None:
    """websockets CVE-2018-1000518 and all bombs since: what is small stays small."""
    bomb = gzip.compress(b" " * 50_000_000) if coding == "gzip" else zlib.compress(b" " * 50_000_000)
    before_kib = here.memory_kib
    asked = ("Host: localhost", JSON, f"Content-Encoding: {coding}", f"Content-Length: {len(bomb)}")
    assert here.ask("POST /api/tasks HTTP/1.1", *asked, body=bomb).status in (400, 415)
    assert here.memory_kib - before_kib < 20_000


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400), (b"\xef\xbb\xbf{}", 400), (b"\xff\xfe{\0}\0", 400), (b"null", 422), (b"[]", 422), (b'"x"', 422),
        (b"{" * 500_000, 400), (b"[" * 500_000, 400), (b'{"a":' * 100_000, 400), (b'{"plugin": "talk", "x": 1}', 422),
        (b'{"plugin": "talk", "plugin": "none"}', 422), (b'{"plugin": "talk"} {}', 400), (b'{"plugin": "../talk"}',
        404),
        (b'{"plugin": "talk\\u0000"}', 404), (b'{"plugin": ' + b"9" * 400_000 + b"}", 422), (b'{"plugin": null}', 422),
    ],
)  # fmt: skip
def test_a_body_that_is_not_what_was_expected_is_told_so(here: Target, body: bytes, status: int) -> None:
    """orjson CVE-2024-27454: deep nesting took the process with it."""
    answer = here.ask("POST /api/tasks HTTP/1.1", "Host: localhost", JSON, f"Content-Length: {len(body)}", body=body)
    assert answer.status in (status, 400)
    assert answer.headers["content-type"] == "application/problem+json"


# WebSockets


@pytest.fixture
def path(here: Target) -> str:
    """A log that goes on."""
    task_id = here.start_task("talk", gate=str(here.data_dir / "never"))
    return f"/api/tasks/{task_id}/logs/live"


def live(here: Target, path: str) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{here.port}{path}", proxy=None, compression=None)


def closed_with(connection: ClientConnection) -> int:
    """The code with which the server closes."""
    with pytest.raises(ConnectionClosed) as closed:
        receive_on(connection)
    assert closed.value.rcvd is not None, "it was cut off without a word"
    return closed.value.rcvd.code


def receive_on(connection: ClientConnection) -> None:
    """Until it is closed."""
    while True:
        connection.recv(timeout=10)


def frame(opcode: int, payload: bytes = b"", fin: bool = True) -> bytes:
    """A masked frame; its mask is zero."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack("!H", size)
    return bytes([fin << 7 | opcode]) + length + b"\0\0\0\0" + payload


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(1, b"a", fin=False) + frame(0, b"", fin=False) * 100, 1008),  # fragments without an end
        (frame(1, b"\xff"), 1007),
        (frame(2, b"x" * 60_000), 1009),
        (b"\x82\xff" + struct.pack("!Q", 2**62), 1009),
        (b"\xc1\x80\0\0\0\0", 1002),  # compressed, which was not agreed
        (b"\x81\x01a", 1002),  # not masked
        (b"\x83\x80\0\0\0\0", 1002),  # an opcode that there is not
        (frame(9, b"x" * 126), 1002),  # a ping that is too large
        (frame(0, b"x"), 1002),  # the rest of nothing
        (frame(1, b"x" * 9_000) * 2, 1008),  # more words than nobody asked for
    ],
)  # fmt: skip
def test_what_a_websocket_client_may_not_say_closes_it(here: Target, path: str, sent: bytes, code: int) -> None:
    """With the code of RFC 6455 (7.4.1) that says why."""
    with live(here, path) as connection:
        connection.socket.sendall(sent)
        assert closed_with(connection) == code


def test_pings_whose_answers_nobody_reads_fill_no_memory(here: Target, path: str) -> None:
    """Each is answered with as much, into a buffer that the client does not empty."""
    before_kib = here.memory_kib
    with socket.create_connection(("127.0.0.1", here.port), 10) as connection:
        connection.sendall("\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *UPGRADE, "", ""]).encode())
        with pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):
            flood(connection)
    assert here.memory_kib - before_kib < 20_000


def test_who_says_too_much_while_being_told_something_is_no_fault(here: Target, path: str) -> None:
    """The connection has failed, and two who use it find out at once; the service's output has nothing of it."""
    for _ in range(60):
        with live(here, path) as connection:
            connection.socket.sendall(frame(1, b"x" * 9_000) * 2)
            assert closed_with(connection) == 1008


def flood(connection: socket.socket) -> None:
    """Pings without an end."""
    for _ in range(2_000):
        connection.sendall(frame(9, b"x" * 125) * 100)


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 7", f"Sec-WebSocket-Key: {KEY}"), 400),
        (("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"), 400),
        (("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: eA=="), 400),
        (("Upgrade: h2c", "Connection: Upgrade", "HTTP2-Settings: AAMAAABkAAQAAP__"), 426),
        (("Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}"), 426),
    ],
)
def test_a_handshake_that_is_none_opens_nothing(here: Target, path: str, lines: tuple[str, ...], status: int) -> None:
    """RFC 6455 (4.2.1)."""
    head = "\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()
    with socket.create_connection(("127.0.0.1", here.port), 10) as connection:
        connection.sendall(head)
        assert connection.recv(65_536).split(b" ")[1] == str(status).encode()


def test_no_compression_is_agreed(here: Target, path: str) -> None:
    """websockets CVE-2018-1000518: whoever unpacks can be filled."""
    with connect(f"ws://127.0.0.1:{here.port}{path}", proxy=None, compression="deflate") as connection:
        assert connection.protocol.extensions == []
