"""
The shapes of taskd's answers, as far as a client reads them.

Anything may answer at an address: a proxy, another service, another version of taskd. A client checks an
answer once, on arrival, so that no command trips over a missing field or one of another type. An answer
may have fields that are not listed.
"""

import re
from types import NoneType
from typing import Any

# A type or a tuple of types, a pattern for text, an object with these members, or a list of one shape.
Shape = Any

# Texts that are printed without escaping, so they must not contain control characters.
PLAIN = re.compile(r"[ -~]{0,64}")
ID = re.compile(r"[0-9a-f-]{36}")

TEXT_OR_NULL = (str, NoneType)
OBJECT: Shape = {}
TASK: Shape = {
    "id": ID,
    "plugin": str,
    "status": PLAIN,
    "created_at": PLAIN,
    "started_at": TEXT_OR_NULL,
    "finished_at": TEXT_OR_NULL,
    "result": object,
    "error": TEXT_OR_NULL,
    "last_seq": int,
    "counts": {"WARNING": int, "ERROR": int},
}
TASKS: Shape = {"tasks": [TASK], "next_before": TEXT_OR_NULL}
PLUGINS: Shape = {
    "plugins": [{"name": str, "title": str, "description": str, "params_schema": (dict, NoneType)}],
    "broken": [{"name": str, "error": str}],
}
ENTRY: Shape = {
    "seq": int,
    "timestamp": PLAIN,
    "level": PLAIN,
    "source": str,
    "message": str,
    "metadata": (dict, NoneType),
}
PROBLEM: Shape = {"title": str, "detail": str, "status": int}
PAGE: Shape = {"entries": [ENTRY], "last_seq": int, "more": bool}
# The frames of the live route that a follower reads; it ignores all others.
FRAMES: dict[str, Shape] = {
    "hello": {"last_seq": int},
    "entries": {"entries": [ENTRY]},
    "caught_up": {"last_seq": int},
    "progress": {"source": str, "progress": dict},
    "ping": {"last_seq": int},
    "end": {"last_seq": int, "task": TASK},
}


def misfit(value: object, shape: Shape, place: str = "") -> str:
    """Return a clause that names the first place where `value` differs from `shape`; "" if it fits."""
    if isinstance(shape, dict):
        return _object_misfit(value, shape, place)
    if isinstance(shape, list):
        return _list_misfit(value, shape[0], place)
    if isinstance(shape, re.Pattern):
        fits = isinstance(value, str) and shape.fullmatch(value) is not None
    else:
        fits = isinstance(value, shape)
    return "" if fits else f"{place or 'it'} has another type"


def _object_misfit(value: object, shape: dict[str, Shape], place: str) -> str:
    if not isinstance(value, dict):
        return f"{place or 'it'} is not an object"
    for name, inner in shape.items():
        below = f"{place}.{name}" if place else name
        if name not in value:
            return f"{below} is missing"
        if found := misfit(value[name], inner, below):
            return found
    return ""


def _list_misfit(value: object, shape: Shape, place: str) -> str:
    if not isinstance(value, list):
        return f"{place or 'it'} is not an array"
    return next((found for number, item in enumerate(value) if (found := misfit(item, shape, f"{place}.{number}"))), "")
