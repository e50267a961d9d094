"""What a program writes is in the log: lines as entries, a line that is drawn again and again as progress."""

from typing import Any

import pytest

from taskd.entries import Level, LogEntry
from taskd.logger import TaskLogger
from taskd.masking import Masker
from taskd.queue import LogQueue
from taskd.settings import Settings
from taskd.speech import Speech


class Program:
    """A program that writes, and what came of it."""

    def __init__(self) -> None:
        self.shown: list[dict[str, Any]] = []
        self.masker = Masker()
        self.queue = LogQueue(Settings(), lambda source, progress: self.shown.append(progress), self.masker)
        self.speech = Speech(TaskLogger(self.queue, "program"), Level.INFO, {"stream": "stderr"})

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
        (["[1/30] a.c", "[2/30] b.c", "[30/30] z.c"], "progress", 30, "", [1, 30]),
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
