"""
Long under load: what a service has in memory, descriptors, threads and files does not grow with time.

Tasks come and end at 500 entries a second together, viewers come and go, an export is taken
slowly, a stream is followed, retention deletes; and for a part of the time another program holds
an old state of the database, against which nothing can be done but say so.
"""

import contextlib
import functools
import os
import socket
import sqlite3
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from tests.helpers.bars import Record, scaled
from tests.helpers.served import Served, wait_until

SECONDS = scaled(8.0, 3_600.0)
RATE = 500
TASKS = 5
TASK_S = scaled(0.8, 20.0)
STEADY_RATE = 10
FIRST = scaled(1_500, 20_000)
KEPT_BYTES = scaled(1, 64) * 1_048_576
HELD = (0.3, scaled(0.6, 0.4))
SAMPLE_S = scaled(0.2, 2.0)
# Longest time for an answer, on a machine that others use too.
BUSY_S = 60
# Before it, caches fill.
WARM = scaled(0.5, 0.25)
MIB = 1_048_576
WAL_LARGE = 64 * MIB
# Each opens the write-ahead log when it is first used: those that read, that which indexes and the checkpoints'.
CONNECTIONS = 5

PLUGINS = '''
import asyncio, collections, time

from taskd import Plugin


class Soaker(Plugin):
    """Says `first` entries, then `rate` a second, for `seconds`."""

    name = "soaker"

    async def execute(self, params, context):
        said = 0
        while said < params.get("first", 0):
            said += 500
            for n in range(500):
                context.logger.info(f"number {n} of the first, " + "said at length " * 15, n=n)
            await context.logger.drain()
        began = time.monotonic()
        said = 0
        while (passed := time.monotonic() - began) < params["seconds"]:
            while said < passed * params["rate"]:
                said += 1
                context.logger.info(f"number {said} of many, " + "said at length " * 15, n=said)
            await asyncio.sleep(0.05)
        return {"said": said}


class Census(Plugin):
    """Counts the asyncio tasks, but for its own."""

    name = "census"

    async def execute(self, params):
        return {"asyncio": len(asyncio.all_tasks())}
'''


@dataclass(frozen=True, slots=True)
class Sample:
    """What a process had at a time."""

    at_s: float
    memory: int
    descriptors: int
    threads: int
    wal: int
    database: int
    journal: int


