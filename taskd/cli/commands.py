"""
The client commands: all commands of `taskd` except `serve`.

Each sends a request to a running taskd over its public interface and prints the answer. A server does not
load this module: the code that only a client needs, such as colours and connections, would take a tenth of
the server's memory.
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
from taskd.cli.client import PAGE_ENTRIES, Client, Parameters
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


class ParamsCommand(click.Command):
    """A command with params: it refuses a KEY=VALUE without -p, with a hint."""

    allow_extra_args = True

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Parse as usual. Raises `click.UsageError` for further words, with a hint at -p."""
        rest = super().parse_args(context, args)
        if rest and not context.resilient_parsing:
            pairs = [word for word in rest if "=" in word]
            hint = f" Did you mean {shlex.join(part for pair in pairs for part in ('-p', pair))}?" if pairs else ""
            raise click.UsageError(f"Unexpected argument: {shlex.join(rest)}.{hint}", context)
        return rest


def _kept(context: click.Context, option: click.Parameter, value: str | None) -> None:
    """Let --server or --token after the command override the one before it."""
    if value is not None:
        context.obj[str(option.name)] = value


def client_options(command: Command) -> Command:
    """Add `--server` and `--token`, so that they may stand after the command too."""
    for name, metavar in (("--token", "TOKEN"), ("--server", "URL")):
        option = click.option(
            name, metavar=metavar, expose_value=False, callback=_kept, help=f"Same as {name} before the command."
        )
        command = option(command)
    return command


def params_options(command: Command) -> Command:
    """Add the options that give a task its params."""
    whole = click.option(
        "--params",
        "text",
        metavar="JSON",
        help="All parameters as a JSON object, or @FILE that holds it (@- for stdin).",
    )
    pairs = click.option(
        "-p", "pairs", multiple=True, metavar="KEY=VALUE", help="A parameter; VALUE may be JSON (repeatable)."
    )
    return pairs(whole(command))


def filter_options(command: Command) -> Command:
    """Add the options that choose entries; the server validates their values."""
    command = click.option("--regex", is_flag=True, help="--search and --exclude are regular expressions (RE2).")(
        command
    )
    for name, metavar, many, help_text in reversed(FILTERS):
        option = click.option(f"--{name.replace('_', '-')}", metavar=metavar, multiple=many, help=help_text)
        command = option(command)
    return command


