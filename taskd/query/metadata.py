"""
One top-level field of an entry's metadata, compared with a value that stands in a query string.

A query string has only text, and JSON has types. The text equals a string that is the same, a
number that is as great (`5` equals 5 and 5.0), `true`, `false` and `null` those, and objects and
arrays never. So `meta.code=5` finds `{"code": 5}` and `{"code": "5"}`. A field that is not there
equals nothing, `null` neither.

The store and memory both ask `field_equals`, and only of entries in whose JSON one of the
`pieces` stands, which is quickly seen: the JSON is orjson's, so there is one way to write a key
and its value.
"""

import functools
import json
import re

import orjson

# orjson writes greater floats with an exponent.
INTEGER_PLAIN = 10**15
DIGITS_MAX = 20

_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_WORDS = {True: "true", False: "false", None: "null"}
_MISSING = object()


def field_equals(metadata_json: str, key: str, text: str) -> bool:
    """Whether the field `key` of an entry's metadata equals `text`."""
    value = orjson.loads(metadata_json).get(key, _MISSING)
    if isinstance(value, str):
        return value == text
    if value is None or isinstance(value, bool):
        return _WORDS[value] == text
    return isinstance(value, int | float) and value == _number_of(text)


@functools.lru_cache(64)
def pieces(key: str, text: str) -> tuple[str, str]:
    """What stands in the JSON of a metadata in which the field `key` equals `text`: one of the two, at least."""
    name = f"{orjson.dumps(key).decode()}:"
    number = _number_of(text)
    # An integer is written in its digits, a float as great begins with them or has an exponent; but for
    # 0, which is also -0.0.
    digits = number is None or (isinstance(number, int) and 0 < abs(number) < INTEGER_PLAIN)
    return f"{name}{orjson.dumps(text).decode()}", f"{name}{text}" if digits else name


@functools.lru_cache(64)
def _number_of(text: str) -> int | float | None:
    found = _NUMBER.fullmatch(text)
    if found is None:
        return None
    # An integer of more than 64 bits is stored as text, and Python does not read one of 4,300 digits.
    return float(text) if found[2] or found[3] or len(text) > DIGITS_MAX else json.loads(text)
