"""Refusals: problems of RFC 9457, whatever goes wrong."""

import time
from dataclasses import replace
from typing import Any

import httpx
import pytest

from taskd.api import app as application
from taskd.api.operations import Operation
from taskd.errors import StoreError, StoreTimeout, StoreUnavailable
from taskd.version import __version__
from tests.api.conftest import Show, Shown

JSON = {"content-type": "application/json"}


def check_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The body of a problem, after a look at its form."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert all(body[member] for member in ("type", "title", "detail"))
    return body


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
    ("body", "where"),
    [
        (b'{"plugin": }', "line 1, column 12"),
        (b'{"plugin":\n "a"', "line 2"),
        (b"", "line 1, column 1"),
        (b"[" * 100_000, "line 1"),
        (b'{"plugin": NaN}', "line 1"),
        (b'{"plugin": "\xff"}', "line 1"),
    ],
    ids=["malformed", "cut", "empty", "deep", "nan", "not-utf-8"],
)
async def test_a_body_that_is_not_json_is_told_where(shown: Shown, body: bytes, where: str) -> None:
    """400 with line and column, however deep it is nested."""
    answer = await shown.http.post("/api/tasks", content=body, headers=JSON)
    assert where in check_problem(answer, 400)["detail"]


async def test_params_nested_deeper_than_can_be_stored_are_refused(shown: Shown) -> None:
    """400 and not a fault of the service; what is within the limit is stored and shown."""
    for levels, status in ((1000, 400), (253, 400), (250, 201)):
        body = b'{"plugin": "speak", "params": {"a": ' + b"[" * levels + b"]" * levels + b"}}"
        answer = await shown.http.post("/api/tasks", content=body, headers=JSON)
        assert answer.status_code == status, levels
    assert (await shown.http.get("/api/tasks")).status_code == 200


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ({}, ["plugin"]),
        ({"plugin": 1}, ["plugin"]),
        ({"plugin": "speak", "params": [], "parms": {}}, ["params", "parms"]),
        ([], ["body"]),
    ],
)
async def test_a_body_of_the_wrong_shape_is_told_every_fault(shown: Shown, body: object, paths: list[str]) -> None:
    """422, each fault with its path."""
    problem = check_problem(await shown.http.post("/api/tasks", json=body), 422)
    assert [fault["path"] for fault in problem["errors"]] == paths


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "", None])
async def test_a_body_must_say_that_it_is_json(shown: Shown, media_type: str | None) -> None:
    """415: what another site's form can send without asking is not taken."""
    headers = {} if media_type is None else {"content-type": media_type}
    content = b'{"plugin": "speak"}'
    check_problem(await shown.http.post("/api/tasks", content=content, headers=headers), 415)
    assert (await shown.http.get("/api/tasks")).json()["tasks"] == []


async def test_a_media_type_may_have_parameters_and_any_case(shown: Shown) -> None:
    """As clients write it."""
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    answer = await shown.http.post("/api/tasks", content=b'{"plugin": "speak"}', headers=headers)
    assert answer.status_code == 201


async def test_a_body_over_the_limit_is_refused_whatever_it_declares(show: Show) -> None:
    """413, by what is declared and by what comes."""
    async with show(body_bytes_max=1024) as shown:

        async def endless() -> Any:
            for _ in range(3):
                yield b" " * 500

        for content in (b" " * 1025, endless()):
            answer = await shown.http.post("/api/tasks", content=content, headers=JSON)
            assert "1,024" in check_problem(answer, 413)["detail"]


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
    assert "hunter2" not in problem["detail"]
    assert any(record.exc_info for record in caplog.records) == (status == 500)


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


async def test_a_service_that_stops_says_so(shown: Shown) -> None:
    """503 until the socket is closed, for what needs the store too, and no fault is logged."""
    await shown.service.stop()
    for path in ("/api/health", "/api/tasks", "/api/tasks/any/logs"):
        assert "stopping" in check_problem(await shown.http.get(path), 503)["detail"], path
    check_problem(await shown.http.post("/api/tasks", json={"plugin": "speak"}), 503)


async def test_every_answer_forbids_guessing_framing_and_keeping(shown: Shown) -> None:
    """Good answers and problems alike."""
    for path in ("/api/tasks", "/api/nothing", "/api/tasks?levle=1"):
        headers = (await shown.http.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] == "no-store"


async def test_a_value_that_cannot_be_kept_is_a_422_that_names_its_place(shown: Shown) -> None:
    """No task runs with other params than it was given; large bodies are read as small ones are."""
    for params, path in (
        (b'{"id": 18446744073709551616}', "params.id"),
        (b'{"rows": [1e400]}', "params.rows.0"),
        (b'{"a": 1, "a": 2}', "params.a"),
        (b'{"text": "' + b"x" * 100_000 + b'", "id": 18446744073709551616}', "params.id"),
    ):
        body = b'{"plugin": "speak", "params": ' + params + b"}"
        problem = check_problem(await shown.http.post("/api/tasks", content=body, headers=JSON), 422)
        assert [fault["path"] for fault in problem["errors"]] == [path]
    assert (await shown.http.get("/api/tasks")).json()["tasks"] == []


async def test_numbers_come_back_with_their_digits(shown: Shown) -> None:
    """Up to the limits of 64 bits."""
    params = b'{"max":18446744073709551615,"min":-9223372036854775808,"one":1,"float":1.0,"tenth":0.1}'
    body = b'{"plugin": "speak", "params": ' + params + b"}"
    answer = await shown.http.post("/api/tasks", content=body, headers=JSON)
    assert answer.status_code == 201
    shown_again = await shown.http.get(answer.headers["location"])
    assert params in answer.content
    assert params in shown_again.content
