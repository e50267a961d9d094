"""Producers that are too much, from outside: what they do is theirs, and is counted."""

import asyncio
import itertools
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from benchmarks.plan import ROOT
from benchmarks.proc import memory_of
from benchmarks.viewers import STEP_NS
from tests.helpers.bars import TORTURE, Record, scaled
from tests.helpers.metrics import samples
from tests.helpers.served import ENVIRONMENT, Served, taskd

FLOOD = scaled(60_000, 1_000_000)
QUEUE_MAX = scaled(2_000, 20_000)
TALKERS = 3
VIEWERS = 3
BEFORE_S = scaled(0, 10)
# On a machine that does other things the short form shows that nobody is held up for seconds.
P99_MS_MAX = 250
MEMORY_MB_MAX = 200

CREATIONS = scaled(400, 10_000)
CONNECTIONS = scaled(40, 500)
RUNNING_MAX, QUEUED_MAX = scaled((10, 30), (100, 1_000))

PRODUCERS = '''
import asyncio, time
from pathlib import Path

from taskd import Plugin


class Flood(Plugin):
    """Says so many entries as fast as it can; the loop turns now and then, or it would be held."""

    name = "flood"

    async def execute(self, params, context):
        for number in range(params["entries"]):
            context.logger.info(f"flood {number}", n=number)
            if number % 500 == 499:
                await asyncio.sleep(0)
        return params["entries"]


class FloodInThread:
    """The same without a pause, in a thread."""

    name = "threaded"

    def execute(self, params, context):
        for number in range(params["entries"]):
            context.logger.info(f"flood {number}", n=number)
        return params["entries"]


class Talker(Plugin):
    """Says 100 entries a second, each with the time, until the gate is there."""

    name = "talker"

    async def execute(self, params, context):
        while not Path(params["gate"]).exists():
            context.logger.info("talk", t=time.monotonic_ns())
            await asyncio.sleep(0.01)


class Waiter(Plugin):
    """Waits for its gate."""

    name = "waiter"

    async def execute(self, params, context):
        while not Path(params["gate"]).exists():
            await asyncio.sleep(0.05)
'''


def with_producers(directory: Path, *options: str) -> Served:
    """A server, not started yet, that has the plugins above."""
    plugins = directory / "producers"
    plugins.mkdir()
    (plugins / "producers.py").write_text(PRODUCERS)
    return Served(directory, "--plugins", str(plugins), *options)


# R10


