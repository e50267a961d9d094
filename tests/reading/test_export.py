"""An export says what it is, and that it is whole."""

import csv
import io
from collections.abc import AsyncIterator, Iterable

import orjson
import pytest

from taskd.entries import Level, LogEntry, timestamp_of
from taskd.query.parameters import Format
from taskd.reading.export import COLUMNS, Export

NASTY = [
    "plain",
    "two\nlines",
    '"quoted", with a comma',
    "# like a header",
    "Ünïcode 😀",
    "",
    "\x1b[31mred",
    "a\rb",
]
ENTRIES = [
    LogEntry.make(seq, timestamp_of(seq), Level.INFO, "s", message, b'{"n":%d}' % seq if seq % 2 else None)
    for seq, message in enumerate(NASTY, 1)
]


async def pages(entries: Iterable[LogEntry], fault: bool = False) -> AsyncIterator[list[LogEntry]]:
    for entry in entries:
        yield [entry]
    if fault:
        raise RuntimeError("the store is gone")


async def exported(form: Format, asked: list[tuple[str, str]] | None = None) -> str:
    export = Export("0198-id", "mine", asked or [], 99, form)
    return b"".join([chunk async for chunk in export.body(pages(ENTRIES))]).decode()


async def test_ndjson_has_a_header_the_entries_own_bytes_and_a_last_line() -> None:
    """Each line is an object; the entries are those of the API."""
    asked = [("level", "INFO"), ("search", "a"), ("search", "b")]
    head, *lines, tail = (await exported("ndjson", asked)).splitlines()
    filters = {"level": ["INFO"], "search": ["a", "b"]}
    assert orjson.loads(head) == {"task": "0198-id", "plugin": "mine", "filter": filters, "last_seq": 99}
    assert [line.encode() for line in lines] == [entry.encoded for entry in ENTRIES]
    assert orjson.loads(tail) == {"count": len(ENTRIES), "complete": True}


async def test_csv_is_read_back_as_it_was_said() -> None:
    """Quotes, commas and line breaks included; what is not a row begins with #."""
    text = await exported("csv")
    assert text.splitlines()[:4] == ["# task: 0198-id (mine)", "# filter: none", "# last_seq: 99", ",".join(COLUMNS)]
    assert text.endswith(f"# count: {len(NASTY)}, complete: true\n")
    rows = [row for row in csv.reader(io.StringIO(text, newline="")) if not row[0].startswith("#")][1:]
    assert [row[4] for row in rows] == NASTY
    assert rows[0] == ["1", timestamp_of(1), "INFO", "s", "plain", '{"n":1}']
    assert rows[1][5] == ""


async def test_text_shows_where_an_entry_begins() -> None:
    """A line break in a message is indented, so that no message can pass for another entry or the end."""
    lines = (await exported("text")).split("\n")
    assert lines[3] == f'{timestamp_of(1)} INFO    s: plain {{"n":1}}'
    assert lines[4:6] == [f"{timestamp_of(2)} INFO    s: two", "    lines"]
    assert [line for line in lines if line.startswith("#")][-1] == f"# count: {len(NASTY)}, complete: true"


@pytest.mark.parametrize("form", ["text", "ndjson", "csv"])
async def test_what_breaks_off_has_no_last_line_and_says_so_where_it_can(form: Format) -> None:
    """The count is of what was written."""
    export = Export("0198-id", "mine", [], 99, form)
    written: list[bytes] = []

    async def write() -> None:
        async for chunk in export.body(pages(ENTRIES, fault=True)):
            written.append(chunk)

    with pytest.raises(RuntimeError):
        await write()
    assert b"complete" not in b"".join(written)
    assert b"false" in export.tail()
    assert str(len(ENTRIES)).encode() in export.tail()
