"""
The application: every operation as a route, with the guard in front.

`create_app` takes a started service. Starting and stopping the service is the caller's part.
"""

import functools
from collections.abc import Iterable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from taskd import shipped
from taskd.api import auth, bodies, export, health, logs, middleware, ndjson, openapi, problems, site, tasks, websocket
from taskd.api.operations import Operation, Refused, parameters_of
from taskd.api.viewers import Viewers
from taskd.errors import TaskdError
from taskd.query.parameters import read_parameters
from taskd.service import Service
from taskd.version import __version__

OPERATIONS: tuple[Operation, ...] = (
    *health.OPERATIONS,
    *auth.OPERATIONS,
    *tasks.OPERATIONS,
    *logs.OPERATIONS,
    *ndjson.OPERATIONS,
    *export.OPERATIONS,
    *websocket.OPERATIONS,
    *openapi.OPERATIONS,
)


def create_app(service: Service) -> Starlette:
    """Return the application that shows `service`, which must be started."""
    operations = OPERATIONS + site.operations(shipped.PAGE)
    app = Starlette(
        routes=[*map(_route, operations), WebSocketRoute(websocket.PATH, websocket.live)],
        middleware=[
            Middleware(middleware.LastResort, stopping=service.stopping),
            Middleware(auth.Guard, settings=service.settings, public=_public(operations)),
        ],
        exception_handlers={
            TaskdError: problems.answer_taskd_error,
            Refused: problems.answer_refused,
            HTTPException: problems.answer_router,
            ClientDisconnect: problems.answer_gone,
        },
    )
    app.router.default = problems.no_such_route
    app.router.redirect_slashes = False
    app.state.service = service
    app.state.viewers = Viewers(service.settings.viewers_max)
    app.state.metrics = health.registry_of(service, app.state.viewers)
    locked = service.settings.token is not None
    # Built on the first request, which is rare: it takes a megabyte.
    app.state.openapi = functools.cache(lambda: bodies.encode(openapi.document(operations, __version__, locked=locked)))
    return app


def _route(operation: Operation) -> BaseRoute:
    async def endpoint(request: Request) -> Response:
        if not operation.any_parameters:
            read_parameters(parameters_of(request), operation.accepted)
        return await operation.endpoint(request)

    return Route(operation.path, endpoint, methods=[operation.method], name=operation.name)


def _public(operations: Iterable[Operation]) -> frozenset[tuple[str, str]]:
    """Return the (method, path) pairs that need no token, in the form that the guard takes."""
    public = (operation for operation in operations if operation.public)
    return frozenset((operation.method, operation.path.replace("{task_id}", "*")) for operation in public)