@pytest.mark.bar("R10")
@pytest.mark.timeout(scaled(60, 900))
@pytest.mark.parametrize("plugin", ["flood", "threaded"])
def test_a_flood_is_counted_to_the_entry_and_holds_up_no_other(
    tmp_path: Path, plugin: str, record_property: Record
) -> None:
    """What it says is in its log or counted there; others are as live as ever, memory is bounded."""
    limits = ("--queue-max", str(QUEUE_MAX), "--batch-max", str(QUEUE_MAX // 2), "--thread-wait-s", "0")
    with ExitStack() as readers, with_producers(tmp_path, *limits) as served:
        gate = tmp_path / "gate"
        talkers = [served.submit("talker", gate=str(gate)) for _ in range(TALKERS)]
        watching = [readers.enter_context(viewers(served, talker)) for talker in talkers]
        watched = time.monotonic()
        time.sleep(BEFORE_S)  # what the machine makes of them without a flood is measured too
        before_mb = memory_of(served.process.pid)["RssAnon"] / 1e6
        began, flood = time.monotonic(), served.submit(plugin, entries=FLOOD)
        follower = readers.enter_context(followed(served, flood, tmp_path / "followed"))
        readers.callback(follower.kill)
        grown_mb = peak_memory_mb(served, flood) - before_mb
        ended = time.monotonic()
        gate.touch()
        seen = [seen_by(each) for each in watching]
        before_ms, p99_ms = late_ms(seen, watched + 2, began - 1), late_ms(seen, began, ended)
        assert follower.wait(120) == 0
        accepted, dropped = said_in(tmp_path / "followed")
        tallied = samples(served, "taskd_entries_dropped_total")[(("plugin", plugin),)]
    figures = {
        "seconds": ended - began,
        "accepted": accepted,
        "dropped": dropped,
        "others' p99 ms": p99_ms,
        "p99 ms before it": before_ms,
        "MB": grown_mb,
    }
    for name, figure in figures.items():
        record_property(f"{plugin}: {name}", round(figure))
    assert dropped
    assert accepted + dropped == FLOOD
    assert tallied == dropped
    assert not TORTURE or p99_ms <= P99_MS_MAX
    assert grown_mb <= MEMORY_MB_MAX


def viewers(served: Served, task_id: str) -> "subprocess.Popen[str]":
    """Some who watch a log to its end, in a process of their own, when all of them are caught up."""
    command = [sys.executable, "-m", "benchmarks.viewers", str(served.port), task_id, str(VIEWERS)]
    watching = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT, cwd=ROOT)
    assert watching.stdout
    assert watching.stdout.readline() == "ready\n"
    return watching


def seen_by(watching: "subprocess.Popen[str]") -> dict[str, Any]:
    """What they saw: all of it, in order."""
    told: dict[str, Any] = orjson.loads(watching.communicate(timeout=60)[0])
    assert told["ordered"]
    assert (told["lost"], watching.returncode) == (0, 0)
    return told


def late_ms(seen: Sequence[dict[str, Any]], since: float, until: float) -> float:
    """How late 99 % of what all of them received in this time came, at most; 0 without any."""
    steps: Counter[int] = Counter()
    for second, late in (item for each in seen for item in each["late"].items()):
        if since - 1 < int(second) <= until:
            steps.update({int(step): count for step, count in late.items()})
    least = 0.99 * steps.total()
    reached = itertools.accumulate(steps[step] for step in sorted(steps))
    late = (step for step, so_far in zip(sorted(steps), reached, strict=True) if so_far >= least)
    return next(late, 0) * STEP_NS / 1e6


def followed(served: Served, task_id: str, file: Path) -> "subprocess.Popen[bytes]":
    """A reader of the whole log, a process of its own, that writes it into `file`."""
    with file.open("wb") as out:
        command = taskd("logs", "-f", task_id, "--output", "ndjson", "--server", served.url)
        return subprocess.Popen(command, stdout=out, env=ENVIRONMENT)


def peak_memory_mb(served: Served, task_id: str) -> float:
    """The most memory of its own that the server had until the task ended."""
    peak = 0
    with httpx.Client(base_url=served.url, trust_env=False, timeout=30) as client:
        while client.get(f"/api/tasks/{task_id}").json()["status"] in ("queued", "running"):
            peak = max(peak, memory_of(served.process.pid)["RssAnon"])
            time.sleep(0.05)
    return peak / 1e6


def said_in(file: Path) -> tuple[int, int]:
    """How many entries of a flood are in its log, and how many the log says were dropped; in order, no hole."""
    accepted = dropped = 0
    last = -1
    for seq, line in enumerate(file.read_bytes().splitlines(), 1):
        entry = orjson.loads(line)
        assert entry["seq"] == seq
        if entry["source"] != "system":
            accepted += 1
            assert entry["metadata"]["n"] > last
            last = entry["metadata"]["n"]
        dropped += (entry["metadata"] or {}).get("dropped", 0)
    return accepted, dropped


# R11


@pytest.mark.bar("R11")
@pytest.mark.timeout(scaled(60, 600))
async def test_creations_beyond_the_limit_are_refused_and_the_others_all_end(
    tmp_path: Path, record_property: Record
) -> None:
    """So many run, so many wait, all others hear 429 and when to come back; nothing is cut off."""
    limits = ("--tasks-running-max", str(RUNNING_MAX), "--tasks-queued-max", str(QUEUED_MAX))
    with with_producers(tmp_path, *limits) as served:
        gate = tmp_path / "gate"
        body = orjson.dumps({"plugin": "waiter", "params": {"gate": str(gate)}})
        began = time.monotonic()
        shares = [CREATIONS // CONNECTIONS] * CONNECTIONS
        answers = await asyncio.gather(*[created(served, body, share) for share in shares])
        seconds = time.monotonic() - began
        statuses = Counter(status for answer in answers for status in answer)
        assert statuses == {201: RUNNING_MAX + QUEUED_MAX, 429: CREATIONS - RUNNING_MAX - QUEUED_MAX}
        assert any("429" in notice for notice in served.get("/api/health")["problems"])
        refused = samples(served, "taskd_tasks_refused_total")[(("plugin", "waiter"),)]
        gate.touch()
        await all_ended(served)
        rows = rows_by_status(served)
    assert rows == {"succeeded": RUNNING_MAX + QUEUED_MAX}
    assert refused == statuses[429]
    record_property("accepted", statuses[201])
    record_property("refused with 429", statuses[429])
    record_property("anything else", 0)
    record_property("seconds", round(seconds, 1))


async def created(served: Served, body: bytes, count: int) -> Sequence[int]:
    """The statuses of that many creations on one connection; of a 429 also that it says when to come back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    head = (
        f"POST /api/tasks HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    )
    statuses = []
    with closing(writer):
        for _ in range(count):
            writer.write(head.encode() + b"\r\n\r\n" + body)
            answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            headers = dict(line.split(": ", 1) for line in answer.split("\r\n")[1:] if line)
            await reader.readexactly(int(headers["content-length"]))
            statuses.append(int(answer.split()[1]))
            assert statuses[-1] != 429 or int(headers["retry-after"]) > 0
    return statuses


async def all_ended(served: Served) -> None:
    """Wait until no task runs or waits."""
    async with httpx.AsyncClient(base_url=served.url, trust_env=False, timeout=30) as client:
        for status in ("queued", "running"):
            while (await client.get(f"/api/tasks?status={status}&limit=1")).json()["tasks"]:
                await asyncio.sleep(0.1)


def rows_by_status(served: Served) -> dict[Any, Any]:
    """How many tasks of each status the database has."""
    with closing(sqlite3.connect(served.data_dir / "taskd.db")) as database:
        return dict(database.execute("SELECT status, count(*) FROM tasks GROUP BY status").fetchall())
