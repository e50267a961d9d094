"""Tasks from their creation to their end, and what people may ask of them."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from taskd.entries import Level
from taskd.errors import ParamsInvalid, PluginNotFound, Stopping, TaskConflict, TaskNotFound, TooManyTasks
from taskd.query.filters import LogFilter
from taskd.reading.follow import End, follow
from taskd.service import Service
from taskd.tasks import TaskStatus
from tests.conftest import messages, read_all, running_service
from tests.helpers.plugins import PLUGINS
from tests.helpers.waiting import until_said

PluginDir = Callable[[str], Path]


async def cancelled(service: Service, task_id: str) -> TaskStatus:
    await service.manager.cancel(task_id)
    return (await service.manager.wait(task_id)).status


@pytest.fixture
def mine(plugin_dir: PluginDir) -> list[Path]:
    """The directory of the plugins above."""
    return [plugin_dir(PLUGINS)]


async def test_a_task_ends_with_its_result_and_its_whole_log(tmp_path: Path, mine: list[Path]) -> None:
    """Started, what it said, succeeded: in this order, all stored when the status is seen."""
    async with running_service(tmp_path, plugins=mine) as service:
        task = await service.manager.submit("talker", {"lines": 20})
        ended = await service.manager.wait(task.id)
        entries = await read_all(service, task.id)
    assert (task.status, ended.status, ended.result["lines"]) == ("queued", "succeeded", 20)
    assert [entry.seq for entry in entries] == [*range(1, 23)] == [*range(1, ended.last_seq + 1)]
    assert entries[0].source == entries[-1].source == "system"
    assert messages(entries, "talker") == [f"line {number}, ***" for number in range(20)]
    assert ended.counts[Level.INFO] == 22


async def test_status_is_shown_only_when_the_log_is_stored(tmp_path: Path, mine: list[Path]) -> None:
    """Whoever sees `succeeded` can read the whole log from the store."""
    async with running_service(tmp_path, plugins=mine, flush_interval_s=60) as service:
        task = await service.manager.submit("talker", {"lines": 500})
        while not (seen := await service.manager.task(task.id)).status.ended:
            await asyncio.sleep(0)
        assert (await service.store.task(task.id)).last_seq == seen.last_seq == 502


async def test_whoever_comes_in_the_turn_in_which_a_task_ends_sees_its_end(tmp_path: Path, mine: list[Path]) -> None:
    """Its hub is closed then: nobody is sent away by it, to come back for the end."""
    async with running_service(tmp_path, plugins=mine) as service:
        task = await service.manager.submit("talker", {})
        await service.manager._live[task.id].ended.wait()
        assert task.id in service.manager._live
        async with aclosing(follow(service.manager, task.id, LogFilter(), page_entries=1_000)) as events:
            given = [event async for event in events]
        assert isinstance(given[-1], End)


async def test_a_secret_param_is_neither_stored_nor_said(tmp_path: Path, mine: list[Path]) -> None:
    """Shown as `***`, masked in messages and in the result; nowhere in the files."""
    async with running_service(tmp_path, plugins=mine) as service:
        task = await service.manager.submit("talker", {"lines": 1, "secret": "hunter2hunter2"})
        ended = await service.manager.wait(task.id)
        assert (ended.params["secret"], ended.result["secret"]) == ("***", "***")
        assert messages(await read_all(service, task.id), "talker") == ["line 0, ***"]
        for path in (tmp_path / "data").rglob("*"):
            assert path.is_dir() or b"hunter2" not in path.read_bytes()


async def test_a_retry_needs_its_secrets_again(tmp_path: Path, mine: list[Path]) -> None:
    """Without them it is refused, naming them; with them it is a new task that names the old."""
    async with running_service(tmp_path, plugins=mine) as service:
        task = await service.manager.submit("talker", {"lines": 2, "secret": "hunter2hunter2"})
        await service.manager.wait(task.id)
        with pytest.raises(ParamsInvalid, match=r"params\.secret"):
            await service.manager.retry(task.id)
        again = await service.manager.retry(task.id, {"secret": "hunter3hunter3"})
        assert (again.retry_of, again.params) == (task.id, {"lines": 2, "secret": "***"})
        assert (await service.manager.wait(again.id)).status is TaskStatus.SUCCEEDED


async def test_a_password_in_a_url_is_hidden_and_must_be_given_again(tmp_path: Path, mine: list[Path]) -> None:
    """Also where the plugin declares nothing secret."""
    async with running_service(tmp_path, plugins=mine) as service:
        params = {"remotes": [{"url": "https://me:hunter2hunter2@host/x"}], "kind": "value"}
        task = await service.manager.submit("raiser", params)
        assert task.params["remotes"][0]["url"] == "https://me:***@host/x"
        await service.manager.wait(task.id)
        with pytest.raises(ParamsInvalid, match=r"params\.remotes\.0\.url"):
            await service.manager.retry(task.id)
        again = await service.manager.retry(task.id, {"remotes": [{"url": "https://me:hunter3hunter3@host/x"}]})
        assert again.params == task.params


async def test_a_value_that_json_cannot_keep_makes_no_task(tmp_path: Path, mine: list[Path]) -> None:
    """orjson would store null, and a cycle has no end."""
    cycle: dict[str, object] = {}
    cycle["self"] = cycle
    async with running_service(tmp_path, plugins=mine) as service:
        for value, named in ((float("nan"), r"params\.value: expected a number"), (2**64, r"params\.value: .*integer")):
            with pytest.raises(ParamsInvalid, match=named):
                await service.manager.submit("raiser", {"value": value})
        with pytest.raises(ParamsInvalid, match="not JSON"):
            await service.manager.submit("raiser", cycle)
        assert await service.manager.tasks() == ([], None)


async def test_what_is_not_there_or_not_valid_makes_no_task(tmp_path: Path, mine: list[Path]) -> None:
    """An unknown plugin names the known ones; every fault of the params has its path."""
    async with running_service(tmp_path, plugins=mine) as service:
        with pytest.raises(PluginNotFound, match=r"'nothing'.*talker"):
            await service.manager.submit("nothing", {})
        with pytest.raises(ParamsInvalid) as raised:
            await service.manager.submit("talker", {"lines": "many", "other": 1})
        assert [fault["path"] for fault in raised.value.faults] == ["params.lines", "params.other"]
        assert await service.manager.tasks() == ([], None)
        with pytest.raises(TaskNotFound):
            await service.manager.task("nothing")


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("value", "ValueError: what it says"),
        ("exit", "SystemExit: 3"),
        ("key", "KeyboardInterrupt"),
        ("cancel", "CancelledError: the plugin was cancelled from within, and nobody asked for it"),
    ],
)
async def test_whatever_a_plugin_raises_fails_its_task_and_reaches_no_other(
    tmp_path: Path, mine: list[Path], kind: str, error: str
) -> None:
    """SystemExit included; the traceback is in the log, and a sibling goes on."""
    async with running_service(tmp_path, plugins=mine) as service:
        sibling = await service.manager.submit("sleeper", {})
        task = await service.manager.submit("raiser", {"kind": kind})
        ended = await service.manager.wait(task.id)
        entries = await read_all(service, task.id)
        assert (ended.status, ended.error) == ("failed", error)
        assert [entry for entry in entries if entry.level is Level.ERROR] == entries[-1:]
        assert ended.counts[Level.ERROR] == 1
        if kind != "cancel":
            assert "mine.py" in entries[-1].message
            assert entries[-1].metadata is not None
            assert entries[-1].metadata["exception"]["type"] == error.partition(":")[0]
        assert await cancelled(service, sibling.id) is TaskStatus.CANCELLED


async def test_a_running_task_is_cancelled(tmp_path: Path, mine: list[Path]) -> None:
    """And its log says by whom and when."""
    async with running_service(tmp_path, plugins=mine) as service:
        task = await service.manager.submit("sleeper", {})
        await until_said(service, task.id, "asleep")
        assert await cancelled(service, task.id) is TaskStatus.CANCELLED
        assert messages(await read_all(service, task.id), "system")[1] == "asked to cancel"
        with pytest.raises(TaskConflict, match="cancelled"):
            await service.manager.cancel(task.id)


async def test_a_task_cancelled_before_its_first_step_still_ends(tmp_path: Path, mine: list[Path]) -> None:
    """At every turn of the loop after its creation."""
    async with running_service(tmp_path, plugins=mine) as service:
        for turns in range(30):
            task = await service.manager.submit("sleeper", {})
            for _ in range(turns):
                await asyncio.sleep(0)
            assert await cancelled(service, task.id) is TaskStatus.CANCELLED


async def test_asking_again_cancels_again(tmp_path: Path, mine: list[Path]) -> None:
    """A plugin that ignored the first is asked a second time."""
    async with running_service(tmp_path, plugins=mine) as service:
        task = await service.manager.submit("stubborn", {"times": 2})
        await until_said(service, task.id, "started stubborn")
        while (await service.manager.task(task.id)).status is not TaskStatus.CANCELLED:
            if service.manager.writer(task.id) is not None:
                await service.manager.cancel(task.id)
            await asyncio.sleep(0.001)
        assert messages(await read_all(service, task.id), "stubborn") == ["no", "no"]


async def test_a_queued_task_is_cancelled_at_once(tmp_path: Path, mine: list[Path]) -> None:
    """It never runs, and its place is free."""
    async with running_service(tmp_path, plugins=mine, tasks_running_max=1, tasks_queued_max=1) as service:
        running = await service.manager.submit("sleeper", {})
        queued = await service.manager.submit("sleeper", {})
        with pytest.raises(TooManyTasks):
            await service.manager.submit("sleeper", {})
        assert (await service.manager.cancel(queued.id)).status is TaskStatus.CANCELLED
        assert (await service.manager.task(queued.id)).started_at is None
        waiting = await service.manager.submit("talker", {})
        await cancelled(service, running.id)
        assert (await service.manager.wait(waiting.id)).status is TaskStatus.SUCCEEDED


async def test_tasks_wait_their_turn(tmp_path: Path, mine: list[Path]) -> None:
    """Never more run at once than the limit, and all of them do run, in order."""
    async with running_service(tmp_path, plugins=mine, tasks_running_max=3) as service:
        tasks = [await service.manager.submit("talker", {}) for _ in range(20)]
        assert service.manager.running <= 3
        ended = [await service.manager.wait(task.id) for task in tasks]
    assert {task.status for task in ended} == {"succeeded"}
    started = [str(task.started_at) for task in ended]
    assert started == sorted(started)


async def test_an_old_plugin_runs_in_a_thread_and_its_words_reach_its_log_in_order(
    tmp_path: Path, mine: list[Path]
) -> None:
    """Several at once: each log has its own prints and its own library's words."""
    async with running_service(tmp_path, plugins=mine) as service:
        tasks = [await service.manager.submit("old", {}) for _ in range(5)]
        for task in tasks:
            ended = await service.manager.wait(task.id)
            words = [entry for entry in await read_all(service, task.id) if entry.source != "system"]
            expected = [(source, f"{said} {n}") for n in range(50) for source, said in PAIRS]
            assert [(entry.source, entry.message) for entry in words] == expected
            assert ended.result == f"plugin {task.id}"


