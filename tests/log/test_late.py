"""What code says after the end of its task is on the service's stderr, with the task's name and a limit."""

import asyncio
import logging
from collections.abc import Callable

import pytest

from taskd.capture.install import capture_installed
from taskd.entries import Level, body_of
from taskd.log.late import LINES_MAX, PERIOD_MAX_S, PERIOD_S, LateWords
from tests.helpers.speakers import Speaker
from tests.helpers.waiting import until


class Turns:
    """A loop's timers, which are called when the test says so."""

    def __init__(self) -> None:
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def later(self, delay_s: float, function: Callable[[], None]) -> None:
        if delay_s:
            self.timers.append((delay_s, function))
        else:
            function()

    def end_period(self) -> float:
        [(delay_s, function)] = self.timers
        self.timers = []
        function()
        return delay_s


def say(late: LateWords, lines: int) -> None:
    for number in range(lines):
        late.take(Level.INFO, "stdout", f"line {number}", body_of("m", None))


def test_a_flood_is_limited_and_what_is_left_out_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    """Each period with suppressed lines doubles the next one, up to an hour; a quiet one ends that."""
    turns, periods = Turns(), []
    late = LateWords("bg 12345678", turns.later)
    for _ in range(8):
        say(late, LINES_MAX + 1_234)
        periods.append(turns.end_period())
    assert len(caplog.messages) == 8 * (LINES_MAX + 1)
    assert caplog.messages[0] == "bg 12345678, after its end, stdout: line 0"
    assert caplog.messages[LINES_MAX] == "bg 12345678, after its end: 1,234 more lines in 60 s"
    assert periods == [*(PERIOD_S * 2**n for n in range(6)), PERIOD_MAX_S, PERIOD_MAX_S]
    for _ in range(2):
        say(late, 1)
        periods.append(turns.end_period())
    assert periods[-2:] == [PERIOD_MAX_S, PERIOD_S]
    assert turns.timers == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_code_that_outlives_its_task_reaches_the_operator(caplog: pytest.LogCaptureFixture) -> None:
    """One line for each print, record, word and exception, with the name of the task; a print is one line."""
    with capture_installed(Level.INFO):
        speaker, ended = Speaker(), asyncio.Event()

        async def go_on() -> None:
            await ended.wait()
            print("printed", 1)
            print("no end of line", end="")
            logging.getLogger("lib").info("recorded\nin two lines")
            speaker.capturing.logger.error("said")
            raise ValueError("raised")

        async def speak() -> None:
            asyncio.create_task(go_on())  # noqa: RUF006  # nobody awaits it: that is the point

        await speaker.run(speak)
        speaker.queue.close()
        ended.set()
        await until(lambda: len(caplog.messages) == 5)
    words = [message.removeprefix("A task, after its end, ") for message in caplog.messages]
    place = f"(test_late.py:{go_on.__code__.co_firstlineno + 6})"
    assert sorted(words) == sorted([
        "stdout: printed 1", "stdout: no end of line", "lib: recorded\\nin two lines", "plugin: said",
        f"asyncio: Task exception was never retrieved: ValueError: raised {place}",
    ])  # fmt: skip
    assert speaker.told() == []
