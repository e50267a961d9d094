"""A task's logger for a process that has no service: it prints."""

import contextlib
from collections.abc import Iterator
from typing import Any, cast

from taskd import TaskLogger


class Loud:
    """Prints what a plugin logs."""

    @classmethod
    def logger(cls) -> TaskLogger:
        return cast(TaskLogger, cls())

    def info(self, message: str, **metadata: Any) -> None:
        print(message)

    warning = info

    @contextlib.contextmanager
    def group(self, title: str) -> Iterator[None]:
        yield

    @contextlib.contextmanager
    def progress(self, *arguments: Any, **options: Any) -> Iterator["Loud"]:
        yield self

    def advance(self, by: int = 1) -> None:
        pass

    update = advance
