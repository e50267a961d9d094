"""A plugin that holds the event loop, from outside: it is named while it does, and afterwards."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from taskd.journal import segments
from tests.helpers.bars import Record, scaled
from tests.helpers.metrics import samples
from tests.helpers.served import Served, wait_until

BLOCK_S = scaled(1.5, 5.0)
WARN_S = 0.5
TOLD_WITHIN_S = 1.0
LAST = "taskd_loop_block_last_seconds"

BLOCKERS = '''
import asyncio, re, time
from pathlib import Path

from taskd import Plugin


class Blocker(Plugin):
    """Holds the loop, in `how` it is told to; says when it has let go."""

    name = "blocker"

    async def execute(self, params, context):
        context.logger.info("before")
        await asyncio.sleep(0.3)  # so that what was said is stored and seen, and the loop has beaten
        getattr(self, params["how"])(params["seconds"])
        Path(params["done"]).write_text(str(time.time()))
        return "done"

    def sleep(self, seconds):
        time.sleep(seconds)

    def compute(self, seconds):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            sum(range(1_000))

    def in_c(self, seconds):
        """One call into C that never lets the interpreter's lock go."""
        until = time.monotonic() + seconds
        letters = 20
        while time.monotonic() < until:
            began = time.monotonic()
            re.match("(a+)+$", "a" * letters + "b")
            letters += time.monotonic() - began < seconds / 8


class Child(Plugin):
    """Holds the loop in a child task."""

    name = "child"

    async def execute(self, params, context):
        async def hold():
            await asyncio.sleep(0.3)
            time.sleep(params["seconds"])

        await asyncio.create_task(hold())


class Stutter(Plugin):
    """Holds the loop some times, and lets it turn in between."""

    name = "stutter"

    async def execute(self, params, context):
        for _ in range(params["times"]):
            await asyncio.sleep(0.3)
            time.sleep(params["seconds"])


class Callback(Plugin):
    """Holds the loop in a callback, in which asyncio knows of no task."""

    name = "callback"

    async def execute(self, params, context):
        asyncio.get_running_loop().call_later(0.3, time.sleep, params["seconds"])
        await asyncio.sleep(0.5)
