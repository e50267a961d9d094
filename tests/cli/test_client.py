"""The client names tasks, pages and comes back, against servers that misbehave on purpose."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from taskd.cli import client as client_module
from taskd.cli.client import Client, resumed
from taskd.errors import Invalid, Refused, Unreachable

ID = "01936d5c-1111-7000-8000-0123456789ab"
# As much of a task, an entry and a problem as a client reads.
TASK: dict[str, Any] = {
    "id": ID, "plugin": "git", "status": "running", "created_at": "", "started_at": None, "finished_at": None,
    "result": None, "error": None, "last_seq": 9, "counts": {"WARNING": 0, "ERROR": 0},
}  # fmt: skip
ENTRY: dict[str, Any] = {"timestamp": "", "level": "INFO", "source": "git", "message": "", "metadata": None}
PROBLEM: dict[str, Any] = {"title": "", "status": 400, "detail": "refused by the script"}

Answer = tuple[int, object]
Step = dict[str, Any] | int | str


@contextmanager
def answering(answer: Callable[[str, list[tuple[str, str]]], Answer]) -> Iterator[Client]:
    """A client of an HTTP server that says what `answer` says."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            status, body = answer(url.path, parse_qsl(url.query))
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Client(f"http://127.0.0.1:{server.server_port}/")
        finally:
            server.shutdown()
            thread.join()


def tasks(*ids: str) -> Answer:
    return 200, {"tasks": [TASK | {"id": task_id} for task_id in ids], "next_before": None}


def test_last_is_the_newest() -> None:
    with answering(lambda path, query: tasks(ID) if query == [("limit", "1")] else (500, {})) as client:
        assert client.find("@last") == ID


def test_last_of_nothing_says_so() -> None:
    with answering(lambda path, query: tasks()) as client, pytest.raises(Invalid, match="no task yet"):
        client.find("@last")


def test_an_ending_is_asked_for() -> None:
    with answering(lambda path, query: tasks(ID) if ("id", "6789ab") in query else tasks()) as client:
        assert client.find("6789AB") == ID


def test_an_ending_of_several_names_the_candidates() -> None:
    other = ID.replace("1111", "2222")
    with answering(lambda path, query: tasks(ID, other)) as client, pytest.raises(Invalid) as raised:
        client.find("6789ab")
    assert ID in str(raised.value)
    assert other in str(raised.value)


@pytest.mark.parametrize("name", ["789ab", "zzzzzz", "", "6789ab/..", ID + "0"])
def test_what_cannot_be_an_ending_is_not_asked_for(name: str) -> None:
    with pytest.raises(Invalid, match=r"an id \(hexadecimal digits\), the last 6 or more characters of one, or @last"):
        Client("http://127.0.0.1:1").find(name)


def test_pages_go_on_after_the_last_entry() -> None:
    asked: list[list[tuple[str, str]]] = []

    def answer(path: str, query: list[tuple[str, str]]) -> Answer:
        asked.append(query)
        after = int(dict(query).get("after", 0))
        entries = [ENTRY | {"seq": seq} for seq in (after + 1, after + 2)]
        return 200, {"entries": entries, "last_seq": 4, "more": True}

    with answering(answer) as client:
        pages = list(client.pages(ID, [("level", "INFO"), ("level", "ERROR")]))
    assert [entry["seq"] for page in pages for entry in page] == [1, 2, 3, 4]
    assert asked[1] == [("level", "INFO"), ("level", "ERROR"), ("limit", "5000"), ("after", "2")]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Invalid),
        (404, Invalid),
        (403, Refused),
        (429, Unreachable),
        (503, Unreachable),
    ],
)
def test_a_problem_is_told_in_the_servers_words(status: int, kind: type[Exception]) -> None:
    problem = PROBLEM | {"detail": "limit='0': expected more."}
    with answering(lambda path, query: (status, problem)) as client, pytest.raises(kind, match="limit='0'"):
        client.get("/api/tasks")


@pytest.mark.parametrize(
    ("token", "words"), [(None, "requires a token: .*TASKD_TOKEN"), ("wrong", "not accept the token")]
)
def test_a_token_that_is_missing_and_one_that_is_wrong_are_told_apart(token: str | None, words: str) -> None:
    with answering(lambda path, query: (401, {"detail": "of HTTP"})) as client, pytest.raises(Refused, match=words):
        Client(client.server, token).get("/api/tasks")


