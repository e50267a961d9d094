"""
The application: every operation as a route, behind the guard.

`create_app` takes a service that is started, and leaves starting and stopping it to others.
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
    """The application that shows `service`, which is started already."""
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
    # Made when it is first asked for, which is seldom: it takes a megabyte.
    app.state.openapi = functools.cache(lambda: bodies.encode(openapi.document(operations, __version__, locked=locked)))
    return app


def _route(operation: Operation) -> BaseRoute:
    async def endpoint(request: Request) -> Response:
        if not operation.any_parameters:
            read_parameters(parameters_of(request), operation.accepted)
        return await operation.endpoint(request)

    return Route(operation.path, endpoint, methods=[operation.method], name=operation.name)


def _public(operations: Iterable[Operation]) -> frozenset[tuple[str, str]]:
    """What needs no token, as the guard takes it."""
    public = (operation for operation in operations if operation.public)
    return frozenset((operation.method, operation.path.replace("{task_id}", "*")) for operation in public)
