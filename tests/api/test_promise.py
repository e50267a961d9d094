"""
The promise, over real connections: filter on the server, lose the connection, come back:
exactly the matching entries, once, in order.
"""

import asyncio
import random
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from websockets.exceptions import ConnectionClosed

from tests.api.conftest import Serve, Served

TASKS = 100
ENTRIES = 1_000

CROWD = '''
import asyncio, random
from taskd import Plugin


class Crowd(Plugin):
    """Says things of every kind, at an uneven pace."""

    name = "crowd"

    async def execute(self, params, context):
        rng = random.Random(params["seed"])
        for n in range(params["entries"] - 2):
            logger = context.logger.with_source(rng.choice(["git", "git.fetch", "disk", "сеть"]))
            words = rng.choice(["said", "ошибка", "Straße", "100%", "a_b"])
            logger.log(rng.choice(["DEBUG", "INFO", "WARNING", "ERROR"]), f"{words} {n}", n=n)
            if rng.random() < 0.01:
                await asyncio.sleep(rng.random() * 0.05)
'''

QUERIES = [
    "",
    "level=ERROR",
    "min_level=warning",
    "source=git",
    "source=git.*",
    "source=git,disk&exclude=7",
    "search=ОШИБКА",
    "search=strasse",
    "search=%25",
    "search=_",
    "search=nobody",
    "search=1&search=2",
    "min_level=INFO&source=сеть&exclude=said",
    "since=2020-01-01T00:00:00",
    "since=2999-01-01T00:00:00Z",
    "level=DEBUG,ERROR&search=9",
    "source=disk&level=ERROR&search=9",
    "exclude=ошибка&exclude=straße",
    "search=99",
    "level=INFO&level=WARNING",
]


async def watch(shown: Served, task_id: str, query: str, rng: random.Random) -> list[dict[str, Any]]:
    """Follow to the end; now and then read slowly, and now and then lose the connection."""
    seen: list[dict[str, Any]] = []
    after = 0
    while True:
        async with shown.live(task_id, f"{quote(query, safe='=&,*%:')}&after={after}") as socket:
            frames_left = rng.choice([1, 2, 5, 10, 1_000])
            while frames_left:
                frames_left -= 1
                try:
                    frame = orjson.loads(await socket.recv())
                except ConnectionClosed:
                    break
                seen += frame.get("entries", ())
                if frame["type"] in ("entries", "caught_up", "ping", "end"):
                    after = frame.get("last_seq", seen[-1]["seq"] if seen else 0)
                if frame["type"] == "end":
                    return seen
                if rng.random() < 0.2:
                    await asyncio.sleep(rng.random() * 0.05)


async def stored(shown: Served, task_id: str, query: str) -> list[dict[str, Any]]:
    """The store's answer for the same filter."""
    answer = await shown.http.get(f"/api/tasks/{task_id}/logs?{query}&limit=5000")
    entries: list[dict[str, Any]] = answer.raise_for_status().json()["entries"]
    return entries


@pytest.mark.timeout(120)
async def test_each_viewer_sees_exactly_what_the_store_answers_for_its_filter(tmp_path: Path, serve: Serve) -> None:
    """100 tasks at once, 20 viewers with different filters, reconnecting at random."""
    rng = random.Random(20)
    directory = tmp_path / "crowd"
    directory.mkdir()
    (directory / "crowd.py").write_text(CROWD)
    async with serve(plugins=[directory], subscriber_queue_max=200) as shown, asyncio.TaskGroup() as group:
        ids = [await shown.start("crowd", seed=seed, entries=ENTRIES) for seed in range(TASKS)]
        viewers = [
            (task_id, query, group.create_task(watch(shown, task_id, query, random.Random(query))))
            for query, task_id in zip(QUERIES, rng.sample(ids, len(QUERIES)), strict=True)
        ]
        for task_id in ids:
            assert (await shown.service.manager.wait(task_id)).last_seq == ENTRIES
        for task_id, query, viewer in viewers:
            assert await viewer == await stored(shown, task_id, query), query
