"""
`Lines`: text that comes in pieces of any size, into lines.

A line ends with `\n`. What ends with `\r` is a *picture*, which the next one on that line
replaces: so programs draw progress. `\r\n` only ends a line. A line longer than
`LINE_CHARACTERS_MAX` is handed over in parts, so that memory stays bounded; where a part is cut
nothing of a secret is cut in two, for half of one is not recognised.
"""

from dataclasses import dataclass

from taskd.masking import Masker

LINE_CHARACTERS_MAX = 1_048_576
# How far back a cut looks for the end of a word: a password in a URL has no space in it.
WORD_CHARACTERS_MAX = 4_096


@dataclass(frozen=True, slots=True)
class Line:
    """
    What came: a line, or a part of one; or a `picture`.

    `drawn` marks a line that is the picture before it once more, and ended; `continued` a part
    that is not the first.
    """

    text: str
    picture: bool = False
    drawn: bool = False
    continued: bool = False


class Lines:
    """One stream's text on its way into lines; not to be used by two threads at once."""

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._begun: list[str] = []
        self._begun_size = 0
        self._picture = ""
        self._continued = False

    def feed(self, text: str) -> list[Line]:
        """What `text` completes."""
        whole, newline, rest = text.rpartition("\n")
        if not newline:
            return self._draw(text)
        lines: list[Line] = []
        for line in whole.split("\n"):
            lines += self._draw(line)
            lines.append(self._line())
        return lines + self._draw(rest)

    def end(self) -> list[Line]:
        """What the text ended with, without an end of line."""
        return [self._line()] if self._begun or self._picture else []

    def _draw(self, text: str) -> list[Line]:
        """Take what has no end of line in it."""
        *pictures, rest = text.split("\r") if "\r" in text else (text,)
        drawn = [self._drawing(picture) for picture in pictures]
        self._begin(rest)
        return [line for line in drawn if line is not None] + self._overflow()

    def _drawing(self, text: str) -> Line | None:
        self._begin(text)
        # Nothing was drawn: the cursor only goes back, once more.
        if not self._begun:
            return None
        self._picture = self._complete()
        return Line(self._picture, picture=True)

    def _line(self) -> Line:
        text, picture, continued = self._complete(), self._picture, self._continued
        self._picture, self._continued = "", False
        if not text and picture:
            return Line(picture, drawn=True)
        return Line(text, continued=continued)

    def _begin(self, text: str) -> None:
        if text:
            self._begun.append(text)
            self._begun_size += len(text)

    def _complete(self) -> str:
        text = "".join(self._begun)
        self._begun.clear()
        self._begun_size = 0
        return text

    def _overflow(self) -> list[Line]:
        """The parts of a line that has grown too long."""
        if self._begun_size < LINE_CHARACTERS_MAX:
            return []
        parts: list[Line] = []
        # Masked once: it may be very long.
        text, start = self._masker(self._complete()), 0
        while len(text) - start >= LINE_CHARACTERS_MAX:
            end = self._cut(text, start)
            parts.append(Line(text[start:end], continued=self._continued))
            self._continued, start = True, end
        self._begin(text[start:])
        return parts

    def _cut(self, text: str, start: int) -> int:
        """Where to cut a text that is masked: what lies behind may be the beginning of a secret."""
        size = LINE_CHARACTERS_MAX - min(self._masker.longest, LINE_CHARACTERS_MAX // 2)
        end = start + size
        space = text.rfind(" ", max(start, end - WORD_CHARACTERS_MAX), end)
        return end if space <= start else space
