"""Nothing in a log speaks to the terminal, and nothing in it looks like another entry."""

import io
import sys
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from taskd.cli.printer import TerminalPrinter, amount, described, make_printer
from taskd.text.escape import shown

CONTROLS = {chr(code) for code in (*range(32), *range(0x7F, 0xA0))} - {"\t"}


def entry(message: str = "hello", level: str = "INFO", seq: int = 1, **metadata: Any) -> dict[str, Any]:
    return {
        "seq": seq,
        "timestamp": "2026-11-23T14:11:42.123456Z",
        "level": level,
        "source": "git",
        "message": message,
        "metadata": metadata or None,
    }


def on_terminal(*entries: dict[str, Any], live: bool = False, colours: bool = False) -> str:
    """What is printed after the line that says the day."""
    return with_days(*entries, live=live, colours=colours).partition("2026-11-23 UTC")[2].partition("\n")[2]


def with_days(*entries: dict[str, Any], live: bool = False, colours: bool = False) -> str:
    stream = io.StringIO()
    console = Console(
        file=stream,
        color_system="standard" if colours else None,
        force_terminal=colours,
        width=200,
        soft_wrap=True,
        markup=False,
    )
    with TerminalPrinter(console, live=live) as printer:
        printer.entries(list(entries))
    return stream.getvalue()


def in_pipe(capsys: pytest.CaptureFixture[str], output: str, *entries: dict[str, Any]) -> str:
    with make_printer(output) as printer:
        printer.entries(list(entries))
    return capsys.readouterr().out


@given(st.text())
def test_no_control_character_is_left_of_any_text(text: str) -> None:
    assert not CONTROLS & set(shown(text))


def test_an_escape_sequence_is_shown_and_not_sent() -> None:
    assert "\\x1b[31mred\\x1b[0m \\u202eevil\\r" in on_terminal(entry("\x1b[31mred\x1b[0m \u202eevil\r"))


def test_metadata_cannot_speak_to_the_terminal_either() -> None:
    assert "\x1b" not in on_terminal(entry(key="\x1b]0;title\x07", other={"\x9b": 1}))


def test_a_terminal_is_told_the_day_before_its_first_entry() -> None:
    later = [entry("three") | {"timestamp": f"2026-11-{day}T00:00:00.000000Z"} for day in (24, 24, 30)]
    lines = with_days(entry("one"), entry("two"), *later).splitlines()
    assert [line for line in lines if line.endswith("UTC")] == ["2026-11-23 UTC", "2026-11-24 UTC", "2026-11-30 UTC"]
    assert [lines[0], lines[3], lines[6]] == ["2026-11-23 UTC", "2026-11-24 UTC", "2026-11-30 UTC"]


def test_a_line_break_begins_an_indented_line() -> None:
    first, second = on_terminal(entry("one\n14:11:42.124 ERROR   system forged")).splitlines()
    assert first == "14:11:42.123 INFO    git: one"
    assert second.startswith("    14:11")


def test_a_terminal_gets_colours_and_brackets_are_not_markup() -> None:
    printed = on_terminal(entry("[bold]not markup[/bold]", level="ERROR"), colours=True)
    assert "\x1b[" in printed
    assert "[bold]not markup[/bold]" in printed


def test_a_pipe_gets_plain_text_with_the_whole_time(capsys: pytest.CaptureFixture[str]) -> None:
    printed = in_pipe(capsys, "text", entry("done\nreally", file="a b.txt", size=3))
    assert printed == '2026-11-23T14:11:42.123456Z INFO    git: done file="a b.txt" size=3\n    really\n'


def test_ndjson_is_the_entry_as_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    entries = [entry("é\x1b", seq=1, a=[1]), entry(seq=2)]
    assert [orjson.loads(line) for line in in_pipe(capsys, "ndjson", *entries).splitlines()] == entries


def test_an_exception_is_in_the_message_and_not_told_twice() -> None:
    raised: dict[str, Any] = {"type": "ValueError", "message": "no x", "frames": [], "cause": None}
    printed = on_terminal(entry("failed\nTraceback:\n  ...\nValueError: no x", exception=raised))
    assert printed.count("ValueError") == 1
    assert printed.endswith("    ValueError: no x\n")


def test_frames_that_are_not_the_plugins_own_are_folded(capsys: pytest.CaptureFixture[str]) -> None:
    printed = in_pipe(capsys, "text", RAISED)
    assert [line.strip() for line in printed.splitlines()[1:]] == [
        "… 2 frames (--output ndjson has them)",
        'File "/plugins/bad.py", line 2',
        "if",
        "SyntaxError: invalid syntax",
        "",
        "The above exception was the direct cause of the following exception:",
        "",
        "Traceback (most recent call last):",
        "… 1 frame (--output ndjson has them)",
        'File "/plugins/mine.py", line 4, in execute',
        "read()",
        'File "/plugins/mine.py", line 9, in read',
        "raise Failed",
        "mine.Failed: no source",
        'File "/lib/pathlib.py", line 7, in resolve',
    ]
    assert orjson.loads(in_pipe(capsys, "ndjson", RAISED)) == RAISED
    assert [line.strip() for line in on_terminal(RAISED).splitlines()[1:]] == [
        line.strip() for line in printed.splitlines()[1:]
    ]


@pytest.mark.parametrize("odd", [7, {}, {"frames": 3}, {"frames": [3, {"file": []}], "cause": 5}])
def test_a_traceback_is_whole_where_its_own_frames_are_not_known(odd: object) -> None:
    message = RAISED["message"]
    printed = on_terminal(entry(message, exception=odd))
    assert [line.strip() for line in printed.splitlines()[1:]] == [line.strip() for line in message.splitlines()[1:]]


