"""Bodies of requests: read within a bound, as they are written, and validated with every fault named."""

from typing import Any

import orjson
import pytest

from tests.api.conftest import Show, Shown, check_problem

JSON = {"content-type": "application/json"}


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


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ([], "expected an object with plugin and params, not an array"),
        (None, "expected an object with plugin and params, not null"),
        ({"plugin": "speak", "parms": {}}, "parms: no such field: expected plugin or params"),
        (
            {"plugin": 1, "params": "a"},
            "plugin: expected a string, not a number; params: expected an object, not a string",
        ),
        ({"params": {}}, "plugin: missing"),
    ],
)
async def test_a_body_of_the_wrong_shape_is_refused_with_what_came_and_what_was_expected(
    shown: Shown, body: object, words: str
) -> None:
    problem = check_problem(await shown.http.post("/api/tasks", content=orjson.dumps(body), headers=JSON), 422)
    assert problem["detail"] == f"The body is invalid: {words}."


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
