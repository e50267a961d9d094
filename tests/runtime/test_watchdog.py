"""The watchdog: it costs nothing, ends with its service, and outlives whatever goes wrong."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from taskd.concurrency import beside
from taskd.metrics import Metrics
from taskd.runtime.live_task import LiveTask
from taskd.runtime.watchdog import Watchdog
from taskd.settings import Settings
from tests.conftest import messages, read_all, running_service

WARN_S = 0.1
PluginDir = Callable[[str], Path]


def nobody(running: "asyncio.Task[Any]") -> LiveTask | None:
    return None


def raising(running: "asyncio.Task[Any]") -> LiveTask | None:
    raise RuntimeError("while it looked")


@asynccontextmanager
async def watched(
    task_of: Callable[["asyncio.Task[Any]"], LiveTask | None] = nobody,
) -> AsyncIterator[tuple[Watchdog, Metrics]]:
    metrics = Metrics()
    watchdog = Watchdog(Settings(loop_block_warn_s=WARN_S), metrics, task_of)
    async with beside(watchdog.run(), "watchdog"):
        await asyncio.sleep(0)
        yield watchdog, metrics


def blocks_of(metrics: Metrics) -> float:
    return sum(
        sample.value
        for family in metrics.loop_blocks.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    )


async def counted(metrics: Metrics, blocks: int) -> None:
    while blocks_of(metrics) < blocks:
        await asyncio.sleep(0.01)


@pytest.fixture
async def _settled() -> AsyncIterator[None]:
    yield
    assert "watchdog" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.usefixtures("_settled")
async def test_it_ends_with_its_block_and_at_once() -> None:
    """The thread is gone when `run` is cancelled, and leaves no timer."""
    async with watched():
        assert "watchdog" in {thread.name for thread in threading.enumerate()}
        await asyncio.sleep(0)


@pytest.mark.usefixtures("_settled")
async def test_what_goes_wrong_while_it_looks_does_not_end_it(capfd: pytest.CaptureFixture[str]) -> None:
    """The block is counted all the same, and so is the next one."""
    async with watched(raising) as (watchdog, metrics):
        for blocks in (1, 2):
            await asyncio.sleep(0.05)
            time.sleep(5 * WARN_S)  # noqa: ASYNC251  # this is what it is for
            await counted(metrics, blocks)
        assert watchdog.recent is not None
        assert "no task that is known" in watchdog.recent


@pytest.mark.usefixtures("_settled")
async def test_a_loop_that_turns_is_left_alone(capfd: pytest.CaptureFixture[str]) -> None:
    """Also one that is busy all the time, in small pieces."""
    async with watched() as (watchdog, metrics):
        until = time.monotonic() + 10 * WARN_S
        while time.monotonic() < until:
            sum(range(1_000))
            await asyncio.sleep(0)
        # What a machine that is busy with other things adds is not this loop's.
        assert blocks_of(metrics) == 0 or watchdog.recent is not None
        lag = {sample.name: sample.value for family in metrics.loop_lag_seconds.collect() for sample in family.samples}
        assert lag["taskd_loop_lag_seconds_count"] >= 2


async def test_the_stack_is_told_without_running_what_is_on_it(tmp_path: Path, plugin_dir: PluginDir) -> None:
    """No `repr` of what the frames hold, and no secret of the task."""
    source = """
    class Touchy:
        def __repr__(self):
            raise SystemExit("never to be called")
        __str__ = __getattr__ = __repr__

    class Holder(Plugin):
        name = "holder"
        async def execute(self, params, context):
            context.add_secret("hunter2hunter2")
            await asyncio.sleep(0.2)
            self.hold(Touchy(), context)
        def hold(self, touchy, context):
            time.sleep(0.6); "hunter2hunter2"
            context.logger.info("let go")
    """
    settings = {"plugins": [plugin_dir(source)], "loop_block_warn_s": WARN_S}
    async with running_service(tmp_path, **settings) as service:
        task = await service.manager.submit("holder", {})
        assert (await service.manager.wait(task.id)).status == "succeeded"
        entries = await read_all(service, task.id)
    told = [entry for entry in entries if "held the event loop" in entry.message]
    assert "in hold\n" in told[0].message
    assert 'time.sleep(0.6); "***"' in told[0].message
    said = messages(entries)
    assert said.index(told[0].message) < said.index("let go") < len(said) - 2
    assert any("turns again" in message for message in said)
