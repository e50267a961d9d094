"""JSON bodies: those of requests, read within a bound and validated, and those of answers."""

import json
from collections.abc import Sequence
from typing import TypeVar

import orjson
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import Request
from starlette.responses import Response

from taskd.api.operations import Headers, Refused
from taskd.api.schemas import Shape
from taskd.errors import Fault
from taskd.system.threads import in_thread
from taskd.text import exact_json

ShapeT = TypeVar("ShapeT", bound=Shape)

# A larger body is parsed in a thread, off the event loop: a megabyte of floats takes a fifth of a second.
READ_AT_ONCE_BYTES = 65_536
# The path of a fault that is the whole body's.
WHOLE = "body"
# What a message calls each type of value in a parsed body.
JSON_TYPES = {
    type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "an array",
    dict: "an object",
}  # fmt: skip


def json_response(value: object, status: int = 200, headers: Headers | None = None) -> Response:
    """Return an answer with `value` as JSON."""
    return Response(encode(value), status, headers, "application/json")


def encode(value: object) -> bytes:
    """Return `value` as JSON, also with integers beyond 64 bits and lone surrogates, which orjson refuses."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, separators=(",", ":")).encode()


async def read_body(request: Request, shape: type[ShapeT]) -> ShapeT:
    """Return the JSON body, validated. Raises `Refused` (400, 413, 415, 422)."""
    body = await _read_bounded(request)
    _check_media_type(request)
    return await _validated(body, shape)


async def read_optional_body(request: Request, shape: type[ShapeT]) -> ShapeT | None:
    """Return the JSON body, validated, or None if the request has none. Raises `Refused` (400, 413, 415, 422)."""
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
    # The declared length may be wrong, or missing (chunked), so the bytes that arrive are counted too.
    async for chunk in request.stream():
        body += chunk
        if len(body) > bytes_max:
            raise too_large
    return bytes(body)


def _check_media_type(request: Request) -> None:
    # With two headers, a proxy in front of taskd may have checked the other one.
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
        raise _invalid([_fault(each, shape) for each in error.errors(include_url=False)]) from error


def _loaded(body: bytes) -> object:
    try:
        return exact_json.loads(body)
    except exact_json.Unkept as error:
        raise _invalid(error.faults) from error
    except exact_json.TooDeep as error:
        raise Refused(400, f"The body is {error}.") from error
    except orjson.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise Refused(400, f"The body is not JSON: {error.msg} at {place}.") from error


def _invalid(faults: Sequence[Fault]) -> Refused:
    named = (": ".join(part for part in (each["path"], each["message"]) if part not in ("", WHOLE)) for each in faults)
    return Refused(422, f"The body is invalid: {'; '.join(named)}.", faults=faults)


def _fault(error: ErrorDetails, shape: type[Shape]) -> Fault:
    """Translate one of pydantic's errors into a fault that names the expected and the given type, but no value."""
    came = JSON_TYPES.get(type(error["input"]), "another value")
    match error["type"]:
        case "extra_forbidden":
            message = f"no such field: expected {' or '.join(shape.model_fields)}"
        case "missing":
            message = "missing"
        case "model_type":
            message = f"expected an object with {' and '.join(shape.model_fields)}, not {came}"
        case "dict_type":
            message = f"expected an object, not {came}"
        case "string_type":
            message = f"expected a string, not {came}"
        case _:
            message = error["msg"]
    return {"path": ".".join(map(str, error["loc"])) or WHOLE, "message": message}
