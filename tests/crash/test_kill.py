"""`kill -9`, from outside: what a task has said is never lost."""

import random
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from tests.helpers.bars import Record, scaled
from tests.helpers.oracle import assert_told, noted, whole_log, with_tellers
from tests.helpers.served import Served

ROUNDS = scaled(2, 100)
TASKS = 20


@pytest.mark.bar("R1")
@pytest.mark.timeout(scaled(180, 3_000))
def test_kill_9_loses_nothing_whose_call_had_returned(tmp_path: Path, record_property: Record) -> None:
    """Again and again on one data directory, at random moments, 20 tasks, 5,000 entries/s."""
    rng = random.Random(9)
    oracle = tmp_path / "oracle"
    oracle.touch()
    checked = 0
    with with_tellers(tmp_path) as served:
        for _ in range(ROUNDS):
            ids = {served.submit("teller", oracle=str(oracle), burst=5) for _ in range(TASKS)}
            time.sleep(rng.uniform(0.1, scaled(0.6, 2.5)))  # the moment of the kill is what is random here
            served.stop(signal.SIGKILL)
            served.start()
            checked += check(served, oracle, ids)
            oracle.write_text("")
        assert served.stop() == 0
    assert checked
    check_database(served)
    record_property("kills", ROUNDS)
    record_property("entries noted", checked)
    record_property("lost, twice or missing", 0)


def check(served: Served, oracle: Path, ids: set[str]) -> int:
    """Each log of a round is whole and says how it ended; how many entries the oracle had."""
    far = noted(oracle)
    for task_id in ids:
        entries = whole_log(served, task_id)
        assert_told(entries, far[task_id])
        assert served.get(f"/api/tasks/{task_id}")["status"] == "interrupted"
        assert entries[-1]["message"].startswith("interrupted")
    return sum(len(numbers) for numbers in far.values())


def check_database(served: Served) -> None:
    with sqlite3.connect(served.data_dir / "taskd.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        [(said,)] = database.execute("SELECT count(*) FROM task_logs WHERE message LIKE 'interrupted%'").fetchall()
        assert said == TASKS * ROUNDS
    database.close()
