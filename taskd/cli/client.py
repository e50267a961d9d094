"""
`Client`: the commands' access to a running taskd, over HTTP and WebSocket.

The client uses the public interface alone, as any other program could. It reads a log in pages, each
requested by the last `seq` of the page before. It follows a log over the live route, which the server may
end at any moment. The client then reconnects with `after` = the last `seq` that it knows of, so it yields
every match once and in order, however often the connection breaks.
"""

import asyncio
import functools
import random
import re
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlencode

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, InvalidURI, WebSocketException
from websockets.frames import CloseCode

from taskd.cli.addresses import server_url
from taskd.cli.answers import FRAMES, OBJECT, PAGE, PLUGINS, PROBLEM, TASK, TASKS, Shape, misfit
from taskd.cli.trust import handshake_fault, trusted
from taskd.errors import ClientError, Invalid, NotFound, Refused, Unreachable
from taskd.system.threads import in_thread

if TYPE_CHECKING:
    import ssl

    import httpx

ANSWER_WAIT_S = 30.0
CONNECT_WAIT_S = 5.0
# The server sends a frame at least every 15 s. After three times that without one the connection is dead.
SILENCE_MAX_S = 45.0
BACKOFF_MIN_S = 0.25
BACKOFF_MAX_S = 8.0
# A server that is unreachable for this long is not restarting.
AWAY_MAX_S = 300.0
PAGE_ENTRIES = 5_000
# A page ends at 8 MiB. An answer longer than this limit does not come from taskd.
ANSWER_BYTES_MAX = 256 * 1024 * 1024
NOT_RUNNING_HINT = " Is taskd serve running there?"
NOT_HTTP_HINT = " Does taskd serve answer there, and is it http and not https?"
ID_LENGTH = 36
# A task may be named by its id or by the ending of its id.
ENDING = re.compile(r"[0-9a-f-]{6,36}")
CANDIDATES_MAX = 10
# The end of a complete export, in each of its formats.
COMPLETE = re.compile(rb'complete"?: ?true\}?\n\Z')
COMPLETE_BYTES = 100

Parameters = Sequence[tuple[str, str]]
Json = dict[str, Any]


class Sink(Protocol):
    """The destination of an export."""

    def write(self, data: bytes, /) -> object: ...
    def flush(self) -> None: ...


