"""A store that is locked, full or failing, and a large one, from outside: tasks and readers go on, nothing is lost."""

import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from taskd import shipped
from taskd.tasks import new_task_id
from tests.helpers.bars import Record, scaled
from tests.helpers.oracle import assert_told, noted, whole_log, with_tellers
from tests.helpers.served import ENVIRONMENT, Served, run_taskd, taskd, wait_until

TASKS = scaled(2, 10)
QUICK = ("--flush-interval-s", "0.2", "--retry-delay-max-s", "0.5")


class Tellers:
    """Tasks that speak until their gate is there, while something is wrong with the store."""

    def __init__(self, served: Served, directory: Path, **params: Any) -> None:
        self.served = served
        self._gate, self.oracle = directory / "gate", directory / "oracle"
        named = {"oracle": str(self.oracle), "gate": str(self._gate), "burst": 5, **params}
        self.ids = [served.submit("teller", **named) for _ in range(TASKS)]
        for task_id in self.ids:
            served.wait_for(task_id, "number 10" + params.get("filling", ""))

    def said(self) -> int:
        """How many entries are noted."""
        return sum(len(numbers) for numbers in noted(self.oracle).values())

    def tail_goes_on(self) -> None:
        """What is said from now on arrives at a reader that begins now."""
        task_id = self.ids[0]
        after = self.served.get(f"/api/tasks/{task_id}")["last_seq"]
        url = f"{self.served.url}/api/tasks/{task_id}/logs/stream?after={after}"
        with httpx.stream("GET", url, trust_env=False, verify=False, timeout=20) as lines:
            assert sum(1 for _, line in zip(range(20), lines.iter_lines(), strict=False) if line) == 20

    def end_well(self) -> int:
        """Let them end; each log is whole and says all that is noted. How many that was."""
        self._gate.touch()
        for task_id in self.ids:
            assert self.served.wait_end(task_id)["status"] == "succeeded"
        far = noted(self.oracle)
        for task_id in self.ids:
            assert_told(whole_log(self.served, task_id), far[task_id])
        return self.said()


def health(served: Served) -> str:
    """What is wrong, in words; empty where nothing is."""
    answer = httpx.get(served.url + "/api/health", trust_env=False, verify=False, timeout=20)
    return "" if answer.status_code == 200 else str(answer.json()["detail"])


def assert_refuses_new_tasks(served: Served) -> None:
    """Clearly: 503, with why."""
    body = {"plugin": "talk", "params": {}}
    answer = httpx.post(served.url + "/api/tasks", json=body, trust_env=False, verify=False, timeout=20)
    assert (answer.status_code, "database" in answer.text) == (503, True), answer.text


def assert_reads(tellers: Tellers) -> None:
    """Pages and lists, while nothing can be written."""
    listed = tellers.served.get("/api/tasks")["tasks"]
    assert {task["id"] for task in listed} >= set(tellers.ids)
    for task_id in tellers.ids:
        assert tellers.served.entries(task_id)[0]["seq"] == 1


# Locked


@pytest.mark.bar("R4")
@pytest.mark.timeout(scaled(90, 300))
def test_a_store_that_another_process_locks_is_waited_for(tmp_path: Path, record_property: Record) -> None:
    locked_s = scaled(2.0, 30.0)
    with with_tellers(tmp_path, *QUICK) as served:
        tellers = Tellers(served, tmp_path)
        with locked(served.data_dir / "taskd.db"):
            until = time.monotonic() + locked_s
            wait_until(lambda: "locked" in health(served))
            assert_refuses_new_tasks(served)
            rounds = 0
            while time.monotonic() < until or not rounds:
                tellers.tail_goes_on()
                assert_reads(tellers)
                rounds += 1
        wait_until(lambda: not health(served))
        record_property("entries noted", tellers.end_well())
    record_property("locked for (s)", locked_s)
    record_property("lost, twice or missing", 0)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=20)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


def test_a_start_waits_for_a_locked_store_and_then_gives_up_without_the_journal(tmp_path: Path) -> None:
    """What a killed server had accepted stays where it is until it can be stored."""
    served = with_tellers(tmp_path, "--flush-interval-s", "60")
    with served:
        oracle = tmp_path / "oracle"
        task_id = served.submit("teller", oracle=str(oracle), burst=5)
        served.wait_for(task_id, "number 20")
        served.stop(signal.SIGKILL)
    with locked(served.data_dir / "taskd.db"):
        result = run_taskd("serve", "--port", "0", "--data-dir", str(served.data_dir), "--start-wait-s", "0.3")
        assert result.returncode == 1
        assert re.search(r"taskd: .*locked.*given up after 0\.3 s; the journal keeps what it has\.\n$", result.stderr)
    with served:
        assert_told(whole_log(served, task_id), noted(oracle)[task_id])


