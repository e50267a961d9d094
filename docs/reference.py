"""
The pages of the reference, generated from the code when the site is built.

Settings come from their fields, commands from their `--help`, routes and frames from the OpenAPI
document, and the Python API from its docstrings. `python docs/reference.py` prints all pages.
"""

import importlib
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import taskd
from taskd.api import openapi
from taskd.api.app import OPERATIONS
from taskd.cli.main import cli
from taskd.cli.options import settings_options
from taskd.settings import Settings
from taskd.version import __version__

ANY = "any"


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages to the files of the site."""
    file = importlib.import_module("mkdocs.structure.files").File
    for name, text in pages().items():
        files.append(file.generated(config, f"reference/{name}.md", content=text))
    return files


def pages() -> dict[str, str]:
    """Return the text of each page of the reference by its name."""
    return {"settings": settings(), "commands": commands(), "http": http(), "python": python()}


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


# Settings


def settings() -> str:
    """Return the page of the settings."""
    head = (
        "# Settings\n\nEach setting is an option of `taskd serve` and an environment variable. An option takes "
        "precedence. `_s`, `_ms`, `_bytes` and `_days` are units. A bad value stops the start with exit code 2.\n\n"
    )
    return head + table(["option", "variable", "default", "meaning"], _settings_rows())


def _settings_rows() -> Iterator[list[str]]:
    for option in settings_options():
        name = str(option.name)
        field = Settings.model_fields[name]
        default = "" if field.default is None or field.is_required() or field.default_factory else str(field.default)
        yield [f"`{option.opts[0]}`", f"`TASKD_{name.upper()}`", default and f"`{default}`", field.description or ""]


# Commands


def commands() -> str:
    """Return the page of the commands: the help text of each."""
    parts = ["# Commands\n\nThis is the output of `--help` for each command; settings are on a page of their own.\n"]
    for words, command in _commands("taskd", cli):
        if command.name != "serve":
            context = click.Context(command, info_name=words, max_content_width=100)
            parts.append(f"## {words}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def _commands(words: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield words, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=words)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None:
                yield from _commands(f"{words} {name}", inner)


# HTTP


def http() -> str:
    """Return the page of the routes, the WebSocket's frames and the shapes of all bodies."""
    document = openapi.document(OPERATIONS, __version__)
    parts = [
        f"# HTTP and WebSocket\n\n{document['info']['description']} A running service answers "
        "`GET /api/openapi.json` with the whole document (OpenAPI 3.1).\n",
    ]
    for path, methods in document["paths"].items():
        parts += [_route(path, method, operation) for method, operation in methods.items()]
    parts.append("## Shapes\n\nBodies and frames. `Frame` is one text frame of a live log.\n")
    parts += [_shape(name, schema) for name, schema in sorted(document["components"]["schemas"].items())]
    return "\n".join(parts)


def _route(path: str, method: str, operation: Mapping[str, Any]) -> str:
    parts = [f"## `{method.upper()} {path}`\n\n{operation['summary']}.\n"]
    parameters = [[f"`{each['name']}`", each.get("description", "")] for each in operation["parameters"]]
    if parameters:
        parts.append(table(["parameter", "meaning"], parameters))
    answers = [[status, _body(answer), answer["description"]] for status, answer in operation["responses"].items()]
    parts.append(table(["status", "body", "meaning"], answers))
    return "\n".join(parts)


def _body(answer: Mapping[str, Any]) -> str:
    kinds = [_kind(each["schema"]) if "json" in kind else kind for kind, each in answer.get("content", {}).items()]
    return ", ".join(dict.fromkeys(kinds))


def _shape(name: str, schema: Mapping[str, Any]) -> str:
    needed = schema.get("required", [])
    rows = [
        [f"`{field}`", _kind(each), "yes" if field in needed else "", each.get("description", "")]
        for field, each in schema.get("properties", {}).items()
    ]
    fields = table(["field", "type", "required", "meaning"], rows) if rows else _kind(schema) + "\n"
    return f"### {name}\n\n{schema.get('description', '')}\n\n{fields}"


def _kind(schema: Mapping[str, Any]) -> str:
    """Return the type that a JSON Schema means, in a word or two."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(map(_kind, schema[several]))
    if "const" in schema or "enum" in schema:
        return " or ".join(f"`{each}`" for each in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array" and "items" in schema:
        return f"array of {_kind(schema['items'])}"
    return str(schema.get("type", ANY))


# Python


def python() -> str:
    """Return the page of the names that `taskd` exports, from their docstrings."""
    parts = ["# Python\n\nWhat a plugin imports from `taskd`.\n"]
    for name in taskd.__all__:
        value = getattr(taskd, name)
        if inspect.isclass(value):
            parts.append(f"## {name}\n\n{inspect.getdoc(value)}\n")
            parts += [_member(member, each) for member, each in _members(value)]
    return "\n".join(parts)


def _members(kind: type) -> Iterator[tuple[str, Any]]:
    for name, value in vars(kind).items():
        is_member = inspect.isfunction(value) or isinstance(value, property)
        if is_member and not name.startswith("_") and inspect.getdoc(value):
            yield name, value


def _member(name: str, value: Any) -> str:
    if isinstance(value, property):
        return f"### `{name}`\n\n{inspect.getdoc(value)}\n"
    prefix = "await " if inspect.iscoroutinefunction(value) else ""
    signature = inspect.signature(value)
    without_self = signature.replace(
        parameters=[each.replace(annotation=inspect.Parameter.empty) for each in [*signature.parameters.values()][1:]],
        return_annotation=inspect.Signature.empty,
    )
    return f"### `{prefix}{name}{without_self}`\n\n{inspect.getdoc(value)}\n"


if __name__ == "__main__":
    print("\n\n".join(pages().values()))
