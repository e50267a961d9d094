"""What a program writes is in the log: lines as entries, a line that is drawn again and again as progress."""

from typing import Any

import pytest

from taskd.capture.output import Speech
from taskd.entries import Level, LogEntry
from taskd.log.logger import TaskLogger
from taskd.log.queue import LogQueue
from taskd.settings import Settings
from taskd.text.masking import Masker


class Program:
    """A program that writes, and what came of it."""

    def __init__(self) -> None:
        self.shown: list[dict[str, Any]] = []
        self.masker = Masker()
        self.queue = LogQueue(Settings(), lambda source, progress: self.shown.append(progress), self.masker)
        self.speech = Speech(TaskLogger(self.queue, "program"), Level.WARNING, {"stream": "stderr"})

    def write(self, *texts: str) -> list[LogEntry]:
        for text in texts:
            self.speech.feed(text)
        self.speech.end()
        return self.queue.take_rest()


@pytest.fixture
async def program() -> Program:
    return Program()


def progress(entry: LogEntry) -> dict[str, Any]:
    told: dict[str, Any] = (entry.metadata or {})["progress"]
    return told


@pytest.mark.parametrize(
    ("pictures", "label", "total", "unit", "currents"),
    [
        (["Copy:  1%", "Copy: 50.5%", "Copy: 100%"], "Copy", 100, "%", [1, 100]),
        (["[1/30] cc", "[2/30] cc", "[30/30] cc"], "progress", 30, "", [1, 30]),
        (["read 1,024 of 4,096", "read 4,096 of 4,096"], "read", 4_096, "", [1_024, 4_096]),
        (["waiting |", "waiting /", "waiting -"], "waiting |", None, "", [1, 3]),
        (["\x1b[32mBuild\x1b[0m  3%\x1b[K", "\x1b[32mBuild\x1b[0m 99%\x1b[K"], "Build", 100, "%", [3, 99]),
    ],
)
async def test_numbers_are_read_off_a_picture(
    program: Program, pictures: list[str], label: str, total: float, unit: str, currents: list[float]
) -> None:
    """Percent, one of many, or else the pictures are counted; the last picture is the end."""
    first, last = program.write("\r".join(pictures) + "\r\n")
    assert (first.message, last.message) == (pictures[0], pictures[-1])
    assert [progress(entry)["current"] for entry in (first, last)] == currents
    told = progress(last)
    assert (told["label"], told["total"], told["unit"], told["done"]) == (label, total, unit, True)
    assert (last.metadata or {})["stream"] == "stderr"


async def test_a_thousand_pictures_are_two_entries(program: Program) -> None:
    """And at most ten frames a second: they are drawn here in far less."""
    entries = program.write(*(f"\r{number / 10:.1f}%" for number in range(1, 1_001)), "\n")
    assert len(entries) <= 4
    assert progress(entries[-1])["current"] == 100
    assert len(program.shown) <= 20


async def test_lines_that_end_as_on_windows_are_no_progress(program: Program) -> None:
    """The carriage return belongs to the end of the line."""
    entries = program.write("1 of 2\r\n", "2 of 2\r", "\n")
    assert [(entry.message, entry.metadata) for entry in entries] == [
        ("1 of 2", {"stream": "stderr"}),
        ("2 of 2", {"stream": "stderr"}),
    ]


async def test_a_progress_that_is_broken_off_is_done_with(program: Program) -> None:
    """At the end of the text, with the last picture."""
    entries = program.write("1%\r2%\r3%")
    assert [(entry.message, progress(entry)["done"]) for entry in entries] == [("1%", False), ("3%", True)]


async def test_a_secret_is_in_no_picture_and_no_label(program: Program) -> None:
    """Not half of it either, where the label is cut."""
    program.masker.add("hunter22")
    for before in range(85, 105):
        entries = program.write(f"{'x' * before}hunter22\ryhunter22\r", "hun", "ter22\n")
        told = repr(entries) + repr(program.shown)
        assert "xh" not in told
        assert "yh" not in told
        assert "ter22" not in told


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("error: disk full\rretrying\n", ["error: disk full", "retrying"]),
        ("[1/9] a.c\r[2/9] b.c\r[3/9] c.c\n", ["[1/9] a.c", "[2/9] b.c", "[3/9] c.c"]),
        ("1%\r2%\rfailed: no space\n", ["1%", "2%", "failed: no space"]),
        ("a\r\n\r\nb\r\r\n", ["a", "", "b"]),
        ("one\r        \rtwo\r\x1b[2K\rthree\n", ["one", "two", "three"]),
        ("one\x1b[1Gtwo\x1b[K\n", ["one", "two\x1b[K"]),
        ("one\r", ["one"]),
        ("first\nsecond\x1b[A\rabove\n", ["first", "above", "second"]),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