RAISED = entry(
    """\
Traceback (most recent call last):
  File "/lib/pathlib.py", line 7, in resolve
    stat(path)
    ~~~~^^^^^^
  File "/lib/posixpath.py", line 8, in stat
    raise
  [Previous line repeated 3 more times]
  File "/plugins/bad.py", line 2
    if
SyntaxError: invalid syntax

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/lib/asyncio.py", line 3, in run
    call()
  File "/plugins/mine.py", line 4, in execute
    read()
  File "/plugins/mine.py", line 9, in read
    raise Failed
mine.Failed: no source
  File "/lib/pathlib.py", line 7, in resolve""",
    level="ERROR",
    exception={
        "frames": [{"file": "/lib/asyncio.py"}, {"file": "/plugins/mine.py", "own": True}],
        "cause": {"frames": [{"file": "/lib/pathlib.py"}, {"file": "/lib/posixpath.py"}], "cause": None},
    },
)


@pytest.mark.parametrize(
    ("progress", "told"),
    [
        ({"current": 3, "total": 12, "unit": "files"}, "3/12 files (25%)"),
        ({"current": 1234567, "total": None, "unit": ""}, "1,234,567"),
        ({"current": None, "total": 0}, "?"),
        ({"current": 1, "total": 0, "unit": "x"}, "1 x"),
        ({"current": "one", "total": [], "unit": 5}, "? 5"),
    ],
)
def test_a_progress_is_told_with_what_is_known(progress: dict[str, Any], told: str) -> None:
    assert amount(progress) == told


def test_reserved_metadata_is_told_in_its_own_way_or_not_at_all() -> None:
    assert described({"group": {"id": 1}, "continued": True, "dropped": 4, "k": "v"}) == "dropped=4 k=v"


def test_what_a_command_writes_to_stderr_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    """In text, after the line; a line of its stdout is not, for most are."""
    assert described({"stream": "stdout", "pid": 4}) == "pid=4"
    assert in_pipe(capsys, "text", entry("no such file", stream="stderr")).endswith(": no such file stream=stderr\n")
    assert described({"stream": "eu-west"}) == "stream=eu-west"
    assert orjson.loads(in_pipe(capsys, "ndjson", entry(stream="stderr")))["metadata"] == {"stream": "stderr"}


def test_a_followed_progress_is_a_bar_until_it_is_done() -> None:
    progress = {"id": "1", "label": "files", "current": 1, "total": 2, "unit": "", "done": False}
    steps = [
        entry("half", progress=progress),
        entry("whole", progress=progress | {"current": 2, "done": True}),
    ]
    assert "half" not in on_terminal(*steps, live=True)
    assert "whole" in on_terminal(*steps, live=True)
    assert "half" in on_terminal(*steps, live=False)


def group(title: str, event: str, group_id: str) -> dict[str, Any]:
    return entry(title, group={"id": group_id, "event": event, "title": title})


NESTED = [
    group("phase", "start", "1"),
    group("part", "start", "2"),
    entry("inside\nand more"),
    group("part: done", "end", "2"),
    group("phase: done", "end", "1"),
    entry("outside"),
]


def messages(printed: str) -> list[str]:
    return [line.partition("git: ")[2] or line for line in printed.splitlines()]


def test_what_is_said_in_a_group_is_indented(capsys: pytest.CaptureFixture[str]) -> None:
    shape = ["▸ phase", "  ▸ part", "    inside", "        and more", "  part: done", "phase: done", "outside"]
    assert messages(on_terminal(*NESTED)) == shape
    assert messages(in_pipe(capsys, "text", *NESTED)) == shape


def test_groups_of_several_sources_end_in_any_order() -> None:
    steps = [group("a", "start", "1"), group("b", "start", "2"), group("a", "end", "1"), entry("in b")]
    assert messages(on_terminal(*steps)) == ["▸ a", "  ▸ b", "  a", "  in b"]


@pytest.mark.parametrize("odd", [7, {"event": "end", "id": "never begun"}, {"event": [], "id": {}}, {}])
def test_a_group_that_is_none_changes_nothing(odd: object) -> None:
    assert messages(on_terminal(entry("hello", group=odd), entry("there"))) == ["hello", "there"]


def test_the_seq_is_shown_where_it_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    with make_printer("text", seq=True) as printer:
        printer.entries([entry(seq=41)])
    assert capsys.readouterr().out.startswith("    41 2026-11-23T")


def test_a_notice_is_a_line_of_its_own_above_the_bars() -> None:
    stream = io.StringIO()
    with TerminalPrinter(Console(file=stream, force_terminal=True, width=80), live=True) as printer:
        printer.progress("git", {"id": "1", "label": "objects", "current": 1, "total": 2})
        printer.notice("lost\x1b; trying again")
    (line,) = [line for line in stream.getvalue().split("\n") if "trying again" in line]
    assert "taskd: lost\\x1b; trying again" in line
    assert "objects" not in line.rpartition("\x1b[2K")[2]


def test_a_notice_is_not_in_the_output_of_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with make_printer("ndjson") as printer:
        printer.notice("connected again")
    assert capsys.readouterr() == ("", "taskd: connected again\n")


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stdout = Terminal()
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with make_printer("text") as printer:
        printer.entries([entry()])
    assert "hello" in stdout.getvalue()
    assert "\x1b" not in stdout.getvalue()
