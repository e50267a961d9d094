"""A service with plugins that do as they are told, shown over HTTP: in the same loop, or on a real port."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from starlette.applications import Starlette
from websockets.asyncio.client import ClientConnection, connect

from taskd import shipped
from taskd.api.app import create_app
from taskd.server.protocols import EdgeConfig
from taskd.server.server import HttpServer
from taskd.service import Service
from tests.conftest import running_service
from tests.helpers.gates import close_all
from tests.helpers.waiting import until

# A file that the build named after its content.
SCRIPT = "/assets/index-Ab3dE_9x.js"

PLUGINS = '''
from pydantic import BaseModel, Field, SecretStr

from taskd import Plugin
from tests.helpers.gates import gate


class Speak(Plugin):
    """Says `count` words; then waits for `gate`; then says `more` words."""

    name = "speak"

    async def execute(self, params, context):
        for n in range(params.get("count", 3)):
            context.logger.info(f"{params.get('word', 'word')} {n + 1}", n=n)
        if params.get("error"):
            context.logger.error(params["error"])
        if "gate" in params:
            await gate(params["gate"]).wait()
        for n in range(params.get("more", 0)):
            context.logger.with_source("later").info(f"more {n + 1}")
        return {"said": params.get("count", 3)}


class Advance(Plugin):
    """Reports progress, waits for its gate, reports the rest."""

    name = "advance"

    async def execute(self, params, context):
        with context.logger.progress("copying", total=2, unit="files") as progress:
            progress.advance()
            await gate("advance").wait()
            progress.advance()


class Copy(Plugin):
    """Takes params of known shape."""

    name = "copy"

    class Params(BaseModel):
        source: str
        keep: int = Field(0, ge=0)
        password: SecretStr = SecretStr("")

    async def execute(self, params, context):
        context.logger.info("copied")
'''


class Shown:
    """A running service and ways to ask it."""

    def __init__(self, service: Service, app: Starlette, http: httpx.AsyncClient) -> None:
        self.service = service
        self.app = app
        self.http = http

    async def start(self, plugin: str = "speak", **params: Any) -> str:
        """Start a task; its id."""
        return (await self.service.manager.submit(plugin, params)).id

    async def run(self, plugin: str = "speak", **params: Any) -> str:
        """Run a task to its end; its id."""
        return (await self.service.manager.wait(await self.start(plugin, **params))).id

    async def said(self, task_id: str, last_seq: int) -> None:
        """Wait until the log has come to `last_seq`."""
        await until(lambda: self._is_at(task_id, last_seq))

    async def _is_at(self, task_id: str, last_seq: int) -> bool:
        return (await self.service.manager.task(task_id)).last_seq >= last_seq

    async def entries(self, task_id: str, **query: Any) -> list[dict[str, Any]]:
        """A page of the log."""
        answer = await self.http.get(f"/api/tasks/{task_id}/logs", params={"limit": 5000, **query})
        entries: list[dict[str, Any]] = answer.raise_for_status().json()["entries"]
        return entries


class Served(Shown):
    """The same on a real port, for what only a real connection shows."""

    port: int

    def live(self, task_id: str, query: str = "", **options: Any) -> connect:
        """A WebSocket to a task's log."""
        address = f"ws://127.0.0.1:{self.port}/api/tasks/{task_id}/logs/live?{query}"
        return connect(address, proxy=None, compression=None, **options)

    @property
    def viewers(self) -> int:
        """How many follow a log now."""
        count: int = self.app.state.viewers.count
        return count


Show = Callable[..., AbstractAsyncContextManager[Shown]]
Serve = Callable[..., AbstractAsyncContextManager[Served]]


@pytest.fixture(autouse=True)
def _page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A built page: what these tests say of one is true whether or not the real one is built."""
    dist = tmp_path / "page" / "dist"
    (dist / "assets").mkdir(parents=True)
    (dist / "index.html").write_text(f'<!doctype html><title>taskd</title><script src="{SCRIPT}"></script>')
    (dist / SCRIPT.removeprefix("/")).write_text("document.title += '.';\n" * 100)
    (dist / "favicon.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"></svg>')
    (dist / ".sources").write_text("sources\n")
    monkeypatch.setattr(shipped, "PAGE", dist)


@pytest.fixture(autouse=True)
def _shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the shipped plugins, which are tested elsewhere: to load them is a third of a service's start."""
    (tmp_path / "shipped").mkdir()
    monkeypatch.setattr(shipped, "PLUGINS", tmp_path / "shipped")


@pytest.fixture(autouse=True)
def _closed_gates() -> None:
    close_all()


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    """A directory with the plugins above."""
    directory = tmp_path / "plugins"
    directory.mkdir()
    (directory / "spoken.py").write_text(PLUGINS)
    return directory


@pytest.fixture
def show(tmp_path: Path, plugins: Path) -> Show:
    """`async with show(**settings) as shown`: a service asked in the same loop."""

    @asynccontextmanager
    async def showing(**settings: Any) -> AsyncIterator[Shown]:
        async with running_service(tmp_path, **_over(plugins, settings)) as service:
            app = create_app(service)
            async with _client(httpx.ASGITransport(app), "http://127.0.0.1:8642") as http:
                yield Shown(service, app, http)

    return showing


@pytest.fixture
async def shown(show: Show) -> AsyncIterator[Shown]:
    """A service as it is by default, asked in the same loop."""
    async with show() as shown:
        yield shown


@pytest.fixture
def serve(tmp_path: Path, plugins: Path) -> Serve:
    """`async with serve(**settings) as served`: the same on a real port."""

    @asynccontextmanager
    async def serving(**settings: Any) -> AsyncIterator[Served]:
        async with running_service(tmp_path, **_over(plugins, settings)) as service:
            app = create_app(service)
            async with _on_a_port(app, service) as port, _client(None, f"http://127.0.0.1:{port}") as http:
                served = Served(service, app, http)
                served.port = port
                yield served
                await service.stop()

    return serving


@pytest.fixture
async def served(serve: Serve) -> AsyncIterator[Served]:
    """A service as it is by default, on a real port."""
    async with serve() as served:
        yield served


def _over(plugins: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """`settings` over what these tests need: their plugins, and a stop that does not wait."""
    return {"plugins": [plugins], "shutdown_grace_s": 0, **settings}


def _client(transport: httpx.AsyncBaseTransport | None, base_url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=transport, base_url=base_url, trust_env=False)


@asynccontextmanager
async def _on_a_port(app: Starlette, service: Service) -> AsyncIterator[int]:
    config = EdgeConfig(app, service.settings, close_wait_s=1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = HttpServer(config, service.supervisor)
        serving = asyncio.create_task(server.serve([listener]), name="http")
        assert await server.started_or(serving)
        yield listener.getsockname()[1]
        server.end()
        await serving


async def frames(connection: ClientConnection) -> list[dict[str, Any]]:
    """All frames until the connection is closed."""
    return [frame async for frame in each_frame(connection)]


async def each_frame(connection: ClientConnection) -> AsyncIterator[dict[str, Any]]:
    """The frames as they come."""
    async for message in connection:
        assert isinstance(message, str), "a live log has text frames alone"
        yield orjson.loads(message)


def check_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """Return the body of a problem, after a look at its form."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert all(body[member] for member in ("type", "title", "detail"))
    return body
