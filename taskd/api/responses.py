"""
What goes out: JSON, and problems (RFC 9457); and the one table from error to status.

Everything that is refused ends here as a `Refused` or a `TaskdError`, and everything that
nobody expected in `LastResort`, which says nothing of the inside to the outside.
"""

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import TypeVar

import orjson
from pydantic import ValidationError
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from taskd import errors
from taskd.api.schemas import Shape
from taskd.system.threads import in_thread
from taskd.text import exact_json

logger = logging.getLogger(__name__)

ShapeT = TypeVar("ShapeT", bound=Shape)
Headers = Mapping[str, str]

# The nearest class of an error decides; what is not here is a fault of ours (500).
STATUS_OF: dict[type[errors.TaskdError], int] = {
    errors.ParameterInvalid: 400,
    errors.PluginNotFound: 404,
    errors.TaskNotFound: 404,
    errors.TaskConflict: 409,
    errors.ParamsInvalid: 422,
    errors.TooManyTasks: 429,
    errors.Stopping: 503,
    errors.StoreUnavailable: 503,
    errors.StoreTimeout: 503,
    errors.StoreCorrupt: 503,
}

CLOSE_WAIT_S = 1.0
# A megabyte of floats takes a fifth of a second to read.
READ_AT_ONCE_BYTES = 65_536
# A search that was given up may be done in time when less is searched, or when the log is indexed.
RETRY_AFTER_S: dict[type[errors.TaskdError], int] = {errors.StoreTimeout: 10}

# On every answer. An entry is whatever a task was told, so no browser may guess at its type,
# frame it, keep it, or hand it to another origin.
SAFE_HEADERS: Headers = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


class Refused(Exception):
    """A request that the edge itself refuses, with the status and why; `faults` are those of a body."""

    def __init__(
        self, status: int, detail: str, *, headers: Headers | None = None, faults: Sequence[errors.Fault] = ()
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = headers
        self.faults = faults


def json_response(value: object, status: int = 200, headers: Headers | None = None) -> Response:
    """`value` as JSON."""
    return Response(encode(value), status, headers, "application/json")


def encode(value: object) -> bytes:
    """`value` as JSON. Integers beyond 64 bits and lone surrogates, which orjson refuses, are written too."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, separators=(",", ":")).encode()


def problem(
    status: int,
    detail: str,
    *,
    kind: str | None = None,
    headers: Headers | None = None,
    faults: Sequence[errors.Fault] = (),
    more: Mapping[str, object] | None = None,
) -> Response:
    """A problem; `kind` names taskd's own ones, and without it the status says all. `more` has further members."""
    title = kind or HTTPStatus(status).phrase
    kind_uri = f"urn:taskd:problem:{title.lower().replace(' ', '-')}" if kind else "about:blank"
    body: dict[str, object] = {"type": kind_uri, "title": title, "status": status, "detail": detail, **(more or {})}
    if faults:
        body["errors"] = list(faults)
    return Response(encode(body), status, headers, "application/problem+json")


def problem_of(error: errors.TaskdError) -> Response:
    """The problem that `error` is to the client."""
    status = next((STATUS_OF[kind] for kind in type(error).__mro__ if kind in STATUS_OF), 500)
    if status == 500:
        return fault(error)
    retry_after_s = error.retry_after_s if isinstance(error, errors.TooManyTasks) else RETRY_AFTER_S.get(type(error))
    headers = None if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    faults = error.faults if isinstance(error, errors.ParamsInvalid) else ()
    return problem(status, str(error), kind=_kind_of(error), headers=headers, faults=faults)


def fault(error: Exception) -> Response:
    """The problem that an unexpected error is to the client: the log has it, the client has not."""
    logger.error("a request failed", exc_info=error)
    return problem(500, "taskd made a mistake here; its own output says which.")


def _kind_of(error: errors.TaskdError) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).capitalize()


async def answer_taskd_error(_: HTTPConnection, error: Exception) -> Response:
    """For Starlette: any `TaskdError` of an endpoint."""
    assert isinstance(error, errors.TaskdError)
    return problem_of(error)


async def answer_refused(_: HTTPConnection, error: Exception) -> Response:
    """For Starlette: a `Refused` of an endpoint."""
    assert isinstance(error, Refused)
    return problem(error.status, str(error), headers=error.headers, faults=error.faults)


async def answer_gone(_: HTTPConnection, error: Exception) -> Response:
    """For Starlette: the client left in the middle of its own request; nobody reads this."""
    return problem(400, "The request ended before its body did.")


async def answer_router(connection: HTTPConnection, error: Exception) -> Response:
    """For Starlette: what its router refuses: no such path, or not this method."""
    assert isinstance(error, HTTPException)
    path = connection.scope["path"]
    if error.status_code != 405:
        return problem(error.status_code, f"There is nothing at {path!r}; see GET /api/openapi.json.")
    method, allowed = connection.scope["method"], _methods_of(connection)
    headers = {"Allow": ", ".join(allowed)}
    if method == "OPTIONS":
        return Response(None, 204, headers)
    return problem(405, f"{path!r} does not take {method}: expected {' or '.join(allowed)}.", headers=headers)


