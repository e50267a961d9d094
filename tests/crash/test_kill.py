"""
`kill -9`, from outside: what a task has said is never lost.

The oracle: a plugin logs, and after the call has returned writes task and number with one
`os.write` to a file opened for appending. After the restart, the API must have each of them,
once and in order, whatever else it has behind them.
"""

import random
import signal
import sqlite3
import time
from collections import defaultdict
from pathlib import Path

import pytest

from tests.served import Served

ROUNDS = 2
TELLER = '''
import asyncio, os
from taskd import Plugin


class Teller(Plugin):
    """Says numbers for ever, and notes each that it has said."""

    name = "teller"

    async def execute(self, params, context):
        oracle = os.open(params["oracle"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        number = 0
        while True:
            for _ in range(params["burst"]):
                number += 1
                context.logger.info(f"number {number}", n=number)
                os.write(oracle, f"{context.task_id} {number}\\n".encode())
            await asyncio.sleep(0.02)
'''


def noted(oracle: Path) -> dict[str, int]:
    """How far each task's calls had returned."""
    far: dict[str, int] = defaultdict(int)
    for line in oracle.read_text().splitlines():
        task_id, number = line.split()
        far[task_id] = int(number)
    return far


def told(served: Served, task_id: str) -> tuple[list[int], list[int]]:
    """The whole log, by pages: its seqs, and the numbers that the teller said."""
    seqs: list[int] = []
    numbers: list[int] = []
    more = True
    while more:
        page = served.get(f"/api/tasks/{task_id}/logs?limit=5000&after={seqs[-1] if seqs else 0}")
        seqs += [entry["seq"] for entry in page["entries"]]
        numbers += [entry["metadata"]["n"] for entry in page["entries"] if entry["source"] == "teller"]
        more = page["more"]
    return seqs, numbers


@pytest.mark.timeout(180)
def test_kill_9_loses_nothing_whose_call_had_returned(tmp_path: Path) -> None:
    """Again and again on one data directory, at random moments, 20 tasks, 5,000 entries/s."""
    rng = random.Random(9)
    oracle = tmp_path / "oracle"
    oracle.touch()
    directory = tmp_path / "tellers"
    directory.mkdir()
    (directory / "teller.py").write_text(TELLER)
    served = Served(tmp_path, "--plugins", str(directory))
    checked: set[str] = set()
    for _ in range(ROUNDS):
        served.start()
        ids = {served.submit("teller", oracle=str(oracle), burst=5) for _ in range(20)}
        time.sleep(rng.uniform(0.1, 2.5))  # the moment of the kill is what is random here
        served.stop(signal.SIGKILL)
        far = noted(oracle)
        with served:
            for task_id in ids:
                seqs, numbers = told(served, task_id)
                assert seqs == [*range(1, len(seqs) + 1)]
                assert numbers == [*range(1, len(numbers) + 1)]
                assert len(numbers) >= far[task_id]
                assert served.get(f"/api/tasks/{task_id}")["status"] == "interrupted"
                last = served.get(f"/api/tasks/{task_id}/logs?tail=1")["entries"][0]
                assert last["message"].startswith("interrupted")
        checked |= {task_id for task_id in ids if far[task_id]}
    assert checked
    with sqlite3.connect(served.data_dir / "taskd.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        [(said,)] = database.execute("SELECT count(*) FROM task_logs WHERE message LIKE 'interrupted%'").fetchall()
        assert said == 20 * ROUNDS
    database.close()
