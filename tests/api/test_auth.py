"""Who may come in. Each test is one attack, or one way that must stay open."""

import hmac
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from taskd.api import auth
from tests.api.conftest import Serve, Served, Show, Shown

TOKEN = "correct-horse"
BEARER = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
async def locked(show: Show) -> AsyncIterator[Shown]:
    """A service with a token."""
    async with show(token=TOKEN) as shown:
        yield shown


async def sign_in(shown: Shown) -> str:
    """The page's cookie, as a header has it."""
    answer = await shown.http.post("/api/session", json={"token": TOKEN})
    shown.http.cookies.clear()
    return answer.headers["set-cookie"].split(";")[0]


async def refusal(served: Served, task_id: str, **options: Any) -> tuple[int, dict[str, str]]:
    """How a WebSocket is refused before its upgrade: status and problem."""
    with pytest.raises(InvalidStatus) as refused:
        await served.live(task_id, **options)
    response = refused.value.response
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code, orjson.loads(response.body)


# Host


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "LOCALHOST:8642", "127.0.0.1", "127.0.0.1:8642", "192.168.1.7:80", "[::1]:8642", "[::1]",
        "tasks.example", "Tasks.Example:9000", "exact.example:8642",
    ],
)  # fmt: skip
async def test_a_host_that_is_ours_is_answered(show: Show, host: str) -> None:
    """localhost, addresses, and the names in allowed_hosts, with or without a port."""
    async with show(allowed_hosts=["tasks.example", "exact.example:8642"]) as shown:
        assert (await shown.http.get("/api/health", headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8642", "127.0.0.1.evil.example", "localhost.evil.example", "evil-localhost",
        "localhost.", "localhost@evil.example", "tasks.example.evil.example", "exact.example", "exact.example:1",
        "[evil.example]", "[::1", "::1", "127.0.0.1:port", "2130706433", "0x7f.1", "", "localhost, evil.example",
    ],
)  # fmt: skip
async def test_another_host_is_refused(show: Show, host: str) -> None:
    """403: a name made to point here (DNS rebinding) is not ours, page and health included."""
    async with show(allowed_hosts=["tasks.example", "exact.example:8642"]) as shown:
        for path in ("/", "/favicon.svg", "/api/health", "/api/tasks"):
            answer = await shown.http.get(path, headers={"host": host})
            assert answer.status_code == 403, path
            assert "Host" in answer.json()["detail"]


async def test_two_hosts_are_refused(shown: Shown) -> None:
    """403: whoever is between us might have looked at the other one."""
    headers = [("host", "localhost"), ("host", "evil.example")]
    assert (await shown.http.get("/api/health", headers=headers)).status_code == 403


# Origin


@pytest.mark.parametrize(
    "origin",
    [
        "null", "http://evil.example", "http://127.0.0.1:8642.evil.example", "http://evil-127.0.0.1:8642",
        "https://127.0.0.1:8642", "http://127.0.0.1", "http://127.0.0.1:86420", "http://localhost:8642",
        "http://127.0.0.1:8642/", "HTTP://127.0.0.1:8642", "",
    ],
)  # fmt: skip
async def test_a_change_asked_for_by_another_page_is_refused(shown: Shown, origin: str) -> None:
    """403, and nothing has changed: the origin must be scheme://Host to the letter."""
    headers = {"origin": origin}
    answer = await shown.http.post("/api/tasks", json={"plugin": "speak"}, headers=headers)
    assert answer.status_code == 403
    assert "Origin" in answer.json()["detail"]
    assert (await shown.http.delete("/api/tasks/any", headers=headers)).status_code == 403
    assert (await shown.http.get("/api/tasks")).json()["tasks"] == []


async def test_our_own_page_may_ask_for_changes(shown: Shown) -> None:
    """Its origin is this scheme and Host."""
    headers = {"origin": "http://127.0.0.1:8642"}
    answer = await shown.http.post("/api/tasks", json={"plugin": "speak"}, headers=headers)
    assert answer.status_code == 201


