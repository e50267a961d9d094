"""
`Operation`: one route as data: what it takes, what it answers, and who does it.

The routes of the application and the OpenAPI document are both made from these, and query
strings and bodies are validated by what stands in them: what is documented is what is done.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from taskd.query.parameters import Parameter
from taskd.service import Service

HttpEndpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of an operation: what it means, and the shape of its body; text may be of several types."""

    description: str
    shape: type[BaseModel] | None = None
    media_type: str = "application/json"
    more_media_types: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation:
    """
    One method of one path.

    `refusals` are the statuses of its problems beyond those that every operation has.
    `public` operations need no token. The query string of one with `any_parameters` is not ours.
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
    """The service that this application shows."""
    service: Service = connection.app.state.service
    return service


def task_id_of(connection: HTTPConnection) -> str:
    """The task that the path names."""
    task_id: str = connection.path_params["task_id"]
    return task_id


def parameters_of(connection: HTTPConnection) -> list[tuple[str, str]]:
    """The query string as pairs, in order, repeated ones included."""
    return list(connection.query_params.multi_items())


def json_schema_of(parameter: Parameter) -> dict[str, Any]:
    """The JSON Schema of the parameter as it stands in a query string."""
    if parameter.prefix:
        # An object whose members are parameters of their own: style form, exploded.
        names = f"^{re.escape(parameter.prefix)}.+$"
        return {"type": "object", "patternProperties": {names: parameter.schema}, "additionalProperties": False}
    return {"type": "array", "items": parameter.schema} if parameter.repeatable else parameter.schema