# Full


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of some megabytes: more than the tasks say while it is not filled."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={scaled(32, 512)}m", "tmpfs", str(disk)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.bar("R3")
@pytest.mark.timeout(scaled(90, 600))
def test_a_full_disk_is_waited_for(tmp_path: Path, small_disk: Path, record_property: Record) -> None:
    """Journal and database on it: up, readable, and stored in order when there is room again."""
    served = with_tellers(tmp_path, *QUICK, "--data-dir", str(small_disk / "data"))
    served.data_dir = small_disk / "data"
    with served:
        tellers = Tellers(served, tmp_path, filling="x" * 100)
        for _ in range(scaled(1, 5)):
            fill(small_disk / "ballast")
            # The journal may be full before: then what is said waits in memory alone.
            wait_until(lambda: "database or disk is full" in health(served), 120)
            fill_up(served)
            assert_refuses_new_tasks(served)
            tellers.tail_goes_on()
            assert_reads(tellers)
            (small_disk / "ballast").unlink()
            wait_until(lambda: not health(served))
            assert_works(served)
        record_property("entries noted", tellers.end_well())
    record_property("lost, twice or missing", 0)


def test_a_start_on_a_full_disk_waits_and_says_that_it_is_full(tmp_path: Path, small_disk: Path) -> None:
    """After an orderly stop the database has no write-ahead log, and opening it needs room for one."""
    served = Served(tmp_path, "--data-dir", str(small_disk / "data"))
    with served:
        assert_works(served)
    fill(small_disk / "ballast")
    command = ("serve", "--port", "0", "--data-dir", str(small_disk / "data"))
    result = run_taskd(*command, "--start-wait-s", "0.2")
    assert result.returncode == 1
    assert re.search(r"its disk is full\. Make room on it\. The start was given up after 0\.2 s", result.stderr)
    waiting = subprocess.Popen(taskd(*command), stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert waiting.stderr is not None
    assert "The start waits for the database" in waiting.stderr.readline()
    (small_disk / "ballast").unlink()
    assert " ready on " in waiting.stderr.readline()
    waiting.terminate()
    waiting.communicate(timeout=30)
    assert waiting.returncode == 0


def fill_up(served: Served) -> None:
    """Until the little that a new task needs does not fit either."""
    body = {"plugin": "talk", "params": {}}
    wait_until(lambda: httpx.post(f"{served.url}/api/tasks", json=body, trust_env=False, verify=False).is_error)


def fill(ballast: Path) -> None:
    """Take all the room there is."""
    with ballast.open("wb", buffering=0) as file:
        for size in (1_048_576, 4_096):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


def assert_works(served: Served) -> None:
    assert served.wait_end(served.submit("talk"))["status"] == "succeeded"


# Failing


@pytest.mark.bar("R5")
@pytest.mark.parametrize("call", ["fsync,fdatasync", "pwrite64"])
@pytest.mark.timeout(scaled(90, 300))
def test_a_disk_that_fails_is_tried_again(tmp_path: Path, record_property: Record, call: str) -> None:
    """Three times in a row and more; nothing that was not synced is told as stored."""
    with with_tellers(tmp_path, *QUICK) as served:
        tellers = Tellers(served, tmp_path)
        failures = 0
        for _ in range(scaled(1, 5)):
            with failing(served, call, tmp_path / "strace") as count:
                wait_until(lambda count=count: count() >= 3)
                assert "disk I/O error" in health(served)
                tellers.tail_goes_on()
                assert_reads(tellers)
                failures += count()
            wait_until(lambda: not health(served))
        noted_entries = tellers.end_well()
        assert served.stop() == 0
    with contextlib.closing(sqlite3.connect(served.data_dir / "taskd.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    record_property(f"{call}: failures", failures)
    record_property(f"{call}: entries noted", noted_entries)
    record_property("lost, twice or missing", 0)


@contextlib.contextmanager
def failing(served: Served, call: str, told: Path) -> Iterator[Any]:
    """Every such system call of the server fails with EIO; gives how many have."""
    if shutil.which("strace") is None:
        pytest.skip("strace, which makes a system call fail, is not installed")
    told.unlink(missing_ok=True)
    options = ["-f", "-qq", "-o", str(told), "-e", f"trace={call}", "-e", f"inject={call}:error=EIO"]
    tracer = subprocess.Popen(
        ["strace", *options, "-p", str(served.process.pid)], stderr=subprocess.PIPE, text=True, errors="replace"
    )
    assert tracer.stderr is not None
    try:
        wait_until(lambda: tracer.poll() is not None or traced(served.process.pid))
        if tracer.poll() is not None:
            pytest.skip(f"strace cannot attach here: {tracer.stderr.read().strip()}")
        yield lambda: told.read_text().count("(INJECTED)") if told.exists() else 0
    finally:
        tracer.terminate()
        tracer.wait()
        tracer.stderr.close()


def traced(pid: int) -> bool:
    """Whether all threads of the process are traced."""
    tasks = Path(f"/proc/{pid}/task")
    return all("TracerPid:\t0" not in (tasks / thread / "status").read_text() for thread in os.listdir(tasks))


# Large


@pytest.mark.bar("R2")
@pytest.mark.timeout(scaled(90, 900))
def test_a_large_database_is_served_within_seconds_of_a_kill(tmp_path: Path, record_property: Record) -> None:
    """And what ran is interrupted once, also when that start is killed too."""
    served = with_tellers(tmp_path)
    served.data_dir.mkdir()
    make_large(served.data_dir / "taskd.db", scaled(10_000_000, 1_000_000_000))
    took_s, cpu_s = [], []
    for _ in range(scaled(1, 5)):
        with served:
            oracle = str(tmp_path / "oracle")
            ids = [served.submit("teller", oracle=oracle, burst=5) for _ in range(scaled(5, 20))]
            for task_id in ids:
                served.wait_for(task_id, "number 100")
            served.stop(signal.SIGKILL)
        served.start_and_kill(0.6)
        began = time.monotonic()
        with served:
            assert health(served) == ""
            took_s.append(time.monotonic() - began)
            cpu_s.append(processor_s(served))
            for task_id in ids:
                entries = whole_log(served, task_id)
                assert_told(entries, noted(tmp_path / "oracle")[task_id])
                assert sum(entry["message"].startswith("interrupted") for entry in entries) == 1
                assert served.get(f"/api/tasks/{task_id}")["status"] == "interrupted"
    size = (served.data_dir / "taskd.db").stat().st_size
    record_property("database (MB)", size // 1_000_000)
    took_s.sort()
    record_property("healthy after (s), median", round(took_s[len(took_s) // 2], 2))
    record_property("healthy after (s), worst", round(took_s[-1], 2))
    record_property("processor time until then (s), worst", max(cpu_s))
    if scaled(False, True):
        assert took_s[len(took_s) // 2] < 3


def processor_s(served: Served) -> float:
    """The processor time of the server so far: on a machine that is busy otherwise it says more than the clock."""
    fields = Path(f"/proc/{served.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def make_large(path: Path, size: int) -> None:
    """Ended tasks with long logs, put there without taskd, in seconds."""
    entries = size // 20 // 1_150
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA synchronous = OFF")
        database.execute("PRAGMA journal_mode = OFF")
        database.executescript(shipped.SCHEMA.read_text())
        for _ in range(20):
            task_id = new_task_id()
            database.execute(LARGE_TASK, (task_id, entries))
            database.execute(LARGE_LOG, (entries, task_id, "x" * 850))
            database.execute(LARGE_COUNTS, (task_id, entries, entries))
            assert database.execute("SELECT count(*) FROM tasks").fetchone()[0]


LARGE_TASK = """
INSERT INTO tasks (id, plugin, params_json, status, created_at, started_at, finished_at, last_seq)
VALUES (?, 'talk', '{}', 'succeeded', '2026-11-01T00:00:00.000000Z', '2026-11-01T00:00:00.000000Z',
  '2026-11-01T00:00:00.000000Z', ?)
"""
LARGE_LOG = """
WITH RECURSIVE seqs (seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM seqs WHERE seq < ?)
INSERT INTO task_logs (task_id, seq, timestamp, level, source, message)
SELECT ?, seq, '2026-11-01T00:00:00.000000Z', 'INFO', 'talk', ? || seq FROM seqs
"""
LARGE_COUNTS = """
INSERT INTO log_counts VALUES (?, 'INFO', 'talk', ?, 1, ?, '2026-11-01T00:00:00.000000Z', '2026-11-01T00:00:00.000000Z')
"""
