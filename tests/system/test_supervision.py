"""A part that dies is reported and started again, whatever ended it (R23)."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiosqlite.core import _STOP_RUNNING_SENTINEL

from taskd.journal.journal import Journal
from taskd.log.hub import LogHub
from taskd.log.writer import LogWriter
from taskd.persistence.sqlite.checkpoints import Checkpointer
from taskd.persistence.sqlite.committer import Committer
from taskd.persistence.sqlite.indexer import Indexer
from taskd.runtime.deletion import Deletions
from taskd.runtime.retention import Retention
from taskd.runtime.watchdog import Watchdog
from taskd.service import Service
from taskd.settings import Settings
from taskd.system.supervision import Supervisor
from tests.conftest import messages, read_all, running_service
from tests.helpers.bars import Record
from tests.helpers.waiting import until

QUICK = {"restart_delay_s": 0.01, "restart_delay_max_s": 0.02}
PLUGIN = """
class Talk(Plugin):
    name = "talk"
    async def execute(self, params, context):
        context.logger.info("before")
        await asyncio.sleep(0.05)
        context.logger.info("after")
"""


class Lives:
    """A part's coroutine: each life ends as the next of `deaths` does, the last goes on until it is cancelled."""

    def __init__(self, *deaths: BaseException | None) -> None:
        self.begun = 0
        self._deaths = list(deaths)

    async def run(self) -> None:
        self.begun += 1
        if not self._deaths:
            await asyncio.Event().wait()
        death = self._deaths.pop(0)
        if death is not None:
            raise death


def supervisor(**settings: Any) -> Supervisor:
    return Supervisor(Settings(**(QUICK | settings)))


def restarts_of(supervisor: Supervisor, part: str) -> float:
    samples = [sample for family in supervisor.metrics.restarts.collect() for sample in family.samples]
    return sum(each.value for each in samples if each.name.endswith("_total") and each.labels["part"] == part)


@pytest.mark.parametrize(
    ("death", "named"),
    [
        (ValueError("broken"), "ValueError: broken at test_supervision.py:"),
        (None, "Returned: it should run"),
        (asyncio.CancelledError(), "CancelledError"),
        (MemoryError(), "MemoryError"),
        (RecursionError("too deep"), "RecursionError: too deep"),
        (BaseException("of no kind"), "BaseException: of no kind"),
    ],
)
async def test_a_part_that_dies_is_reported_and_started_again(
    death: BaseException | None, named: str, caplog: pytest.LogCaptureFixture
) -> None:
    """In health, in the log with the place, and in the metrics."""
    supervised, lives = supervisor(), Lives(death)
    async with supervised.running("retention", lives.run):
        assert supervised.problems == []
        await until(lambda: lives.begun == 2)
        [problem] = supervised.problems
        assert problem.startswith(f"taskd's retention died ({named}")
    assert problem.endswith("It runs again.")
    assert [record.getMessage().startswith("taskd's retention died") for record in caplog.records] == [True]
    assert restarts_of(supervised, "retention") == 1
    assert supervised.problems == []


async def test_a_cancellation_from_outside_does_not_end_a_part() -> None:
    """As of code that cancels every asyncio task it can find."""
    lives = Lives()
    async with supervisor().running("retention", lives.run):
        for begun in (1, 2, 3):
            await until(lambda begun=begun: lives.begun == begun)  # type: ignore[misc]
            [part] = [task for task in asyncio.all_tasks() if task.get_name() == "retention"]
            part.cancel()
    assert [task for task in asyncio.all_tasks() if task.get_name() == "retention"] == []