def _methods_of(connection: HTTPConnection) -> list[str]:
    """All methods of a path, of however many routes (the router names those of one)."""
    routes = (route for route in connection.app.routes if isinstance(route, Route))
    matching = (route for route in routes if route.matches(connection.scope)[0] is not Match.NONE)
    return sorted({"OPTIONS"}.union(*(route.methods or () for route in matching)))


async def no_such_route(scope: Scope, receive: Receive, send: Send) -> None:
    """The router's last resort, for HTTP and WebSocket alike."""
    raise HTTPException(404)


async def read_body(request: Request, shape: type[ShapeT]) -> ShapeT:
    """The JSON body, validated. Raises `Refused` (400, 413, 415, 422)."""
    body = await _read_bounded(request)
    _check_media_type(request)
    return await _validated(body, shape)


async def read_optional_body(request: Request, shape: type[ShapeT]) -> ShapeT | None:
    """The same where a body may be left out."""
    body = await _read_bounded(request)
    if not body:
        return None
    _check_media_type(request)
    return await _validated(body, shape)


async def _read_bounded(request: Request) -> bytes:
    bytes_max: int = request.app.state.service.settings.body_bytes_max
    declared = request.headers.get("content-length", "")
    too_large = Refused(413, f"The body is too large: expected at most {bytes_max:,} bytes (body_bytes_max).")
    if declared.isdecimal() and int(declared) > bytes_max:
        raise too_large
    body = bytearray()
    # What was declared may be a lie or missing (chunked), so what comes is counted.
    async for chunk in request.stream():
        body += chunk
        if len(body) > bytes_max:
            raise too_large
    return bytes(body)


def _check_media_type(request: Request) -> None:
    # Of two, whoever looked at the request before us may have read the other one.
    given = request.headers.getlist("content-type")
    if len(given) != 1 or given[0].partition(";")[0].strip().lower() != "application/json":
        raise Refused(415, f"Content-Type {', '.join(given)!r}: expected application/json.")


async def _validated(body: bytes, shape: type[ShapeT]) -> ShapeT:
    if len(body) > READ_AT_ONCE_BYTES:
        value = await in_thread(lambda: _loaded(body), name="body")
    else:
        value = _loaded(body)
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        faults = [_fault(each["loc"], each["msg"]) for each in error.errors(include_url=False)]
        raise _not_expected(faults) from error


def _loaded(body: bytes) -> object:
    try:
        return exact_json.loads(body)
    except exact_json.Unkept as error:
        raise _not_expected(error.faults) from error
    except exact_json.TooDeep as error:
        raise Refused(400, f"The body is {error}.") from error
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise Refused(400, f"The body is not JSON: {error.msg} at {where}.") from error


def _not_expected(faults: Sequence[errors.Fault]) -> Refused:
    named = "; ".join(f"{each['path']}: {each['message']}" for each in faults)
    return Refused(422, f"The body is not what was expected: {named}.", faults=faults)


def _fault(location: tuple[int | str, ...], message: str) -> errors.Fault:
    return {"path": ".".join(map(str, location)) or "body", "message": message}


class LastResort:
    """
    The outermost layer: safe headers on every answer, and an answer to what nobody expected.

    Once an answer has begun it cannot become a problem: then the error goes on to the server,
    which cuts the connection, so that a client never takes half an answer for a whole one.
    """

    def __init__(self, app: ASGIApp, stopping: asyncio.Event) -> None:
        self._app = app
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = refused = False

        async def watched(message: Message) -> None:
            nonlocal begun, refused
            refused = message["type"].startswith("websocket.http.response")
            if message["type"].endswith("response.start"):
                headers = MutableHeaders(scope=message)
                for name, value in SAFE_HEADERS.items():
                    headers.setdefault(name, value)
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if begun and _is_gone(error):
                return
            if begun:
                raise
            await refuse(scope, receive, watched, self._answer(error))
        if refused:
            await _until_closed(receive)

    def _answer(self, error: Exception) -> Response:
        # The store closes before the server does: what fails for that is no mistake.
        return problem_of(errors.Stopping()) if self._stopping.is_set() else fault(error)


def _is_gone(error: Exception) -> bool:
    """Whether a send failed because the transport below it has closed: uvloop says so like this."""
    return isinstance(error, RuntimeError) and "closed" in str(error)


async def _until_closed(receive: Receive) -> None:
    """Let a WebSocket that was refused be closed: uvicorn logs as a fault what returns before."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_WAIT_S):
            # It says so twice: when it has the refusal to send, and when the connection is gone.
            for _ in range(2):
                while (await receive())["type"] != "websocket.disconnect":
                    pass


async def refuse(scope: Scope, receive: Receive, send: Send, response: Response) -> None:
    """Answer with `response`; a WebSocket is refused before its upgrade."""
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        # This server cannot answer with a body: it makes a bare 403 of this.
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
        return
    await response(scope, receive, send)
