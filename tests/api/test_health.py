"""Health and metrics report how the service is."""

import math
import sqlite3
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from taskd.api.app import create_app
from taskd.version import __version__
from tests.api.conftest import Serve, Show, Shown, check_problem, frames
from tests.conftest import running_service
from tests.helpers.gates import gate
from tests.helpers.waiting import until

Samples = dict[tuple[str, str], float]


async def scraped(http: httpx.AsyncClient) -> Samples:
    """What `/metrics` says, by name and the values of the labels, joined."""
    answer = (await http.get("/metrics")).raise_for_status()
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, " ".join(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def falling(before: Samples, after: Samples) -> list[tuple[str, str]]:
    """The counters, and the buckets of histograms, that are less than they were or gone."""
    counters = ("_total", "_count", "_sum", "_bucket")
    return [key for key in before if key[0].endswith(counters) and after.get(key, -1) < before[key]]


async def test_health_is_503_if_nothing_can_be_stored(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what is wrong; and 200 again afterwards."""
    assert (await shown.http.get("/api/health")).json()["status"] == "ok"
    health = replace(shown.service.health(), problems=["The disk is full."], refusing=True)
    with monkeypatch.context() as patched:
        patched.setattr(shown.service, "health", lambda: health)
        problem = check_problem(await shown.http.get("/api/health"), 503)
        assert (problem["detail"], problem["problems"]) == ("The disk is full.", ["The disk is full."])
    assert (await shown.http.get("/api/health")).status_code == 200


async def test_health_is_degraded_while_anything_is_wrong(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 with a sentence for each problem; what was put right is shown for an hour."""
    well = (await shown.http.get("/api/health")).json()
    assert (well["status"], well["problems"], well["database"]) == ("ok", [], "sqlite://")
    words = "The database was corrupt and was put aside."
    shown.service.notices[words] = time.monotonic()
    answer = await shown.http.get("/api/health")
    assert (answer.status_code, answer.json()["status"], answer.json()["problems"]) == (200, "degraded", [words])
    assert "taskd_healthy 0.0" in (await shown.http.get("/metrics")).text
    shown.service.notices[words] -= 3_600
    assert (await shown.http.get("/api/health")).json() == well


async def test_health_without_the_token_is_status_and_version_alone(show: Show) -> None:
    """Also while something is wrong."""
    async with show(token="a token that is long") as shown:
        for status in ("ok", "degraded"):
            assert (await shown.http.get("/api/health")).json() == {"status": status, "version": __version__}
            known = await shown.http.get("/api/health", headers={"authorization": "Bearer a token that is long"})
            assert len(known.json()["problems"]) == (status == "degraded")
            shown.service.notices["The secret of it."] = time.monotonic()
        await shown.service.stop()
        assert "problems" not in check_problem(await shown.http.get("/api/health"), 503)


async def test_counters_are_what_a_run_did(shown: Shown) -> None:
    """Tasks by plugin and status, entries said and stored, commits, the process."""
    tasks = [await shown.run(count=5), await shown.run(count=7), await shown.run("copy", source="a")]
    told = await scraped(shown.http)
    by_plugin = {"speak": tasks[:2], "copy": tasks[2:]}
    for plugin, ids in by_plugin.items():
        said = sum([(await shown.service.store.task(task_id)).last_seq for task_id in ids])
        assert told["taskd_entries_emitted_total", plugin] == said
        assert told["taskd_entries_stored_total", plugin] == said
        assert told["taskd_entries_pending", plugin] == 0
        assert told["taskd_tasks_accepted_total", plugin] == len(ids)
        assert told["taskd_tasks_started_total", plugin] == len(ids)
        assert told["taskd_tasks_ended_total", f"{plugin} succeeded"] == len(ids)
        assert told["taskd_tasks", f"{plugin} running"] == told["taskd_tasks", f"{plugin} queued"] == 0
    assert told["taskd_flush_seconds_count", ""] == len(tasks)
    assert told["taskd_commit_seconds_count", ""] >= len(tasks)
    assert told["taskd_store_errors_total", ""] == told["taskd_loop_blocks_untold_total", ""] == 0
    assert told["taskd_journal_bytes", ""] == shown.service.journal.bytes_used > 0
    assert told["taskd_healthy", ""] == 1
    assert told["process_resident_memory_bytes", ""] > 10_000_000
    assert told["process_open_fds", ""] > 3


async def test_what_is_now_is_told_by_status(show: Show) -> None:
    """One runs and has said what is not stored yet, one waits."""
    async with show(tasks_running_max=1, flush_interval_s=60) as shown:
        running = await shown.start(gate="stay", count=9)
        await shown.start("copy", source="a")
        await shown.said(running, 10)
        told = await scraped(shown.http)
        assert told["taskd_tasks", "speak running"] == told["taskd_tasks", "copy queued"] == 1
        assert told["taskd_entries_pending", "speak"] == told["taskd_entries_emitted_total", "speak"] == 10
        assert told["taskd_tasks_started_total", "speak"] == 1
        assert ("taskd_tasks_started_total", "copy") not in told
        gate("stay").set()


async def test_no_total_falls_when_tasks_end_or_are_deleted(shown: Shown) -> None:
    """Nor does any between two looks at a task that goes on."""
    told = [await scraped(shown.http)]
    for number in range(3):
        task_id = await shown.start(gate=f"go {number}", count=20)
        await shown.said(task_id, 21)
        told.append(await scraped(shown.http))
        gate(f"go {number}").set()
        await shown.service.manager.wait(task_id)
        told.append(await scraped(shown.http))
        await shown.http.delete(f"/api/tasks/{task_id}")
        told.append(await scraped(shown.http))
    for before, after in pairwise(told):
        assert falling(before, after) == []
    assert told[-1]["taskd_entries_stored_total", "speak"] == 3 * 22


async def test_what_was_dropped_or_suppressed_is_counted_to_the_entry(show: Show) -> None:
    """As in the log."""
    async with show(queue_max=20, batch_max=10) as shown:
        task_id = await shown.run(count=100)
        said = [(entry["metadata"] or {}).get("dropped", 0) for entry in await shown.entries(task_id)]
        assert (await scraped(shown.http))["taskd_entries_dropped_total", "speak"] == sum(said) > 0
    async with show(entries_per_s_max=10) as shown:
        task_id = await shown.run(count=100)
        said = [(entry["metadata"] or {}).get("suppressed", 0) for entry in await shown.entries(task_id)]
        assert (await scraped(shown.http))["taskd_entries_suppressed_total", "speak"] == sum(said) > 0


async def test_a_store_that_refuses_is_counted(show: Show, tmp_path: Path) -> None:
    """Each try; and what waits for it is pending."""
    async with show(flush_interval_s=0.01, retry_delay_s=0.01) as shown:
        running = await shown.start(gate="stay")
        await shown.said(running, 4)
        other = sqlite3.connect(tmp_path / "data" / "taskd.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        gate("stay").set()
        await until(lambda: is_told(shown, "taskd_store_errors_total", 2))
        assert (await scraped(shown.http))["taskd_healthy", ""] == 0
        assert (await scraped(shown.http))["taskd_entries_pending", "speak"] > 0
        other.close()
        await shown.service.manager.wait(running)
        assert (await scraped(shown.http))["taskd_entries_pending", "speak"] == 0


async def is_told(shown: Shown, name: str, least: float = 1, most: float = math.inf) -> bool:
    return least <= (await scraped(shown.http))[name, ""] <= most


async def test_viewers_and_lagged_readers_are_counted(serve: Serve) -> None:
    """A reader that is sent back to the store is counted, also when the task has ended."""
    async with serve(subscriber_queue_max=10) as served:
        task_id = await served.start(gate="stay", more=50)
        async with served.live(task_id) as connection:
            await until(lambda: is_told(served, "taskd_viewers"))
            gate("stay").set()
            seen = await frames(connection)
        assert seen[-1]["type"] == "end"
        assert seen[-1]["last_seq"] == 55
        told = await scraped(served.http)
        assert told["taskd_lagged_readers_total", ""] >= 1
        await until(lambda: is_told(served, "taskd_viewers", 0, 0))


async def test_two_applications_in_one_process_count_for_themselves(tmp_path: Path, shown: Shown) -> None:
    """Nothing is global."""
    await shown.run()
    async with running_service(tmp_path / "other") as service:
        transport = httpx.ASGITransport(create_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            assert ("taskd_tasks_accepted_total", "speak") not in await scraped(http)
    assert (await scraped(shown.http))["taskd_tasks_accepted_total", "speak"] == 1


async def test_metrics_need_the_token_and_take_no_parameters(show: Show) -> None:
    """401 and 400: they tell what plugins there are and what they do."""
    async with show(token="a token") as shown:
        assert (await shown.http.get("/metrics")).status_code == 401
        headers = {"Authorization": "Bearer a token"}
        assert (await shown.http.get("/metrics", headers=headers)).status_code == 200
        assert (await shown.http.get("/metrics?name=x", headers=headers)).status_code == 400
