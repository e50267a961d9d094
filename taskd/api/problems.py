"""
Error bodies as problems (RFC 9457), and the one table from error to status.

Every refusal ends here, as an `operations.Refused` or as a `TaskdError`. Errors that no code expected
end in `middleware.LastResort`. An answer with status 500 shows nothing of the inside: the service's log has it.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from taskd import errors
from taskd.api.bodies import encode
from taskd.api.operations import Headers, Refused

logger = logging.getLogger(__name__)

# The nearest class of an error decides. An error without an entry is a fault of the service (500).
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
# A search that timed out may finish in time once the log is indexed, or if it covers less.
RETRY_AFTER_S: dict[type[errors.TaskdError], int] = {errors.StoreTimeout: 10}


def problem(
    status: int,
    detail: str,
    *,
    kind: str | None = None,
    headers: Headers | None = None,
    faults: Sequence[errors.Fault] = (),
    more: Mapping[str, object] | None = None,
) -> Response:
    """
    Return a problem document as an answer.

    `kind` names a problem of taskd's own; without it the type is about:blank, and the status alone
    names the problem. `more` has further members.
    """
    title = kind or HTTPStatus(status).phrase
    kind_uri = f"urn:taskd:problem:{title.lower().replace(' ', '-')}" if kind else "about:blank"
    body: dict[str, object] = {"type": kind_uri, "title": title, "status": status, "detail": detail, **(more or {})}
    if faults:
        body["errors"] = list(faults)
    return Response(encode(body), status, headers, "application/problem+json")


def problem_of(error: errors.TaskdError) -> Response:
    """Return the problem that reports `error` to the client; its status is that of the nearest class in the table."""
    status = next((STATUS_OF[kind] for kind in type(error).__mro__ if kind in STATUS_OF), 500)
    if status == 500:
        return fault(error)
    retry_after_s = error.retry_after_s if isinstance(error, errors.TooManyTasks) else RETRY_AFTER_S.get(type(error))
    headers = None if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    faults = error.faults if isinstance(error, errors.ParamsInvalid) else ()
    return problem(status, str(error), kind=_kind_of(error), headers=headers, faults=faults)


def fault(error: Exception) -> Response:
    """Log an unexpected error with its traceback; return a problem (500) that shows nothing of it."""
    logger.error("a request failed", exc_info=error)
    return problem(500, "Internal error; see the service's log.")


def _kind_of(error: errors.TaskdError) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).capitalize()


async def answer_taskd_error(_: HTTPConnection, error: Exception) -> Response:
    """Answer a `TaskdError` that an endpoint raised. Starlette calls this."""
    assert isinstance(error, errors.TaskdError)
    return problem_of(error)


async def answer_refused(_: HTTPConnection, error: Exception) -> Response:
    """Answer a `Refused` that an endpoint raised. Starlette calls this."""
    assert isinstance(error, Refused)
    return problem(error.status, str(error), headers=error.headers, faults=error.faults)


async def answer_gone(_: HTTPConnection, error: Exception) -> Response:
    """Answer a client that left before its body was complete; the answer is never read. Starlette calls this."""
    return problem(400, "The request ended before its body did.")


async def answer_router(connection: HTTPConnection, error: Exception) -> Response:
    """Answer an unknown path (404), a method that the path lacks (405), and OPTIONS (204). Starlette calls this."""
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
    """Return the methods of all routes that match the path; the router itself lists those of one route only."""
    routes = (route for route in connection.app.routes if isinstance(route, Route))
    matching = (route for route in routes if route.matches(connection.scope)[0] is not Match.NONE)
    return sorted({"OPTIONS"}.union(*(route.methods or () for route in matching)))


async def no_such_route(scope: Scope, receive: Receive, send: Send) -> None:
    """Raise 404 if no route matches, for HTTP and WebSocket alike: the router's default."""
    raise HTTPException(404)
