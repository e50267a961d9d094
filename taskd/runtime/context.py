"""`TaskContext`: all that a plugin's author sees of taskd while the plugin runs."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import SecretBytes, SecretStr

from taskd.capture.process import LineHandler, ProcessResult, run_process
from taskd.log.logger import TaskLogger
from taskd.settings import Settings
from taskd.system.threads import in_thread
from taskd.text.masking import SECRET_CHARACTERS_MIN, Masker

T = TypeVar("T")


class TaskContext:
    """
    One task, from inside: its identity, its logger, and what it may use.

    `options` are the operator's for this plugin: KEY and VALUE of each `--plugin-option PLUGIN.KEY=VALUE`, as text.
    """

    def __init__(
        self,
        *,
        task_id: str,
        plugin: str,
        params: Any,
        logger: TaskLogger,
        masker: Masker,
        settings: Settings,
    ) -> None:
        self.task_id = task_id
        self.plugin = plugin
        self.params = params
        self.logger = logger
        self.settings = settings
        self.options: Mapping[str, str] = MappingProxyType(settings.options_of(plugin))
        self.cancelled = False
        self._masker = masker

    @property
    def data_dir(self) -> Path:
        """A directory of this task's own, made when it is first asked for."""
        path = task_dir(self.settings, self.task_id)
        path.mkdir(parents=True, exist_ok=True)
        return path

    async def run_process(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        source: str | None = None,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = True,
        on_line: LineHandler | None = None,
    ) -> ProcessResult:
        """
        Run a command, each line of its output an entry while it runs.

        `source` defaults to the name of `argv[0]`; `env` replaces the environment where it is
        given; `on_line(stream, line)` sees each line first and keeps it from the log by
        returning True. With `check`, raises `ProcessFailed` unless the exit code is 0. When
        the task is cancelled, the command and all that it started are ended.
        """
        return await run_process(self.logger, argv, source=source, cwd=cwd, env=env, check=check, on_line=on_line)

    async def run_in_thread(self, function: Callable[..., T], *args: Any, stop: Callable[[], None] | None = None) -> T:
        """
        Call `function(*args)` in a thread of its own and return its result.

        A thread cannot be stopped from outside. When the task is cancelled, `stop` is called, if
        given, at once and then every second; the thread is awaited all the same, so that nothing is
        left half done. Without `stop`, have the function look at `context.cancelled` now and then.
        """
        return await in_thread(partial(function, *args), name=f"thread of {self.task_id}", stop=stop)

    def add_secret(self, value: str | bytes | SecretStr | SecretBytes) -> None:
        """
        Hide `value` from now on in all that this task says. Best effort.

        Under 4 characters it cannot be hidden, and the log says so. Raises `TypeError` for what is
        no text, no bytes and none of pydantic's secrets.
        """
        secret = value.get_secret_value() if isinstance(value, SecretStr | SecretBytes) else value
        if isinstance(secret, bytes):
            secret = secret.decode(errors="surrogateescape")
        if not isinstance(secret, str):
            raise TypeError(f"add_secret expects a text, and was given {type(value).__name__}")
        if len(secret) < SECRET_CHARACTERS_MIN:
            self.logger.warning(f"a secret under {SECRET_CHARACTERS_MIN} characters is not hidden")
        self._masker.add(secret)


def task_dir(settings: Settings, task_id: str) -> Path:
    """Where a task's own files are."""
    return tasks_dir(settings) / task_id


def tasks_dir(settings: Settings) -> Path:
    """Where the files of all tasks are."""
    return (settings.data_dir / "tasks").resolve()
