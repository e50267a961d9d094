"""
How entries look in a terminal, in a pipe and as NDJSON.

A log is data from anywhere, so nothing in it may speak to the terminal: control characters are
shown and not sent, and a line break in a message begins an indented line that cannot be taken
for an entry. In a pipe the text is plain and whole.

A terminal's entries have the time of day, in UTC as everywhere; a line before the first of each
day says which. A long line is left to the terminal, which wraps it anew when it is made wider
and gives it back as one line when it is copied.
"""

import codecs
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self, TextIO

import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from taskd.cli.fold_tracebacks import folded
from taskd.system.stdio import say
from taskd.text.escape import shown, shown_json

Json = dict[str, Any]

LEVEL_STYLES = {"DEBUG": "dim", "INFO": "green", "WARNING": "yellow", "ERROR": "bold red"}
INDENT = " " * 4
GROUP_INDENT = " " * 2
# Deeper is as deep: groups whose end a filter leaves out must not push the text off the screen.
GROUP_DEPTH_MAX = 10
IN_THE_MESSAGE = frozenset({"progress", "group", "exception", "continued"})
# A command's lines come from its stdout unless they are marked.
USUAL_STREAM = "stdout"


class Printer(Protocol):
    """Prints one log: its entries in order, and the progress that is not stored."""

    def entries(self, entries: list[Json]) -> None: ...
    def progress(self, source: str, progress: Json) -> None: ...
    def notice(self, words: str) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def export_to(stream: TextIO, format: str | None) -> "BinaryIO | ShownStream":
    """Return where an export goes on `stream`: its bytes as they are, or shown if it is a terminal."""
    if not stream.isatty():
        return stream.buffer
    return ShownStream(in_utf_8(stream), shown_json) if format == "ndjson" else ShownStream(stream)


def make_printer(output: str, *, live: bool = False, seq: bool = False) -> Printer:
    """The printer for `--output`; `live` where the log is followed, so that bars make sense; `seq`: show it."""
    if output == "ndjson":
        shown_to = shown_json if sys.stdout.isatty() else str
        return StreamPrinter(in_utf_8(sys.stdout), lambda entry: shown_to(orjson.dumps(entry).decode()))
    if sys.stdout.isatty():
        return TerminalPrinter(terminal(sys.stdout), live=live, seq=seq)
    groups = Groups()
    return StreamPrinter(sys.stdout, lambda entry: "\n".join(_plain_lines(entry, groups.lead(entry), seq)))


def in_utf_8(stream: TextIO) -> TextIO:
    """Return `stream` in the one encoding that JSON has (RFC 8259, 8.1), whatever the terminal's is."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    return stream


def terminal(stream: TextIO) -> Console:
    """A console on `stream` that prints text as it is, without colours where NO_COLOR is set."""
    return Console(
        file=stream,
        color_system=None if os.environ.get("NO_COLOR") else "auto",
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
    )


class Groups:
    """The groups that are open in what has been printed of one log, by id."""

    def __init__(self) -> None:
        self._open: list[object] = []

    def lead(self, entry: Json) -> str:
        """What stands before the entry's message: two spaces for each group that it is in, and the mark of a start."""
        group = (entry["metadata"] or {}).get("group")
        told = group if isinstance(group, dict) else {}
        if told.get("event") == "end" and told.get("id") in self._open:
            self._open.remove(told.get("id"))
        indent = GROUP_INDENT * min(len(self._open), GROUP_DEPTH_MAX)
        if told.get("event") != "start":
            return indent
        self._open.append(told.get("id"))
        return f"{indent}▸ "


class StreamPrinter:
    """One entry after another as text, at once: for pipes and files."""

    def __init__(self, stream: TextIO, line: Any) -> None:
        self._stream = stream
        self._line = line

    def entries(self, entries: list[Json]) -> None:
        self._stream.writelines(f"{self._line(entry)}\n" for entry in entries)
        self._stream.flush()

    def progress(self, source: str, progress: Json) -> None:
        """Nothing: what matters of it is stored, and comes as entries."""

    def notice(self, words: str) -> None:
        """A word to the person, beside the log."""
        say(words)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        pass


class ShownStream:
    """Bytes of text to a terminal: line by line as they are, with what a terminal would obey made visible."""

    def __init__(self, stream: TextIO, show: Callable[[str], str] = shown) -> None:
        self._stream = stream
        self._show = show
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def write(self, data: bytes) -> object:
        lines = self._decoder.decode(data).split("\n")
        return self._stream.write("\n".join(map(self._show, lines)))

    def flush(self) -> None:
        self._stream.flush()