'''


def with_blockers(directory: Path, *options: str) -> Served:
    """A server, not started yet, that has the plugins above and warns after `WARN_S`."""
    plugins = directory / "blockers"
    plugins.mkdir()
    (plugins / "blockers.py").write_text(BLOCKERS)
    # Nothing is stored before the end of the task: what is seen of it during the block is in the journal.
    return Served(directory, "--plugins", str(plugins), "--loop-block-warn-s", str(WARN_S), *options)


def journaled(served: Served, task_id: str) -> list[dict[str, Any]]:
    """What the journal of the running server has of a task, as another process reads it."""
    found = (task for tasks in segments.recover(served.data_dir / "journal") for task in tasks)
    return [orjson.loads(entry.encoded) for task in found if task.task_id == task_id for entry in task.entries]


def held(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for entry in entries if "held the event loop" in entry["message"]]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for most of them: what is counted is counted by task or plugin."""
    with with_blockers(tmp_path_factory.mktemp("served")) as running:
        yield running


@pytest.mark.bar("R12")
@pytest.mark.timeout(scaled(60, 120))
@pytest.mark.parametrize("how", ["sleep", "compute", "in_c"])
def test_who_holds_the_loop_is_named_while_it_lasts_and_at_its_end(
    served: Served, tmp_path: Path, how: str, record_property: Record
) -> None:
    """Task and stack in its log, which is on disk during the block; its length, and metrics, behind it."""
    done = tmp_path / "done"
    task_id = served.submit("blocker", how=how, seconds=BLOCK_S, done=str(done))
    if how != "in_c":  # there nothing else of the process runs until it lets go
        wait_until(lambda: held(journaled(served, task_id)))
        wait_until(lambda: any("has stood still" in line for line in served.said if task_id in line))
        assert not done.exists(), "it was told only when the block was over"
    wait_until(lambda: done.exists() and done.read_text())
    wait_until(lambda: any(("task", task_id) in labels for labels in samples(served, LAST)))
    late_s = time.time() - float(done.read_text())
    assert late_s < TOLD_WITHIN_S
    record_property(f"{how}: seconds from its end to /metrics", round(late_s, 2))
    assert_named(served, task_id, how)


def assert_named(served: Served, task_id: str, how: str) -> None:
    """A task whose block is over: where it was, and for how long, at every place."""
    [(labels, seconds)] = samples(served, LAST).items()
    assert dict(labels)["plugin"] == "blocker"
    assert f"in {how}" in dict(labels)["where"]
    assert samples(served, "taskd_loop_blocks_total")[(("plugin", "blocker"),)] >= 1
    assert served.wait_end(task_id)["status"] == "succeeded"
    entries = served.entries(task_id)
    [during, after] = held(entries) + [entry for entry in entries if "turns again" in entry["message"]]
    assert (during["source"], during["level"], during["seq"] < after["seq"]) == ("system", "WARNING", True)
    assert f"in {how}\n" in during["message"]
    own = [frame for frame in during["metadata"]["frames"] if "own" in frame]
    assert [frame["function"] for frame in own] == ["execute", how]
    assert own[1]["code"] in during["message"]
    assert BLOCK_S - 0.5 < after["metadata"]["blocked_s"] < 2 * BLOCK_S + 2
    assert abs(seconds - after["metadata"]["blocked_s"]) < 0.01
    wait_until(lambda: sum("blockers.py" in line for line in served.said if task_id in line) == 2)


@pytest.mark.bar("R12")
def test_a_child_task_is_its_task_and_a_callback_is_nobodys(served: Served) -> None:
    """Whose child it is, asyncio's context knows; of a callback nobody can, and that is said."""
    child = served.submit("child", seconds=1.2)
    assert served.wait_end(child)["status"] == "succeeded"
    assert "in hold\n" in held(served.entries(child))[0]["message"]
    callback = served.submit("callback", seconds=1.2)
    assert served.wait_end(callback)["status"] == "succeeded"
    assert held(served.entries(callback)) == []
    wait_until(lambda: sum("no task that is known" in line for line in served.said) >= 2)
    blocks = samples(served, "taskd_loop_blocks_total")
    assert blocks[(("plugin", ""),)] >= 1
    assert blocks[(("plugin", "child"),)] == 1
    assert any("stood still" in notice for notice in served.get("/api/health")["problems"])


def test_a_process_that_was_stopped_has_no_task_to_blame(tmp_path: Path) -> None:
    """Nobody held the loop: it is said that it stood still, and no log is told."""
    with with_blockers(tmp_path) as served:
        gate = tmp_path / "gate"
        task_id = served.submit("talk", gate=str(gate))
        served.wait_for(task_id, "word 3")
        served.process.send_signal(signal.SIGSTOP)
        time.sleep(3 * WARN_S)
        served.process.send_signal(signal.SIGCONT)
        wait_until(lambda: any("no task that is known" in line for line in served.said))
        gate.touch()
        served.wait_end(task_id)
        assert held(served.entries(task_id)) == []
        assert [*samples(served, "taskd_loop_blocks_total")] == [(("plugin", ""),)]


def test_a_task_that_blocks_again_and_again_is_told_so_often_and_counted(tmp_path: Path) -> None:
    """Its log is not filled by what it does wrong."""
    with with_blockers(tmp_path, "--loop-block-warn-s", "0.1", "--loop-block-told-max", "2") as served:
        task_id = served.submit("stutter", times=5, seconds=0.4)
        assert served.wait_end(task_id)["status"] == "succeeded"
        told = held(served.entries(task_id))
        untold = samples(served, "taskd_loop_blocks_untold_total")
        blocks = samples(served, "taskd_loop_blocks_total")
    assert len(told) == 2
    assert blocks[(("plugin", "stutter"),)] == 5
    assert untold[()] == 3