async def test_a_text_is_replaced_only_by_the_same_line(
    program: Program, text: str, kept: list[str], at_once: bool
) -> None:
    """With other digits, or another picture of a bar; any other text is an entry of its own."""
    assert [entry.message for entry in program.write(*([text] if at_once else text))] == kept


@pytest.mark.parametrize(
    "pictures",
    [
        ["  0%|          | 0/3 [00:00<?, ?it/s]", " 33%|███▎      | 1/3 [00:01<00:02,  1.01s/it]"],
        ["Fetch  9% |==>   | 900 kB/s eta 1:02", "Fetch 10% |====> | 1.1 MB/s eta   59s"],
        ["\u280b building", "\u2819 building"],
        ["1.2/3.4 MB", "999 kB/3.4 MB"],
    ],
)
async def test_the_same_line_with_other_numbers_is_one_progress(program: Program, pictures: list[str]) -> None:
    """Whatever their width, their units and the picture of the bar."""
    entries = program.write("\r".join(pictures) + "\n")
    assert [entry.level for entry in entries if "progress" not in (entry.metadata or {})] == []
    assert len({progress(entry)["id"] for entry in entries}) == 1


def nested(outer: int, inner: int) -> str:
    """What tqdm writes for a bar below another, from the first row and back to it."""
    return (
        f"\router: {outer:3}%|{'█' * outer:100}| {outer}/100 [00:00<?, ?it/s]"
        f"\n\rinner: {inner:3}%|{'█' * inner:100}| {inner}/100 [00:00<?, ?it/s]\x1b[A"
    )


@pytest.mark.parametrize("at_once", [True, False])
async def test_nested_bars_are_each_one_progress(program: Program, at_once: bool) -> None:
    """On stderr too: they are no warnings, and their ids stay, also when a line is printed above them."""
    written = "\r  0%|  | 0/2 [00:00<?, ?it/s]\n"
    for outer in range(0, 100, 10):
        written += "".join(nested(outer, inner) for inner in range(0, 101, 50))
        blank = " " * 120
        written += f"\r{blank}\r\n\r{blank}\r\x1b[A\rline {outer}\n"
    entries = program.write(*([written] if at_once else written))
    lines = [entry for entry in entries if "progress" not in (entry.metadata or {})]
    assert [entry.message for entry in lines] == [f"line {outer}" for outer in range(0, 100, 10)]
    assert {entry.level for entry in entries} - {entry.level for entry in lines} == {Level.INFO}
    ids = {label: {told["id"] for told in program.shown if told["label"] == label} for label in ("outer", "inner")}
    assert [len(each) for each in ids.values()] == [1, 1]


async def test_a_spinner_of_backspaces_is_the_line_that_it_leaves(program: Program) -> None:
    """But a word that is typed over stays."""
    entries = program.write("busy |\b/\b-\b\\\b done\n", "10%\b\b\b20%\n", "no\b\byes\n")
    assert [entry.message for entry in entries] == ["busy  done", "20%", "no\b\byes"]


async def test_a_bar_of_which_a_handler_takes_the_rest_is_done_with(program: Program) -> None:
    """Or it would be shown as running for ever."""
    taken: list[str] = []
    program.speech = Speech(TaskLogger(program.queue, "program"), Level.INFO, None, lambda text: text in taken)
    program.speech.feed("1%\r2%\r")
    taken.append("3%")
    assert [progress(entry)["done"] for entry in program.write("3%\r\n")] == [False, True]


@pytest.mark.parametrize("text", ["(" * 500_000, "[=" * 250_000, "1" * 500_000 + "x", "\x1b[" * 200_000])
async def test_a_long_text_is_not_searched_for_bars(program: Program, text: str) -> None:
    """The time for that would grow with its square; the test's own time limit tells."""
    assert program.write(f"\r{text}\r{text}!\n")
