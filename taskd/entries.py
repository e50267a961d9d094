"""
`LogEntry`, the one thing that everything here moves, and its one encoding.

An entry is encoded once, when it is emitted. The same bytes then serve every reader's
frame and page, so nothing on the way encodes it again. An entry read back from the store is
encoded by the same function from the same values: equal entries have equal bytes.

Timestamps are text of one width, UTC with microseconds and `Z`, so comparing them as text
compares them as times: in Python, in SQLite, and so in both spellings of a filter.
They are for people. Order is `seq`: clocks jump and repeat.
"""

import functools
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson


class Level(StrEnum):
    """How much an entry matters, in four steps."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"

    @property
    def rank(self) -> int:
        """0 for DEBUG up to 3 for ERROR, for `min_level`."""
        return _RANKS[self]


# Looked up once: an entry takes a microsecond.
_dumps = orjson.dumps
_time_ns = time.time_ns

_RANKS = {level: rank for rank, level in enumerate(Level)}


@functools.lru_cache(1_024)
def _source_json(source: str) -> str:
    return _dumps(source).decode()


# Not frozen: a frozen dataclass takes four times as long to make. Nothing changes an entry.
@dataclass(slots=True)
class LogEntry:
    """
    What a source said, at its place in its task's log.

    `seq` counts from 1 without holes. `metadata_json` is a JSON object as text, or None;
    `encoded` is the entry as the API shows it, a JSON object as bytes.
    """

    seq: int
    timestamp: str
    level: Level
    source: str
    message: str
    metadata_json: str | None
    encoded: bytes

    @property
    def metadata(self) -> dict[str, Any] | None:
        """The structured fields, decoded anew at each call."""
        return None if self.metadata_json is None else orjson.loads(self.metadata_json)

    @classmethod
    def make(
        cls, seq: int, timestamp: str, level: Level, source: str, message: str, metadata_json: bytes | None
    ) -> "LogEntry":
        """Encode and make an entry. The values are sanitised already (`taskd.sanitise`)."""
        as_text = None if metadata_json is None else metadata_json.decode()
        # Put together here, of parts that are JSON already: what orjson returns keeps the 4 KiB
        # that it was written into for as long as it lives, and a hundred thousand may wait.
        encoded = (
            f'{{"seq":{seq},"timestamp":"{timestamp}","level":"{level._value_}","source":{_source_json(source)},'
            f'"message":{_dumps(message).decode()},"metadata":{as_text or "null"}}}'
        ).encode()
        return cls(seq, timestamp, level, source, message, as_text, encoded)

    def with_seq(self, seq: int) -> "LogEntry":
        """The same at another place."""
        metadata = None if self.metadata_json is None else self.metadata_json.encode()
        return LogEntry.make(seq, self.timestamp, self.level, self.source, self.message, metadata)

    @classmethod
    def from_row(cls, row: tuple[int, str, str, str, str, str | None]) -> "LogEntry":
        """An entry from the store's columns `seq, timestamp, level, source, message, metadata_json`."""
        seq, timestamp, level, source, message, metadata_json = row
        metadata = None if metadata_json is None else metadata_json.encode()
        return cls.make(seq, timestamp, Level(level), source, message, metadata)


# `strftime` costs more than the rest of an entry, and most entries share their second with
# the one before. One tuple, replaced whole, so that a thread never sees half of it.
_last_second: tuple[int, str] = (0, "1970-01-01T00:00:00.")


def timestamp_now() -> str:
    """The time now, as entries and tasks carry it: `2026-11-23T14:11:42.123456Z`."""
    us = _time_ns() // 1_000
    known, text = _last_second
    # `timestamp_of`, once more: it is made for every entry.
    return f"{text}{us % 1_000_000:06d}Z" if us // 1_000_000 == known else timestamp_of(us)


def timestamp_of(us: int) -> str:
    """`us` microseconds after 1970 as text: `2026-11-23T14:11:42.123456Z`."""
    global _last_second
    seconds = us // 1_000_000
    known, text = _last_second
    if known != seconds:
        text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(seconds))
        _last_second = (seconds, text)
    return f"{text}{us % 1_000_000:06d}Z"
