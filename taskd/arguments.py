"""
What is said on the command line, as values: a plugin's params and the settings of `serve`.

A param is given as `KEY=VALUE` and the plugin's own JSON Schema decides how VALUE is meant, so
that nobody has to quote a string twice or write a number as text.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import click
import orjson
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from taskd.settings import Settings

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
        value = orjson.loads(Path(text[1:]).read_bytes() if text.startswith("@") else text)
    except (OSError, ValueError) as error:
        raise click.BadParameter(
            f"{text!r}: expected a JSON object, or @FILE with one ({error}).", param_hint="--params"
        ) from error
    if not isinstance(value, dict):
        raise click.BadParameter(f"{text!r}: expected a JSON object.", param_hint="--params")
    return value


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


def settings_options() -> list[click.Option]:
    """A flag of `taskd serve` for each of `Settings`' fields, with its description and default."""
    return [_option(name, field) for name, field in Settings.model_fields.items()]


def _option(name: str, field: FieldInfo) -> click.Option:
    kind = _kind(field)
    return click.Option(
        [f"--{name.replace('_', '-')}"],
        metavar=_METAVARS.get(kind, "TEXT"),
        multiple=get_origin(field.annotation) is list,
        help=f"{field.description} {_default(field)}",
    )


# Validation is the settings' own, so a flag takes any text; this only says what is meant.
_METAVARS = {Path: "PATH", int: "N", float: "SECONDS"}


def _kind(field: FieldInfo) -> Any:
    """The type of one value: `Path` for `Path`, `Path | None` and `list[Path]`."""
    kinds = [kind for kind in get_args(field.annotation) if kind is not type(None)]
    return kinds[0] if kinds else field.annotation


def _default(field: FieldInfo) -> str:
    default = field.default
    if default is None or default is PydanticUndefined or isinstance(default, SecretStr):
        return "[repeatable]" if get_origin(field.annotation) is list else ""
    return f"[default: {default}]"


def settings_given(options: dict[str, Any]) -> dict[str, Any]:
    """The settings that were given as flags, out of all of `serve`'s `options`."""
    return {name: _value(name, value) for name, value in options.items() if value not in (None, ())}


def _value(name: str, value: str | Sequence[str]) -> str | list[str]:
    if isinstance(value, str):
        return value
    # Names may be separated by ',' as in the variable; a path may hold any character.
    return ",".join(value) if _kind(Settings.model_fields[name]) is str else list(value)
