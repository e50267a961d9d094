"""
The settings of `taskd serve`, as flags: each of `Settings`' fields is one.

Only that command loads this module: for the others, which are clients, the settings would be half
of all that they load.
"""

from pathlib import Path
from typing import Any, get_args, get_origin

import click
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from taskd.settings import Settings


def settings_options() -> list[click.Option]:
    """A flag of `taskd serve` for each of `Settings`' fields, with its description and default."""
    return [_option(name, field) for name, field in Settings.model_fields.items()]


def _option(name: str, field: FieldInfo) -> click.Option:
    metavar = "SECONDS" if name.endswith("_s") else _METAVARS.get(_kind(field), "TEXT")
    return click.Option(
        [f"--{name.replace('_', '-')}"],
        metavar=metavar,
        multiple=get_origin(field.annotation) is list,
        help=f"{field.description} {_default(field)}",
    )


# Validation is the settings' own, so a flag takes any text; this only says what is meant.
_METAVARS = {Path: "PATH", int: "N", float: "NUMBER"}


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
    given = {name: value for name, value in options.items() if value not in (None, ())}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
