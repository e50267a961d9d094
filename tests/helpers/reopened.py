"""What a server has left in its data directory, without another server."""

import asyncio
from typing import Any, Self

import httpx

from taskd.api.app import create_app
from taskd.service import Service
from taskd.settings import Settings
from tests.helpers.served import Served


class Reopened:
    """A service in this process, on the data of a server that has ended: it shows what the next start would."""

    def __init__(self, served: Served) -> None:
        self._settings = Settings(data_dir=served.data_dir)

    def __enter__(self) -> Self:
        self._runner = asyncio.Runner()
        self._service = Service(self._settings)
        self._runner.run(self._service.__aenter__())
        self._app = create_app(self._service)
        return self

    def __exit__(self, *raised: object) -> None:
        with self._runner:
            self._runner.run(self._service.stop())

    def get(self, path: str) -> Any:
        """The answer to a GET, as JSON."""
        return self._runner.run(self._get(path))

    async def _get(self, path: str) -> Any:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self._app), base_url="http://127.0.0.1") as http:
            return (await http.get(path)).raise_for_status().json()
