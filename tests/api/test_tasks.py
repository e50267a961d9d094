"""Tasks over HTTP."""

from typing import Any

import pytest

from taskd.tasks import TaskStatus
from tests.api.conftest import Show, Shown
from tests.helpers.gates import gate


async def test_a_created_task_is_answered_with_its_place(shown: Shown) -> None:
    """201, the task, and a Location that leads to it."""
    answer = await shown.http.post("/api/tasks", json={"plugin": "speak", "params": {"count": 1}})
    assert answer.status_code == 201
    assert answer.json()["params"] == {"count": 1}
    assert (await shown.http.get(answer.headers["location"])).json()["id"] == answer.json()["id"]


async def test_params_that_do_not_validate_are_refused_each_with_its_path(shown: Shown) -> None:
    """422, and a program can read every fault; no task is made."""
    answer = await shown.http.post("/api/tasks", json={"plugin": "copy", "params": {"keep": -1}})
    assert answer.status_code == 422
    assert {fault["path"] for fault in answer.json()["errors"]} == {"params.source", "params.keep"}
    assert (await shown.http.get("/api/tasks")).json()["tasks"] == []


async def test_an_unknown_plugin_is_not_found(shown: Shown) -> None:
    """404, and the detail names those there are."""
    answer = await shown.http.post("/api/tasks", json={"plugin": "speek"})
    assert answer.status_code == 404
    assert "'speek'" in answer.json()["detail"]
    assert "speak" in answer.json()["detail"]


async def test_tasks_are_listed_newest_first_and_paged_by_next_before(shown: Shown) -> None:
    """Following next_before gives every task once; the last page says null."""
    ids = [await shown.start(count=0) for _ in range(5)]
    seen: list[str] = []
    before: dict[str, str] = {}
    while True:
        page = (await shown.http.get("/api/tasks", params={"limit": 2, **before})).json()
        seen += [task["id"] for task in page["tasks"]]
        if page["next_before"] is None:
            break
        before = {"before": page["next_before"]}
    assert seen == ids[::-1]


async def test_tasks_are_found_by_status_plugin_and_ending(shown: Shown) -> None:
    """The three filters of the list, alone and together."""
    spoke, copied = await shown.run(), await shown.run("copy", source="a")
    for query, found in (
        ({"status": "succeeded"}, [copied, spoke]),
        ({"status": "failed"}, []),
        ({"plugin": "copy"}, [copied]),
        ({"id": spoke[-8:]}, [spoke]),
        ({"id": spoke[-8:], "plugin": "copy"}, []),
    ):
        listed = (await shown.http.get("/api/tasks", params=query)).json()["tasks"]
        assert [task["id"] for task in listed] == found, query


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("limit=0", "limit='0'"),
        ("limit=1001", "limit='1001'"),
        ("limit=many", "limit='many'"),
        ("limit=1&limit=2", "limit='2'"),
        ("status=done", "status='done'"),
        ("plugin=No", "plugin='No'"),
        ("id=%25", "id='%'"),
        ("before=yesterday", "before='yesterday'"),
        ("stauts=failed", "stauts='failed'"),
    ],
)
async def test_a_bad_list_parameter_is_named(shown: Shown, query: str, named: str) -> None:
    """400: the parameter, its value and what was expected."""
    answer = await shown.http.get(f"/api/tasks?{query}")
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(f"{named}: expected ")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/cancel"),
        ("POST", "/retry"),
        ("GET", "/logs"),
        ("GET", "/logs/stats"),
        ("GET", "/logs/sources"),
        ("GET", "/logs/stream"),
    ],
)
async def test_a_task_that_is_not_there_is_404_everywhere(shown: Shown, method: str, path: str) -> None:
    """Whatever is asked of it."""
    answer = await shown.http.request(method, f"/api/tasks/nobody{path}")
    assert answer.status_code == 404
    assert "'nobody'" in answer.json()["detail"]


async def test_cancelling_is_accepted_again_until_the_task_has_ended(shown: Shown) -> None:
    """202 while it lives, then 409."""
    task_id = await shown.start(gate="stay")
    await shown.said(task_id, 4)
    assert (await shown.http.post(f"/api/tasks/{task_id}/cancel")).status_code == 202
    await shown.service.manager.wait(task_id)
    answer = await shown.http.post(f"/api/tasks/{task_id}/cancel")
    assert answer.status_code == 409
    assert "cancelled" in answer.json()["detail"]


async def test_a_queued_task_is_cancelled_at_once(show: Show) -> None:
    """Nothing of it runs, so there is nothing to wait for."""
    async with show(tasks_running_max=1) as shown:
        running, queued = await shown.start(gate="stay"), await shown.start()
        answer = await shown.http.post(f"/api/tasks/{queued}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")
        gate("stay").set()
        assert (await shown.service.manager.wait(running)).status is TaskStatus.SUCCEEDED


async def test_a_retry_is_a_new_task_that_names_the_old_one(shown: Shown) -> None:
    """Same plugin, same params, and a Location of its own."""
    old = await shown.run(count=2)
    answer = await shown.http.post(f"/api/tasks/{old}/retry")
    assert answer.status_code == 201
    assert (answer.json()["retry_of"], answer.json()["params"]) == (old, {"count": 2})
    assert answer.headers["location"] == f"/api/tasks/{answer.json()['id']}"


async def test_a_running_task_can_be_neither_retried_nor_deleted(shown: Shown) -> None:
    """409, and it goes on running."""
    task_id = await shown.start(gate="stay")
    assert (await shown.http.post(f"/api/tasks/{task_id}/retry")).status_code == 409
    assert (await shown.http.delete(f"/api/tasks/{task_id}")).status_code == 409
    gate("stay").set()
    assert (await shown.service.manager.wait(task_id)).status is TaskStatus.SUCCEEDED


async def test_secret_params_are_shown_as_stars_and_must_be_given_again(shown: Shown) -> None:
    """422 names what was not kept; a body gives it."""
    params = {"source": "a", "password": "open sesame"}
    created = await shown.http.post("/api/tasks", json={"plugin": "copy", "params": params})
    assert created.json()["params"]["password"] == "***"
    old = (await shown.service.manager.wait(created.json()["id"])).id
    refused = await shown.http.post(f"/api/tasks/{old}/retry")
    assert refused.status_code == 422
    assert [fault["path"] for fault in refused.json()["errors"]] == ["params.password"]
    given: dict[str, Any] = {"params": {"password": "open sesame"}}
    assert (await shown.http.post(f"/api/tasks/{old}/retry", json=given)).status_code == 201


async def test_a_deleted_task_is_gone_log_and_all(shown: Shown) -> None:
    """204 without a body, and then 404."""
    task_id = await shown.run()
    answer = await shown.http.delete(f"/api/tasks/{task_id}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await shown.http.get(f"/api/tasks/{task_id}/logs")).status_code == 404


async def test_too_many_tasks_are_refused_with_a_time_to_come_back(show: Show) -> None:
    """429 with Retry-After in seconds; what was accepted is not touched."""
    async with show(tasks_running_max=1, tasks_queued_max=1) as shown:
        running, queued = await shown.start(gate="stay"), await shown.start()
        answer = await shown.http.post("/api/tasks", json={"plugin": "speak"})
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 0
        gate("stay").set()
        for task_id in (running, queued):
            assert (await shown.service.manager.wait(task_id)).status is TaskStatus.SUCCEEDED
