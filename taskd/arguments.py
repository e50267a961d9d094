"""
What is said on the command line: which server is asked, and the params of a plugin.

A param is given as `KEY=VALUE` and the plugin's own JSON Schema decides how VALUE is meant, so
that nobody has to quote a string twice or write a number as text.
"""

from collections.abc import Iterable
from typing import Any

import click
import orjson

DEFAULT_SERVER = "http://127.0.0.1:8642"

Schema = dict[str, Any]


def params_of(text: str | None, pairs: Iterable[str], schema: Schema) -> dict[str, Any]:
    """
    The params that `--params text` and each `-p KEY=VALUE` give together; a pair comes first.

    VALUE is JSON where it parses and `schema` does not want a string there. Raises
    `click.BadParameter`.
    """
    params = _whole(text) if text is not None else {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise click.BadParameter(f"{pair!r}: expected KEY=VALUE.", param_hint="-p")
        wanted = schema.get("properties", {}).get(key, {})
        params[key] = value if wants_string(wanted, schema) else _json_or_text(value)
    return params


def _whole(text: str) -> dict[str, Any]:
    try:
        value = orjson.loads(_contents(text[1:]) if text.startswith("@") else text)
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


def _json_or_text(value: str) -> Any:
    try:
        return orjson.loads(value)
    except ValueError:
        return value


def wants_string(wanted: Schema, whole: Schema) -> bool:
    """Whether a string is among what the schema `wanted`, a part of `whole`, allows."""
    if "$ref" in wanted:
        wanted = whole.get("$defs", {}).get(str(wanted["$ref"]).removeprefix("#/$defs/"), {})
    kinds = wanted.get("type", [])
    if "string" in ([kinds] if isinstance(kinds, str) else kinds):
        return True
    parts = [*wanted.get("anyOf", []), *wanted.get("oneOf", []), *wanted.get("allOf", [])]
    return any(wants_string(part, whole) for part in parts)
