"""
`LogEntry`, the one thing that everything here moves, and its one encoding.

An entry is encoded once, when it is emitted. The same bytes then serve every reader's
frame and page, so nothing on the way encodes it again. An entry read back from the store is
encoded from the same values to the same bytes: equal entries have equal bytes.

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

# The source of the entries that taskd itself adds to a log.
SYSTEM = "system"


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

# By name: to look one up takes a tenth of what calling `Level` does.
LEVELS = {level.value: level for level in Level}
_RANKS = {level: rank for rank, level in enumerate(Level)}


_METADATA = b',"metadata":'
_METADATA_BYTES = len(_METADATA)
_HEAD_BYTES_MIN = len('{"seq":1,"timestamp":"2026-11-23T14:11:42.123456Z","level":"INFO","source":"","message":""')


# Not frozen: a frozen dataclass takes four times as long to make. Nothing changes an entry.
@dataclass(slots=True)
class LogEntry:
    """
    What a source said, at its place in its task's log.

    `seq` counts from 1 without holes; `encoded` is the entry as the API shows it, a JSON object
    as bytes, and the one place where its metadata is.
    """

    seq: int
    timestamp: str
    level: Level
    source: str
    message: str
    encoded: bytes

    @property
    def metadata_json(self) -> str | None:
        """The structured fields, a JSON object as text, or None."""
        encoded = self.encoded
        # The first of these bytes, for in the texts before it every quote has a backslash; and not
        # before the message could have ended, for it is as long in JSON at least.
        start = encoded.index(_METADATA, _HEAD_BYTES_MIN + len(self.message)) + _METADATA_BYTES
        text = encoded[start:-1]
        return None if text == b"null" else text.decode()

    @property
    def metadata(self) -> dict[str, Any] | None:
        """The structured fields, decoded anew at each call."""
        text = self.metadata_json
        return None if text is None else orjson.loads(text)

    @classmethod
    def make(
        cls, seq: int, timestamp: str, level: Level, source: str, message: str, metadata_json: bytes | None
    ) -> "LogEntry":
        """Encode and make an entry. The values are sanitised already (`taskd.text.sanitise`)."""
        return cls.of_body(seq, timestamp, level, source, message, body_of(message, metadata_json))

    @classmethod
    def of_body(cls, seq: int, timestamp: str, level: Level, source: str, message: str, body: bytes) -> "LogEntry":
        """The same where the body (`body_of`) is made already."""
        return cls(seq, timestamp, level, source, message, encode(seq, timestamp, kind_of(level, source), body))

    def with_seq(self, seq: int) -> "LogEntry":
        """The same at another place."""
        rest = self.encoded[self.encoded.index(b',"timestamp"') :]
        encoded = b'{"seq":%d%b' % (seq, rest)
        return LogEntry(seq, self.timestamp, self.level, self.source, self.message, encoded)

    @classmethod
    def from_row(cls, row: tuple[int, str, str, str, str, str | None]) -> "LogEntry":
        """An entry from the store's columns `seq, timestamp, level, source, message, metadata_json`."""
        seq, timestamp, name, source, message, metadata_json = row
        level = LEVELS[name]
        # What `encode` and `body_of` make, in one go: it takes two thirds, and a page has a thousand.
        encoded = (
            f'{{"seq":{seq},"timestamp":"{timestamp}{kind_of(level, source)}'
            f'"message":{_dumps(message).decode()},"metadata":{metadata_json or "null"}}}'
        )
        return cls(seq, timestamp, level, source, message, encoded.encode())


@functools.lru_cache(4_096)
def kind_of(level: Level, source: str) -> str:
    """The part of an encoded entry that those of one level and source share."""
    return f'","level":"{level.value}","source":{_dumps(source).decode()},'


def body_of(message: str, metadata_json: bytes | None) -> bytes:
    """The part of an encoded entry that its call decides, as a JSON object of `message` and `metadata`."""
    return b'{"message":%b,"metadata":%b}' % (_dumps(message), metadata_json or b"null")


def encode(seq: int, timestamp: str, kind: str, body: bytes) -> bytes:
    """An entry as the API shows it, of its parts."""
    # A copy, which is wanted: what orjson returns keeps the 4 KiB that it was written into for
    # as long as it lives, and a hundred thousand entries may wait.
    return f'{{"seq":{seq},"timestamp":"{timestamp}{kind}'.encode() + body[1:]


# `strftime` costs more than the rest of an entry, and most entries share their millisecond with
# the one before: when it began, in ns, and its text. One tuple, replaced whole, so that a thread
# never sees half of it.
_millisecond: tuple[int, str] = (0, "1970-01-01T00:00:00.000")
_MICROSECONDS = [f"{us:03}Z" for us in range(1_000)]


def timestamp_now() -> str:
    """The time now, as entries and tasks carry it: `2026-11-23T14:11:42.123456Z`."""
    now = _time_ns()
    began, text = _millisecond
    if 0 <= now - began < 1_000_000:
        return text + _MICROSECONDS[(now - began) // 1_000]
    return timestamp_of(now // 1_000)


def timestamp_of(us: int) -> str:
    """`us` microseconds after 1970 as text: `2026-11-23T14:11:42.123456Z`."""
    global _millisecond
    ms, us = divmod(us, 1_000)
    text = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(ms // 1_000))}.{ms % 1_000:03}"
    _millisecond = (ms * 1_000_000, text)
    return text + _MICROSECONDS[us]
