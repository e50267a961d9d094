"""
A log as a file that says what it is: text, NDJSON or CSV.

The first lines state the task, the filter and the log's last seq as of the start, of which the
export is; the last line states how many entries there are and that it is `complete`. What was
broken off has no such line, or one that says `complete: false`: the two cannot be confused. In
text and CSV these lines begin with `#`, which no entry does.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field

import orjson

from taskd.entries import LogEntry
from taskd.query.parameters import Format

COLUMNS = ("seq", "timestamp", "level", "source", "message", "metadata")
MEDIA_TYPES: dict[Format, str] = {
    "text": "text/plain; charset=utf-8",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
}
ENDINGS: dict[Format, str] = {"text": "log", "ndjson": "ndjson", "csv": "csv"}

_CONTINUED = "\n    "


@dataclass(slots=True)
class Export:
    """One export: of which log and matches. `count` and `complete` are known as it goes on."""

    task_id: str
    plugin: str
    asked: Sequence[tuple[str, str]]
    last_seq: int
    format: Format
    count: int = field(default=0, init=False)
    complete: bool = field(default=False, init=False)

    async def body(self, pages: AsyncIterator[list[LogEntry]]) -> AsyncGenerator[bytes, None]:
        """The file, some bytes at a time. What `pages` raises ends it without its last line."""
        encode = _ENCODERS[self.format]
        yield self.head()
        async for entries in pages:
            self.count += len(entries)
            yield encode(entries)
        self.complete = True
        yield self.tail()

    def head(self) -> bytes:
        """The lines before the first entry."""
        asked: dict[str, list[str]] = {}
        for name, value in self.asked:
            asked.setdefault(name, []).append(value)
        if self.format == "ndjson":
            told = {"task": self.task_id, "plugin": self.plugin, "filter": asked, "last_seq": self.last_seq}
            return orjson.dumps(told, option=orjson.OPT_APPEND_NEWLINE)
        lines = (
            f"# task: {self.task_id} ({self.plugin})",
            f"# filter: {orjson.dumps(asked).decode() if asked else 'none'}",
            f"# last_seq: {self.last_seq}",
            *([",".join(COLUMNS)] if self.format == "csv" else []),
        )
        return "".join(f"{line}\n" for line in lines).encode()

    def tail(self) -> bytes:
        """The last line."""
        if self.format == "ndjson":
            told = {"count": self.count, "complete": self.complete}
            return orjson.dumps(told, option=orjson.OPT_APPEND_NEWLINE)
        return f"# count: {self.count}, complete: {'true' if self.complete else 'false'}\n".encode()


def _as_text(entries: Iterable[LogEntry]) -> bytes:
    return "".join([_text_line(entry) for entry in entries]).encode()


def _text_line(entry: LogEntry) -> str:
    message = entry.message
    if "\n" in message:
        message = message.replace("\n", _CONTINUED)
    metadata = entry.metadata_json
    behind = "" if metadata is None else f" {metadata}"
    return f"{entry.timestamp} {entry.level._value_:<7} {entry.source}: {message}{behind}\n"


def _as_ndjson(entries: Iterable[LogEntry]) -> bytes:
    return b"\n".join([*[entry.encoded for entry in entries], b""])


def _as_csv(entries: Iterable[LogEntry]) -> bytes:
    return "".join([_csv_line(entry) for entry in entries]).encode()


def _csv_line(entry: LogEntry) -> str:
    """As RFC 4180 has it. All that a task says is in quotes: then no message is taken for a number."""
    source, message = entry.source.replace('"', '""'), entry.message.replace('"', '""')
    metadata = (entry.metadata_json or "").replace('"', '""')
    return f'{entry.seq},{entry.timestamp},{entry.level._value_},"{source}","{message}","{metadata}"\n'


_ENCODERS: dict[Format, Callable[[Iterable[LogEntry]], bytes]] = {
    "text": _as_text,
    "ndjson": _as_ndjson,
    "csv": _as_csv,
}
