"""
Attacks on a real `taskd serve`, over real sockets: what a browser, a network and a task can send.

One server for each file, with a token and without, since no attack may harm the next one; after
each file it must be well, and its own output without a traceback.
"""

import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.helpers.proc import memory_bytes
from tests.helpers.served import PLUGINS, Served

TOKEN = "correct-horse-battery"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
ANSWER_WAIT_S = 10.0
KEY = "AAAAAAAAAAAAAAAAAAAAAA=="
UPGRADE = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}")


@dataclass(frozen=True)
class Answer:
    """What came back on one connection until it was closed."""

    received: bytes

    @property
    def status(self) -> int:
        """Of the first answer."""
        return int(self.received.split(b" ", 2)[1])

    @property
    def count(self) -> int:
        """How many answers came."""
        return len(re.findall(rb"HTTP/1\.1 \d{3} ", self.received))

    @property
    def headers(self) -> dict[str, str]:
        """Of the first answer, names in lower case."""
        lines = self.received.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    @property
    def body(self) -> bytes:
        """Of the first answer, and what follows it."""
        return self.received.partition(b"\r\n\r\n")[2]


class Target(Served):
    """A server to attack; `token` is the one that it has."""

    token: str | None = None

    def ask(self, head: str | bytes, *lines: str | bytes, body: bytes = b"") -> Answer:
        """Send a request as it is written, with the connection to be closed; what comes back."""
        written = [line if isinstance(line, bytes) else line.encode("latin-1") for line in (head, *lines)]
        return self.send(b"\r\n".join([*written, b"Connection: close"]) + b"\r\n\r\n" + body)

    def upgrade(self, path: str, *lines: str) -> Answer:
        """Ask for a WebSocket, by hand; what comes back until it is closed."""
        return self.send("\r\n".join([f"GET {path} HTTP/1.1", *lines, *UPGRADE, "", ""]).encode("latin-1"))

    def send(self, data: bytes) -> Answer:
        """Send bytes; what comes back until the server closes, which it must."""
        with socket.create_connection(("127.0.0.1", self.port), ANSWER_WAIT_S) as connection:
            connection.sendall(data)
            received = b""
            try:
                # A WebSocket that is open would wait for ours to close it.
                while not received.startswith(b"HTTP/1.1 101 ") and (block := connection.recv(65_536)):
                    received += block
            except ConnectionResetError:
                pass  # it closed while there was more of ours to read
        return Answer(received)

    def http(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The same by a client that does it right; with the token, where there is one and no headers are given."""
        headers = options.pop("headers", BEARER if self.token else {})
        self.client.cookies.clear()
        return self.client.request(method, self.url + path, headers=headers, **options)

    @cached_property
    def client(self) -> httpx.Client:
        """One for all requests."""
        return httpx.Client(trust_env=False, timeout=60)

    @property
    def memory_kib(self) -> int:
        """The resident memory of the server."""
        return memory_bytes(self.process.pid) // 1_024

    def __exit__(self, *raised: object) -> None:
        self.client.close()
        super().__exit__(*raised)

    def start_task(self, plugin: str, **params: Any) -> str:
        """Start a task; its id."""
        answer = self.http("POST", "/api/tasks", json={"plugin": plugin, "params": params})
        return str(answer.raise_for_status().json()["id"])

    def run_task(self, plugin: str, **params: Any) -> dict[str, Any]:
        """Run a task to its end; the task."""
        task_id = self.start_task(plugin, **params)
        self.http("GET", f"/api/tasks/{task_id}/logs/stream")  # it ends with the log
        task: dict[str, Any] = self.http("GET", f"/api/tasks/{task_id}").json()
        return task

    def log(self, task_id: str) -> list[dict[str, Any]]:
        """Its entries."""
        entries: list[dict[str, Any]] = self.http("GET", f"/api/tasks/{task_id}/logs?limit=5000").json()["entries"]
        return entries

    def check(self) -> None:
        """It is well, and has nothing to say for itself."""
        assert self.http("GET", "/api/health").json()["status"] == "ok"
        assert self.process.poll() is None
        assert "Traceback" not in "".join(self.said), "".join(self.said)


def target(directory: Path, *options: str, plugins: str = "", token: str | None = None, **environment: str) -> Target:
    """A server that is not started yet, in `directory`, with more `plugins`."""
    if token:
        environment["TASKD_TOKEN"] = token
    served = Target(directory, *options, port=0, **environment)
    served.token = token
    (directory / "plugins" / "spoken.py").write_text(PLUGINS + plugins)
    return served


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server as it is by default: without a token, for who is on this machine."""
    with target(tmp_path_factory.mktemp("here")) as served:
        yield served
        served.check()


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server with a token."""
    with target(tmp_path_factory.mktemp("locked"), token=TOKEN) as served:
        yield served
        served.check()
