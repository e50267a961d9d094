"""Starting and stopping: nothing is lost, and nothing is told that is not so."""

import asyncio
import contextlib
import errno
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taskd.entries import timestamp_now
from taskd.errors import DataDirHeld, StoreError, StoreUnavailable
from taskd.query.filters import LogFilter
from taskd.reading.follow import End, Entries, follow
from taskd.runtime.recovery import interrupt_orphans
from taskd.service import Service
from taskd.settings import Settings
from taskd.tasks import Task, TaskStatus
from tests.conftest import messages, read_all, running_service
from tests.helpers.plugins import PLUGINS
from tests.helpers.stores import created, entries
from tests.helpers.waiting import until, until_said

PluginDir = Callable[[str], Path]

TALKING = """
from pathlib import Path
class Talking(Plugin):
    name = "talking"
    async def execute(self, params, context):
        number = 0
        while True:
            number += 1
            context.logger.info(f"{number}")
            await asyncio.sleep(0.001)

class Blocked:
    name = "blocked"
    def execute(self, params):
        print("waiting")
        while not Path(params["until"]).exists():
            time.sleep(0.001)
"""


@pytest.fixture
def mine(plugin_dir: PluginDir) -> list[Path]:
    """The directory of the plugins of these tests."""
    return [plugin_dir(PLUGINS + TALKING)]


async def test_a_stop_interrupts_running_and_queued_tasks_and_stores_all_they_said(
    tmp_path: Path, mine: list[Path]
) -> None:
    """Started again, the service serves it."""
    settings = {"plugins": mine, "shutdown_grace_s": 0, "tasks_running_max": 5, "flush_interval_s": 60}
    async with running_service(tmp_path, **settings) as service:
        ids = [(await service.manager.submit("talking", {})).id for _ in range(8)]
        for task_id in ids[:5]:
            await until_said(service, task_id, "20")
    async with running_service(tmp_path) as again:
        for place, task_id in enumerate(ids):
            task = await again.manager.task(task_id)
            log = await read_all(again, task_id)
            assert task.status is TaskStatus.INTERRUPTED
            assert [entry.seq for entry in log] == [*range(1, task.last_seq + 1)]
            said = messages(log, "talking")
            assert said == [f"{number}" for number in range(1, len(said) + 1)]
            assert (len(said) >= 20) == (place < 5)


async def test_a_task_that_finishes_within_the_grace_succeeds(tmp_path: Path, mine: list[Path]) -> None:
    """Asked to stop is not cancelled."""
    async with running_service(tmp_path, plugins=mine, shutdown_grace_s=30) as service:
        task = await service.manager.submit("patient", {})
        await until_said(service, task.id, "at work")
        stopping = asyncio.ensure_future(service.stop())
        await service.stopping.wait()
        (tmp_path / "data" / "go").touch()
        await stopping
    async with running_service(tmp_path) as again:
        assert (await again.manager.task(task.id)).status is TaskStatus.SUCCEEDED


@pytest.mark.parametrize("plugin", ["stubborn", "blocked"])
async def test_what_ignores_its_cancellation_is_left_behind_as_interrupted(
    tmp_path: Path, mine: list[Path], plugin: str
) -> None:
    """The stop ends within its deadline, and the plugin goes on."""
    settings = {"plugins": mine, "shutdown_grace_s": 0, "shutdown_deadline_s": 0.05}
    async with running_service(tmp_path, **settings) as service:
        task = await service.manager.submit(plugin, {"times": 3, "until": str(tmp_path / "go")})
        await until_said(service, task.id, "waiting" if plugin == "blocked" else "started stubborn")
        await service.stop()
    async with running_service(tmp_path) as again:
        assert (await again.manager.task(task.id)).status is TaskStatus.INTERRUPTED
    (tmp_path / "go").touch()
    for left in asyncio.all_tasks() - {asyncio.current_task()}:
        while not left.done():
            left.cancel()
            await asyncio.sleep(0)


async def test_hurry_cuts_the_waiting_short_and_loses_no_entry(tmp_path: Path, mine: list[Path]) -> None:
    """A second Ctrl-C."""
    async with running_service(tmp_path, plugins=mine, shutdown_grace_s=600) as service:
        task = await service.manager.submit("sleeper", {})
        await until_said(service, task.id, "asleep")
        stopping = asyncio.ensure_future(service.stop())
        await asyncio.sleep(0)
        service.hurry()
        await stopping
    async with running_service(tmp_path) as again:
        assert "asleep" in messages(await read_all(again, task.id))