PAIRS = (("stdout", "printed"), ("library", "logged"))


async def test_a_result_that_json_cannot_hold_is_kept_as_text(tmp_path: Path, mine: list[Path]) -> None:
    """And one that is too large is left out, and that is said."""
    async with running_service(tmp_path, plugins=mine) as service:
        odd = await service.manager.submit("odd", {})
        result = (await service.manager.wait(odd.id)).result
        assert (result["set"], result["text"], result["5"]) == ([1], "\\udcff", "nan")
        big = await service.manager.submit("big", {})
        assert (await service.manager.wait(big.id)).result is None
        assert "not kept" in messages(await read_all(service, big.id))[-2]


async def test_only_an_ended_task_is_deleted(tmp_path: Path, mine: list[Path]) -> None:
    """Log, files and all."""
    async with running_service(tmp_path, plugins=mine) as service:
        task = await service.manager.submit("sleeper", {})
        with pytest.raises(TaskConflict, match="cancel it"):
            await service.manager.delete(task.id)
        with pytest.raises(TaskConflict, match="only an ended"):
            await service.manager.retry(task.id)
        await cancelled(service, task.id)
        directory = tmp_path / "data" / "tasks" / task.id
        directory.mkdir(parents=True)
        await service.manager.delete(task.id)
        assert not directory.exists()
        with pytest.raises(TaskNotFound):
            await service.manager.delete(task.id)