class Soak:
    """A server under load, and what it had while that went on."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.samples: list[Sample] = []
        self.tasks = 0
        self.kept = 0
        self.viewed = 0
        self.exported = 0
        self.cut = 0
        self.faults: list[BaseException] = []
        self._began = time.monotonic()
        self._over = threading.Event()

    @property
    def part(self) -> float:
        """How much of the time has passed."""
        return (time.monotonic() - self._began) / SECONDS

    def run(self) -> None:
        """Load it for the time, with samples."""
        steady = self.served.submit("soaker", first=FIRST, rate=STEADY_RATE, seconds=2 * SECONDS)
        self.served.wait_for(steady, "number 1 of many, " + "said at length " * 15)
        self._began = time.monotonic()
        work = [*[self.keep_tasks] * TASKS, self.view, functools.partial(self.export, steady)]
        work += [functools.partial(self.stream, steady), self.hold]
        threads = [threading.Thread(target=self._watched, args=(one,)) for one in work]
        for thread in threads:
            thread.start()
        while self.part < 1 and not self.faults:
            time.sleep(SAMPLE_S)  # the pace of the samples
            self.samples.append(self.sample())
        self._over.set()
        httpx.post(f"{self.served.url}/api/tasks/{steady}/cancel", trust_env=False).raise_for_status()
        for thread in threads:
            thread.join()
        if self.faults:
            raise self.faults[0]

    def _watched(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as fault:
            self.faults.append(fault)

    def sample(self) -> Sample:
        """What the server has now."""
        process = Path(f"/proc/{self.served.process.pid}")
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        data = self.served.data_dir
        return Sample(
            time.monotonic() - self._began,
            int(status["VmRSS"].split()[0]) * 1_024,
            descriptors_of(process, but=str(data / "journal")),
            int(status["Threads"]),
            size_of(data / "taskd.db-wal"),
            size_of(data / "taskd.db"),
            sum(size_of(path) for path in (data / "journal").iterdir()),
        )

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=self.served.url, trust_env=False, timeout=BUSY_S)

    def keep_tasks(self) -> None:
        """One task after the other."""
        asked = {"plugin": "soaker", "params": {"rate": (RATE - STEADY_RATE) / TASKS, "seconds": TASK_S}}
        with self._client() as client:
            while not self._over.wait(TASK_S):
                client.post("/api/tasks", json=asked).raise_for_status()
                self.tasks += 1

    def view(self) -> None:
        """Viewers of the newest task come, look and go."""
        with self._client() as client:
            while not self._over.wait(0.2):
                newest = client.get("/api/tasks?plugin=soaker&limit=1").raise_for_status().json()["tasks"][0]
                self._view(f"{self.served.url.replace('http', 'ws')}/api/tasks/{newest['id']}/logs/live")

    def _view(self, url: str) -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                viewer = stack.enter_context(connect(url, proxy=None, open_timeout=BUSY_S))
                assert "hello" in str(viewer.recv(timeout=BUSY_S))
                self.viewed += 1

    def export(self, task_id: str) -> None:
        """Export a log, slowly, again and again."""
        while not self._over.is_set():
            try:
                self._export_once(f"/api/tasks/{task_id}/logs/export?format=ndjson")
            except ConnectionResetError:
                self.cut += 1  # on a busy machine it was so slow that it was let go

    def _export_once(self, path: str) -> None:
        host, port = self.served.url.removeprefix("http://").split(":")
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
            client.connect((host, int(port)))
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            last = b""
            while got := client.recv(16_384):
                last = (last + got)[-200:]
                if self._over.wait(0.05):
                    return
        if b'"complete":true' in last:
            self.exported += 1
        else:
            self.cut += 1  # and the server says why

    def stream(self, task_id: str) -> None:
        """Follow a log, live, to the end of it all."""
        url = f"{self.served.url}/api/tasks/{task_id}/logs/stream"
        with httpx.stream("GET", url, trust_env=False, timeout=60) as lines:
            seqs = [int(line.split(",")[0].removeprefix('{"seq":')) for line in lines.iter_lines() if line]
        assert seqs == [*range(1, len(seqs) + 1)]

    def hold(self) -> None:
        """Another program holds an old state of the database, for a part of the time."""
        wait_until(lambda: self.part > HELD[0] or self._over.is_set(), within_s=SECONDS)
        other = sqlite3.connect(f"file:{self.served.data_dir / 'taskd.db'}?mode=ro", uri=True, isolation_level=None)
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM tasks").fetchone()
        wait_until(lambda: self.part > HELD[1] or self._over.is_set(), within_s=SECONDS)
        other.close()

    def census(self) -> int:
        """How many asyncio tasks the server has."""
        result = self.served.wait_end(self.served.submit("census"))["result"]
        return int(result["asyncio"])


def descriptors_of(process: Path, but: str) -> int:
    """How many it has; the journal's files come and go with the load, and their bytes are looked at."""
    return sum(not link_of(path).startswith(but) for path in (process / "fd").iterdir())


def link_of(path: Path) -> str:
    try:
        return os.readlink(path)
    except FileNotFoundError:  # closed meanwhile
        return ""


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def slope_mib_an_hour(samples: list[Sample]) -> float:
    """How fast memory grows, by the straight line through all samples."""
    slope, _ = statistics.linear_regression([one.at_s for one in samples], [one.memory for one in samples])
    return slope * 3_600 / MIB


@contextlib.contextmanager
def soaked(tmp_path: Path) -> Iterator[Soak]:
    plugins = tmp_path / "soakers"
    plugins.mkdir()
    (plugins / "soaker.py").write_text(PLUGINS)
    options = ["--plugins", str(plugins), "--retention-bytes-max", str(KEPT_BYTES), "--index-entries-min", "1000"]
    options += ["--retention-interval-s", str(scaled(0.5, 5)), "--page-bytes-max", "524288"]
    with Served(tmp_path, *options) as served:
        yield Soak(served)