async def test_one_cause_is_logged_once_and_each_death_counted(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever fails again and again must not fill the disk with its tracebacks."""
    deaths = [ValueError("one"), ValueError("one"), ValueError("one"), ValueError("other")]
    supervised, lives = supervisor(), Lives(*deaths)
    async with supervised.running("retention", lives.run):
        await until(lambda: lives.begun == 5)
    assert restarts_of(supervised, "retention") == 4
    assert ["one" in record.getMessage() for record in caplog.records] == [True, False]


async def test_a_part_is_healthy_again_when_it_has_lived_longer_than_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then health names it."""
    monkeypatch.setattr("taskd.system.supervision.PROOF_MIN_S", 0.05)
    supervised, lives = supervisor(), Lives(ValueError("once"))
    async with supervised.running("retention", lives.run):
        await until(lambda: supervised.problems)
        await until(lambda: not supervised.problems)
        assert lives.begun == 2


async def test_waits_double_up_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a part that waits to be started again can be closed."""
    lives = Lives(*[ValueError("always")] * 100)
    supervised = supervisor(restart_delay_s=0.01, restart_delay_max_s=60)
    async with supervised.running("retention", lives.run):
        await until(lambda: lives.begun == 4)
        assert "started again in" in (await _problem(supervised))
    assert lives.begun < 10


async def _problem(supervised: Supervisor) -> str:
    await until(lambda: "started again" in "".join(supervised.problems))
    return supervised.problems[0]


# Those of the service


def failing_once(monkeypatch: pytest.MonkeyPatch, place: type, name: str, error: BaseException) -> list[str]:
    """Have a function raise once, and go on as it is; what it was called for is noted."""
    original, calls = getattr(place, name), []

    def call(*args: Any, **kw: Any) -> Any:
        calls.append(name)
        if len(calls) == 1:
            raise error
        return original(*args, **kw)

    monkeypatch.setattr(place, name, call)
    return calls


@asynccontextmanager
async def talking(tmp_path: Path, plugin_dir: Callable[[str], Path]) -> AsyncIterator[Service]:
    settings = {"retention_days": 1, "retention_interval_s": 0.05, "journal_sync_ms": 10, **QUICK}
    async with running_service(tmp_path, plugins=[plugin_dir(PLUGIN)], **settings) as service:
        yield service


async def run_talk(service: Service) -> str:
    """A task whose log is whole and whose end is stored."""
    task = await service.manager.submit("talk", {})
    assert (await service.manager.wait(task.id)).status == "succeeded"
    assert messages(await read_all(service, task.id), "talk") == ["before", "after"]
    return task.id


async def delete_talk(service: Service) -> None:
    task_id = await run_talk(service)
    await service.manager.delete(task_id)
    await service.deletions.settled()
    assert task_id not in await service.store.hidden_tasks()


@pytest.mark.bar("R23")
@pytest.mark.parametrize(
    ("part", "place", "function", "work"),
    [
        ("committer", Committer, "_next", run_talk),
        ("indexer", Indexer, "_take_bite", run_talk),
        ("checkpointer", Checkpointer, "_is_quiet", run_talk),
        ("deletions", Deletions, "_purge", delete_talk),
        ("retention", Retention, "make_pass", run_talk),
        ("journal watch", Journal, "replace_lost", run_talk),
        ("journal sync", Journal, "sync", run_talk),
    ],
)
async def test_whatever_lives_long_goes_on_after_it_was_made_to_raise(
    tmp_path: Path, plugin_dir: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, record_property: Record,
    part: str, place: type, function: str, work: Callable[[Service], Awaitable[object]],
) -> None:  # fmt: skip
    """Reported in health and in the log, started again, and what it is for goes on."""
    calls = failing_once(monkeypatch, place, function, ValueError("injected"))
    async with talking(tmp_path, plugin_dir) as service:
        await work(service)
        await until(lambda: restarts_of(service.supervisor, part) == 1)
        await until(lambda: len(calls) >= 2)
        assert service.health().status == "degraded"
        assert f"taskd's {part} died" in " ".join(service.health().problems)
        await work(service)
    assert f"taskd's {part} died" in caplog.text
    record_property("made to raise", part)


@pytest.mark.bar("R23")
@pytest.mark.parametrize(("place", "function"), [(LogHub, "publish"), (LogWriter, "_flush"), (LogWriter, "_is_due")])
@pytest.mark.parametrize("error", [ValueError("injected"), asyncio.CancelledError(), MemoryError()])
async def test_a_writer_that_dies_goes_on_with_what_is_pending(
    tmp_path: Path, plugin_dir: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, place: type, function: str, error: BaseException,
) -> None:  # fmt: skip
    """No entry is lost, and the end is stored."""
    failing_once(monkeypatch, place, function, error)
    async with talking(tmp_path, plugin_dir) as service:
        await run_talk(service)
        assert restarts_of(service.supervisor, "writer") == 1
    assert type(error).__name__ in caplog.text


@pytest.mark.bar("R23")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_watchdog_whose_thread_ends_watches_again(
    tmp_path: Path, plugin_dir: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It outlives what goes wrong in it, but not what ends its thread."""
    calls = failing_once(monkeypatch, Watchdog, "_look", SystemExit())
    async with talking(tmp_path, plugin_dir) as service:
        await until(lambda: "taskd's watchdog died" in " ".join(service.health().problems))
        await until(lambda: len(calls) >= 2)


async def test_a_thread_of_the_database_that_ends_is_noticed(tmp_path: Path, plugin_dir: Callable[[str], Path]) -> None:
    """The committer goes on with another connection."""
    async with talking(tmp_path, plugin_dir) as service:
        await run_talk(service)
        committer = service.store._committer  # type: ignore[attr-defined]
        connection = committer._connection
        # As a plugin does that ends every thread it finds.
        connection._tx.put_nowait((None, lambda: _STOP_RUNNING_SENTINEL))
        await until(lambda: not connection._thread.is_alive())
        await run_talk(service)
        assert committer._connection is not connection


async def test_a_sync_of_the_journal_that_hangs_is_reported(
    tmp_path: Path, plugin_dir: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread in a disk that does not answer never returns."""
    let_go = threading.Event()
    monkeypatch.setattr("taskd.service.SYNC_HUNG_S", 0.05)
    monkeypatch.setattr(Journal, "sync", lambda _: let_go.wait())
    async with talking(tmp_path, plugin_dir) as service:
        await until(lambda: "journal has not been synced for" in " ".join(service.health().problems))
        let_go.set()
        await until(lambda: "journal has not been synced" not in " ".join(service.health().problems))