class Client:
    """One taskd server, at `server` (an http or https URL); `token` is sent with each request, if given."""

    def __init__(self, server: str, token: str | None = None) -> None:
        self.server = server_url(server)
        if token and not re.fullmatch(r"[!-~]([ -~]*[!-~])?", token):
            raise Invalid(
                "--token: expected visible ASCII characters, without spaces around them."
            )  # the message does not repeat the token
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def get(self, path: str, parameters: Parameters = (), shape: Shape = OBJECT) -> Json:
        """Return the answer to a GET, which has `shape`. Raises `ClientError`."""
        return self._decoded(self._ask("GET", path, parameters), shape)

    def post(self, path: str, body: Json | None = None, shape: Shape = OBJECT) -> Json:
        """Return the answer to a POST, with `body` as JSON if there is one. Raises `ClientError`."""
        return self._decoded(self._ask("POST", path, body=body), shape)

    def delete(self, path: str) -> None:
        """Ask for a DELETE. Raises `ClientError`."""
        self._ask("DELETE", path)

    @functools.cached_property
    def _trust(self) -> "ssl.SSLContext | None":
        # Only for https: reading the certificates takes longer than most requests.
        if not self.server.startswith("https:"):
            return None
        return trusted()

    def _http(self) -> "httpx.Client":
        import httpx

        # No proxies: a proxy would look for 127.0.0.1 on its own machine.
        return httpx.Client(headers=self._headers, timeout=ANSWER_WAIT_S, trust_env=False, verify=self._trust or False)

    def _ask(self, method: str, path: str, parameters: Parameters = (), body: Json | None = None) -> bytes:
        # Not at the top of the module: `taskd serve` loads this module too, and httpx takes 5 MB.
        import httpx

        url, content, headers = self.server + path, None, {}
        if body is not None:
            content, headers = orjson.dumps(body), {"Content-Type": "application/json"}
        try:
            with (
                self._http() as http,
                http.stream(method, url, params=list(parameters), content=content, headers=headers) as answer,
            ):
                return self._content(answer)
        except httpx.InvalidURL as error:
            raise Invalid(f"--server {self.server!r}: {error}.") from error
        except httpx.RequestError as error:
            hint = NOT_HTTP_HINT if isinstance(error, httpx.RemoteProtocolError) else NOT_RUNNING_HINT
            raise self._unreachable(error, hint) from error

    def _content(self, answer: "httpx.Response") -> bytes:
        """Return the body of a successful answer. Raises the error that another answer means."""
        content = bytearray()
        for chunk in answer.iter_bytes():
            content += chunk
            if len(content) > ANSWER_BYTES_MAX:
                raise self._not_taskd(f"its answer is over {ANSWER_BYTES_MAX:,} bytes")
        if not answer.is_success:
            raise self._problem(answer.status_code, bytes(content), answer.headers.get("Location", ""))
        return bytes(content)

    def _decoded(self, content: bytes, shape: Shape) -> Json:
        try:
            value = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise self._not_taskd("its answer is not JSON") from error
        if found := misfit(value, shape):
            raise self._not_taskd(f"in its answer {found}")
        answer: Json = value
        return answer

    def _not_taskd(self, why: str) -> Unreachable:
        return Unreachable(f"What answers at {self.server} is not taskd, or another version of it: {why}.")

    def find(self, name: str) -> str:
        """Return the id of the task that `name` means: an id, an ending of one, or `@last`. Raises `ClientError`."""
        if name == "@last":
            tasks = self.get("/api/tasks", [("limit", "1")], TASKS)["tasks"]
            return self._the_one(tasks, "There is no task yet: start one with taskd run.")
        if not ENDING.fullmatch(name.lower()):
            raise Invalid(
                f"Task {name!r}: expected an id (hexadecimal digits), the last 6 or more characters of one, "
                "or @last for the newest task."
            )
        if len(name) == ID_LENGTH:
            return name.lower()
        tasks = self.get("/api/tasks", [("id", name.lower()), ("limit", str(CANDIDATES_MAX))], TASKS)["tasks"]
        return self._the_one(tasks, f"No task's id ends in {name!r}; taskd tasks lists the newest.")

    @staticmethod
    def _the_one(tasks: list[Json], none: str) -> str:
        if not tasks:
            raise Invalid(none)
        if len(tasks) > 1:
            listed = ", ".join(f"{task['id']} ({task['plugin']}, {task['status']})" for task in tasks)
            raise Invalid(f"Several ids end so; give more characters of one: {listed}.")
        task_id: str = tasks[0]["id"]
        return task_id

    def task(self, task_id: str) -> Json:
        """Return the task. Raises `ClientError`."""
        return self.get(f"/api/tasks/{task_id}", shape=TASK)

    def plugins(self) -> Json:
        """Return the plugins, and those that are broken. Raises `ClientError`."""
        return self.get("/api/plugins", shape=PLUGINS)

    def params_schema(self, plugin: str) -> Json:
        """Return the JSON Schema of the params that `plugin` takes; an empty one if it has none."""
        plugins = self.plugins()["plugins"]
        return next((one["params_schema"] or {} for one in plugins if one["name"] == plugin), {})

    def tasks(self, parameters: Parameters) -> list[Json]:
        """Return the newest tasks, at most the `limit` of the parameters. Raises `ClientError`."""
        found: list[Json] = []
        before: Parameters = []
        while True:
            page = self.get("/api/tasks", [*parameters, *before], TASKS)
            found += page["tasks"]
            given = dict(parameters)["limit"]
            limit = int(given) if given.isdecimal() else len(found)  # taskd refuses such a limit
            # Large tasks fill a page before it has `limit` of them.
            if page["next_before"] is None or not page["tasks"] or len(found) >= limit:
                return found[:limit]
            before = [("before", page["next_before"])]

    def pages(self, task_id: str, parameters: Parameters) -> Iterator[list[Json]]:
        """Yield the matches in the log as it is now, a page of entries at a time. Raises `ClientError`."""
        asked = list(parameters)
        if not _names(asked) & {"tail", "limit"}:
            asked.append(("limit", str(PAGE_ENTRIES)))
        newest: int | None = None
        seen = 0
        while True:
            page = self.get(f"/api/tasks/{task_id}/logs", asked, PAGE)
            # A running task may log faster than the client reads, so reading ends at the newest seq of the first page.
            newest = page["last_seq"] if newest is None else newest
            if page["entries"]:
                yield page["entries"]
            if not page["more"] or not page["entries"] or page["entries"][-1]["seq"] >= newest:
                return
            before, seen = seen, page["entries"][-1]["seq"]
            if seen <= before:
                raise self._not_taskd(f"entry {seen} comes after {before}")
            asked = resumed(asked, seen)

    def export(self, task_id: str, parameters: Parameters, file: Sink) -> None:
        """
        Write the log to `file` as it arrives. Raises `ClientError`, which is `Unreachable` if the export breaks off.

        `file` then lacks the last line, which marks a complete export.
        """
        import httpx

        end = b""
        path = f"{self.server}/api/tasks/{task_id}/logs/export"
        try:
            with (
                self._http() as http,
                http.stream("GET", path, params=list(parameters)) as answer,
            ):
                if not answer.is_success:
                    self._content(answer)
                for chunk in answer.iter_bytes():
                    file.write(chunk)
                    end = (end + chunk)[-COMPLETE_BYTES:]
        except httpx.InvalidURL as error:
            raise Invalid(f"--server {self.server!r}: {error}.") from error
        except httpx.RemoteProtocolError as error:
            raise Unreachable(f"The export broke off and is not complete: {error}.") from error
        except httpx.RequestError as error:
            raise self._unreachable(error) from error
        finally:
            file.flush()
        if not COMPLETE.search(end):
            raise Unreachable(f"The export is not complete: the answer of {self.server} has no last line.")

    async def follow(
        self, task_id: str, parameters: Parameters, on_notice: Callable[[str], None]
    ) -> AsyncGenerator[Json, None]:
        """
        Yield the frames of the live route up to and including `end`, across lost connections.

        `on_notice` gets a line each time the connection is lost and is back, and if the server has lost
        entries that were seen. Raises `ClientError`: at once if the first connection fails other than by a
        timeout, and later if a connection is refused or takes over `AWAY_MAX_S`. May be cancelled; close
        it with `aclose`.
        """
        asked = list(parameters)
        attempts, connected_at = 0, None
        while True:
            try:
                async with self._live(task_id, asked) as connection:
                    connected_at = time.monotonic()
                    async for frame in self._frames(connection):
                        if attempts:
                            on_notice("connected again")
                        attempts, connected_at = 0, time.monotonic()
                        asked = resumed(asked, _seen(frame))
                        yield frame
                        if frame["type"] == "end":
                            return
                lost = self._closed(connection)
            except (OSError, TimeoutError, WebSocketException) as error:
                lost = self._not_connected(error)
                if isinstance(error, TimeoutError) and connected_at is None:
                    connected_at = time.monotonic()  # the server exists; a task may be blocking its loop
            if connected_at is None or time.monotonic() - connected_at > AWAY_MAX_S:
                raise lost
            if isinstance(lost, Invalid):
                asked = await self._going_on(task_id, asked, lost, on_notice)
            elif not isinstance(lost, Unreachable):
                raise lost
            elif attempts == 0:
                on_notice(f"{str(lost).removesuffix(NOT_RUNNING_HINT).rstrip('.')}; trying again")
            await asyncio.sleep(_backoff_s(attempts))
            attempts += 1

    async def _going_on(
        self, task_id: str, asked: list[tuple[str, str]], refused: Invalid, on_notice: Callable[[str], None]
    ) -> list[tuple[str, str]]:
        """Return `asked`, from the end of a log that lost entries already seen. Raises `refused` if it lost none."""
        seen = int(dict(asked).get("after", 0))
        try:
            task = await in_thread(lambda: self.task(task_id), name="client")
        except Unreachable:
            return asked
        newest: int = task["last_seq"]
        if newest >= seen:
            raise refused
        on_notice(f"the server lost the entries after {newest} when it died; going on from there")
        return resumed(asked, newest)

    def _live(self, task_id: str, parameters: Parameters) -> connect:
        url = f"ws{self.server.removeprefix('http')}/api/tasks/{task_id}/logs/live?{urlencode(parameters)}"
        return _Connect(
            url,
            additional_headers=self._headers,
            open_timeout=CONNECT_WAIT_S,
            close_timeout=1,
            ping_interval=None,  # `SILENCE_MAX_S` detects a dead connection
            compression=None,
            max_size=ANSWER_BYTES_MAX,
            proxy=None,
            ssl=self._trust,
        )

    def _closed(self, connection: ClientConnection) -> ClientError:
        reason = connection.close_reason or f"code {connection.close_code}"
        if connection.close_code == CloseCode.POLICY_VIOLATION:
            return Refused(f"The server at {self.server} closed the connection: {reason}.")
        return Unreachable(f"The server at {self.server} closed the connection ({reason}).")

    def _not_connected(self, error: Exception) -> ClientError:
        if isinstance(error, InvalidStatus):
            answer = error.response
            return self._problem(answer.status_code, bytes(answer.body or b""), answer.headers.get("Location", ""))
        if isinstance(error, InvalidURI):
            return Invalid(f"--server {self.server!r}: {error}.")
        return self._unreachable(error)

    def _unreachable(self, error: Exception, hint: str = NOT_RUNNING_HINT) -> Unreachable:
        if fault := handshake_fault(error):
            return Unreachable(f"Cannot reach taskd at {self.server}: {fault}")
        reason = (str(error) or type(error).__name__).rstrip(".")
        return Unreachable(f"Cannot reach taskd at {self.server}: {reason}.{hint}")

    def _problem(self, status: int, content: bytes, location: str = "") -> ClientError:
        """Return the error that an answer means, with the detail of its problem document if it has one."""
        if location and 300 <= status < 400:
            return Unreachable(f"{self.server} redirects to {location}: give the address of taskd with --server.")
        detail = _detail(content) if status >= 400 else ""
        if status == HTTPStatus.UNAUTHORIZED:
            wanted = "this server requires a token: give it with --token or TASKD_TOKEN"
            return Refused("this server does not accept the token" if self._headers else wanted)
        if status == HTTPStatus.FORBIDDEN:
            return Refused(detail or f"{self.server} answered {status}.")
        # 429 and 5xx: the request is valid, but the server cannot serve it now.
        if status == 429 or status >= 500:
            return Unreachable(detail or f"{self.server} answered {status}.{NOT_RUNNING_HINT}")
        if not detail:
            return self._not_taskd(f"it answered {status} without a problem document")
        return NotFound(detail) if status == HTTPStatus.NOT_FOUND else Invalid(detail)

    async def _frames(self, connection: ClientConnection) -> AsyncGenerator[Json, None]:
        """Yield the frames of one connection, until it is closed or silent for too long."""
        while True:
            try:
                async with asyncio.timeout(SILENCE_MAX_S):
                    text = await connection.recv(decode=False)
            except WebSocketException:
                return
            frame = self._decoded(text, {"type": str})
            if found := misfit(frame, FRAMES.get(frame["type"], OBJECT)):
                raise self._not_taskd(f"in its frame {found}")
            yield frame