class TerminalPrinter:
    """Entries in colour, and below them a bar for each progress that runs now."""

    def __init__(self, console: Console, *, live: bool, seq: bool = False) -> None:
        self._console = console
        self._live = live
        self._seq = seq
        self._groups = Groups()
        self._day = ""
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[amount]}", markup=False),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._bar_of: dict[str, TaskID] = {}

    def entries(self, entries: list[Json]) -> None:
        for entry in entries:
            progress = (entry["metadata"] or {}).get("progress") if self._live else None
            if isinstance(progress, dict):
                self.progress(entry["source"], progress)
                if not progress.get("done"):
                    continue
            self._begin_day(entry["timestamp"][:10])
            for line in _coloured_lines(entry, self._groups.lead(entry), self._seq):
                self._console.print(line)

    def _begin_day(self, day: str) -> None:
        if day != self._day:
            self._console.print(Text(f"{day} UTC", style="dim"))
            self._day = day

    def notice(self, words: str) -> None:
        """A word to the person, above the bars as the entries are."""
        self._console.print(Text(f"taskd: {shown(words)}", style="dim"))

    def progress(self, source: str, progress: Json) -> None:
        key = f"{source} {progress.get('id')}"
        if progress.get("done"):
            self._remove(key)
            return
        if key not in self._bar_of:
            self._bars.start()
            self._bar_of[key] = self._bars.add_task(shown(f"{source}: {progress.get('label', '')}"), amount="")
        self._bars.update(
            self._bar_of[key],
            total=_numeric(progress.get("total")),
            completed=_numeric(progress.get("current")) or 0,
            amount=shown(amount(progress)),
        )

    def _remove(self, key: str) -> None:
        bar = self._bar_of.pop(key, None)
        if bar is not None:
            self._bars.remove_task(bar)
        if not self._bar_of:
            self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bars.live.is_started:
            self._bars.stop()


def amount(progress: Json) -> str:
    """How far a progress is: `3/12 files (25 %)`, or `3 files` where no total is known."""
    current, total = _numeric(progress.get("current")), _numeric(progress.get("total"))
    unit = str(progress.get("unit") or "")
    if current is None or not total or total < 0:
        return " ".join(part for part in (_counted(current), unit) if part)
    return " ".join(
        part for part in (f"{_counted(current)}/{_counted(total)}", unit, f"({current / total:.0%})") if part
    )


def _numeric(value: object) -> float | None:
    """`value` where it is a number: metadata may hold anything under any name."""
    return value if isinstance(value, int | float) else None


def _counted(value: float | None) -> str:
    return "?" if value is None else f"{value:,.10g}"


def _plain_lines(entry: Json, lead: str, seq: bool) -> Iterator[str]:
    """The whole timestamp, the level, the source, the message and the metadata, with nothing escaped."""
    first, *more = _told(entry).split("\n")
    said = " ".join(part for part in (first, described(entry["metadata"])) if part)
    yield f"{_seq_of(entry, seq)}{entry['timestamp']} {entry['level']:<7} {shown(entry['source'])}: {lead}{said}"
    yield from (INDENT + _beside(lead) + line for line in more)


def _coloured_lines(entry: Json, lead: str, seq: bool) -> Iterator[Text]:
    style = LEVEL_STYLES.get(entry["level"], "")
    first, *more = (shown(line) for line in _told(entry).split("\n"))
    line = Text.assemble(
        (f"{_seq_of(entry, seq)}{entry['timestamp'][11:23]} ", "dim"),
        (f"{entry['level']:<7} ", style),
        (f"{shown(entry['source'])}: ", "cyan"),
        (lead + first, "red" if entry["level"] == "ERROR" else ""),
        (" " + shown(described(entry["metadata"])), "dim"),
    )
    line.rstrip()
    yield line
    for part in more:
        yield Text(INDENT + _beside(lead) + part)


def _told(entry: Json) -> str:
    """The message, with the frames of its exception that are not the plugin's own folded."""
    raised = (entry["metadata"] or {}).get("exception")
    return folded(entry["message"], raised) if raised else str(entry["message"])


def _seq_of(entry: Json, seq: bool) -> str:
    return f"{entry['seq']:>6} " if seq else ""


def _beside(lead: str) -> str:
    """What stands before the further lines of a message whose first one has `lead`."""
    return " " * len(lead)


def described(metadata: Json | None) -> str:
    """The fields of an entry as `key=value`, but for those that its message tells already."""
    return " ".join(
        f"{shown(key)}={_value(value)}"
        for key, value in (metadata or {}).items()
        if key not in IN_THE_MESSAGE and not (key == "stream" and value == USUAL_STREAM)
    )


def _value(value: object) -> str:
    if isinstance(value, str) and value and not re.search(r"[\s\"=]", value):
        return value
    return orjson.dumps(value).decode()
