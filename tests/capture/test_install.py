"""What a task prints and logs is in its own log, and outside of tasks nothing is different."""

import asyncio
import contextlib
import io
import logging
import logging.config
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import pytest

from taskd.capture.current import Capturing
from taskd.capture.install import capture_installed
from taskd.entries import Level
from taskd.log.logger import TaskLogger
from taskd.log.queue import LogQueue
from taskd.settings import Settings
from taskd.text.masking import Masker
from tests.helpers.speakers import Speaker, captured
from tests.helpers.waiting import until

third_party = logging.getLogger("third.party")


@captured
async def test_a_print_is_an_entry_of_its_stream() -> None:
    """stdout says INFO, stderr WARNING; each line is an entry."""
    speaker = Speaker()

    def speak() -> None:
        print("a\nb", 1)
        print("c", file=sys.stderr)
        sys.stdout.writelines(["d\r\n", "e\n"])

    await speaker.run(speak)
    assert speaker.told() == [
        ("stdout", "INFO", "a"), ("stdout", "INFO", "b 1"), ("stderr", "WARNING", "c"),
        ("stdout", "INFO", "d"), ("stdout", "INFO", "e"),
    ]  # fmt: skip


@captured
async def test_a_line_is_said_when_it_is_whole_or_at_the_end() -> None:
    """Dots printed one by one are one entry; what has no end of line is not lost."""
    speaker = Speaker()

    def speak() -> None:
        for _ in range(3):
            print(".", end="")
        print(" done")
        print("no newline", end="")

    await speaker.run(speak)
    assert speaker.told() == [("stdout", "INFO", "... done"), ("stdout", "INFO", "no newline")]


@captured
async def test_a_line_without_an_end_does_not_grow_for_ever() -> None:
    """Past a bound it is said in parts, all but the first marked as continued."""
    speaker = Speaker()
    queue = LogQueue(Settings(), masker=Masker(), on_progress=lambda source, progress: None)
    speaker.capturing = Capturing(TaskLogger(queue, "plugin"))

    async def speak() -> None:
        for _ in range(15):
            print("x" * 100_000, end="")
        assert queue.last_seq > 0

    await speaker.run(speak)
    first, *others = queue.take_rest()
    assert len(first.message) + sum(len(entry.message) for entry in others) == 1_500_000
    assert first.metadata is None
    assert {entry.metadata_json for entry in others} == {'{"continued":true}'}


@captured
async def test_a_stdlib_logger_is_the_source_of_its_records() -> None:
    """Levels are mapped, arguments are put in, and an exception is told in full."""
    speaker = Speaker()

    def speak() -> None:
        third_party.warning("%d of %s", 1, "two")
        third_party.critical("worst")
        try:
            raise KeyError("k")
        except KeyError:
            third_party.exception("failed")

    await speaker.run(speak)
    first, second, third = speaker.entries()
    assert (first.source, first.level, first.message) == ("third.party", "WARNING", "1 of two")
    assert second.level is Level.ERROR
    assert third.message.startswith("failed\nTraceback")
    assert third.metadata is not None
    assert third.metadata["exception"]["type"] == "KeyError"


@captured
async def test_overlapping_tasks_each_keep_their_own_words() -> None:
    """Also from child tasks and threads, however they alternate."""
    speakers = [Speaker(), Speaker()]

    def words(name: str) -> Callable[[], Coroutine[Any, Any, None]]:
        async def child(number: int) -> None:
            print(name, number)
            await asyncio.sleep(0)
            third_party.warning("%s %d", name, number)

        async def speak() -> None:
            await asyncio.gather(*map(child, range(10)))
            await asyncio.to_thread(print, name, "thread")

        return speak

    await asyncio.gather(*(speaker.run(words(name)) for speaker, name in zip(speakers, "ab", strict=True)))
    for speaker, name in zip(speakers, "ab", strict=True):
        told = [entry.message for entry in speaker.entries()]
        expected = [f"{name} {number}" for number in range(10)]
        assert sorted(told) == sorted([*expected, *expected, f"{name} thread"])


