"""Connections at their limit, where all of them are being answered."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.api.conftest import Serve
from tests.helpers.waiting import until


async def get(url: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as http:
        return await http.get(url)


async def test_without_room_a_connection_is_refused_until_one_is_answered(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 with a problem and when to come again; it holds up nobody."""
    waiting: list[str] = []
    go_on = asyncio.Event()
    async with serve(viewers_max=1, connections_max=2) as served:
        task = served.service.manager.task

        async def wait(task_id: str) -> Any:
            waiting.append(task_id)
            await go_on.wait()
            return await task(task_id)

        monkeypatch.setattr(served.service.manager, "task", wait)
        asked = [
            asyncio.create_task(get(f"http://127.0.0.1:{served.port}/api/tasks/any"), name=f"ask {n}") for n in range(2)
        ]
        await until(lambda: has(waiting, 2))
        refused = await get(f"http://127.0.0.1:{served.port}/api/health")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert "connections_max" in refused.json()["detail"]
        go_on.set()
        assert [(await one).status_code for one in asked] == [404, 404]
        assert (await get(f"http://127.0.0.1:{served.port}/api/health")).status_code == 200


async def has(waiting: list[str], count: int) -> bool:
    """Whether so many wait."""
    return len(waiting) == count