@pytest.mark.parametrize(
    "origin", ["null", "http://evil.example", "http://localhost:{port}", "https://127.0.0.1:{port}"]
)
async def test_a_websocket_of_another_page_is_refused_before_its_upgrade(served: Served, origin: str) -> None:
    """403: a WebSocket is not held back by the browser, so it must be by us."""
    task_id = await served.run()
    status, problem = await refusal(served, task_id, origin=origin.format(port=served.port))
    assert status == 403
    assert "Origin" in problem["detail"]


async def test_a_websocket_to_another_host_is_refused_before_its_upgrade(served: Served) -> None:
    """403, as over HTTP."""
    task_id = await served.run()
    address = f"ws://evil.example/api/tasks/{task_id}/logs/live"
    with pytest.raises(InvalidStatus) as refused:
        await connect(address, host="127.0.0.1", port=served.port, proxy=None)
    assert refused.value.response.status_code == 403


async def test_our_own_page_may_open_a_websocket(served: Served) -> None:
    """With its own origin."""
    task_id = await served.run()
    async with served.live(task_id, origin=f"http://127.0.0.1:{served.port}") as connection:
        assert await connection.recv()


# Token


async def test_without_the_token_only_the_page_the_session_and_health_answer(locked: Shown) -> None:
    """401 with a challenge for everything else, whether it exists or not."""
    for path in ("/", "/favicon.svg", "/index.html", "/tasks/any", "/api/health"):
        assert (await locked.http.get(path)).status_code == 200, path
    for method, path in (
        ("GET", "/api/tasks"), ("POST", "/api/tasks"), ("GET", "/api/plugins"), ("GET", "/api/openapi.json"),
        ("GET", "/api/tasks/any"), ("GET", "/api/tasks/any/logs/stream"), ("GET", "/api/nothing"),
        ("GET", "/api/session"), ("POST", "/api/health"), ("GET", "/nothing"), ("GET", "/tasks/a/b"),
        ("GET", "/api/health/"), ("GET", "//api/tasks"), ("GET", "/tasks/../api/tasks"),
    ):  # fmt: skip
        answer = await locked.http.request(method, path)
        assert answer.status_code == 401, (method, path)
        assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_the_token_opens_as_bearer(locked: Shown) -> None:
    """In any case of the scheme's name (RFC 9110)."""
    for value in (f"Bearer {TOKEN}", f"bearer {TOKEN}"):
        answer = await locked.http.get("/api/tasks", headers={"authorization": value})
        assert answer.status_code == 200


@pytest.mark.parametrize(
    "value",
    ["Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}",
     "Bearer \xff\xfe"],
)  # fmt: skip
async def test_a_wrong_token_does_not_open(locked: Shown, value: str) -> None:
    """401, for nearly right ones too."""
    headers = [(b"authorization", value.encode("latin-1"))]  # bytes: a client may send any
    answer = await locked.http.get("/api/tasks", headers=headers)
    assert answer.status_code == 401


async def test_the_token_is_never_taken_from_the_url(locked: Shown) -> None:
    """What is in a URL ends up in histories and logs."""
    for name in ("token", "access_token", "authorization"):
        assert (await locked.http.get("/api/tasks", params={name: TOKEN})).status_code == 401


