"""
`taskd plugins new`: a plugin to start from, which works as it is written.

It has one of everything that a plugin usually needs, short enough to be changed or deleted. Nothing
that exists is written over, and the name is checked as the service will check it.
"""

import keyword
import re
from pathlib import Path

from taskd.errors import PluginNotWritten
from taskd.runtime.plugins import NAME, PluginRegistry
from taskd.shipped import PLUGINS

TEMPLATE = '''\
"""{title}: what it is for, in a sentence."""

import asyncio

from pydantic import BaseModel, ConfigDict, Field

from taskd import Plugin, TaskContext


class {class_name}Params(BaseModel):
    """What a task is given; checked before there is one."""

    model_config = ConfigDict(extra="forbid")

    count: int = Field(3, ge=1, le=1_000_000, description="How many things to do.")


class {class_name}(Plugin):
    """What it does, as `taskd plugins` shows it."""

    name = "{name}"
    title = "{title}"
    Params = {class_name}Params

    async def execute(self, params: {class_name}Params, context: TaskContext) -> object:
        log = context.logger
        with log.group("things"), log.progress("done", total=params.count) as bar:
            for number in range(1, params.count + 1):
                # Here goes the work. What blocks belongs into `await context.run_in_thread(...)`.
                await asyncio.sleep(0.1)
                log.info("did a thing", number=number)
                bar.advance()
        # A command: each line that it prints is an entry, and a failure fails the task.
        await context.run_process(["uname", "-a"])
        return {{"count": params.count}}
'''


def write_plugin(name: str, directory: Path) -> Path:
    """
    Write a new plugin called `name` into `directory`, which is made where it is missing; the file.

    Raises `PluginNotWritten` for a name that the service would not load or has already, and
    where the file exists or cannot be written.
    """
    _check(name)
    path = directory / f"{name.replace('-', '_')}.py"
    text = TEMPLATE.format(name=name, title=_title(name), class_name=_class_name(name))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with path.open("x") as file:
            file.write(text)
    except FileExistsError as error:
        what = path if directory.is_dir() else directory
        told = "exists already" if what == path else "is not a directory"
        raise PluginNotWritten(f"{what} {told}: give another name or directory. Nothing was written.") from error
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise PluginNotWritten(f"{path} cannot be written: {why}.") from error
    return path


def _check(name: str) -> None:
    if not NAME.fullmatch(name):
        raise PluginNotWritten(
            f"{name!r} cannot be the name of a plugin: expected a lower-case letter, then up to 63 lower-case "
            "letters, digits, '_' or '-', such as reindex or nightly-report."
        )
    shipped = PluginRegistry()
    shipped.load_directory(PLUGINS)
    if name in shipped.plugins:
        raise PluginNotWritten(f"taskd has a plugin {name!r} of its own: give another name.")


def _title(name: str) -> str:
    return " ".join(_parts(name)).capitalize()


def _class_name(name: str) -> str:
    joined = "".join(part.capitalize() for part in _parts(name))
    taken = {"Plugin", "BaseModel", "TaskContext", "Field"}
    return f"{joined}Plugin" if keyword.iskeyword(joined) or joined in taken else joined


def _parts(name: str) -> list[str]:
    return [part for part in re.split("[-_]", name) if part]
