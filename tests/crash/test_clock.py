"""The clock is set, by an hour, a day and ten years, forward and back, while a service works."""

import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from websockets.sync.client import connect

from tests.helpers.bars import Record, scaled
from tests.helpers.oracle import assert_told, noted, whole_log, with_tellers
from tests.helpers.served import Served, wait_until

LIBRARY = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
HOUR_S, DAY_S, TEN_YEARS_S = 3_600, 86_400, 3_652 * 86_400
JUMPS = [sign * jump for jump in (HOUR_S, DAY_S, TEN_YEARS_S) for sign in (1, -1)]
ROUNDS = scaled(1, 3)
KEPT = scaled(20, 100)
INTERVAL_S = 0.5

pytestmark = pytest.mark.skipif(
    LIBRARY is None, reason="libfaketime is not installed (Debian: apt-get install faketime)"
)


class Clock:
    """The wall clock of a server; the monotonic one is left alone."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "clock"
        self.set(0)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def set(self, offset_s: int) -> None:
        """How far it is from the true time, from now on."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{offset_s:+d}\n")
        new.rename(self._file)


@contextmanager
def clocked(tmp_path: Path, *options: str) -> Iterator[tuple[Served, Clock]]:
    clock = Clock(tmp_path)
    forget_the_dead()
    with with_tellers(tmp_path, *options, **clock.environment) as served:
        yield served, clock


def forget_the_dead() -> None:
    """
    Remove the locks of faketime's that killed processes left.

    They are named by the process, and a later one with the same number waits for such a lock for ever.
    """
    for path in Path("/dev/shm").glob("*faketime_*_*"):  # where the kernel has them
        if not Path("/proc", path.name.rpartition("_")[2]).exists():
            path.unlink(missing_ok=True)


def in_database(served: Served, sql: str, *values: object) -> Any:
    with closing(sqlite3.connect(served.data_dir / "taskd.db")) as database:
        return database.execute(sql, values).fetchone()[0]


def stored(served: Served, task_id: str) -> int:
    return int(in_database(served, "SELECT last_seq FROM tasks WHERE id = ?", task_id))


def unended(served: Served) -> int:
    return int(in_database(served, "SELECT count(*) FROM tasks WHERE status IN ('queued', 'running')"))


def lasted_s(task: dict[str, Any]) -> float:
    ended, started = (datetime.fromisoformat(task[name]) for name in ("finished_at", "started_at"))
    return (ended - started).total_seconds()


def tasks_of(served: Served, ids: list[str]) -> list[dict[str, Any]]:
    with httpx.Client(base_url=served.url, trust_env=False, timeout=60) as client:
        return [client.get(f"/api/tasks/{task_id}").raise_for_status().json() for task_id in ids]


@pytest.mark.bar("R14")
@pytest.mark.timeout(scaled(120, 1_800))
def test_order_durations_and_timers_stand_a_clock_that_is_set(tmp_path: Path, record_property: Record) -> None:
    """Tasks that run over all jumps, and one that begins and ends in each; a silent viewer gets its pings."""
    jumps = random.Random(14).sample(JUMPS * ROUNDS, len(JUMPS) * ROUNDS)
    oracle, gate = tmp_path / "oracle", tmp_path / "gate"
    with clocked(tmp_path, "--flush-interval-s", "0.2", "--ping-interval-s", "0.2") as (served, clock):
        ids = [served.submit("teller", oracle=str(oracle), burst=2, gate=str(gate)) for _ in range(2)]
        silent = served.submit("talk", gate=str(gate))
        with connect(f"{served.url.replace('http', 'ws')}/api/tasks/{silent}/logs/live", proxy=None) as viewer:
            for jump_s in jumps:
                across = served.submit("talk", gate=str(tmp_path / f"gate{len(ids)}"))
                served.wait_for(across, "word 3")
                clock.set(jump_s)
                goes_on(served, ids[:2], viewer)
                (tmp_path / f"gate{len(ids)}").touch()
                ids.append(across)
                clock.set(0)
                goes_on(served, ids[:2], viewer)
        gate.touch()
        wait_until(lambda: unended(served) == 0, within_s=60)
        for task_id in ids[:2]:
            assert_told(whole_log(served, task_id), noted(oracle)[task_id])
        durations = [lasted_s(task) for task in tasks_of(served, [*ids, silent])]
        said = [entry["message"] for task_id in ids for entry in whole_log(served, task_id)[-1:]]
    assert min(durations) >= 0
    assert not [words for words in said if "-" in words]
    record_property("jumps", 2 * len(jumps))
    record_property("shortest duration s", round(min(durations), 3))
    record_property("lost, twice or out of order", 0)