@pytest.mark.bar("R17")
@pytest.mark.timeout(scaled(120, 4_200))
def test_nothing_grows_with_time(tmp_path: Path, record_property: Record) -> None:
    """Memory, descriptors, threads, asyncio tasks, the write-ahead log, the journal and the database."""
    with soaked(tmp_path) as soak:
        # In this order: the first write opens the database once more.
        census, before = soak.census(), soak.sample()
        soak.run()
        # Whoever held the old state has gone.
        wait_until(lambda: soak.sample().wal <= WAL_LARGE, within_s=120)
        after = settled(soak, before)
        # Whoever asks for a census may be counted too, or not yet.
        wait_until(lambda: soak.census() <= census, within_s=60)
        soak.kept = len(soak.served.get("/api/tasks?plugin=soaker&limit=500")["tasks"])
        warned = [line for line in soak.served.said if "another program" in line]
        tell(soak, before, after, record_property)
    record_property("tasks kept", soak.kept)
    record_property("asyncio tasks, before and after at most", census)
    record_property("said that another program holds it", len(warned))
    record_property("said of exports", sorted({line for line in soak.served.said if "export" in line}))
    check(soak, before, after)


def settled(soak: Soak, before: Sample) -> Sample:
    """What is left when the load is gone."""
    wait_until(lambda: soak.served.get("/api/health")["tasks_running"] == 0, within_s=60)
    with contextlib.suppress(AssertionError):  # `check` says how many there are
        wait_until(lambda: soak.sample().descriptors <= before.descriptors + CONNECTIONS, within_s=60)
    return soak.sample()


def check(soak: Soak, before: Sample, after: Sample) -> None:
    warm = [one for one in soak.samples if one.at_s >= WARM * SECONDS]
    half = len(warm) // 2
    held = [HELD[0] * SECONDS, HELD[1] * SECONDS + scaled(2, 120)]
    free = [one for one in soak.samples if not held[0] <= one.at_s <= held[1]]
    assert median(warm[half:], "memory") - median(warm[:half], "memory") <= scaled(32, 8) * MIB
    for name in ("descriptors", "threads"):
        assert median(warm[half:], name) <= median(warm[:half], name) + 3
    assert max(one.wal for one in free) <= WAL_LARGE + 16 * MIB
    assert max(one.journal for one in soak.samples) <= 64 * MIB
    assert max(one.database for one in warm) <= scaled(3, 1.5) * KEPT_BYTES
    assert after.descriptors <= before.descriptors + CONNECTIONS
    assert soak.kept < 0.9 * soak.tasks
    assert 0 not in (soak.tasks, soak.viewed, soak.exported or SECONDS < 60)


def median(samples: list[Sample], name: str) -> float:
    return float(statistics.median(getattr(one, name) for one in samples))


def tell(soak: Soak, before: Sample, after: Sample, record_property: Record) -> None:
    warm = [one for one in soak.samples if one.at_s >= WARM * SECONDS]
    record_property("seconds", SECONDS)
    record_property("tasks", soak.tasks)
    record_property("viewers", soak.viewed)
    record_property("exports", f"{soak.exported}, and {soak.cut} cut")
    record_property("memory MiB", f"{warm[0].memory / MIB:.0f} warm, {warm[-1].memory / MIB:.0f} at the end")
    record_property("memory MiB an hour", round(slope_mib_an_hour(warm), 1))
    for name in ("descriptors", "threads"):
        values = [getattr(one, name) for one in warm]
        ends = f"{getattr(before, name)} before, {getattr(after, name)} after"
        record_property(name, f"{min(values)} to {max(values)}, {ends}")
    for name in ("wal", "database", "journal"):
        values = [getattr(one, name) for one in soak.samples]
        record_property(f"{name} MiB", f"at most {max(values) / MIB:.1f}, {values[-1] / MIB:.1f} at the end")
