"""
`taskd plugins new`: write a plugin to start from, which works unchanged.

The template has one example of everything that a plugin usually needs, short enough to change or delete.
No existing file is overwritten, and the name is checked as the service will check it.
"""

import keyword
import re
from pathlib import Path

from taskd.errors import PluginNotWritten
from taskd.runtime.plugins import NAME, PluginRegistry
from taskd.shipped import PLUGINS

TEMPLATE = '''\
"""{title}: describe its purpose in a sentence."""

import asyncio

from pydantic import BaseModel, ConfigDict, Field

from taskd import Plugin, TaskContext


class {class_name}Params(BaseModel):
    """The params of a task, validated before the task is created."""

    model_config = ConfigDict(extra="forbid")

    count: int = Field(3, ge=1, le=1_000_000, description="Number of things to do.")


class {class_name}(Plugin):
    """Describe the plugin here: `taskd plugins` shows this text."""

    name = "{name}"
    title = "{title}"
    Params = {class_name}Params

    async def execute(self, params: {class_name}Params, context: TaskContext) -> object:
        log = context.logger
        with log.group("things"), log.progress("done", total=params.count) as bar:
            for number in range(1, params.count + 1):
                # The work goes here. Put blocking calls into `await context.run_in_thread(...)`.
                await asyncio.sleep(0.1)
                log.info("did a thing", number=number)
                bar.advance()
        # A command: each line of its output becomes an entry, and a non-zero exit fails the task.
        await context.run_process(["uname", "-a"])
        return {{"count": params.count}}
'''


def write_plugin(name: str, directory: Path) -> Path:
    """
    Write a new plugin called `name` into `directory`, which is created if missing; return the file's path.

    Raises `PluginNotWritten` if the service would not load such a name or has a plugin of that name, or
    if the file exists or cannot be written.
    """
    _check(name)
    path = directory / f"{name.replace('-', '_')}.py"
    text = TEMPLATE.format(name=name, title=_title(name), class_name=_class_name(name))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with path.open("x") as file:
            file.write(text)
    except FileExistsError as error:
        fault = f"{path} exists already" if directory.is_dir() else f"{directory} is not a directory"
        raise PluginNotWritten(f"{fault}: give another name or directory. Nothing was written.") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise PluginNotWritten(f"{path} cannot be written: {reason}.") from error
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