class _Connect(connect):
    """A connection to the given server; a redirect is an error."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


def resumed(parameters: Parameters, seen: int | None) -> list[tuple[str, str]]:
    """Return `parameters` for going on after `seen`; unchanged if nothing was seen yet."""
    if seen is None:
        return list(parameters)
    kept = [(name, value) for name, value in parameters if name not in ("after", "tail")]
    return [*kept, ("after", str(seen))]


def _seen(frame: Json) -> int | None:
    """Return the seq up to which every match has arrived with `frame`, or None if the frame has none."""
    if frame["type"] == "entries":
        return frame["entries"][-1]["seq"] if frame["entries"] else None
    # The seq in `hello` is the log's newest: nothing of the log has been sent yet.
    return frame["last_seq"] if frame["type"] in ("caught_up", "ping", "end") else None


def _backoff_s(attempts: int) -> float:
    """Return the delay before an attempt: doubled each time, with jitter, so that many clients spread out."""
    return min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2.0**attempts) * random.uniform(0.5, 1)


def _names(parameters: Parameters) -> set[str]:
    return {name for name, _ in parameters}


def _detail(content: bytes) -> str:
    """Return the detail of a problem document (RFC 9457); "" if `content` is something else."""
    try:
        problem = orjson.loads(content)
    except orjson.JSONDecodeError:
        return ""
    return "" if misfit(problem, PROBLEM) else str(problem["detail"])