async def test_readers_are_let_go_by_a_stop(tmp_path: Path, mine: list[Path]) -> None:
    """With the end where the log has ended: an interrupted task's has."""

    async def read(task_id: str) -> list[object]:
        return [event async for event in follow(service.manager, task_id, LogFilter(), page_entries=100)]

    async with running_service(tmp_path, plugins=mine, shutdown_grace_s=0) as service:
        task = await service.manager.submit("sleeper", {})
        readers = [asyncio.ensure_future(read(task.id)) for _ in range(10)]
        await until_said(service, task.id, "asleep")
    for reader in readers:
        events = await reader
        assert isinstance(events[-1], End)
        assert sum(len(event.entries) for event in events if isinstance(event, Entries)) == events[-1].last_seq


async def test_while_the_store_stays_locked_a_stop_still_ends_and_shows_no_false_end(
    tmp_path: Path, mine: list[Path]
) -> None:
    """The task is found as interrupted at the next start."""
    settings = {"plugins": mine, "shutdown_grace_s": 0, "shutdown_deadline_s": 0.1, "retry_delay_s": 0.01}
    async with running_service(tmp_path, **settings) as service:
        task = await service.manager.submit("sleeper", {})
        await until_said(service, task.id, "asleep")
        other = sqlite3.connect(tmp_path / "data" / "taskd.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        await service.stop()
        other.close()
    async with running_service(tmp_path) as again:
        assert (await again.manager.task(task.id)).status is TaskStatus.INTERRUPTED


async def test_orphans_become_interrupted_exactly_once(tmp_path: Path) -> None:
    """With an entry that says so, after the last stored one."""
    async with running_service(tmp_path) as service:
        running, queued = await created(service.store), await created(service.store)
        await service.store.start_task(running, "2026-11-23T14:00:00.000000Z")
        await service.store.append(running, entries(range(1, 4)))
    for _ in range(3):
        async with running_service(tmp_path) as service:
            for task_id, last_seq, was in ((running, 4, "running"), (queued, 1, "waiting to run")):
                task = await service.manager.task(task_id)
                last = (await read_all(service, task_id))[-1]
                assert (task.status, task.last_seq, last.source) == ("interrupted", last_seq, "system")
                assert was in last.message
            await interrupt_orphans(service.store)


async def test_two_services_do_not_share_a_data_directory(tmp_path: Path) -> None:
    """The second says who holds it; when the first has gone, it starts."""
    async with running_service(tmp_path):
        with pytest.raises(DataDirHeld, match=r"process \d+"):
            async with running_service(tmp_path):
                pass
    async with running_service(tmp_path) as service:
        assert service.health().problems == []


async def test_a_data_directory_that_cannot_be_made_is_said_so(tmp_path: Path) -> None:
    """With its path, and what to do."""
    (tmp_path / "data").write_text("a file")
    with pytest.raises(StoreError, match=r"data.*--data-dir"):
        async with running_service(tmp_path):
            pass


async def test_a_start_that_fails_leaves_nothing_open(tmp_path: Path) -> None:
    """Neither the lock nor the streams."""
    streams = sys.stdout, sys.stderr
    (tmp_path / "data").mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "taskd.db")) as other:
        other.execute("CREATE TABLE theirs (a)")
    for _ in range(2):
        with pytest.raises(StoreError, match=r"taskd\.db"):
            await Service(Settings(data_dir=tmp_path / "data")).__aenter__()
    assert (sys.stdout, sys.stderr) == streams