@pytest.mark.parametrize("content", [b"<html>", b"[]", b""])
def test_another_server_is_not_taken_for_taskd(content: bytes) -> None:
    with (
        answering(lambda path, query: (200, content)) as client,
        pytest.raises(Unreachable, match="not taskd"),
    ):
        client.get("/api/tasks")


@pytest.mark.parametrize(
    "server",
    [
        "127.0.0.1:8642", "ftp://x", "http://h:port", "", "unix:///run/taskd.sock", "/run/taskd.sock", "http://",
        "http://::1:8642", "http://[::1", "http://h:99999", "http://h/?a=b", "http://h#a", "http://h /", "http://h\n",
        "http://a..b", "http://" + "a" * 70, "http://\udcff",
    ],
)  # fmt: skip
def test_a_server_that_is_no_url_is_bad_input(server: str) -> None:
    with pytest.raises(Invalid, match="--server"):
        Client(server).get("/api/tasks")


def test_a_server_is_a_url_with_any_prefix() -> None:
    urls = {"HTTP://h:1/": "http://h:1", "https://h/taskd/": "https://h/taskd", "http://[::1]:8": "http://[::1]:8"}
    assert {given: Client(given).server for given in urls} == urls


@pytest.mark.parametrize(
    "server", ["http://me:hunter2@h", "me:hunter2@h", "http://me:hunter2@h?x", "https://hunter2@h"]
)
def test_a_password_in_a_server_is_not_repeated(server: str) -> None:
    with pytest.raises(Invalid) as raised:
        Client(server)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("token", ["geheim\nX: 1", " geheim", "geheim ", "gehéim", "geheim\udcff", "geheim\0"])
def test_a_token_that_no_header_can_hold_is_not_repeated(token: str) -> None:
    with pytest.raises(Invalid, match="visible ASCII") as raised:
        Client("http://h", token)
    assert "geheim" not in str(raised.value)


def test_going_on_replaces_tail_and_after_alone() -> None:
    asked = [("tail", "5"), ("search", "a"), ("search", "b")]
    assert resumed(asked, None) == asked
    assert resumed(asked, 9) == [("search", "a"), ("search", "b"), ("after", "9")]


# A status at which nothing is answered, as while a task holds the server's loop.
HELD_UP = 999


class Live:
    """A live route that plays one script after another, one for each connection."""

    def __init__(self, *scripts: list[Step]) -> None:
        self.scripts = list(scripts)
        self.asked: list[str] = []
        self.last_seq = 9

    def refuse(
        self, connection: ServerConnection, request: Request
    ) -> Response | Coroutine[None, None, Response | None] | None:
        if not request.path.partition("?")[0].endswith("/live"):
            return connection.respond(200, json.dumps(TASK | {"last_seq": self.last_seq}))
        self.asked.append(urlsplit(request.path).query)
        first = self.scripts[0][0] if self.scripts else 404
        if not isinstance(first, int) or first < 400 or first >= 1000:
            return None
        if self.scripts:
            self.scripts.pop(0)
        if first == HELD_UP:
            return asyncio.sleep(60, None)
        return connection.respond(first, json.dumps(PROBLEM))

    async def play(self, connection: ServerConnection) -> None:
        for step in self.scripts.pop(0):
            if isinstance(step, int):
                await connection.close(step)
            else:
                await connection.send(step if isinstance(step, str) else json.dumps(step))

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Client]:
        async with serve(self.play, "127.0.0.1", 0, process_request=self.refuse) as server:
            yield Client(f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}")


def entries(*seqs: int) -> dict[str, Any]:
    return {"type": "entries", "entries": [ENTRY | {"seq": seq} for seq in seqs]}


HELLO = {"type": "hello", "last_seq": 9}
CAUGHT_UP = {"type": "caught_up", "last_seq": 5}
END = {"type": "end", "last_seq": 9, "task": TASK | {"status": "succeeded"}}


async def followed(live: Live, *parameters: tuple[str, str]) -> tuple[list[int], list[str]]:
    """The seqs that a follower of `live` gets, and what it hears of the connection."""
    seqs: list[int] = []
    heard: list[str] = []
    async with live.serving() as client:
        async for frame in client.follow(ID, parameters, heard.append):
            seqs += [entry["seq"] for entry in frame.get("entries", [])]
    return seqs, heard


@pytest.fixture(autouse=True)
def _quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "BACKOFF_MIN_S", 0.001)


