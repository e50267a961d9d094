"""Requests that two programs would read differently, and requests that never end."""

import socket

import orjson
import pytest

from tests.security.conftest import BEARER, UPGRADE, Target

HOST = b"Host: localhost\r\n"
POST = b"POST /api/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
HIDDEN = b"GET /api/plugins HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
ENDLESS_BYTES = 30_000_000


@pytest.mark.parametrize(
    "request_bytes",
    [
        POST + b"Content-Length: 5\r\n" + CHUNKED + b"\r\n0\r\n\r\n" + HIDDEN,
        POST + CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n" + HIDDEN,
        POST + b"Content-Length: 5\r\nContent-Length: 2\r\n\r\n{}" + HIDDEN,
        POST + b"Content-Length: 2, 2\r\n\r\n{}",
        POST + b"Content-Length: +2\r\n\r\n{}",
        POST + b"Content-Length: -2\r\n\r\n{}",
        POST + b"Content-Length: 99999999999999999999999\r\n\r\n{}",
        POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
        POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + HIDDEN,
        POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
        POST + CHUNKED + b"\r\nzz\r\n{}\r\n0\r\n\r\n",
        POST + CHUNKED + b"\r\n-2\r\n{}\r\n0\r\n\r\n",
        POST + CHUNKED + b"\r\n0x2\r\n{}\r\n0\r\n\r\n",
        POST + CHUNKED + b"\r\nfffffffffffffffff\r\n{}\r\n0\r\n\r\n",
        POST + CHUNKED + b"\r\n2\r\n{}x\r\n0\r\n\r\n",
        POST + CHUNKED + b"\r\n2\n{}\r\n0\r\n\r\n",
        POST + CHUNKED + b"\r\n2\r\n{}\n0\r\n\r\n",
        POST + CHUNKED + b"\r\n2\r\n{}\r\n0\r\nX: a\r\n b\r\n\r\n",
        POST + CHUNKED + b"\r\n2\r\n{}\r\n0\r\nContent-Length: 2\r\n\r\n",
        POST + CHUNKED + b"\r\n2\r\n{}\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        POST.replace(b"/1.1", b"/1.0") + CHUNKED + b"\r\n2\r\n{}\r\n0\r\n\r\n",
        POST + "\r\n".join(["Content-Length: 2", *UPGRADE, "", "{}"]).encode(),
        b"GET /api/tasks/any/logs/live HTTP/1.1\r\n"
        + HOST
        + CHUNKED
        + "\r\n".join([*UPGRADE, "", "0", "", ""]).encode(),
        b"GET /api/health#x HTTP/1.1\r\n" + HOST + b"\r\n",
        POST + CHUNKED + b"\r\n2;\nxx\r\n{}\r\n0\r\n\r\n",
        b"GET /api/health HTTP/1.1\nHost: localhost\n\n",
        b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n evil.example\r\n\r\n",
        b"GET /api/health HTTP/1.1\r\n" + HOST + b"X: a\rb\r\n\r\n",
        b"GET /api/health HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n",
        b"GET /api/health HTTP/1.1\r\n" + HOST + b"X Y: 1\r\n\r\n",
        b"GET /api/health\0 HTTP/1.1\r\n" + HOST + b"\r\n",
        b"get /api/health HTTP/1.1\r\n" + HOST + b"\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0" * 100 + b"\r\n\r\n",
    ],
)
def test_what_can_be_read_in_two_ways_is_400_and_closed(here: Target, request_bytes: bytes) -> None:
    """No second answer, so nothing was smuggled; a problem with safe headers, like all others."""
    answer = here.send(request_bytes)
    assert (answer.status, answer.count) == (400, 1)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert orjson.loads(answer.body)["status"] == 400


def test_another_version_is_505(here: Target) -> None:
    """RFC 9110, 15.6.6: HTTP/2 does not look like this."""
    assert here.send(b"GET /api/health HTTP/2.0\r\n" + HOST + b"\r\n").status == 505


def chunked(*head: bytes, trailer: bytes) -> bytes:
    """A request that starts a task, with a trailer after its body."""
    body = b'{"plugin": "talk"}'
    lines = [b"POST /api/tasks HTTP/1.1", *head, b"Connection: close", b"Transfer-Encoding: chunked", b""]
    return b"\r\n".join([*lines, b"%x" % len(body), body, b"0", trailer, b"", b""])


@pytest.mark.parametrize(
    ("missing", "status"), [(b"Authorization", 401), (b"Content-Type", 415), (b"Host", 403), (b"Cookie", 201)]
)
def test_a_trailer_is_no_header(locked: Target, missing: bytes, status: int) -> None:
    """RFC 9110, 6.5.1: a field after the body gives no rights and no meaning to its request."""
    fields = {
        b"Host": b"localhost",
        b"Authorization": BEARER["Authorization"].encode(),
        b"Content-Type": b"application/json",
    }
    trailer = b"%b: %b" % (missing, fields.pop(missing, b"any"))
    head = [b"%b: %b" % field for field in fields.items()]
    assert locked.send(chunked(*head, trailer=trailer)).status == status


@pytest.mark.parametrize(
    "trailer", [b"Host: evil.example", b"Origin: http://evil.example", b"Content-Type: text/plain"]
)
def test_a_trailer_takes_nothing_from_its_request(here: Target, trailer: bytes) -> None:
    """It is ignored."""
    head = (b"Host: localhost", b"Content-Type: application/json")
    assert here.send(chunked(*head, trailer=trailer)).status == 201