@contextlib.contextmanager
def locked_against_readers(data_dir: Path) -> Iterator[sqlite3.Connection]:
    """The database of a service that has ended, held by another program."""
    with contextlib.closing(sqlite3.connect(data_dir / "taskd.db", isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN IMMEDIATE")
        other.execute("CREATE TABLE theirs (a)")
        yield other


async def test_a_start_waits_until_the_database_can_be_opened(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Held by another program, it cannot even be read."""
    async with running_service(tmp_path):
        pass
    starting = Service(Settings(data_dir=tmp_path / "data"))
    with locked_against_readers(tmp_path / "data") as other:
        start = asyncio.create_task(starting.__aenter__())
        await until(lambda: "waits for the database" in caplog.text)
        other.execute("ROLLBACK")
    await start
    await starting.stop()


async def test_a_start_that_waited_in_vain_says_why(tmp_path: Path) -> None:
    async with running_service(tmp_path):
        pass
    with (
        locked_against_readers(tmp_path / "data"),
        pytest.raises(StoreUnavailable, match=r"cannot be opened: database is locked.*given up after 0\.1 s"),
    ):
        async with running_service(tmp_path, start_wait_s=0.1):
            pass


async def test_a_new_task_sorts_after_the_stored_ones_whatever_the_clock_says(
    tmp_path: Path, plugin_dir: PluginDir
) -> None:
    """Ids made while the clock was wrong do not end up before or between others after a restart."""
    ahead = "ee000000-0000-7000-8000-000000000000"
    async with running_service(tmp_path) as service:
        await service.store.create_task(Task(ahead, "talking", {}, TaskStatus.QUEUED, timestamp_now()), [])
    async with running_service(tmp_path, plugins=[plugin_dir(TALKING)]) as service:
        assert (await service.manager.submit("talking", {})).id > ahead


async def test_health_says_in_words_what_is_wrong(tmp_path: Path, mine: list[Path]) -> None:
    """A locked store, while entries wait for it."""
    settings = {"plugins": mine, "flush_interval_s": 0.01, "retry_delay_s": 0.01, "shutdown_grace_s": 0}
    async with running_service(tmp_path, **settings) as service:
        task = await service.manager.submit("talking", {})
        await until_said(service, task.id, "20")
        other = sqlite3.connect(tmp_path / "data" / "taskd.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        # The store knows of it a moment before the task does.
        await until(lambda: "wait in memory and are stored in order" in "".join(service.health().problems))
        [problem] = service.health().problems
        assert "locked" in problem
        assert "let that end" in problem
        assert service.health().entries_pending > 0
        other.close()
        await until(lambda: not service.health().problems)


async def test_health_says_what_to_do_about_a_full_journal(tmp_path: Path) -> None:
    """A whole sentence for each: what it is, why, and what helps."""
    async with running_service(tmp_path) as service:
        service.journal.fault = "The journal is full: No space left on device. A crash now loses what is not committed."
        [problem] = service.health().problems
        assert problem.startswith("The journal is full: No space left")
        assert "Make room" in problem
        assert "journal_bytes_max" in problem


async def test_the_journal_is_synced_all_the_time_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Health says when it cannot be, until it can."""

    class Failing:
        def flush(self) -> None:
            raise OSError(errno.EIO, "Input/output error")

    async with running_service(tmp_path, journal_sync_ms=1) as service:
        with monkeypatch.context() as failing:
            failing.setattr(service.journal.current, "map", Failing())
            await until(lambda: service.health().problems)
            assert "cannot be synced: Input/output error" in service.health().problems[0]
        await until(lambda: not service.health().problems)


async def test_two_services_do_not_share_a_database_either(tmp_path: Path) -> None:
    """With data directories of their own: each would end the other's tasks."""
    database = f"sqlite:///{tmp_path / 'shared.db'}"
    async with running_service(tmp_path / "one", database=database):
        with pytest.raises(DataDirHeld, match="in use by another taskd"):
            async with running_service(tmp_path / "two", database=database):
                pass
    async with running_service(tmp_path / "two", database=database) as service:
        assert service.health().problems == []


async def test_health_says_that_the_database_was_removed(tmp_path: Path) -> None:
    """What is stored from then on is in no file that has a name."""
    async with running_service(tmp_path) as service:
        (tmp_path / "data" / "taskd.db").unlink()
        assert "removed" in service.health().problems[0]


async def test_many_plugins_may_block_in_threads_at_once(tmp_path: Path, plugin_dir: PluginDir) -> None:
    """As many as may run: the default of a few threads would have the others wait for them."""
    source = """
    class Blocks(Plugin):
        name = "blocks"
        async def execute(self, params, context):
            await asyncio.to_thread(barrier.wait)

    barrier = threading.Barrier(40, timeout=20)
    """
    async with running_service(tmp_path, plugins=[plugin_dir(source)], tasks_running_max=40) as service:
        tasks = [await service.manager.submit("blocks", {}) for _ in range(40)]
        assert {(await service.manager.wait(task.id)).status for task in tasks} == {"succeeded"}


async def test_an_option_of_a_plugin_that_is_not_loaded_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be misspelt; the start goes on, for the plugin may be added later."""
    async with running_service(tmp_path, plugin_option=["wrods.root=/srv", "words.root=/srv"]):
        pass
    [record] = [record for record in caplog.records if "plugin_option" in record.getMessage()]
    assert "the plugin 'wrods', which is not loaded; these are: " in record.getMessage()
