"""
What is said on the command line: which server is asked, and the params of a plugin.

A param is given as `KEY=VALUE` and the plugin's own JSON Schema decides how VALUE is meant, so
that nobody has to quote a string twice or write a number as text.
"""

import os
from collections.abc import Iterable, Iterator
from typing import Any

import click

from taskd.text import exact_json

DEFAULT_SERVER = "http://127.0.0.1:8642"

# Deeper than any schema that a person wrote: one that refers to itself has no end.
NESTED_MAX = 8

Schema = dict[str, Any]


def params_of(text: str | None, pairs: Iterable[str], schema: Schema) -> dict[str, Any]:
    """
    The params that `--params text` and each `-p KEY=VALUE` give together; a pair comes first.

    VALUE is JSON where it parses and `schema` does not want a string there. Raises
    `click.BadParameter`.
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
        # Text where a number was meant would be another param than the one that was given.
        raise click.BadParameter(f"{pair!r}: {error}.", param_hint="-p") from error
    except ValueError:
        return value


def wants_string(wanted: object, whole: Schema) -> bool:
    """Whether a string is among what the schema `wanted`, a part of `whole`, allows."""
    return any("string" in _types_of(part) for part in _parts_of(wanted, whole, NESTED_MAX))


def _types_of(part: Schema) -> list[object]:
    kinds = part.get("type")
    return kinds if isinstance(kinds, list) else [kinds]


def _parts_of(wanted: object, whole: Schema, levels: int) -> Iterator[Schema]:
    """Yield a schema and its alternatives; a schema may be true or false, and may refer to itself."""
    wanted = resolved(wanted, whole)
    yield wanted
    for name in ("anyOf", "oneOf", "allOf"):
        parts = wanted.get(name)
        for part in parts if isinstance(parts, list) and levels else ():
            yield from _parts_of(part, whole, levels - 1)


def resolved(wanted: object, whole: Schema) -> Schema:
    """Return the schema that `wanted` is or refers to; an empty one, which allows all, if there is none."""
    for _ in range(NESTED_MAX):
        if not isinstance(wanted, dict) or "$ref" not in wanted:
            break
        definitions = whole.get("$defs")
        name = str(wanted["$ref"]).removeprefix("#/$defs/")
        wanted = definitions.get(name) if isinstance(definitions, dict) else None
    return wanted if isinstance(wanted, dict) and "$ref" not in wanted else {}


def in_unicode(word: str) -> str:
    """Return a word of the command line as text, even if the locale is ASCII. Raises `click.BadParameter`."""
    try:
        word.encode()
        return word
    except UnicodeEncodeError:  # bytes that the locale cannot decode, which Python keeps as surrogates
        pass
    try:
        return os.fsencode(word).decode()
    except UnicodeError as error:
        raise click.BadParameter(f"{word!r}: expected UTF-8.") from error
