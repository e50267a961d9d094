"""
The commands of a client: everything of `taskd` but `serve`.

Each asks a running taskd over its public interface and prints what it was told. A server does not
load this module: what only a client needs, colours and connections among it, would be a tenth of
its memory.
"""

import asyncio
import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO, TypeVar

import click
import orjson

from taskd.cli.answers import TASK
from taskd.cli.arguments import DEFAULT_SERVER, in_unicode, params_of
from taskd.cli.client import Client, Parameters
from taskd.cli.printer import Printer, export_to, make_printer
from taskd.cli.tables import lasted, named, print_plugins, print_tasks
from taskd.entries import Level
from taskd.errors import Invalid, NotFound
from taskd.system.replace import replacement
from taskd.system.signals import INTERRUPTED
from taskd.system.stdio import say
from taskd.tasks import SHORT_ID, TaskStatus

Command = TypeVar("Command", bound=Callable[..., Any])

clients = click.Group()


def _kept(context: click.Context, option: click.Parameter, value: str | None) -> None:
    """Let a command's own --server or --token come before the one in front of the command."""
    if value is not None:
        context.obj[str(option.name)] = value


def client_options(command: Command) -> Command:
    """Let `--server` and `--token` stand behind the command too."""
    for name, metavar in (("--token", "TOKEN"), ("--server", "URL")):
        option = click.option(
            name, metavar=metavar, expose_value=False, callback=_kept, help=f"As before the command: {name}."
        )
        command = option(command)
    return command


def params_options(command: Command) -> Command:
    """The options that give a task its params."""
    whole = click.option(
        "--params", "text", metavar="JSON", help="All parameters as JSON, or @FILE with it (@- for stdin)."
    )
    pairs = click.option(
        "-p", "pairs", multiple=True, metavar="KEY=VALUE", help="A parameter; VALUE may be JSON (repeatable)."
    )
    return pairs(whole(command))


def filter_options(command: Command) -> Command:
    """The options that choose entries; the server says what they may be."""
    command = click.option("--regex", is_flag=True, help="--search and --exclude are regular expressions (RE2).")(
        command
    )
    for name, metavar, many, help_text in reversed(FILTERS):
        option = click.option(f"--{name.replace('_', '-')}", metavar=metavar, multiple=many, help=help_text)
        command = option(command)
    return command


LEVELS = "|".join(Level)
FILTERS = (
    ("level", LEVELS, True, "These levels, exactly (repeatable, or separated by ',')."),
    ("min_level", LEVELS, False, "This level and above."),
    ("source", "NAME", True, "These sources; name.* takes all below it (repeatable)."),
    ("search", "TEXT", True, "In the message, in any case (repeatable: all of them)."),
    ("exclude", "TEXT", True, "Not in the message (repeatable: none of them)."),
    ("meta", "KEY=VALUE", True, "The metadata's field KEY equals VALUE (repeatable: all of them)."),
    ("since", "TIME", False, "From this time on (RFC 3339, or a date; UTC without an offset)."),
    ("until", "TIME", False, "Before this time."),
    ("after", "SEQ", False, "After this entry."),
    ("before", "SEQ", False, "Before this entry."),
)
FORMAT_ENDINGS = {".ndjson": "ndjson", ".csv": "csv"}
output_option = click.option(
    "--output",
    type=click.Choice(["text", "ndjson"]),
    default="text",
    show_default=True,
    help="How entries are printed.",
)


@clients.group(invoke_without_command=True)
@client_options
@click.pass_context
def plugins(context: click.Context) -> None:
    """List the plugins and their parameters, or write a new one."""
    if context.invoked_subcommand is None:
        answer = Client(**context.obj).plugins()
        print_plugins(answer["plugins"], answer["broken"])


@plugins.command()
@click.argument("name")
@click.argument("directory", metavar="[DIR]", default=".", type=click.Path(path_type=Path))
def new(name: str, directory: Path) -> None:
    """
    Write a plugin called NAME to start from.

    It works as it is. DIR is by default the current directory. Needs no running service, and writes
    over nothing.
    """
    from taskd.cli.scaffold import write_plugin  # what only this needs

    click.echo(write_plugin(name, directory))
    say(f"serve it with: taskd serve --plugins {shlex.quote(str(directory))}")
    say(f"run it with: taskd run {name} -p count=5")


@clients.command()
@click.argument("plugin")
@params_options
@click.option("--detach", is_flag=True, help="Print the task's id and leave it running.")
@output_option
@client_options
@click.pass_obj
def run(
    server: dict[str, Any], plugin: str, pairs: tuple[str, ...], text: str | None, detach: bool, output: str
) -> int:
    """Start a task and follow its log to the end."""
    client = Client(**server)
    plugin = in_unicode(plugin)
    params = params_of(text, pairs, client.params_schema(plugin))
    task = _submitted(client, plugin, params)
    if detach:
        click.echo(task["id"])
        return 0
    say(f"task {named(task)}")
    return _follow(client, task["id"], [], output)