def _checked_tail(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    with contextlib.suppress(ValueError):
        if value is None or 1 <= int(value) <= PAGE_ENTRIES:
            return value
    raise click.BadParameter(f"{value!r}: expected a whole number from 1 to {PAGE_ENTRIES:,}.")


LEVELS = "|".join(Level)
FILTERS = (
    ("level", LEVELS, True, "Entries of exactly these levels (repeatable, or separated by ',')."),
    ("min_level", LEVELS, False, "Entries of this level and above."),
    ("source", "NAME", True, "Entries of this source; NAME.* also takes all sources below it (repeatable)."),
    ("search", "TEXT", True, "Entries whose message contains TEXT, in any case (repeatable: all of them)."),
    ("exclude", "TEXT", True, "Entries whose message does not contain TEXT (repeatable: none of them)."),
    ("meta", "KEY=VALUE", True, "Entries whose metadata field KEY equals VALUE (repeatable: all of them)."),
    ("since", "TIME", False, "Entries from TIME on (RFC 3339, or a date; UTC without an offset)."),
    ("until", "TIME", False, "Entries before TIME."),
    ("after", "SEQ", False, "Entries after the entry SEQ."),
    ("before", "SEQ", False, "Entries before the entry SEQ."),
)
FORMAT_ENDINGS = {".ndjson": "ndjson", ".csv": "csv"}
output_option = click.option(
    "--output",
    type=click.Choice(["text", "ndjson"]),
    default="text",
    show_default=True,
    help="The form in which entries are printed.",
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

    The plugin works as it is. DIR is by default the current directory. The command needs no running
    service and overwrites nothing.
    """
    from taskd.cli.scaffold import write_plugin  # only this command needs it

    click.echo(write_plugin(name, directory))
    say(f"serve it with: taskd serve --plugins {shlex.quote(str(directory))}")
    say(f"run it with: taskd run {name} -p count=5")


@clients.command(cls=ParamsCommand)
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
@click.option("--limit", default="20", show_default=True, metavar="N", help="At most N tasks.")
@client_options
@click.pass_obj
def tasks(server: dict[str, Any], /, **asked: str | None) -> None:
    """List the newest tasks."""
    found = Client(**server).tasks(_parameters(asked))
    print_tasks(found)
    if not found:
        say("no tasks")


@clients.command()
@click.argument("task")
@click.option("-f", "--follow", is_flag=True, help="Follow the log to the end of the task, reconnecting as needed.")
@filter_options
@click.option("--tail", metavar="N", callback=_checked_tail, help=f"The last N matches (1 to {PAGE_ENTRIES:,}).")
@output_option
@click.option("--seq", is_flag=True, help="Show each entry's SEQ in text too.")
@client_options
@click.pass_obj
def logs(server: dict[str, Any], /, task: str, follow: bool, output: str, seq: bool, **asked: Any) -> int:
    """
    Print the log of TASK.

    TASK is an id, the last 6 or more characters of one, or @last. SEQ, for --after and --before, is an
    entry's number in its log: --seq and --output ndjson show it. A followed log is read to its end:
    -f does not go with --until or --before.
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
    """Return a hint at the filter that the user probably meant, if one without a match looks wrong."""
    # The printer shows fields after the message, so they look like part of it.
    if any("=" in text for text in asked["search"]):
        return "; --search looks in messages, --meta KEY=VALUE in fields"
    wild = next(_wild(asked["source"]), None)
    if wild is None:
        return ""
    stem = wild.partition("*")[0].rstrip(".") or "NAME"
    return f"; --source {wild} is not a pattern: {stem} is one source, {stem}.* includes all below it"


def _hint_at_sources(client: Client, task_id: str, asked: dict[str, Any]) -> None:
    """Print the hint for a source with a star, after output that does not show whether an entry matched."""
    if any(_wild(asked["source"])):
        sources = [("source", name) for name in asked["source"]]
        if not client.get(f"/api/tasks/{task_id}/logs", [*sources, ("limit", "1")]).get("total"):
            say(f"no match{_hint({**asked, 'search': ()})}")


def _wild(sources: Iterable[str]) -> Iterator[str]:
    """Yield the sources that look like a shell pattern."""
    yield from (name for name in sources if "*" in name.removesuffix(".*"))


@clients.command()
@click.argument("task")
@filter_options
@click.option("--order", metavar="asc|desc", help="The oldest entries first (asc, the default) or the newest (desc).")
@click.option(
    "--format",
    type=click.Choice(["text", "ndjson", "csv"]),
    help=f"The format. The default follows the ending of FILE ({', '.join(FORMAT_ENDINGS)}), or else is text.",
)
@click.option(
    "-o", "--file", "output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="The file to write."
)
@click.option("--force", is_flag=True, help="Overwrite FILE if it exists; its permissions are kept.")
@client_options
@click.pass_obj
def export(server: dict[str, Any], /, task: str, output: Path | None, force: bool, **asked: Any) -> None:
    """
    Write the log of TASK to a file.

    The first lines state the task and the filter, the last line that the export is complete. FILE appears
    only then: if the export breaks off (exit 3), nothing is left. Only regular files are overwritten.
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


@clients.command(cls=ParamsCommand)
@click.argument("task")
@params_options
@client_options
@click.pass_obj
def retry(server: dict[str, Any], task: str, pairs: tuple[str, ...], text: str | None) -> None:
    """
    Start TASK again as a new task, and print the new one's id.

    The new task has the params of TASK. Secret params are not stored and must be given again.
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

    There is no confirmation, and no way to undo it. Cancel a running task first.
    """
    client = Client(**server)
    found = client.task(client.find(task))
    client.delete(f"/api/tasks/{found['id']}")
    click.echo(found["id"])
    say(f"deleted {named(found)}")


def _submitted(client: Client, plugin: str, params: dict[str, Any]) -> dict[str, Any]:
    """Start a task and return it. If no such plugin is loaded, the error names broken ones of a similar name."""
    try:
        return client.post("/api/tasks", {"plugin": plugin, "params": params}, TASK)
    except NotFound as error:
        broken = [one for one in client.plugins()["broken"] if plugin in Path(one["name"]).name]
        reasons = (f" {Path(one['name']).name} cannot be loaded: {one['error']}." for one in broken)
        raise NotFound(str(error) + "".join(reasons)) from error


def _following(client: Client, task_id: str) -> str:
    """Return the command that follows the task, with --server unless the default reaches the same server."""
    usual = (os.environ.get("TASKD_SERVER") or DEFAULT_SERVER).rstrip("/")
    server = "" if client.server == usual else f"--server {shlex.quote(client.server)} "
    return f"taskd {server}logs -f {task_id[-SHORT_ID:]}"


def _parameters(asked: dict[str, Any]) -> Parameters:
    """Return the given options as the pairs of a query string."""
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
    """Print a log to its end, then how the task ended; return the exit code for it."""
    try:
        task = asyncio.run(_print_live(client, task_id, parameters, make_printer(output, live=True, seq=seq)))
    except KeyboardInterrupt:
        say(f"the task goes on; follow it again with: {_following(client, task_id)}")
        return INTERRUPTED
    if words := _last_words(task):
        say(words)
    return 0 if task["status"] == "succeeded" else 1


def _last_words(task: dict[str, Any]) -> str:
    """Return how the task ended, without the part that the same reader has just read at the end of the log."""
    result = "" if task["result"] is None else orjson.dumps(task["result"]).decode()
    if task["reported"] and _same_place(sys.stdout, sys.stderr):
        return result and f"result {result}"
    ended = " ".join(part for part in (task["status"], lasted(task) and f"after {lasted(task)}") if part)
    error = (task["error"] or "").removeprefix(f"{task['status']}: ")
    return f"{ended}: {error or result}".removesuffix(": ")


def _same_place(one: TextIO, other: TextIO) -> bool:
    """Return whether both are the same terminal, pipe or file."""
    try:
        return os.path.sameopenfile(one.fileno(), other.fileno())
    except (OSError, ValueError):
        return False


async def _print_live(client: Client, task_id: str, parameters: Parameters, printer: Printer) -> dict[str, Any]:
    """Print a log to its end; return the task, with `reported`: whether the last printed entry names its status."""
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
    last_words = last["message"] if last and last["source"] == "system" else ""
    return task | {"reported": last_words.startswith(task["status"])}
