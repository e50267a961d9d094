"""
`Speech`: what a program writes, into the log: its lines as entries, what it redraws as progress.

A line that is drawn again and again (`\r`) is a progress: viewers see at most ten pictures a
second, and the log keeps the first, the last and at most one a second, as with a progress that a
plugin tells itself. Its numbers are read off the picture where there are any.

A picture is replaced only by the same line with other numbers (`taskd.capture.bars`). Any other text in its
place is another line, and the picture becomes an entry. Each row has its own progress, so that
several bars below each other keep their ids, also when a line is printed above them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from taskd.capture.bars import CONTROL, OF, PERCENT, is_bar, is_blank, words_of
from taskd.capture.lines import Line, Lines
from taskd.entries import Level
from taskd.log.logger import TaskLogger
from taskd.log.progress import Progress, as_number

LABEL_CHARACTERS_MAX = 100
# Rows that may still be drawn again.
ROWS_MAX = 64


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
        self._rows: dict[int, _Row] = {}

    def feed(self, text: str) -> int:
        """Say what `text` completes; how many lines that were."""
        lines = self.lines.feed(text)
        self.say(lines)
        return len(lines)

    def end(self, *, cut: bool = False) -> None:
        """Log the text after the last end of line, marked with `cut` if the rest of its line is missing."""
        if cut:
            self._metadata = {**(self._metadata or {}), "cut": True}
        self.finish(self.lines.end())

    def finish(self, lines: Iterable[Line]) -> None:
        """Log the last lines, and what is still drawn."""
        self.say(lines)
        for number in sorted(self._rows):
            self._release(self._rows.pop(number), number)

    def say(self, lines: Iterable[Line]) -> None:
        """Say what `self.lines` made of a text."""
        for line in lines:
            if line.picture:
                self._draw(line)
            elif not line.continued and (line.returned or line.row in self._rows):
                self._end_row(line)
            elif self._take is None or not self._take(line.text):
                if self._rows or line.continued or self._level is not Level.INFO:
                    self._log(line.text, line.row, continued=line.continued)
                else:
                    self._logger.say(Level.INFO, line.text, self._metadata)

    def _draw(self, line: Line) -> None:
        """A picture, of which the row may be drawn again."""
        row = self._row(line.row)
        if is_blank(line.text):
            row.cleared = True
        elif self._take is not None and self._take(line.text):
            row.text, row.taken = None if row.bar is None else row.text, True
        else:
            self._redraw(row, line)

    def _redraw(self, row: "_Row", line: Line) -> None:
        text, words = line.text, words_of(line.text)
        if row.bar is not None and words != row.words and row.cleared:
            # A line printed above the bars, which are drawn again one row below.
            self._shift(line.row)
            self._log(text, line.row)
            return
        if words != row.words:
            self._release(row, line.row)
            row.bar = None
        if row.bar is None and row.text is not None and row.text != text:
            # One picture may be a line that ends with "\r\n". The second shows that it is redrawn.
            row.bar = _Redrawn(self._logger, row.text, self._metadata or {})
            row.bar.draw(row.text)
        elif row.bar is None and is_bar(text):
            row.bar = _Redrawn(self._logger, text, self._metadata or {})
        if row.bar is not None and row.text != text:
            row.bar.draw(text)
        row.text, row.words, row.taken, row.cleared, row.ended = text, words, False, False, False

    def _end_row(self, line: Line) -> None:
        """The end of a line that was drawn, or that the cursor was in before."""
        row = self._row(line.row)
        text = "" if line.drawn or is_blank(line.text) else line.text
        if text and self._take is not None and self._take(text):
            row.text = None if row.words == words_of(text) else row.text
        elif text and (row.bar is not None or is_bar(text) or row.shows_other(text)):
            self._redraw(row, line)
            row = self._row(line.row)
        elif text:
            if row.words != words_of(text):
                self._release(row, line.row)
            row.text = None
            self._log(text, line.row)
        elif row.text is None and not row.taken and not row.cleared and row.bar is None:
            self._log(line.text, line.row)
        row.ended = True
        if row.bar is None or row.bar.is_complete:
            self._release(row, line.row)
        if row.bar is None:
            self._rows.pop(line.row, None)

    def _row(self, number: int) -> "_Row":
        row = self._rows.get(number)
        if row is None:
            row = self._rows[number] = _Row()
            if len(self._rows) > ROWS_MAX:
                first = min(self._rows)
                self._release(self._rows.pop(first), first)
        return row

    def _shift(self, number: int) -> None:
        self._rows = {place + (place >= number): row for place, row in self._rows.items()}

    def _release(self, row: "_Row", number: int) -> None:
        """Log a picture that nothing of its kind replaces."""
        text, row.text = row.text, None
        if text is None:
            return
        if row.bar is not None:
            row.bar.finish()
        elif not row.taken:
            self._log(text, number)

    def _log(self, text: str, number: int, *, continued: bool = False) -> None:
        if self._rows:
            # Bars above a new line are over, though they had not come to their end.
            for place in [place for place, row in self._rows.items() if place < number and row.ended]:
                self._release(self._rows[place], place)
        if text or not continued:
            level = Level.INFO if self._level is not Level.INFO and is_bar(text) else self._level
            self._logger.say(level, text, {"continued": True} if continued else self._metadata)


@dataclass(slots=True)
class _Row:
    """One row of the output: its last picture, if that is not logged yet, and the progress that it shows."""

    text: str | None = None
    words: str | None = None
    bar: "_Redrawn | None" = None
    taken: bool = False
    cleared: bool = False
    ended: bool = False

    def shows_other(self, text: str) -> bool:
        """Whether its picture is the same line with other numbers."""
        return self.text is not None and self.text != text and self.words == words_of(text)


class _Redrawn(Progress):
    """A line that is drawn again and again; its entries say what the picture shows."""

    def __init__(self, logger: TaskLogger, picture: str, metadata: dict[str, Any]) -> None:
        # Masked before a label is cut off it.
        label, unit, _, total = _read(logger.masker(picture))
        super().__init__(logger, label, total, unit)
        self._picture = picture
        self._metadata = metadata

    def draw(self, picture: str) -> None:
        """Another picture is to be seen, also after the line had ended."""
        self._done = False
        current = self._look(picture)
        # Without a number, what is counted are the pictures.
        self.update(self.current + 1 if current is None else current)

    @property
    def is_complete(self) -> bool:
        """Whether it shows its end, or no number of which it could not be the end."""
        return self.total is None or self.current >= self.total

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
    text = CONTROL.sub("", picture)
    total: float | None
    if found := PERCENT.search(text):
        unit, current, total = "%", _number(found[1]), 100
    elif found := OF.search(text):
        unit, current, total = "", _number(found[1]), _number(found[2])
    else:
        return text.strip()[:LABEL_CHARACTERS_MAX] or "progress", "", None, None
    label = text[: found.start()].strip(" \t:|[(-")
    return label[:LABEL_CHARACTERS_MAX] or "progress", unit, current, total


def _number(digits: str) -> float | None:
    number = as_number(digits.replace(",", ""))
    return int(number) if number is not None and number.is_integer() else number
