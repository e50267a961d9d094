"""
The OpenAPI document (3.1), made from the operations that the routes are made from.

https://spec.openapis.org/oas/v3.1.0. OpenAPI cannot describe a WebSocket, so the document describes its
handshake as a path and its frames as the schema `Frame`.
"""

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema
from starlette.requests import Request
from starlette.responses import Response

from taskd.api import schemas
from taskd.api.auth import COOKIE
from taskd.api.operations import Answer, Operation, json_schema_of
from taskd.query.parameters import Parameter

_REF = "#/components/schemas/{model}"
_BODIES: tuple[type[BaseModel], ...] = (schemas.TaskCreation, schemas.TaskRetry, schemas.SessionOpening)
_ANSWERS: tuple[type[BaseModel], ...] = (
    schemas.Task,
    schemas.TaskList,
    schemas.Entry,
    schemas.Page,
    schemas.Stats,
    schemas.Sources,
    schemas.Outline,
    schemas.Nearest,
    schemas.Plugins,
    schemas.Health,
    schemas.Document,
    schemas.Problem,
    *schemas.FRAMES,
)
_PROBLEMS = {
    400: "A parameter or the body is invalid; the detail names the fault.",
    401: "The service has a token and the request does not carry it.",
    403: "Host, Origin or Sec-Fetch-Site does not belong to this service.",
    404: "Not found.",
    408: "The request did not arrive within request_timeout_s.",
    409: "The task's status does not allow it.",
    413: "The body is too large.",
    415: "The body is not declared as application/json.",
    422: "The body or the params do not validate; `errors` has every fault with its path.",
    426: "A WebSocket is expected.",
    429: "Too many tasks are waiting to run.",
    431: "The request's line and headers are larger than head_bytes_max.",
    500: "Internal error; see the service's log.",
    503: "taskd cannot do it now; try again later.",
}
_PROBLEM_HEADERS = {
    401: {"WWW-Authenticate": "Bearer"},
    429: {"Retry-After": "Seconds to wait."},
    503: {"Retry-After": "Seconds to wait, if known."},
}


async def show_openapi(request: Request) -> Response:
    """Return the OpenAPI document."""
    body: bytes = request.app.state.openapi()
    return Response(body, media_type="application/json")


OPERATIONS = (
    Operation(
        "GET",
        "/api/openapi.json",
        show_openapi,
        "show_openapi",
        "This document",
        {200: Answer("OpenAPI 3.1.", schemas.Document)},
    ),
)


def document(operations: Iterable[Operation], version: str, *, locked: bool = False) -> dict[str, Any]:
    """Return the whole document for `operations`; `locked` means that the service has a token."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        if operation.documented:
            paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "taskd",
            "version": version,
            "description": "Runs plugins as tasks and gives every task its own log. Times are UTC, ISO 8601 "
            "with microseconds and 'Z'. Errors are problems (RFC 9457). Unknown parameters are refused.",
        },
        "paths": paths,
        "components": {"schemas": _schemas(), "securitySchemes": _SECURITY},
        "security": [*([] if locked else [{}]), {"bearer": []}, {"session": []}],
    }


_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "Required if the service has a token."},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": "POST /api/session sets it.",
    },
}


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": [*map(_in_path, _names_in(operation.path)), *map(_in_query, operation.parameters)],
        "responses": _responses(operation),
    }
    if operation.body is not None:
        content = {"application/json": {"schema": _ref(operation.body)}}
        described["requestBody"] = {"required": operation.body_required, "content": content}
    if operation.public:
        described["security"] = []
    return described


def _responses(operation: Operation) -> dict[str, Any]:
    answers = {str(status): _answer(answer) for status, answer in operation.answers.items()}
    return answers | {str(status): _problem(status) for status in sorted(_refusals(operation))}


def _refusals(operation: Operation) -> set[int]:
    statuses = {403, 408, 431, 500} | set(operation.refusals)
    if operation.path.startswith("/api/"):
        statuses |= {400, 503}
    if not operation.public:
        statuses.add(401)
    if operation.body is not None:
        statuses |= {413, 415, 422}
    return statuses


def _answer(answer: Answer) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.description}
    if answer.shape is not None:
        described["content"] = {answer.media_type: {"schema": _ref(answer.shape)}}
    elif answer.media_type.startswith("text/"):
        types = (answer.media_type, *answer.more_media_types)
        described["content"] = {media_type: {"schema": {"type": "string"}} for media_type in types}
    if answer.headers:
        described["headers"] = _headers(answer.headers)
    return described


def _problem(status: int) -> dict[str, Any]:
    described: dict[str, Any] = {
        "description": _PROBLEMS.get(status, HTTPStatus(status).phrase),
        "content": {"application/problem+json": {"schema": _ref(schemas.Problem)}},
    }
    if status in _PROBLEM_HEADERS:
        described["headers"] = _headers(_PROBLEM_HEADERS[status])
    return described


def _headers(headers: Any) -> dict[str, Any]:
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in headers.items()}


def _names_in(path: str) -> list[str]:
    return re.findall(r"{(\w+)}", path)


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _in_query(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": "query",
        "description": parameter.description,
        "schema": json_schema_of(parameter),
        **({"style": "form", "explode": True} if parameter.prefix else {}),
    }


def _ref(shape: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF.format(model=shape.__name__)}


def _schemas() -> dict[str, Any]:
    incoming: list[tuple[type[BaseModel], JsonSchemaMode]] = [(shape, "validation") for shape in _BODIES]
    outgoing: list[tuple[type[BaseModel], JsonSchemaMode]] = [(shape, "serialization") for shape in _ANSWERS]
    _, definitions = models_json_schema(incoming + outgoing, ref_template=_REF)
    frames = [_ref(shape) for shape in schemas.FRAMES]
    frame = {"oneOf": frames, "description": "One text frame of a live log."}
    return {**definitions["$defs"], "Frame": frame}
