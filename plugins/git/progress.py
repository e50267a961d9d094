"""Git's progress as progress."""

import contextlib
import re
from collections.abc import Callable
from types import TracebackType
from typing import Self

from taskd import TaskLogger

_PROGRESS = re.compile(r"(?P<label>(?:remote: )?[A-Z][\w ]*): +\d+% \((?P<current>\d+)/(?P<total>\d+)\)(?P<rest>.*)")

# A remote may send any line: a longer one is not git's progress, and its numbers may be too long to read.
LINE_CHARACTERS_MAX = 200
# Git has a few at a time.
BARS_MAX = 20


class Bars:
    """Git's progress lines (`Receiving objects:  45% (45/100), …`) as progress."""

    def __init__(self, log: TaskLogger) -> None:
        self._log = log
        self._open: dict[str, tuple[contextlib.ExitStack, Callable[[float, str | None], None]]] = {}

    def take(self, line: str) -> bool:
        """True where the line is progress, which is shown then."""
        match = _PROGRESS.match(line) if len(line) <= LINE_CHARACTERS_MAX else None
        if match is None:
            return False
        label, rest = match["label"], match["rest"].strip(" ,")
        if label not in self._open:
            if len(self._open) >= BARS_MAX:
                return False
            stack = contextlib.ExitStack()
            bar = stack.enter_context(self._log.progress(label, total=int(match["total"])))
            self._open[label] = stack, bar.update
        stack, update = self._open[label]
        update(int(match["current"]), rest or None)
        if rest.endswith("done."):
            del self._open[label]
            stack.close()
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stack, _ in self._open.values():
            stack.__exit__(kind, error, trace)