@captured
async def test_outside_a_task_nothing_changes(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Prints and records go where they would have gone, while a task speaks beside them."""
    with capture_installed(Level.DEBUG):
        speaker = Speaker()
        await speaker.run(lambda: third_party.warning("inside"))
        print("outside")
        print("outside too", file=sys.stderr)
        third_party.warning("outside %d", 3)
        assert not third_party.isEnabledFor(logging.DEBUG)
    assert capsys.readouterr() == ("outside\n", "outside too\n")
    assert caplog.messages == ["outside 3"]


def test_outside_a_task_the_streams_are_what_they_stand_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that asks for encoding, buffer or descriptor gets those of the real stream."""
    with open("/dev/null", "w", encoding="latin-1", errors="replace") as real:
        monkeypatch.setattr(sys, "stdout", real)
        with capture_installed(Level.INFO):
            for name in ("encoding", "errors", "newlines", "name", "mode", "closed", "line_buffering"):
                assert getattr(sys.stdout, name) == getattr(real, name), name
            for method in ("fileno", "isatty", "writable", "readable", "seekable"):
                assert getattr(sys.stdout, method)() == getattr(real, method)(), method


@captured
async def test_a_logging_configuration_does_not_remove_it() -> None:
    """`dictConfig` replaces handlers on the root logger; the task's words still come into its log."""
    speaker = Speaker()

    def speak() -> None:
        logging.config.dictConfig({"version": 1, "incremental": False, "disable_existing_loggers": False})
        third_party.warning("after")

    handlers = logging.root.handlers[:]
    try:
        await speaker.run(speak)
    finally:
        logging.root.handlers[:] = handlers
    assert speaker.told() == [("third.party", "WARNING", "after")]


@captured
async def test_taskds_own_loggers_are_not_captured(caplog: pytest.LogCaptureFixture) -> None:
    """What taskd says about a task is for the operator."""
    speaker = Speaker()
    await speaker.run(lambda: logging.getLogger("taskd.writer").warning("for the operator"))
    assert speaker.told() == []
    assert caplog.messages == ["for the operator"]


@pytest.mark.timeout(10)
async def test_what_taskd_says_about_words_that_come_too_late_is_not_itself_captured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without any handler, logging writes to stderr: were that captured, each warning would make the next."""
    outer = io.StringIO()
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(sys, "stderr", outer)
    written = []

    def emit(self: logging.StreamHandler[Any], record: logging.LogRecord) -> None:
        written.append(record)
        assert len(written) < 100, "each warning makes the next"
        sys.stderr.write(f"{record.getMessage()}\n")

    monkeypatch.setattr(type(logging.lastResort), "emit", emit)
    speaker = Speaker()
    with capture_installed(Level.INFO):
        speaker.queue.close()
        await speaker.run(lambda: print("too late"))
        await until(lambda: bool(written))
    assert outer.getvalue().count("too late") == 1
    assert len(written) == 1


@pytest.mark.parametrize(
    ("own", "above", "said"),
    [
        (logging.NOTSET, logging.NOTSET, ["info", "error"]),
        (logging.ERROR, logging.NOTSET, ["error"]),
        (logging.DEBUG, logging.NOTSET, ["debug", "info", "error"]),
        (logging.NOTSET, logging.ERROR, ["error"]),
    ],
)
@captured
async def test_capture_level_applies_where_a_logger_has_no_level_of_its_own(
    own: int, above: int, said: list[str]
) -> None:
    """A level that somebody chose, for it or above it, is respected."""
    speaker = Speaker()
    logger, parent = logging.getLogger("levels.own"), logging.getLogger("levels")

    def speak() -> None:
        logger.setLevel(own)
        parent.setLevel(above)
        for level in ("debug", "info", "error"):
            getattr(logger, level)(level)

    await speaker.run(speak)
    assert [message for _, _, message in speaker.told()] == said


@captured
async def test_logging_that_was_disabled_stays_disabled() -> None:
    """`logging.disable` and a disabled logger mean it, in tasks too."""
    speaker = Speaker()
    logger = logging.getLogger("levels.disabled")

    def speak() -> None:
        logging.disable(logging.WARNING)
        third_party.warning("no")
        third_party.error("yes")
        logging.disable(logging.NOTSET)
        logger.disabled = True
        logger.error("no")

    await speaker.run(speak)
    assert [message for _, _, message in speaker.told()] == ["yes"]


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


@pytest.mark.parametrize(
    ("message", "arguments"), [("%d", ("x",)), ("%s %s", (1,)), ("%s", (Broken(),)), (Broken(), ())], ids="abcd"
)
@captured
async def test_a_record_that_cannot_be_formatted_does_not_fail_the_task(
    message: Any, arguments: tuple[Any, ...]
) -> None:
    """It is told all the same, and so is what comes after it."""
    speaker = Speaker()

    def speak() -> None:
        third_party.warning(message, *arguments)
        third_party.warning("after")

    await speaker.run(speak)
    told = speaker.told()
    assert len(told) == 2
    assert told[1][2] == "after"


async def test_warnings_of_python_are_in_the_log() -> None:
    """Under the name that stdlib logging has for them, once. In an interpreter without a test runner's hooks."""
    script = """
import asyncio, warnings
from taskd.capture.install import capture_installed
from taskd.capture.current import Capturing, current
from taskd.entries import Level
from taskd.log.logger import TaskLogger
from taskd.text.masking import Masker
from taskd.log.queue import LogQueue
from taskd.settings import Settings
from taskd.capture.current import Capturing, current

async def main():
    queue = LogQueue(Settings(), masker=Masker(), on_progress=print)
    with capture_installed(Level.INFO):
        current.set(Capturing(TaskLogger(queue, "p")))
        for _ in range(2):
            warnings.warn("old", UserWarning)
        current.set(None)
    print([(entry.source, entry.level) for entry in queue.take_rest() if "UserWarning: old" in entry.message])

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout == "[('py.warnings', <Level.WARNING: 'WARNING'>)]\n"


@captured
async def test_two_threads_of_one_task_that_print_at_once_lose_nothing() -> None:
    """Their lines may run into each other, as on a terminal; every character is there."""
    speaker = Speaker()
    before = sys.getswitchinterval()

    def speak(letter: str) -> None:
        for _ in range(3_000):
            print(letter, end=" ")
        print()

    async def both() -> None:
        await asyncio.gather(*(asyncio.to_thread(speak, letter) for letter in "abcd"))

    sys.setswitchinterval(1e-6)
    try:
        await speaker.run(both)
    finally:
        sys.setswitchinterval(before)
    await asyncio.sleep(0)  # what threads said is handed over
    told = "".join(entry.message for entry in speaker.entries())
    assert {letter: told.count(letter) for letter in "abcd"} == dict.fromkeys("abcd", 3_000)


async def test_a_thread_that_prints_on_while_the_task_ends_does_not_disturb_the_end() -> None:
    """The last lines are said although there come more streams meanwhile, and what has no end of line too."""
    speaker = Speaker()
    speaker.capturing.write("stdout", "out")
    speaker.capturing.write("stderr", "err")
    emit = speaker.queue.emit

    def emit_while_a_thread_prints(*arguments: Any) -> None:
        speaker.queue.emit = emit  # type: ignore[method-assign]  # a thread's turn, at the worst moment
        thread = threading.Thread(target=speaker.capturing.write, args=("stdout", "thread"))
        thread.start()
        thread.join()
        emit(*arguments)

    speaker.queue.emit = emit_while_a_thread_prints  # type: ignore[method-assign, assignment]
    speaker.capturing.finish()
    await until(lambda: speaker.queue.last_seq == 3)
    assert sorted(message for _, _, message in speaker.told()) == ["err", "out", "thread"]


LOOP_HOOKS = ("create_future", "call_exception_handler", "_asyncgen_firstiter_hook", "_asyncgen_finalizer_hook")


def hooked() -> list[object]:
    """All that capture puts something in the place of."""
    return [
        type(sys), sys.stdout, sys.stderr, logging.Logger.callHandlers, logging.Logger.isEnabledFor,
        logging.Logger._log, vars(warnings)["_showwarnmsg_impl"], sys.unraisablehook,
        threading.excepthook, threading.Thread.start, ThreadPoolExecutor.submit, Future.__init__,
        vars(Future)["_invoke_callbacks"],
    ]  # fmt: skip


def test_everything_is_put_back() -> None:
    """After the `with` block everything is the object that it was; in it, none is."""
    before = hooked()
    with contextlib.suppress(ValueError), capture_installed(Level.INFO):
        assert not any(ours is theirs for ours, theirs in zip(hooked(), before, strict=True))
        raise ValueError("left by an exception")
    assert hooked() == before


async def test_the_loop_is_left_as_it_was() -> None:
    """Its class, and what it has Python call for generators."""

    def hooks() -> list[object]:
        return [*sys.get_asyncgen_hooks(), *(getattr(asyncio.BaseEventLoop, name) for name in LOOP_HOOKS)]

    before = hooks()
    with capture_installed(Level.INFO):
        assert not any(ours is theirs for ours, theirs in zip(hooks()[2:], before[2:], strict=True))
    assert hooks() == before


def test_a_stream_that_somebody_replaced_meanwhile_is_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what was put in is taken out."""
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    theirs = io.StringIO()
    with capture_installed(Level.INFO):
        sys.stdout = theirs
    assert sys.stdout is theirs


@captured
async def test_a_plain_thread_speaks_for_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    """Only a thread that was given the context of its task is known to be of it."""
    speaker = Speaker()

    def in_thread(target: Callable[..., object], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)
        thread.start()
        thread.join()

    def speak() -> None:
        in_thread(copy_context().run, print, "with context")

    await speaker.run(speak)
    await asyncio.sleep(0)
    assert speaker.told() == [("stdout", "INFO", "with context")]