async def test_every_candidate_is_compared_in_constant_time(locked: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """All go through compare_digest, also after one was right."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(shown: bytes, known: bytes) -> bool:
        compared.append((shown, known))
        return hmac.compare_digest(shown, known)

    monkeypatch.setattr(auth, "compare_digest", compare)
    headers = {**BEARER, "cookie": f"{auth.COOKIE}=wrong"}
    assert (await locked.http.get("/api/tasks", headers=headers)).status_code == 200
    assert [shown for shown, _ in compared] == [TOKEN.encode(), b"wrong"]
    await locked.http.post("/api/session", json={"token": "wrong"})
    assert compared[-1] == (b"wrong", TOKEN.encode())


# The page's cookie


async def test_the_cookie_is_for_this_site_only_and_is_not_the_token(locked: Shown) -> None:
    """HttpOnly, SameSite=Strict, and derived: who reads it has not read the token."""
    answer = await locked.http.post("/api/session", json={"token": TOKEN})
    assert answer.status_code == 204
    cookie = answer.headers["set-cookie"]
    flags = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert flags == {"httponly", "samesite=strict", "path=/"}
    assert TOKEN not in cookie
    assert (await locked.http.get("/api/tasks")).status_code == 200


async def test_the_cookie_is_secure_over_https(locked: Shown) -> None:
    """Then it never travels in the clear."""
    transport = httpx.ASGITransport(locked.app)
    async with httpx.AsyncClient(transport=transport, base_url="https://localhost") as https:
        answer = await https.post("/api/session", json={"token": TOKEN})
        assert "secure" in answer.headers["set-cookie"].lower()


async def test_a_wrong_token_opens_no_session(locked: Shown) -> None:
    """401, no cookie."""
    answer = await locked.http.post("/api/session", json={"token": "wrong"})
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert "www-authenticate" in answer.headers


async def test_the_cookie_of_another_token_does_not_open(locked: Shown) -> None:
    """A new token ends every session; the token itself is not a cookie."""
    for value in (auth.session_of("another"), TOKEN, ""):
        answer = await locked.http.get("/api/tasks", headers={"cookie": f"{auth.COOKIE}={value}"})
        assert answer.status_code == 401


async def test_another_page_can_neither_open_a_session_nor_use_one(locked: Shown) -> None:
    """The origin is looked at before the cookie."""
    evil = {"origin": "http://evil.example"}
    assert (await locked.http.post("/api/session", json={"token": TOKEN}, headers=evil)).status_code == 403
    headers = {**evil, "cookie": await sign_in(locked)}
    assert (await locked.http.post("/api/tasks", json={"plugin": "speak"}, headers=headers)).status_code == 403


async def test_without_a_token_there_is_nothing_to_open(shown: Shown) -> None:
    """204 and no cookie: nothing is locked."""
    answer = await shown.http.post("/api/session", json={"token": "any"})
    assert (answer.status_code, "set-cookie" in answer.headers) == (204, False)


# WebSockets


async def test_a_websocket_needs_the_token_before_its_upgrade(serve: Serve) -> None:
    """401 without, and with a wrong one, wherever it is shown."""
    async with serve(token=TOKEN) as served:
        task_id = await served.run()
        assert (await refusal(served, task_id))[0] == 401
        wrong = {"authorization": "Bearer wrong"}
        assert (await refusal(served, task_id, additional_headers=wrong))[0] == 401
        assert (await refusal(served, task_id, subprotocols=["taskd.token.wrong"]))[0] == 401


async def test_a_websocket_is_opened_by_header_cookie_or_subprotocol(serve: Serve) -> None:
    """The sub-protocol is accepted by name, or a browser would give up."""
    async with serve(token=TOKEN) as served:
        task_id = await served.run()
        cookie = {"cookie": await sign_in(served)}
        for options in (
            {"additional_headers": BEARER},
            {"additional_headers": cookie, "origin": f"http://127.0.0.1:{served.port}"},
            {"subprotocols": ["other", f"taskd.token.{TOKEN}"]},
        ):
            async with served.live(task_id, **options) as connection:
                assert await connection.recv()
                offered = "subprotocols" in options
                assert connection.subprotocol == (f"taskd.token.{TOKEN}" if offered else None)


async def test_the_cookie_does_not_open_a_websocket_for_another_page(serve: Serve) -> None:
    """403: WebSocket hijacking from another site that the person visits."""
    async with serve(token=TOKEN) as served:
        task_id = await served.run()
        cookie = {"cookie": await sign_in(served)}
        status, _ = await refusal(served, task_id, additional_headers=cookie, origin="http://evil.example")
        assert status == 403


async def test_a_subprotocol_is_accepted_where_no_token_is_needed(served: Served) -> None:
    """A page that offers one is not turned away for it."""
    task_id = await served.run()
    async with served.live(task_id, subprotocols=["taskd.token.any"]) as connection:
        assert connection.subprotocol == "taskd.token.any"
