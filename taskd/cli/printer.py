"""
Print entries to a terminal, to a pipe and as NDJSON.

A log may hold text from anywhere, so none of it may control the terminal. Control characters are shown
escaped, and a line break in a message begins an indented line that cannot be mistaken for an entry. In a
pipe the text is plain and complete.

On a terminal an entry has the time of day, in UTC as everywhere, and a line with the date precedes the
first entry of each day. Long lines are not broken: the terminal wraps them, wraps them again when its
width changes, and copies each as one line.
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
# Deeper groups are indented no further: if a filter hides the ends of groups, the text must stay on the screen.
GROUP_DEPTH_MAX = 10
IN_THE_MESSAGE = frozenset({"progress", "group", "exception", "continued"})
# Lines of a command usually come from its stdout, so this value of the field `stream` is not printed.
USUAL_STREAM = "stdout"


class Printer(Protocol):
    """The printer of one log: its entries in order, and the progress that is not stored."""

    def entries(self, entries: list[Json]) -> None: ...
    def progress(self, source: str, progress: Json) -> None: ...
    def notice(self, words: str) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def export_to(stream: TextIO, format: str | None) -> "BinaryIO | ShownStream":
    """Return the sink of an export to `stream`: the raw bytes, or escaped text if `stream` is a terminal."""
    if not stream.isatty():
        return stream.buffer
    return ShownStream(in_utf_8(stream), shown_json) if format == "ndjson" else ShownStream(stream)


def make_printer(output: str, *, live: bool = False, seq: bool = False) -> Printer:
    """Return the printer for `--output`. `live` shows progress bars, for a followed log; `seq` shows each seq."""
    if output == "ndjson":
        shown_to = shown_json if sys.stdout.isatty() else str
        return StreamPrinter(in_utf_8(sys.stdout), lambda entry: shown_to(orjson.dumps(entry).decode()))
    if sys.stdout.isatty():
        return TerminalPrinter(terminal(sys.stdout), live=live, seq=seq)
    groups = Groups()
    return StreamPrinter(sys.stdout, lambda entry: "\n".join(_plain_lines(entry, groups.lead(entry), seq)))


def in_utf_8(stream: TextIO) -> TextIO:
    """Return `stream` in UTF-8, the only encoding of JSON (RFC 8259, 8.1), whatever the terminal's encoding is."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    return stream


def terminal(stream: TextIO) -> Console:
    """Return a console on `stream` that prints text unchanged, without colours if NO_COLOR is set."""
    return Console(
        file=stream,
        color_system=None if os.environ.get("NO_COLOR") else "auto",
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
    )


class Groups:
    """The ids of the groups that are open after the entries printed so far."""

    def __init__(self) -> None:
        self._open: list[object] = []

    def lead(self, entry: Json) -> str:
        """Return the prefix of the entry's message: two spaces for each open group, and a mark if it starts one."""
        group = (entry["metadata"] or {}).get("group")
        group = group if isinstance(group, dict) else {}
        if group.get("event") == "end" and group.get("id") in self._open:
            self._open.remove(group.get("id"))
        indent = GROUP_INDENT * min(len(self._open), GROUP_DEPTH_MAX)
        if group.get("event") != "start":
            return indent
        self._open.append(group.get("id"))
        return f"{indent}▸ "


class StreamPrinter:
    """Prints entries as text, one after another and at once: for pipes and files."""

    def __init__(self, stream: TextIO, line: Any) -> None:
        self._stream = stream
        self._line = line

    def entries(self, entries: list[Json]) -> None:
        self._stream.writelines(f"{self._line(entry)}\n" for entry in entries)
        self._stream.flush()

    def progress(self, source: str, progress: Json) -> None:
        """Print nothing: the stored part of a progress arrives as entries."""

    def notice(self, words: str) -> None:
        """Print a notice to stderr, beside the log."""
        say(words)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        pass


class ShownStream:
    """Writes the bytes of a text to a terminal, line by line, with control characters escaped."""

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
    """Prints entries in colour, and below them a bar for each running progress."""

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
        """Print a notice above the bars, like an entry."""
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
    """Return the state of a progress: `3/12 files (25%)`, or `3 files` if the total is unknown."""
    current, total = _numeric(progress.get("current")), _numeric(progress.get("total"))
    unit = str(progress.get("unit") or "")
    if current is None or not total or total < 0:
        return " ".join(part for part in (_counted(current), unit) if part)
    return " ".join(
        part for part in (f"{_counted(current)}/{_counted(total)}", unit, f"({current / total:.0%})") if part
    )


def _numeric(value: object) -> float | None:
    """Return `value` if it is a number, else None: metadata may hold anything under any name."""
    return value if isinstance(value, int | float) else None


def _counted(value: float | None) -> str:
    return "?" if value is None else f"{value:,.10g}"


def _plain_lines(entry: Json, lead: str, seq: bool) -> Iterator[str]:
    """Yield an entry's lines: whole timestamp, level, source, message, metadata. The message is not escaped."""
    first, *more = _message(entry).split("\n")
    text = " ".join(part for part in (first, described(entry["metadata"])) if part)
    yield f"{_seq_of(entry, seq)}{entry['timestamp']} {entry['level']:<7} {shown(entry['source'])}: {lead}{text}"
    yield from (INDENT + " " * len(lead) + line for line in more)


def _coloured_lines(entry: Json, lead: str, seq: bool) -> Iterator[Text]:
    style = LEVEL_STYLES.get(entry["level"], "")
    first, *more = (shown(line) for line in _message(entry).split("\n"))
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
        yield Text(INDENT + " " * len(lead) + part)


def _message(entry: Json) -> str:
    """Return the message, with those frames of its exception folded that are not the plugin's own."""
    raised = (entry["metadata"] or {}).get("exception")
    return folded(entry["message"], raised) if raised else str(entry["message"])


def _seq_of(entry: Json, seq: bool) -> str:
    return f"{entry['seq']:>6} " if seq else ""


def described(metadata: Json | None) -> str:
    """Return the fields of an entry as `key=value`, without those that its message has already."""
    return " ".join(
        f"{shown(key)}={_value(value)}"
        for key, value in (metadata or {}).items()
        if key not in IN_THE_MESSAGE and not (key == "stream" and value == USUAL_STREAM)
    )


def _value(value: object) -> str:
    if isinstance(value, str) and value and not re.search(r"[\s\"=]", value):
        return value
    return orjson.dumps(value).decode()
