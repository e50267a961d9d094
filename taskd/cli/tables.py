"""
List tasks and plugins: a line for each task, a paragraph for each plugin.

A terminal and a pipe get the same text, except for colours.
"""

import sys
from collections.abc import Iterable, Iterator
from datetime import datetime

import orjson
from rich.text import Text

from taskd.cli.arguments import NESTED_MAX, resolved
from taskd.cli.printer import INDENT, Json, terminal
from taskd.tasks import SHORT_ID
from taskd.text.escape import shown

STATUS_STYLES = {
    "succeeded": "green",
    "failed": "bold red",
    "cancelled": "yellow",
    "interrupted": "yellow",
    "running": "cyan",
}


def print_tasks(tasks: Iterable[Json]) -> None:
    """Print a line for each task: short id, status, plugin, creation time, duration, entries, and any trouble."""
    console = terminal(sys.stdout)
    rows = [(*_task_row(task), _trouble(task)) for task in tasks]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(6)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        line = Text.assemble(
            f"{cells[0]}  ",
            (cells[1], STATUS_STYLES.get(row[1], "")),
            f"  {'  '.join(cells[2:])}  ",
            (row[6], "dim"),
        )
        line.rstrip()
        if console.is_terminal:
            # Only the trouble, which may be long, is cut: the log has all of it.
            line.truncate(max(console.width, len(line) - len(row[6])), overflow="ellipsis")
        console.print(line)


def named(task: Json) -> str:
    """Return a task's name for a sentence: `856110ab (reindex)`."""
    return f"{task['id'][-SHORT_ID:]} ({shown(task['plugin'])})"


def _task_row(task: Json) -> tuple[str, ...]:
    return (
        task["id"][-SHORT_ID:],
        task["status"],
        shown(task["plugin"]),
        task["created_at"][:19] + "Z",
        lasted(task),
        f"{task['last_seq']:,} {'entry' if task['last_seq'] == 1 else 'entries'}",
    )


def _trouble(task: Json) -> str:
    counts = task["counts"]
    parts = [_many(counts[level], level.lower()) for level in ("ERROR", "WARNING") if counts.get(level)]
    if task["error"]:
        parts.append(shown(task["error"].split("\n")[0]))
    return "  ".join(parts)


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def lasted(task: Json) -> str:
    """Return the duration of a task that has ended, as `3.2 s` or `0:02:10`; "" for another task."""
    if not task["started_at"] or not task["finished_at"]:
        return ""
    try:
        started, finished = map(datetime.fromisoformat, (task["started_at"], task["finished_at"]))
        seconds = max((finished - started).total_seconds(), 0)
    except (ValueError, TypeError):  # not taskd's form of time
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def print_plugins(plugins: Iterable[Json], broken: Iterable[Json]) -> None:
    """Print the plugins with their parameters, and those that failed to load with the reason."""
    console = terminal(sys.stdout)
    for plugin in plugins:
        title = "" if plugin["title"] == plugin["name"] else plugin["title"]
        description = " - ".join(part for part in (title, plugin["description"]) if part)
        console.print(Text.assemble((shown(plugin["name"]), "bold"), "  ", shown(description)))
        for line in _parameters(plugin["params_schema"] or {}):
            console.print(Text(INDENT + line))
    for plugin in broken:
        console.print(Text.assemble((shown(plugin["name"]), "bold red"), "  failed to load: ", shown(plugin["error"])))


def _parameters(schema: Json) -> Iterator[str]:
    properties, required = schema.get("properties"), schema.get("required")
    if not isinstance(properties, dict):
        yield "(params not declared)"
        return
    for name, value in properties.items():
        wanted = value if isinstance(value, dict) else {}
        default = f"default {orjson.dumps(wanted['default']).decode()}" if "default" in wanted else "optional"
        needed = "required" if isinstance(required, list) and name in required else default
        parts = (name, _type_of(wanted, schema), f"({needed})", str(wanted.get("description", "")))
        yield shown("  ".join(part for part in parts if part))


def _type_of(wanted: object, whole: Json, levels: int = NESTED_MAX) -> str:
    """Return a parameter's JSON Schema in a word or two: `string`, `integer or null`, `backup | restore`."""
    wanted = resolved(wanted, whole)
    if not levels:
        return "any"
    if isinstance(wanted.get("enum"), list):
        return " | ".join(map(str, wanted["enum"]))
    if isinstance(wanted.get("anyOf"), list):
        return " or ".join(_type_of(part, whole, levels - 1) for part in wanted["anyOf"])
    if wanted.get("type") == "array":
        return f"list of {_type_of(wanted.get('items'), whole, levels - 1)}"
    if wanted.get("writeOnly"):  # a SecretStr
        return "secret string"
    kind = wanted.get("type", "any")
    return kind if isinstance(kind, str) else " or ".join(map(str, kind if isinstance(kind, list) else ["any"]))
