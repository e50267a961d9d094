"""
The default server, and the params that the command line gives a plugin.

A param is given as `KEY=VALUE`. The plugin's own JSON Schema decides how VALUE is read, so that users
need not quote a string twice or write a number as text.
"""

import os
from collections.abc import Iterable, Iterator
from typing import Any

import click

from taskd.text import exact_json

DEFAULT_SERVER = "http://127.0.0.1:8642"

# Deeper than any schema written by hand. The limit stops a schema that refers to itself.
NESTED_MAX = 8

Schema = dict[str, Any]


def params_of(text: str | None, pairs: Iterable[str], schema: Schema) -> dict[str, Any]:
    """
    Combine the params of `--params text` and of each `-p KEY=VALUE`; a pair overrides `text`.

    VALUE is JSON if it parses and `schema` does not expect a string there. Raises `click.BadParameter`.
    """
    params = _whole(text) if text is not None else {}
    given = set()
    for pair in map(in_unicode, pairs):
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise click.BadParameter(f"{pair!r}: expected KEY=VALUE.", param_hint="-p")
        if key in given:
            raise click.BadParameter(f"{pair!r}: {key} is given twice.", param_hint="-p")
        given.add(key)
        properties = schema.get("properties")
        wanted = properties.get(key) if isinstance(properties, dict) else None
        params[key] = value if wants_string(wanted, schema) else _json_or_text(pair, value)
    return params


def _whole(text: str) -> dict[str, Any]:
    try:
        value = exact_json.loads(_contents(text[1:]) if text.startswith("@") else in_unicode(text))
    except (OSError, ValueError) as error:
        raise click.BadParameter(
            f"{text!r}: expected a JSON object, or @FILE with one (@- for stdin): {error}.", param_hint="--params"
        ) from error
    if not isinstance(value, dict):
        raise click.BadParameter(f"{text!r}: expected a JSON object.", param_hint="--params")
    return value


def _contents(path: str) -> bytes:
    with click.open_file(path, "rb") as file:  # `-` is stdin
        contents: bytes = file.read()
    return contents


def _json_or_text(pair: str, value: str) -> Any:
    try:
        return exact_json.loads(value)
    except (exact_json.Unkept, exact_json.TooDeep) as error:
        # Falling back to text would give the task another value than the number that the user wrote.
        raise click.BadParameter(f"{pair!r}: {error}.", param_hint="-p") from error
    except ValueError:
        return value


def wants_string(wanted: object, whole: Schema) -> bool:
    """Return whether the schema `wanted`, a part of `whole`, allows a string."""
    return any("string" in _types_of(part) for part in _parts_of(wanted, whole, NESTED_MAX))


def _types_of(part: Schema) -> list[object]:
    kinds = part.get("type")
    return kinds if isinstance(kinds, list) else [kinds]


def _parts_of(wanted: object, whole: Schema, levels: int) -> Iterator[Schema]:
    """Yield a schema and its alternatives. A schema may be true or false, and may refer to itself."""
    wanted = resolved(wanted, whole)
    yield wanted
    for name in ("anyOf", "oneOf", "allOf"):
        parts = wanted.get(name)
        for part in parts if isinstance(parts, list) and levels else ():
            yield from _parts_of(part, whole, levels - 1)


def resolved(wanted: object, whole: Schema) -> Schema:
    """Return the schema that `wanted` is or refers to; if there is none, an empty one, which allows any value."""
    for _ in range(NESTED_MAX):
        if not isinstance(wanted, dict) or "$ref" not in wanted:
            break
        definitions = whole.get("$defs")
        name = str(wanted["$ref"]).removeprefix("#/$defs/")
        wanted = definitions.get(name) if isinstance(definitions, dict) else None
    return wanted if isinstance(wanted, dict) and "$ref" not in wanted else {}


def in_unicode(word: str) -> str:
    """Return an argument of the command line as text, even if the locale is ASCII. Raises `click.BadParameter`."""
    try:
        word.encode()
        return word
    except UnicodeEncodeError:  # bytes that the locale cannot decode, which Python keeps as surrogates
        pass
    try:
        return os.fsencode(word).decode()
    except UnicodeError as error:
        raise click.BadParameter(f"{word!r}: expected UTF-8.") from error