@clients.command()
@click.option("--status", metavar="|".join(TaskStatus), help="Only tasks of this status.")
@click.option("--plugin", metavar="NAME", help="Only tasks of this plugin.")
@click.option("--limit", default="20", show_default=True, metavar="N", help="At most so many.")
@client_options
@click.pass_obj
def tasks(server: dict[str, Any], /, **asked: str | None) -> None:
    """The newest tasks."""
    found = Client(**server).tasks(_parameters(asked))
    print_tasks(found)
    if not found:
        say("no tasks")


@clients.command()
@click.argument("task")
@click.option("-f", "--follow", is_flag=True, help="Go on to the end of the task, reconnecting as needed.")
@filter_options
@click.option("--tail", metavar="N", help="The last N matches.")
@output_option
@click.option("--seq", is_flag=True, help="Show each entry's SEQ in text too.")
@client_options
@click.pass_obj
def logs(server: dict[str, Any], /, task: str, follow: bool, output: str, seq: bool, **asked: Any) -> int:
    """
    Print the log of TASK.

    TASK is an id, the last 6 or more characters of one, or @last. SEQ, for --after and --before, is an
    entry's number in its log: --seq shows it, and so does --output ndjson. A log that is followed has
    no end to set: -f does not go with --until or --before.
    """
    for option in ("until", "before"):
        if follow and asked[option] is not None:
            raise click.UsageError(f"--{option} does not go with -f.")
    client = Client(**server)
    task_id, parameters = client.find(task), _parameters(asked)
    if follow:
        code = _follow(client, task_id, parameters, output, seq)
        _hint_at_sources(client, task_id, asked)
        return code
    matched = False
    with make_printer(output, seq=seq) as printer:
        for entries in client.pages(task_id, parameters):
            printer.entries(entries)
            matched = True
    if not matched:
        say(f"no match{_hint(asked)}")
    return 0


def _hint(asked: dict[str, Any]) -> str:
    """Return what a filter without a match was probably meant to be."""
    # The printer shows fields after the message, so they look like a part of it.
    if any("=" in text for text in asked["search"]):
        return "; --search looks in messages, --meta KEY=VALUE in fields"
    wild = next(_wild(asked["source"]), None)
    if wild is None:
        return ""
    stem = wild.partition("*")[0].rstrip(".") or "NAME"
    return f"; --source {wild} is no pattern: {stem} is one source, {stem}.* takes it and all below it"


def _hint_at_sources(client: Client, task_id: str, asked: dict[str, Any]) -> None:
    """Print the hint for a source with a star after output that does not show whether there was a match."""
    if any(_wild(asked["source"])):
        sources = [("source", name) for name in asked["source"]]
        if not client.get(f"/api/tasks/{task_id}/logs", [*sources, ("limit", "1")]).get("total"):
            say(f"no match{_hint({**asked, 'search': ()})}")


def _wild(sources: Iterable[str]) -> Iterator[str]:
    """Yield the sources that look like the pattern of a shell."""
    yield from (name for name in sources if "*" in name.removesuffix(".*"))


@clients.command()
@click.argument("task")
@filter_options
@click.option("--order", metavar="asc|desc", help="The oldest first (the default) or the newest.")
@click.option(
    "--format",
    type=click.Choice(["text", "ndjson", "csv"]),
    help=f"How it is written; without it as FILE ends ({', '.join(FORMAT_ENDINGS)}), or else as text.",
)
@click.option(
    "-o", "--file", "output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Where to."
)
@click.option("--force", is_flag=True, help="Write over FILE if it exists; its permissions are kept.")
@client_options
@click.pass_obj
def export(server: dict[str, Any], /, task: str, output: Path | None, force: bool, **asked: Any) -> None:
    """
    Write the log of TASK to a file.

    The first lines state the task and the filter, the last one that the export is complete. FILE appears
    when it is; if the export breaks off (exit 3), nothing is left. Only regular files are written over.
    Without -o the log goes to standard output.
    """
    if output is not None and asked["format"] is None:
        asked["format"] = FORMAT_ENDINGS.get(output.suffix.lower())
    client = Client(**server)
    parameters, task_id = _parameters(asked), client.find(task)
    if output is None:
        client.export(task_id, parameters, export_to(sys.stdout, asked["format"]))
    else:
        with replacement(output, force=force) as file:
            client.export(task_id, parameters, file)
    _hint_at_sources(client, task_id, asked)


@clients.command()
@click.argument("task")
@client_options
@click.pass_obj
def cancel(server: dict[str, Any], task: str) -> None:
    """Ask TASK to stop."""
    client = Client(**server)
    asked = client.post(f"/api/tasks/{client.find(task)}/cancel", shape=TASK)
    ended = asked["status"] == TaskStatus.CANCELLED
    click.echo(f"{named(asked)} is cancelled" if ended else f"asked {named(asked)} to stop")


