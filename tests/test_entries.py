"""An entry has one encoding, and its timestamp sorts as the time it stands for."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
from hypothesis import given
from hypothesis import strategies as st

from taskd.entries import Level, LogEntry, timestamp_now, timestamp_of

# The years 1970 to 9999, in microseconds.
MICROSECONDS = st.integers(0, 253_402_300_799_999_999)
TIMESTAMP = "2026-11-23T14:11:42.123456Z"


def entry(message: str = "hello", metadata_json: bytes | None = None) -> LogEntry:
    return LogEntry.make(7, TIMESTAMP, Level.WARNING, "git", message, metadata_json)


def test_an_entry_is_encoded_as_the_api_shows_it() -> None:
    """The bytes are one JSON object with the contract's six fields."""
    assert orjson.loads(entry("ok", b'{"a":[1]}').encoded) == {
        "seq": 7,
        "timestamp": TIMESTAMP,
        "level": "WARNING",
        "source": "git",
        "message": "ok",
        "metadata": {"a": [1]},
    }


def test_metadata_left_out_is_null() -> None:
    """An entry without fields says so with null, not with an empty object."""
    assert orjson.loads(entry().encoded)["metadata"] is None
    assert entry().metadata is None


@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), st.none() | st.just(b'{"k":"\xc3\xa9"}')
)
def test_an_entry_from_the_store_has_the_bytes_it_was_stored_with(message: str, metadata_json: bytes | None) -> None:
    """Equal values have equal bytes, so a page and a live frame show the same."""
    made = entry(message, metadata_json)
    row = (made.seq, made.timestamp, made.level.value, made.source, made.message, made.metadata_json)
    assert LogEntry.from_row(row) == made


def test_metadata_is_decoded_anew_each_time() -> None:
    """Whoever changes what it was given changes nobody else's entry."""
    made = entry(metadata_json=b'{"a":1}')
    assert made.metadata is not None
    made.metadata["a"] = 2
    assert made.metadata == {"a": 1}


def test_levels_rise_from_debug_to_error() -> None:
    """The rank orders the four levels as `min_level` needs it."""
    assert [level.rank for level in (Level.DEBUG, Level.INFO, Level.WARNING, Level.ERROR)] == [0, 1, 2, 3]


@given(MICROSECONDS)
def test_a_timestamp_is_utc_with_microseconds(us: int) -> None:
    """The text is the moment in ISO 8601, always of one width."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)
    assert timestamp_of(us) == moment.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


@given(MICROSECONDS, MICROSECONDS)
def test_timestamps_compare_as_the_times_do(one: int, other: int) -> None:
    """Comparing two as text is comparing the two moments."""
    assert (timestamp_of(one) < timestamp_of(other)) == (one < other)


def test_the_time_now_is_now() -> None:
    """What entries carry is the wall clock's time."""
    before = datetime.now(UTC)
    assert before <= datetime.fromisoformat(timestamp_now()) <= datetime.now(UTC)


def test_an_entry_keeps_no_more_memory_than_it_needs() -> None:
    """A hundred thousand may wait: the encoder's own buffer of 4 KiB must not stay with each."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    kept = [LogEntry.make(seq, TIMESTAMP, Level.INFO, "mine", "said", b'{"n":1}') for seq in range(30_000)]
    assert (resident() - before) / len(kept) < 2_000
