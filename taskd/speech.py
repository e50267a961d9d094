"""
`Speech`: what a program writes, into the log: its lines as entries, what it redraws as progress.

A line that is drawn again and again (`\r`) is a progress: viewers see at most ten pictures a
second, and the log keeps the first, the last and at most one a second, as with a progress that a
plugin tells itself. Its numbers are read off the picture where there are any.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

from taskd.entries import Level
from taskd.lines import Line, Lines
from taskd.logger import TaskLogger
from taskd.progress import Progress, as_number

LABEL_CHARACTERS_MAX = 100

_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,3})?) ?%")
_OF = re.compile(r"(\d[\d,]{0,20}(?:\.\d{1,9})?) ?(?:/|of) ?(\d[\d,]{0,20}(?:\.\d{1,9})?)")
# Colours, and what moves the cursor (ECMA-48, section 5.4).
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


class Speech:
    """
    One stream of a program, with the source of `logger`; its lines at `level` with `metadata`.

    `take(text)` sees every line and picture first, and keeps it from the log by returning True.
    """

    def __init__(
        self,
        logger: TaskLogger,
        level: Level,
        metadata: dict[str, Any] | None = None,
        take: Callable[[str], bool] | None = None,
    ) -> None:
        self.lines = Lines(logger.masker)
        self._logger = logger
        self._level = level
        self._metadata = metadata
        self._take = take
        self._taken = False
        self._picture: str | None = None
        self._redrawn: _Redrawn | None = None

    def feed(self, text: str) -> int:
        """Say what `text` completes; how many lines that were."""
        lines = self.lines.feed(text)
        self.say(lines)
        return len(lines)

    def end(self, *, cut: bool = False) -> None:
        """Log the text after the last end of line, marked with `cut` if the rest of its line is missing."""
        if cut:
            self._metadata = {**(self._metadata or {}), "cut": True}
        self.say(self.lines.end())

    def say(self, lines: Iterable[Line]) -> None:
        """Say what `self.lines` made of a text."""
        for line in lines:
            if line.picture:
                self._draw(line.text)
            else:
                self._say(line)

    def _draw(self, picture: str) -> None:
        before, self._picture = self._picture, picture
        self._taken = self._take is not None and self._take(picture)
        if self._taken:
            self._picture = None
        elif self._redrawn is not None:
            self._redrawn.draw(picture)
        elif before is not None:
            # One picture may be a line that ends with "\r\n". The second shows that it is redrawn.
            self._redrawn = _Redrawn(self._logger, before, self._metadata or {})
            self._redrawn.draw(before)
            self._redrawn.draw(picture)

    def _say(self, line: Line) -> None:
        taken = self._taken if line.drawn else self._take is not None and self._take(line.text)
        self._taken, self._picture = False, None
        redrawn, self._redrawn = self._redrawn, None
        if redrawn is not None:
            redrawn.last(None if taken else line.text)
        elif not taken and (line.text or not line.continued):
            self._logger.say(self._level, line.text, {"continued": True} if line.continued else self._metadata)


class _Redrawn(Progress):
    """A line that is drawn again and again; its entries say what the picture shows."""

    def __init__(self, logger: TaskLogger, picture: str, metadata: dict[str, Any]) -> None:
        # Masked before a label is cut off it.
        label, unit, _, total = _read(logger.masker(picture))
        super().__init__(logger, label, total, unit)
        self._picture = picture
        self._metadata = metadata

    def draw(self, picture: str) -> None:
        """Another picture is to be seen."""
        current = self._look(picture)
        # Without a number, what is counted are the pictures.
        self.update(self.current + 1 if current is None else current)

    def last(self, picture: str | None) -> None:
        """The line has ended, with a last picture."""
        if picture is not None:
            looked = self._look(picture)
            self.current = self.current if looked is None else looked
        self.finish()

    def _look(self, picture: str) -> float | None:
        _, _, current, total = _read(picture)
        self._picture = picture
        if current is not None:
            self.total = total
        return current

    def _told(self, message: str | None) -> str:
        return self._picture

    def _fields(self) -> dict[str, Any]:
        return self._metadata


def _read(picture: str) -> tuple[str, str, float | None, float | None]:
    """What a picture says: its label, its unit, how far it is and of how much."""
    text = _CONTROL.sub("", picture)
    total: float | None
    if found := _PERCENT.search(text):
        unit, current, total = "%", _number(found[1]), 100
    elif found := _OF.search(text):
        unit, current, total = "", _number(found[1]), _number(found[2])
    else:
        return text.strip()[:LABEL_CHARACTERS_MAX] or "progress", "", None, None
    label = text[: found.start()].strip(" \t:|[(-")
    return label[:LABEL_CHARACTERS_MAX] or "progress", unit, current, total


def _number(digits: str) -> float | None:
    number = as_number(digits.replace(",", ""))
    return int(number) if number is not None and number.is_integer() else number
