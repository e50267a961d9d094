"""
A page of somebody else, in the browser of who uses taskd: it gets nothing, and changes nothing.

Every route is tried, those that a later version adds too: they are taken from the application.
"""

import pytest

from taskd.api.app import OPERATIONS
from taskd.api.operations import Operation
from tests.security.conftest import BEARER, Target

CHANGES = [operation for operation in OPERATIONS if operation.method != "GET"]
ORIGINS = [
    "null", "", "http://evil.example", "http://{host}.evil.example", "http://evil-{host}", "http://{host}0",
    "https://{host}", "http://127.0.0.1", "http://{host}/", "http://user@{host}", "HTTP://{host}", "//{host}", "{host}",
    "http://{host} http://evil.example", "http://evil.example http://{host}", "http://{host},null",
    "http://{host}\t.evil",
    "file://", "chrome-extension://abcdef", "http://[::1]:{port}", "http://localhost:{port}", "http://{host}#",
]  # fmt: skip
HOSTS = [
    "evil.example", "evil.example:{port}", "127.0.0.1.evil.example:{port}", "localhost.evil.example", "localhost.",
    "localhost.:{port}", "LOCALHOST.", "127.0.0.1.", "evil.example#localhost", "localhost@evil.example",
    "evil.example@localhost", "localhost:80@evil.example", "localhost:{port}:80", "localhost:", "localhost:http",
    "localhost, evil.example", "localhost evil.example", "[::1", "[::1]evil.example", "[evil.example]", "::1",
    "[::1%25eth0]", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "localhost/evil.example", "localhost?evil",
    "\xb2localhost", "", " ", "localhost\\@evil.example", "http://localhost",
]  # fmt: skip


def path_of(operation: Operation) -> str:
    return operation.path.format(task_id="01900000-0000-7000-8000-000000000000")


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_no_route_answers_to_a_rebinding_name(here: Target, operation: Operation) -> None:
    """DNS rebinding: the browser takes evil.example for us. (Ray CVE-2025-62593, Vitest CVE-2025-24964)"""
    for host in HOSTS:
        answer = here.ask(f"{operation.method} {path_of(operation)} HTTP/1.1", f"Host: {host.format(port=here.port)}")
        assert answer.status == 403, host
        assert b"Host" in answer.body


@pytest.mark.parametrize("path", ["/", "/tasks/any", "/nothing", "/api/tasks/any/logs/live", "/metrics"])
def test_no_page_and_no_websocket_answers_to_a_rebinding_name(here: Target, path: str) -> None:
    """Nor what is not there: not even that is told."""
    for hosts in (
        [],
        ["evil.example"],
        ["localhost", "evil.example"],
        ["evil.example", "localhost"],
        ["localhost"] * 2,
    ):
        told = [f"Host: {host}" for host in hosts]
        assert here.ask(f"GET {path} HTTP/1.1", *told).status == 403
        assert here.upgrade(path, *told).status == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8642", "192.168.0.7", "[FE80::1]"])
def test_our_own_names_are_answered(here: Target, host: str) -> None:
    """In any case, with any port: whoever forwards a port chooses it."""
    assert here.ask("GET /api/health HTTP/1.1", f"Host: {host}").status == 200


@pytest.mark.parametrize("operation", CHANGES, ids=lambda operation: operation.name)
def test_no_change_is_made_for_another_page(here: Target, operation: Operation) -> None:
    """Prefect CVE-2023-6022 and CVE-2024-8183: the origin is compared whole, not its parts."""
    host = f"127.0.0.1:{here.port}"
    line = f"{operation.method} {path_of(operation)} HTTP/1.1"
    json = ("Content-Type: application/json", "Content-Length: 2")
    for origin in ORIGINS:
        shown = origin.format(host=host, port=here.port)
        answer = here.ask(line, f"Host: {host}", f"Origin: {shown}", *json, body=b"{}")
        assert answer.status == 403, shown
        assert b"Origin" in answer.body
    both = (f"Origin: http://{host}", "Origin: http://evil.example")
    assert here.ask(line, f"Host: {host}", *both, *json, body=b"{}").status == 403
    assert here.ask(line, f"Host: {host}", f"Origin: http://{host}", *json, body=b"{}").status != 403


