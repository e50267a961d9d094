"""The OpenAPI document against the application, both ways."""

import re
from typing import Any

import jsonschema
import orjson
import pytest
from starlette.routing import Route, WebSocketRoute

from taskd import shipped
from taskd.api import app as application
from taskd.api import site, websocket
from taskd.api.operations import Operation, json_schema_of
from taskd.query.parameters import EXPORT, FOLLOW, LOGS, NEXT, OUTLINE, STATS
from tests.api.conftest import Served, Shown, frames
from tests.helpers.gates import gate


async def fetch(shown: Shown) -> dict[str, Any]:
    """The document."""
    document: dict[str, Any] = (await shown.http.get("/api/openapi.json")).raise_for_status().json()
    return document


def check(document: dict[str, Any], schema: dict[str, Any], value: object) -> None:
    """`value` against a schema of the document."""
    jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(value)


def schema_of(document: dict[str, Any], method: str, path: str, status: int) -> dict[str, Any]:
    """The schema of an answer's body."""
    content = document["paths"][path][method]["responses"][str(status)]["content"]
    schema: dict[str, Any] = next(iter(content.values()))["schema"]
    return schema


async def test_routes_and_document_are_the_same_both_ways(shown: Shown) -> None:
    """Every route and method is described, and everything described is a route."""
    document = await fetch(shown)
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    files = set(site.read_page_files(shipped.PAGE))
    routes = {
        (method, route.path)
        for route in shown.app.routes
        if isinstance(route, Route) and route.path not in files
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert described == routes
    assert [route.path for route in shown.app.routes if isinstance(route, WebSocketRoute)] == [websocket.PATH]
    assert ("GET", websocket.PATH) in described


async def test_the_document_is_well_formed(shown: Shown) -> None:
    """Every reference leads somewhere, every path parameter is described, operation ids are unique."""
    document = await fetch(shown)
    text = (await shown.http.get("/api/openapi.json")).text
    for name in re.findall(r'"#/components/schemas/(\w+)"', text):
        assert name in document["components"]["schemas"]
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    operations = [item for path in document["paths"].values() for item in path.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    for path, item in document["paths"].items():
        for operation in item.values():
            names = [each["name"] for each in operation["parameters"] if each["in"] == "path"]
            assert names == re.findall(r"{(\w+)}", path)


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/api/tasks/{task_id}/logs", LOGS),
        ("/api/tasks/{task_id}/logs/stats", STATS),
        ("/api/tasks/{task_id}/logs/outline", OUTLINE),
        ("/api/tasks/{task_id}/logs/next", NEXT),
        ("/api/tasks/{task_id}/logs/export", EXPORT),
        ("/api/tasks/{task_id}/logs/stream", FOLLOW),
        (websocket.PATH, FOLLOW),
        ("/api/tasks", ("status", "plugin", "id", "limit", "before")),
    ],
)
async def test_the_parameters_described_are_those_that_are_taken(
    shown: Shown, path: str, names: tuple[str, ...]
) -> None:
    """All of them, and no other: the tables are the ones that validate."""
    document = await fetch(shown)
    described = [each for each in document["paths"][path]["get"]["parameters"] if each["in"] == "query"]
    assert [each["name"] for each in described] == list(names)
    assert all(each["description"] and each["schema"] for each in described)


EXAMPLES = {
    "level": "ERROR", "min_level": "info", "source": "git.*", "search": "a", "exclude": "b",
    "since": "2026-01-01T00:00:00Z", "until": "2026-01-01T00:00:00Z", "after": "0", "before": "9",
    "order": "desc", "offset": "1", "limit": "7", "tail": "3", "total": "true",
    "regex": "true", "meta.KEY": "5", "bins": "9", "from": "3", "direction": "previous", "format": "csv",
    "status": "failed", "plugin": "speak", "id": "abcdef",
}  # fmt: skip


# What a good question is answered with where that is not 200: of `next` also that nothing matches.
GOOD = {"live": {426}, "show_next": {200, 404}}


@pytest.mark.parametrize("operation", application.OPERATIONS, ids=lambda operation: operation.name)
async def test_every_parameter_described_is_accepted_and_fits_its_schema(shown: Shown, operation: Operation) -> None:
    """One good value of each, on a real task."""
    task_id = await shown.run(count=9)
    document = await fetch(shown)
    for parameter in operation.parameters:
        is_task = (operation.name, parameter.name) == ("list_tasks", "before")
        value = task_id if is_task else EXAMPLES[parameter.name]
        typed = int(value) if parameter.schema["type"] == "integer" else value
        check(document, parameter.schema, typed)
        if parameter.prefix:
            check(document, json_schema_of(parameter), {parameter.name: value})
        path = operation.path.format(task_id=task_id)
        answer = await shown.http.request(operation.method, path, params={parameter.name: value})
        assert answer.status_code in GOOD.get(operation.name, {200}), (parameter.name, answer.text)


async def test_good_answers_fit_their_schemas(shown: Shown) -> None:
    """Real answers of every route, which are not built through the models that describe them."""
    document = await fetch(shown)
    task_id = await shown.run(error="broken")
    queries = {"/api/tasks/{task_id}/logs": "?search=word"}
    for path in (
        "/api/health", "/api/plugins", "/api/tasks", "/api/tasks/{task_id}", "/api/tasks/{task_id}/logs",
        "/api/tasks/{task_id}/logs/stats", "/api/tasks/{task_id}/logs/sources", "/api/openapi.json",
        "/api/tasks/{task_id}/logs/outline", "/api/tasks/{task_id}/logs/next",
    ):  # fmt: skip
        answer = await shown.http.get(path.format(task_id=task_id) + queries.get(path, ""))
        check(document, schema_of(document, "get", path, 200), answer.json())
    for line in (await shown.http.get(f"/api/tasks/{task_id}/logs/stream")).text.splitlines():
        check(document, document["components"]["schemas"]["Entry"], orjson.loads(line))
    retried = await shown.http.post(f"/api/tasks/{task_id}/retry")
    check(document, schema_of(document, "post", "/api/tasks/{task_id}/retry", 201), retried.json())


async def test_refusals_are_described_and_fit_the_problem_schema(shown: Shown) -> None:
    """Every status that a client meets is in the document."""
    document = await fetch(shown)
    task_id = await shown.run()
    running = await shown.start(gate="stay")
    for method, path, options, status in (
        ("get", "/api/tasks", {"params": {"limit": 0}}, 400),
        ("get", "/api/tasks/{task_id}", {"headers": {"host": "evil.example"}}, 403),
        ("post", "/api/tasks", {"json": {"plugin": "none"}}, 404),
        ("post", "/api/tasks/{task_id}/cancel", {}, 409),
        ("post", "/api/tasks", {"content": b"{}"}, 415),
        ("post", "/api/tasks", {"json": {"plugin": "copy"}}, 422),
        ("get", websocket.PATH, {}, 426),
    ):
        answer = await shown.http.request(method, path.format(task_id=task_id), **options)
        assert answer.status_code == status, path
        check(document, schema_of(document, method, path, status), answer.json())
    gate("stay").set()
    await shown.service.manager.wait(running)


async def test_frames_fit_their_schema(served: Served) -> None:
    """Every frame is one of those described, and exactly one."""
    document = await fetch(served)
    task_id = await served.start("advance")
    async with served.live(task_id) as connection:
        gate("advance").set()
        seen = await frames(connection)
    assert {"hello", "caught_up", "end"} <= {frame["type"] for frame in seen}
    for frame in seen:
        check(document, {"$ref": "#/components/schemas/Frame"}, frame)
