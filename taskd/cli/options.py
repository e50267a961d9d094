"""
The settings of `taskd serve` as flags, one for each field of `Settings`.

Only `taskd serve` loads this module. The other commands are clients, and the settings would double the
modules that they load.
"""

from pathlib import Path
from typing import Any, get_args, get_origin

import click
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from taskd.settings import Settings


def settings_options() -> list[click.Option]:
    """Return a flag of `taskd serve` for each field of `Settings`, with its description and default."""
    return [_option(name, field) for name, field in Settings.model_fields.items()]


def _option(name: str, field: FieldInfo) -> click.Option:
    metavar = "SECONDS" if name.endswith("_s") else _METAVARS.get(_kind(field), "TEXT")
    return click.Option(
        [f"--{name.replace('_', '-')}"],
        metavar=metavar,
        multiple=get_origin(field.annotation) is list,
        help=f"{field.description} {_default(field)}",
    )


# A flag takes any text, because `Settings` validates it; these only show in --help which kind is expected.
_METAVARS = {Path: "PATH", int: "N", float: "NUMBER"}


def _kind(field: FieldInfo) -> Any:
    """Return the type of one value: `Path` for `Path`, `Path | None` and `list[Path]`."""
    kinds = [kind for kind in get_args(field.annotation) if kind is not type(None)]
    return kinds[0] if kinds else field.annotation


def _default(field: FieldInfo) -> str:
    default = field.default
    if default is None or default is PydanticUndefined or isinstance(default, SecretStr):
        return "[repeatable]" if get_origin(field.annotation) is list else ""
    return f"[default: {default}]"


def settings_given(options: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that were given as flags, out of all `options` of `serve`."""
    given = {name: value for name, value in options.items() if value not in (None, ())}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
