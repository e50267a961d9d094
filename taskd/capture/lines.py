"""
`Lines`: text that comes in pieces of any size, into lines.

A line ends with `\n`. What ends with `\r` is a *picture*, which the next one on that line
replaces: so programs draw progress. `\r\n` only ends a line. Programs with several bars move the
cursor up and down again; each text then has the `row` that it is in, counted from the first. A
backspace takes a digit or a character of a spinner away. A line longer than
`LINE_CHARACTERS_MAX` is handed over in parts, so that memory stays bounded; where a part is cut
nothing of a secret is cut in two, for half of one is not recognised.
"""

import re
from dataclasses import dataclass, field

from taskd.capture.bars import words_of
from taskd.text.masking import Masker

LINE_CHARACTERS_MAX = 1_048_576
# How far back a cut looks for the end of a word: a password in a URL has no space in it.
WORD_CHARACTERS_MAX = 4_096

# To the beginning of the line, or up or down by some lines.
_MOVE = re.compile(r"\r|\x1b\[(?:[01]?G|(\d{0,3})([ABEF]))")
# The beginning of one, of which the rest may come with the next piece.
_MOVE_BEGUN = re.compile(r"\x1b(?:\[\d{0,3})?\Z")
_MOVE_CHARACTERS_MAX = 6


# Not frozen: a frozen dataclass takes four times as long to make. Nothing changes a line.
@dataclass(slots=True)
class Line:
    """
    What came: a line, or a part of one; or a `picture`.

    `drawn` marks a line that is the picture before it once more, and ended; `continued` a part
    that is not the first; `returned` a line that the cursor had gone back to the beginning of.
    """

    text: str
    picture: bool = False
    drawn: bool = False
    continued: bool = False
    returned: bool = field(default=False, compare=False)
    row: int = field(default=0, compare=False)


class Lines:
    """One stream's text on its way into lines; not to be used by two threads at once."""

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._begun: list[str] = []
        self._begun_size = 0
        self._picture = ""
        self._continued = False
        self._returned = False
        self._held = ""
        self._bottom = 0
        # How many rows the cursor is above the last one.
        self._up = 0

    def feed(self, text: str) -> list[Line]:
        """What `text` completes."""
        if self._held or "\x1b" in text[-_MOVE_CHARACTERS_MAX:]:
            text = self._hold(text)
        whole, newline, rest = text.rpartition("\n")
        if not newline:
            return self._draw(text)
        lines: list[Line] = []
        for line in whole.split("\n"):
            lines += self._draw(line)
            if self._up:
                lines += self._down()
            else:
                lines.append(self._line())
        return lines + self._draw(rest)

    def end(self) -> list[Line]:
        """What the text ended with, without an end of line."""
        self._begin(self._held)
        self._held = ""
        return [self._line()] if self._begun or self._picture else []

    def _hold(self, text: str) -> str:
        """Keep the beginning of a movement for the next piece; return the text before it."""
        text = self._held + text
        begun = _MOVE_BEGUN.search(text, max(0, len(text) - _MOVE_CHARACTERS_MAX))
        self._held = begun[0] if begun else ""
        return text[: begun.start()] if begun else text

    def _draw(self, text: str) -> list[Line]:
        """Take what has no end of line in it."""
        pictures: list[Line] = []
        if "\r" in text or "\x1b[" in text:
            start = 0
            for move in _MOVE.finditer(text):
                self._begin(text[start : move.start()])
                start = move.end()
                pictures += self._drawing()
                self._move(int(move[1] or 1) if move[2] else 0, move[2])
            text = text[start:]
        self._begin(text)
        return pictures + self._overflow()

    def _drawing(self) -> list[Line]:
        # Nothing was drawn: the cursor only moves, once more.
        if not self._begun:
            return []
        self._picture = self._complete()
        return [Line(self._picture, picture=True, row=self._bottom - self._up)]

    def _move(self, rows: int, direction: str | None) -> None:
        before, self._returned = self._up, True
        if direction:
            up = self._up + (rows if direction in "AF" else -rows)
            self._up = min(max(up, 0), self._bottom)
        if self._up != before:
            self._picture = ""

    def _down(self) -> list[Line]:
        """An end of line above the last row: the cursor goes down, and the row may be drawn again."""
        drawn = self._drawing()
        self._move(1, "B")
        return drawn

    def _line(self) -> Line:
        text, picture, continued, returned = self._complete(), self._picture, self._continued, self._returned
        self._picture, self._continued, self._returned = "", False, False
        row, self._bottom, self._up = self._bottom - self._up, self._bottom + 1, 0
        if not text and picture:
            return Line(picture, drawn=True, returned=returned, row=row)
        return Line(text, continued=continued, returned=returned, row=row)

    def _begin(self, text: str) -> None:
        if text:
            self._begun.append(text)
            self._begun_size += len(text)

    def _complete(self) -> str:
        text = "".join(self._begun)
        self._begun.clear()
        self._begun_size = 0
        return _typed(text) if "\b" in text else text

    def _overflow(self) -> list[Line]:
        """The parts of a line that has grown too long."""
        if self._begun_size < LINE_CHARACTERS_MAX:
            return []
        parts: list[Line] = []
        # Masked once: it may be very long.
        text, start = self._masker(self._complete()), 0
        while len(text) - start >= LINE_CHARACTERS_MAX:
            end = self._cut(text, start)
            parts.append(Line(text[start:end], continued=self._continued, row=-1))
            self._continued, start = True, end
        self._begin(text[start:])
        return parts

    def _cut(self, text: str, start: int) -> int:
        """Where to cut a text that is masked: what lies behind may be the beginning of a secret."""
        size = LINE_CHARACTERS_MAX - min(self._masker.longest, LINE_CHARACTERS_MAX // 2)
        end = start + size
        space = text.rfind(" ", max(start, end - WORD_CHARACTERS_MAX), end)
        return end if space <= start else space


def _typed(text: str) -> str:
    """Apply the backspaces, unless a word were lost: then the text stays as it is."""
    cells: list[str] = []
    place = 0
    for character in text:
        if character == "\b":
            place = max(0, place - 1)
        else:
            cells[place : place + 1] = [character]
            place += 1
    typed = "".join(cells)
    return typed if words_of(typed) == words_of(text.replace("\b", "")) else text