def test_a_body_is_no_second_request(here: Target) -> None:
    """Also of a GET, whose body nobody reads."""
    length = f"Content-Length: {len(HIDDEN)}"
    answer = here.ask("GET /api/health HTTP/1.1", "Host: localhost", length, body=HIDDEN)
    assert (answer.status, answer.count) == (200, 1)


@pytest.mark.parametrize("asked", ["http://evil.example", "http://localhost@evil.example", "https://evil.example:1"])
def test_a_request_line_that_names_another_host_is_400(here: Target, asked: str) -> None:
    """RFC 9112 (3.2.2) lets it override Host, and the guard looks at Host: the two must agree."""
    assert here.ask(f"GET {asked}/api/health HTTP/1.1", "Host: localhost").status == 400
    upgrade = ("Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")
    assert here.ask(f"GET {asked}/api/tasks/any/logs/live HTTP/1.1", "Host: localhost", *upgrade).status == 400


def test_a_request_line_that_names_our_host_is_answered(here: Target) -> None:
    """A server must accept it (RFC 9112, 3.2.2)."""
    for asked, host in (("http://localhost:1/api/health", "localhost:1"), ("HTTP://LocalHost", "localhost")):
        assert here.ask(f"GET {asked} HTTP/1.1", f"Host: {host}").status == 200


@pytest.mark.parametrize(
    ("beginning", "block"),
    [
        (b"GET /api/health HTTP/1.1\r\n" + HOST + b"X: ", b"a" * 65_536),
        (b"GET /api/health HTTP/1.1\r\n" + HOST, b"X: a\r\n" * 10_000),
        (b"GET /", b"a" * 65_536),
        (POST + CHUNKED + b"\r\n2;", b"a" * 65_536),
        (POST + CHUNKED + b"\r\n2\r\n{}\r\n0\r\nX: ", b"a" * 65_536),
    ],
    ids=["one header", "many headers", "request line", "chunk extension", "trailers"],
)
def test_what_never_ends_is_cut_off_and_not_kept(here: Target, beginning: bytes, block: bytes) -> None:
    """No token is needed to send it: uvicorn keeps it all, 600 MB for 36 MB of small headers."""
    before_kib = here.memory_kib
    with socket.create_connection(("127.0.0.1", here.port), 10) as connection:
        connection.sendall(beginning)
        with pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):
            send_on(connection, block)
    assert here.memory_kib - before_kib < 20_000


def send_on(connection: socket.socket, block: bytes) -> None:
    """Again and again, for as long as it is taken."""
    for _ in range(ENDLESS_BYTES // len(block)):
        connection.sendall(block)


def test_a_head_that_is_too_large_is_431_however_it_comes(here: Target) -> None:
    """In one packet too; and one that is just large is fine."""
    for size, status in ((70_000, 431), (30_000, 200)):
        assert here.ask("GET /api/health HTTP/1.1", "Host: localhost", "X: " + "a" * size).status == status
    assert here.ask("GET /api/health HTTP/1.1", "Host: localhost", *["X: a"] * 2_000).status == 431


@pytest.mark.parametrize("method", ["TRACE", "TRACK", "CONNECT", "PROPFIND", "PATCH", "X" * 40, "GETT"])
def test_an_odd_method_does_nothing(here: Target, method: str) -> None:
    """TRACE would echo the page's cookie."""
    answer = here.ask(f"{method} /api/tasks HTTP/1.1", "Host: localhost", "Cookie: taskd_session=secret")
    assert answer.status in (400, 405)
    assert b"secret" not in answer.body


@pytest.mark.parametrize(
    "path",
    [
        "/assets/..%2f..%2fpyproject.toml", "/assets/..%252f..%252fpyproject.toml", "/assets/..\\..\\pyproject.toml",
        "/assets/..%5c..%5cpyproject.toml", "/assets/%00", "/assets/x%00.js", "//etc/passwd", "/%2fetc/passwd",
        "/assets//etc/passwd", "/assets/%2e%2e/%2e%2e/pyproject.toml", "/assets/..;/..;/pyproject.toml",
        "/file:///etc/passwd", "/assets/....//....//pyproject.toml", "/assets/%c0%ae%c0%ae/x",
        "/tasks/..%2f..%2fschema.sql", "/assets-old/x.js", "/.env", "/.git/config",
    ],
)  # fmt: skip
def test_no_path_leads_out_of_the_page(here: Target, path: str) -> None:
    """Starlette CVE-2023-29159, and the older ones: no path ever names a file."""
    answer = here.ask(f"GET {path} HTTP/1.1", "Host: localhost")
    assert answer.status in (400, 404)
    assert b"[project]" not in answer.body
    assert b"root:" not in answer.body


def test_a_list_of_ranges_is_not_worked_through(here: Target) -> None:
    """Starlette CVE-2025-62727: the whole is sent, in one piece."""
    ranges = "Range: bytes=" + ",".join(f"{n}-{n}" for n in range(3_000))
    answer, whole = (here.ask("GET / HTTP/1.1", "Host: localhost", *more) for more in ([ranges], []))
    assert answer.status == 200
    assert answer.body == whole.body
