"""Refusals: problems of RFC 9457, whatever goes wrong."""

import pytest

from taskd.api import app as application
from taskd.api.operations import Operation
from taskd.errors import StoreError, StoreTimeout, StoreUnavailable
from tests.api.conftest import Shown, check_problem


def path_of(operation: Operation, task_id: str = "nobody") -> str:
    """A path that the operation answers to."""
    return operation.path.format(task_id=task_id)


@pytest.mark.parametrize("operation", application.OPERATIONS, ids=lambda operation: operation.name)
async def test_every_route_refuses_an_unknown_parameter(shown: Shown, operation: Operation) -> None:
    """400 that names it: a misspelt filter must not be taken for no filter."""
    answer = await shown.http.request(operation.method, path_of(operation), params={"levle": "ERROR"})
    assert "levle='ERROR'" in check_problem(answer, 400)["detail"]


async def test_an_unknown_path_is_a_problem_and_never_a_redirect(shown: Shown) -> None:
    """Also one that differs from a known one by a slash."""
    for path in ("/api/nothing", "/api/tasks/", "/favicon.gif", "/tasks/a/b"):
        assert path in check_problem(await shown.http.get(path), 404)["detail"]


async def test_a_method_that_a_path_lacks_is_told_which_it_has(shown: Shown) -> None:
    """405 with all methods of the path in Allow, of however many routes."""
    answer = await shown.http.put("/api/tasks")
    check_problem(answer, 405)
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"


async def test_options_names_the_methods_and_grants_nothing_to_other_origins(shown: Shown) -> None:
    """204 with Allow; no CORS."""
    answer = await shown.http.options("/api/tasks/nobody", headers={"origin": "http://evil.example"})
    assert (answer.status_code, answer.headers["allow"]) == (204, "DELETE, GET, HEAD, OPTIONS")
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StoreUnavailable("The database is locked."), 503),
        (StoreTimeout("The query took too long."), 503),
        (StoreError("The password of the store is hunter2."), 500),
        (RuntimeError("The password of the store is hunter2."), 500),
    ],
    ids=["unavailable", "timeout", "store", "unexpected"],
)
async def test_what_the_core_cannot_do_has_its_status(
    shown: Shown,
    error: Exception,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """503 says why; a fault says nothing of the inside, and is logged."""

    async def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(shown.service.manager, "task", fail)
    problem = check_problem(await shown.http.get("/api/tasks/any"), status)
    assert (str(error) in problem["detail"]) == (status == 503)
    assert (problem["detail"] == "Internal error; see the service's log.") == (status == 500)
    assert any(record.exc_info for record in caplog.records) == (status == 500)


async def test_a_service_that_stops_says_so(shown: Shown) -> None:
    """503 until the socket is closed, for what needs the store too, and no fault is logged."""
    await shown.service.stop()
    for path in ("/api/health", "/api/tasks", "/api/tasks/any/logs"):
        assert "stopping" in check_problem(await shown.http.get(path), 503)["detail"], path
    check_problem(await shown.http.post("/api/tasks", json={"plugin": "speak"}), 503)