def test_no_websocket_is_opened_for_another_page(here: Target) -> None:
    """Jenkins CVE-2024-23898: a browser lets any page open one, and only the server can refuse."""
    task_id = here.run_task("talk")["id"]
    host = f"127.0.0.1:{here.port}"
    path = f"/api/tasks/{task_id}/logs/live"
    for origin in ORIGINS:
        shown = origin.format(host=host, port=here.port)
        assert here.upgrade(path, f"Host: {host}", f"Origin: {shown}").status == 403, shown
    for both in (("Origin: null", f"Origin: http://{host}"), (f"Origin: http://{host}", "Origin: null")):
        assert here.upgrade(path, f"Host: {host}", *both).status in (400, 403)
    for site in ("cross-site", "same-site"):
        assert here.upgrade(path, f"Host: {host}", f"Sec-Fetch-Site: {site}").status == 403
    assert here.upgrade(path, f"Host: {host}", f"Origin: http://{host}").status == 101


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_another_page_loads_is_refused_and_a_link_is_not(here: Target, site: str) -> None:
    """An image shows no Origin: it would see nothing, but keep the store busy. Another port is another page."""
    told = ("Host: localhost", f"Sec-Fetch-Site: {site}")
    for path in ("/api/tasks", "/api/tasks/any/logs/stream", "/api/health", "/metrics", "/"):
        for mode, destination in (
            ("no-cors", "image"),
            ("no-cors", "script"),
            ("navigate", "iframe"),
            ("cors", "empty"),
        ):
            asked = (*told, f"Sec-Fetch-Mode: {mode}", f"Sec-Fetch-Dest: {destination}")
            assert here.ask(f"GET {path} HTTP/1.1", *asked).status == 403
    link = (*told, "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document")
    assert here.ask("GET / HTTP/1.1", *link).status == 200
    assert here.ask("POST /api/tasks HTTP/1.1", *link, "Content-Length: 0").status == 403
    for own in ("same-origin", "none"):
        assert here.ask("GET /api/tasks HTTP/1.1", "Host: localhost", f"Sec-Fetch-Site: {own}").status == 200


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_nothing_is_granted_to_other_origins(here: Target, operation: Operation) -> None:
    """No CORS: neither on the preflight nor on an answer."""
    asked = ("Host: localhost", "Origin: http://evil.example", f"Access-Control-Request-Method: {operation.method}",
             "Access-Control-Request-Headers: authorization, content-type",
             "Access-Control-Request-Private-Network: true")  # fmt: skip
    for method in ("OPTIONS", "GET", operation.method):
        answer = here.ask(f"{method} {path_of(operation)} HTTP/1.1", *asked)
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "media_type",
    [
        "text/plain", "text/plain; application/json", "application/x-www-form-urlencoded", "multipart/form-data",
        "multipart/form-data; boundary=x", "", "json", "application/jsonp", "text/plain;charset=application/json",
        "application/json-seq", "application/x-json", "*/*", "text/plain, application/json",
    ],
)  # fmt: skip
def test_what_a_form_can_send_is_no_json(here: Target, media_type: str) -> None:
    """Without the preflight that application/json needs, any page could send it. (Ray CVE-2025-62593)"""
    body = b'{"plugin": "talk"}'
    asked = ("Host: localhost", f"Content-Type: {media_type}", f"Content-Length: {len(body)}")
    answer = here.ask("POST /api/tasks HTTP/1.1", *asked, body=body)
    assert answer.status == 415


def test_two_media_types_are_no_json(here: Target) -> None:
    """Whoever reads the other one than we do lets it through."""
    body = b'{"plugin": "talk"}'
    both = ("Content-Type: text/plain", "Content-Type: application/json")
    for first, second in (both, both[::-1]):
        answer = here.ask(
            "POST /api/tasks HTTP/1.1", "Host: localhost", first, second, f"Content-Length: {len(body)}", body=body
        )
        assert answer.status == 415


@pytest.mark.parametrize("charset", ["utf-7", "utf-16", "utf-32-be", "iso-2022-jp"])
def test_a_body_is_utf_8_whatever_it_says(here: Target, charset: str) -> None:
    """RFC 8259 (8.1): another charset would be another text to whoever checks it."""
    body = '{"plugin": "talk", "params": {"word": "é+AGE-"}}'.encode()
    asked = ("Host: localhost", f"Content-Type: application/json; charset={charset}", f"Content-Length: {len(body)}")
    answer = here.ask("POST /api/tasks HTTP/1.1", *asked, body=body)
    assert answer.status == 201
    assert '"word":"é+AGE-"'.encode() in answer.body


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_answer_is_safe_in_a_browser(locked: Target, operation: Operation) -> None:
    """Good answers and refusals alike: not guessed at, not framed, not kept, not another origin's; no banner."""
    path = path_of(operation)
    for headers in ({}, BEARER, {**BEARER, "Host": "evil.example"}, {**BEARER, "Origin": "null"}):
        shown = [f"{name}: {value}" for name, value in {"Host": "localhost", **headers}.items()]
        for method, target in (
            (operation.method, path),
            ("PUT", path),
            ("HEAD", path),
            (operation.method, path + "?x=1"),
        ):
            answer = locked.ask(f"{method} {target} HTTP/1.1", *shown).headers
            assert answer["x-content-type-options"] == "nosniff"
            assert answer["x-frame-options"] == "DENY"
            assert "frame-ancestors 'none'" in answer["content-security-policy"]
            assert answer["cross-origin-resource-policy"] == "same-origin"
            assert answer["referrer-policy"] == "no-referrer"
            assert answer["cache-control"] == "no-store"
            assert "server" not in answer