async def test_a_follower_ends_with_the_log() -> None:
    assert await followed(Live([HELLO, entries(1, 2), CAUGHT_UP, END, 1000])) == ([1, 2], [])


async def test_a_stopping_server_is_come_back_to_after_the_last_seq() -> None:
    live = Live([HELLO, entries(1, 2), 1001], [HELLO, entries(3), END, 1000])
    seqs, heard = await followed(live, ("search", "x"))
    assert seqs == [1, 2, 3]
    assert [words.rpartition("; ")[2] for words in heard] == ["trying again", "connected again"]
    assert live.asked == ["search=x", "search=x&after=2"]


async def test_a_position_without_entries_serves_as_after_but_hello_does_not() -> None:
    live = Live([HELLO, 1001], [HELLO, CAUGHT_UP, 1011], [HELLO, END, 1000])
    await followed(live, ("tail", "5"))
    assert live.asked == ["tail=5", "tail=5", "after=5"]


async def test_a_busy_server_is_waited_for_once_it_has_been_there() -> None:
    seqs, heard = await followed(Live([entries(1), 1001], [503], [503], [END, 1000]))
    assert (seqs, len(heard)) == ([1], 2)


async def test_a_log_that_became_shorter_is_gone_on_with_at_its_end() -> None:
    live = Live([HELLO, entries(11, 12), 1001], [400], [HELLO, entries(10), END, 1000])
    seqs, heard = await followed(live, ("search", "x"))
    assert seqs == [11, 12, 10]
    assert live.asked[1:] == ["search=x&after=12", "search=x&after=9"]
    assert heard[1] == "the server lost the entries after 9 when it died; going on from there"


async def test_a_refusal_for_anything_else_after_a_break_ends_the_following() -> None:
    with pytest.raises(Invalid, match="refused by the script"):
        await followed(Live([HELLO, entries(1, 2), 1001], [400]))


@pytest.mark.parametrize(("status", "kind"), [(400, Invalid), (404, Invalid), (403, Refused), (503, Unreachable)])
async def test_a_refusal_of_the_first_connection_is_told_at_once(status: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="refused by the script"):
        await followed(Live([status]))


async def test_a_log_that_is_gone_after_a_break_ends_the_following() -> None:
    with pytest.raises(Invalid):
        await followed(Live([entries(1), 1001], [404]))


async def test_a_close_for_policy_is_not_come_back_from() -> None:
    with pytest.raises(Refused, match="1008"):
        await followed(Live([HELLO, 1008]))


async def test_a_server_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "AWAY_MAX_S", 0.01)
    refusals: list[list[Step]] = [[503]] * 1_000
    with pytest.raises(Unreachable):
        await followed(Live([entries(1), 1001], *refusals))


@pytest.mark.parametrize(
    "step",
    [
        "", "{", "[]", "1", "{}", '{"type": 1}', '{"type": "entries"}', '{"type": "entries", "entries": [{}]}',
        '{"type": "ping", "last_seq": null}', '{"type": "progress", "source": 1}', '{"type": "end", "task": {}}',
    ],
)  # fmt: skip
async def test_a_frame_that_is_none_of_taskds_ends_the_following(step: str) -> None:
    with pytest.raises(Unreachable, match="is not taskd"):
        await followed(Live([HELLO, step, 1000]))


async def test_a_frame_of_a_later_version_is_passed_over() -> None:
    assert await followed(Live([HELLO, {"type": "news"}, entries(1), entries(), END, 1000])) == ([1], [])


async def test_silence_is_a_lost_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "SILENCE_MAX_S", 0.05)

    class Silent(Live):
        async def play(self, connection: ServerConnection) -> None:
            await super().play(connection)
            await connection.wait_closed()

    live = Silent([HELLO, entries(1)], [HELLO, entries(2), END, 1000])
    assert (await followed(live))[0] == [1, 2]


async def test_a_server_that_a_task_holds_up_is_waited_for_from_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """`taskd run` has just started the task."""
    monkeypatch.setattr(client_module, "CONNECT_WAIT_S", 0.2)
    seqs, heard = await followed(Live([HELD_UP], [HELLO, entries(1), END, 1000]))
    assert (seqs, [words.rpartition("; ")[2] for words in heard]) == ([1], ["trying again", "connected again"])


async def test_nothing_there_is_told_at_once() -> None:
    with pytest.raises(Unreachable, match="Cannot reach"):
        async for _ in Client("http://127.0.0.1:1").follow(ID, [], print):
            pass