def goes_on(served: Served, ids: list[str], viewer: Any) -> None:
    """Entries are flushed, and who sees nothing new is pinged."""
    before = [stored(served, task_id) for task_id in ids]
    wait_until(
        lambda: all(stored(served, task_id) > seq for task_id, seq in zip(ids, before, strict=True)), within_s=60
    )
    for _ in range(2):
        while orjson.loads(viewer.recv(timeout=60))["type"] != "ping":
            pass


@pytest.mark.bar("R14")
@pytest.mark.timeout(scaled(120, 600))
@pytest.mark.parametrize("jump_s", scaled([TEN_YEARS_S], [HOUR_S, DAY_S, TEN_YEARS_S]))
def test_retention_does_not_follow_a_clock_that_jumps(tmp_path: Path, record_property: Record, jump_s: int) -> None:
    """It says so and waits; and what it deletes after that is a tenth a pass."""
    options = ["--retention-days", "0.03", "--retention-interval-s", str(INTERVAL_S)]
    options += ["--retention-suspend-s", scaled("5", "10")]
    with clocked(tmp_path, *options) as (served, clock):
        for _ in range(KEPT):
            served.submit("talk")
        wait_until(lambda: unended(served) == 0, within_s=60)
        running = served.submit("talk", gate=str(tmp_path / "gate"))
        clock.set(jump_s)
        wait_until(lambda: any("the clock was set forward" in line for line in served.said))
        assert shown(served) == KEPT + 1
        most = watch_going(served, scaled(KEPT * 3 // 4, KEPT // 2))
        clock.set(0)
        assert served.get(f"/api/tasks/{running}")["status"] == "running"
    record_property(f"largest share of a pass, after {jump_s} s", round(most, 3))


def watch_going(served: Served, left: int) -> float:
    """Watch tasks being deleted until so many are left: the largest share of a pass, none above what it may be."""
    most = 0.0
    count, looked_at = shown(served), time.monotonic()
    while count > left:
        time.sleep(0.02)  # the pace of looking
        now, count_now = time.monotonic(), shown(served)
        passes = 1 + int((now - looked_at) / INTERVAL_S)
        most = max(most, (count - count_now) / passes / count)
        assert count_now >= count - passes * max(1, int(count / 10))
        count, looked_at = count_now, now
    return most


def shown(served: Served) -> int:
    return int(in_database(served, "SELECT count(*) FROM tasks WHERE deleted_at IS NULL"))


def test_a_task_that_a_kill_ended_ended_when_it_was_last_heard_of(tmp_path: Path) -> None:
    """Not at the restart, which may be a day later."""
    with clocked(tmp_path) as (served, clock):
        task_id = served.submit("talk", gate=str(tmp_path / "gate"))
        served.wait_for(task_id, "word 3")
        served.process.kill()
        served.process.wait()
        clock.set(DAY_S)
        served.start()
        task = served.get(f"/api/tasks/{task_id}")
        assert task["status"] == "interrupted"
        assert 0 <= lasted_s(task) < HOUR_S
        assert f"last heard of at {task['finished_at']}" in whole_log(served, task_id)[-1]["message"]