async def test_the_list_of_tasks_is_paged_and_sees_what_is_pending(tmp_path: Path, mine: list[Path]) -> None:
    """Newest first, `next_before` walks on, counts are of now."""
    async with running_service(tmp_path, plugins=mine, flush_interval_s=60) as service:
        tasks = [await service.manager.submit("sleeper", {}) for _ in range(5)]
        for task in tasks:
            await until_said(service, task.id, "asleep")
        page, before = await service.manager.tasks(limit=3)
        rest, end = await service.manager.tasks(limit=3, before=before)
        assert [task.id for task in page + rest] == [task.id for task in tasks][::-1]
        assert (end, {task.last_seq for task in page}, {task.counts[Level.INFO] for task in page}) == (None, {2}, {2})


async def test_a_stopping_service_takes_no_tasks(tmp_path: Path, mine: list[Path]) -> None:
    """It says so."""
    async with running_service(tmp_path, plugins=mine) as service:
        await service.stop()
        with pytest.raises(Stopping):
            await service.manager.submit("talker", {})


async def test_a_thousand_waiting_tasks_of_one_plugin_do_not_hold_up_another(tmp_path: Path, mine: list[Path]) -> None:
    """Plugins take turns; of one plugin the first comes first."""
    async with running_service(tmp_path, plugins=mine, tasks_running_max=1) as service:
        running = await service.manager.submit("sleeper", {})
        many = [await service.manager.submit("talker", {"lines": 1}) for _ in range(30)]
        other = await service.manager.submit("old", {})
        await cancelled(service, running.id)
        started = {}
        for task in (*many, other):
            started[task.id] = (await service.manager.wait(task.id)).started_at
        order = sorted(started, key=lambda task_id: started[task_id] or "")
        assert order.index(other.id) <= 2
        assert [task_id for task_id in order if task_id != other.id] == [task.id for task in many]


async def test_as_many_as_may_run_and_wait_are_accepted_at_once(tmp_path: Path, mine: list[Path]) -> None:
    """Those that are just being stored count; whoever is one too many is told when to come back."""
    async with running_service(tmp_path, plugins=mine, tasks_running_max=3, tasks_queued_max=4) as service:
        submitting = [service.manager.submit("sleeper", {}) for _ in range(20)]
        outcomes = await asyncio.gather(*submitting, return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, TooManyTasks)]
        assert len(refused) == 13
        assert (service.manager.running, service.manager.waiting) == (3, 4)
        assert any("429" in notice for notice in service.health().problems)
