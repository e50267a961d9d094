"""
`Operation`: one route as data: its parameters, its answers and its endpoint.

The routes of the application and the OpenAPI document are both made from these. Query strings and
bodies are validated against the same fields, so the documentation cannot differ from the behaviour.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from taskd.errors import Fault
from taskd.query.parameters import Parameter
from taskd.service import Service

HttpEndpoint = Callable[[Request], Awaitable[Response]]
Headers = Mapping[str, str]


class Refused(Exception):
    """A request that this layer itself refuses, with status and reason; `faults` are those of its body."""

    def __init__(
        self, status: int, detail: str, *, headers: Headers | None = None, faults: Sequence[Fault] = ()
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = headers
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of an operation: its meaning and the shape of its body. A text may have several media types."""

    description: str
    shape: type[BaseModel] | None = None
    media_type: str = "application/json"
    more_media_types: tuple[str, ...] = ()
    headers: Headers = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation:
    """
    One method of one path.

    `refusals` are the statuses of its problems beyond those that every operation has.
    `public` operations need no token. With `any_parameters` the query string is not checked.
    """

    method: str
    path: str
    endpoint: HttpEndpoint
    name: str
    summary: str
    answers: Mapping[int, Answer]
    parameters: tuple[Parameter, ...] = ()
    body: type[BaseModel] | None = None
    body_required: bool = True
    refusals: tuple[int, ...] = ()
    public: bool = False
    documented: bool = True
    any_parameters: bool = False

    @property
    def accepted(self) -> dict[str, Parameter]:
        """The query parameters by name."""
        return {parameter.name: parameter for parameter in self.parameters}


def service_of(connection: HTTPConnection) -> Service:
    """Return the service that this application shows."""
    service: Service = connection.app.state.service
    return service


def task_id_of(connection: HTTPConnection) -> str:
    """Return the id of the task that the path names."""
    task_id: str = connection.path_params["task_id"]
    return task_id


def parameters_of(connection: HTTPConnection) -> list[tuple[str, str]]:
    """Return the query string as pairs, in order, repeated ones included."""
    return list(connection.query_params.multi_items())


def json_schema_of(parameter: Parameter) -> dict[str, Any]:
    """Return the JSON Schema of the parameter as it stands in a query string."""
    if parameter.prefix:
        # An object whose members are parameters of their own (OpenAPI: style form, exploded).
        names = f"^{re.escape(parameter.prefix)}.+$"
        return {"type": "object", "patternProperties": {names: parameter.schema}, "additionalProperties": False}
    return {"type": "array", "items": parameter.schema} if parameter.repeatable else parameter.schema