@clients.command()
@click.argument("task")
@params_options
@client_options
@click.pass_obj
def retry(server: dict[str, Any], task: str, pairs: tuple[str, ...], text: str | None) -> None:
    """
    Start TASK again as a new task, and print the new one's id.

    Its params are those of TASK; secret ones are not stored and have to be given again.
    """
    client = Client(**server)
    task_id = client.find(task)
    schema = client.params_schema(client.task(task_id)["plugin"]) if pairs or text else {}
    given = params_of(text, pairs, schema)
    again = client.post(f"/api/tasks/{task_id}/retry", {"params": given} if given else None, TASK)
    click.echo(again["id"])
    say(f"started again as {named(again)}; follow it with: {_following(client, again['id'])}")


@clients.command()
@click.argument("task")
@client_options
@click.pass_obj
def delete(server: dict[str, Any], task: str) -> None:
    """
    Delete TASK, its log and its files, and print its id.

    There is no further question, and no way back. Cancel a running task first.
    """
    client = Client(**server)
    found = client.task(client.find(task))
    client.delete(f"/api/tasks/{found['id']}")
    click.echo(found["id"])
    say(f"deleted {named(found)}")


def _submitted(client: Client, plugin: str, params: dict[str, Any]) -> dict[str, Any]:
    """The task that was started; where there is no such plugin, the error names broken ones that may be meant."""
    try:
        return client.post("/api/tasks", {"plugin": plugin, "params": params}, TASK)
    except NotFound as error:
        broken = [one for one in client.plugins()["broken"] if plugin in Path(one["name"]).name]
        told = (f" {Path(one['name']).name} cannot be loaded: {one['error']}." for one in broken)
        raise NotFound(str(error) + "".join(told)) from error


def _following(client: Client, task_id: str) -> str:
    """The command that follows the task, with the server where it is not the one that is asked anyway."""
    usual = (os.environ.get("TASKD_SERVER") or DEFAULT_SERVER).rstrip("/")
    server = "" if client.server == usual else f"--server {shlex.quote(client.server)} "
    return f"taskd {server}logs -f {task_id[-SHORT_ID:]}"


def _parameters(asked: dict[str, Any]) -> Parameters:
    """The options that were given, as a query string has them."""
    if asked.pop("regex", False):
        asked["regex"] = "true"
    fields = [_field(pair) for pair in asked.pop("meta", ())]
    many = {name: [value] if isinstance(value, str) else value or () for name, value in asked.items()}
    return [(name, in_unicode(value)) for name, values in many.items() for value in values] + fields


def _field(pair: str) -> tuple[str, str]:
    key, equals, value = in_unicode(pair).partition("=")
    if not key or not equals:
        raise Invalid(f"--meta {pair!r}: expected KEY=VALUE.")
    return f"meta.{key}", value


def _follow(client: Client, task_id: str, parameters: Parameters, output: str, seq: bool = False) -> int:
    """Print a log to its end, then how the task ended; the exit code that this means."""
    try:
        task = asyncio.run(_print_live(client, task_id, parameters, make_printer(output, live=True, seq=seq)))
    except KeyboardInterrupt:
        say(f"Left the task as it is; go on with: {_following(client, task_id)}")
        return INTERRUPTED
    if words := _last_words(task):
        say(words)
    return 0 if task["status"] == "succeeded" else 1


def _last_words(task: dict[str, Any]) -> str:
    """How the task ended, but for what the same reader has just read at the end of its log."""
    result = "" if task["result"] is None else orjson.dumps(task["result"]).decode()
    if task["told"] and _same_place(sys.stdout, sys.stderr):
        return result and f"result {result}"
    ended = " ".join(part for part in (task["status"], lasted(task) and f"after {lasted(task)}") if part)
    error = (task["error"] or "").removeprefix(f"{task['status']}: ")
    return f"{ended}: {error or result}".removesuffix(": ")


def _same_place(one: TextIO, other: TextIO) -> bool:
    """Whether both are the same terminal, pipe or file."""
    try:
        return os.path.sameopenfile(one.fileno(), other.fileno())
    except (OSError, ValueError):
        return False


async def _print_live(client: Client, task_id: str, parameters: Parameters, printer: Printer) -> dict[str, Any]:
    """The task at its end; `told` is whether the last entry that was printed says how it ended."""
    last: dict[str, Any] | None = None
    with printer:
        async with contextlib.aclosing(client.follow(task_id, parameters, on_notice=printer.notice)) as frames:
            async for frame in frames:
                match frame["type"]:
                    case "entries":
                        printer.entries(frame["entries"])
                        last = frame["entries"][-1]
                    case "progress":
                        printer.progress(frame["source"], frame["progress"])
                    case "end":
                        task: dict[str, Any] = frame["task"]
    said = last["message"] if last and last["source"] == "system" else ""
    return task | {"told": said.startswith(task["status"])}
