"""What stdlib logging and warnings say in a task is in its log, and a library's own handlers still get it."""

import asyncio
import copy
import io
import logging
import logging.config
import logging.handlers
import multiprocessing
import pickle
import queue
import sys
import unittest
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.logging import RichHandler

from taskd.capture.install import capture_installed
from taskd.entries import Level
from tests.helpers.speakers import Speaker, captured


@pytest.fixture
def library() -> Iterator[logging.Logger]:
    """A library's logger, which is as it was afterwards."""
    logger = logging.getLogger("a.library")
    yield logger
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()
    logger.filters.clear()
    logger.setLevel(logging.NOTSET)
    logger.propagate, logger.disabled = True, False


def to_text(logger: logging.Logger) -> io.StringIO:
    """A handler of the library's own, which writes into a text."""
    text = io.StringIO()
    logger.addHandler(logging.StreamHandler(text))
    return text


@captured
async def test_extra_fields_are_metadata(library: logging.Logger) -> None:
    """Whatever their names and values."""
    speaker = Speaker()
    await speaker.run(lambda: library.warning("m", extra={"order": 7, "who": {"a": [1]}, 3: object}))  # type: ignore[dict-item]  # logging takes it
    [entry] = speaker.entries()
    assert entry.metadata == {"order": 7, "who": {"a": [1]}, "3": "<class 'object'>"}


@captured
async def test_a_level_that_has_no_place_here_keeps_its_name(library: logging.Logger) -> None:
    """CRITICAL is an ERROR; a level of a library's own is the one below it."""
    logging.addLevelName(25, "NOTICE")
    speaker = Speaker()

    def speak() -> None:
        library.critical("c")
        library.log(25, "n")
        library.error("e")

    await speaker.run(speak)
    assert [(entry.level, entry.metadata) for entry in speaker.entries()] == [
        (Level.ERROR, {"levelname": "CRITICAL"}),
        (Level.INFO, {"levelname": "NOTICE"}),
        (Level.ERROR, None),
    ]


@captured
async def test_an_exception_and_a_stack_are_told(library: logging.Logger) -> None:
    """As structure, whatever `extra` says, and as text."""
    speaker = Speaker()

    def speak() -> None:
        library.error("with", exc_info=ValueError("v"), extra={"exception": "mine", "a": 1})
        library.error("none", exc_info=True)
        library.info("here", stack_info=True)

    await speaker.run(speak)
    raised, none, here = speaker.entries()
    assert raised.metadata is not None
    assert (raised.metadata["exception"]["type"], raised.metadata["a"]) == ("ValueError", 1)
    assert raised.metadata["exception_"] == "mine"
    assert (none.message, none.metadata) == ("none", None)
    assert here.message.startswith("here\nStack (most recent call last):")
    assert "in speak" in here.message


@pytest.mark.parametrize("exc_info", [True, "Traceback", ("a",), ("a", "b", "c"), (None, None, None), 1.5])
@captured
async def test_an_exception_that_is_none_does_not_fail_the_task(library: logging.Logger, exc_info: Any) -> None:
    """Stdlib logging, too, lets no call fail for it: a record made elsewhere may have anything there."""
    speaker = Speaker()
    record = logging.makeLogRecord({"name": "far.away", "msg": "handed", "levelno": 40, "exc_info": exc_info})
    await speaker.run(lambda: library.handle(record))
    assert [(entry.message, entry.metadata) for entry in speaker.entries()] == [("handed", None)]


@captured
async def test_an_adapter_and_a_record_made_elsewhere_are_captured(library: logging.Logger) -> None:
    """All records pass by the same place."""
    speaker = Speaker()

    def speak() -> None:
        logging.LoggerAdapter(library, {"request": "r1"}).info("adapted")
        library.handle(logging.makeLogRecord({"name": "far.away", "msg": "handed", "levelno": 10}))

    await speaker.run(speak)
    adapted, handed = speaker.entries()
    assert (adapted.source, adapted.metadata) == ("a.library", {"request": "r1"})
    assert (handed.source, handed.level, handed.message) == ("far.away", Level.DEBUG, "handed")


@captured
async def test_a_loggers_own_filters_are_respected(library: logging.Logger) -> None:
    """What they refuse is in no log; what they add is metadata."""
    speaker = Speaker()

    def pick(record: logging.LogRecord) -> bool:
        record.seen = True
        return "no" not in record.getMessage()

    library.addFilter(pick)

    def speak() -> None:
        library.info("no")
        library.info("yes")

    await speaker.run(speak)
    assert [(entry.message, entry.metadata) for entry in speaker.entries()] == [("yes", {"seen": True})]


@captured
async def test_a_logger_that_does_not_propagate_is_captured(library: logging.Logger) -> None:
    """Nothing has to reach the root for it."""
    speaker = Speaker()
    library.propagate = False
    await speaker.run(lambda: library.info("m"))
    assert speaker.told() == [("a.library", "INFO", "m")]


async def test_a_librarys_own_handler_gets_what_it_gets_without_taskd(library: logging.Logger, tmp_path: Path) -> None:
    """At its own level; the service's own output does not get a task's words."""
    service, root_level = io.StringIO(), logging.root.level
    own = logging.StreamHandler(service)
    logging.root.addHandler(own)
    try:
        with capture_installed(Level.INFO):
            speaker = Speaker()
            path = tmp_path / "library.log"

            def speak() -> None:
                library.addHandler(logging.FileHandler(path))
                library.info("below the root's level")
                library.warning("told")

            await speaker.run(speak)
            library.warning("outside")
    finally:
        logging.root.removeHandler(own)
        logging.root.setLevel(root_level)
    assert path.read_text() == "told\noutside\n"
    assert service.getvalue() == "outside\n"
    assert [entry.message for entry in speaker.entries()] == ["below the root's level", "told"]


@captured
async def test_a_record_knows_who_called(library: logging.Logger) -> None:
    """In a task and outside, whatever way it takes."""
    records: list[logging.LogRecord] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    def speak() -> None:
        library.warning("m", stack_info=True)

    library.addHandler(Keeping())
    await Speaker().run(speak)
    speak()
    assert [(record.funcName, record.pathname) for record in records] == [("speak", __file__)] * 2
    assert all("records.py" not in str(record.stack_info).replace("test_records.py", "") for record in records)


@pytest.mark.parametrize(
    "arguments", [("%s of %d", "1", 2), ("%(a)s", {"a": 1}), ("100%",), ("%s", ()), ("%s", {}), ("%s", [])]
)
@captured
async def test_a_message_is_what_stdlib_logging_makes_of_it(
    library: logging.Logger, arguments: tuple[Any, ...]
) -> None:
    """Whether a record is made for it or not."""
    speaker, text = Speaker(), to_text(library)

    def speak() -> None:
        library.warning(*arguments)
        library.handlers.clear()
        library.warning(*arguments)

    await speaker.run(speak)
    with_record, without = [message for _, _, message in speaker.told()]
    assert with_record == without
    assert text.getvalue() in ("", f"{without}\n")


@captured
async def test_whoever_makes_records_of_his_own_is_asked(library: logging.Logger) -> None:
    """A factory's fields are metadata."""
    speaker, factory = Speaker(), logging.getLogRecordFactory()

    def make(*arguments: Any, **named: Any) -> logging.LogRecord:
        record = factory(*arguments, **named)
        record.request = "r1"
        return record

    logging.setLogRecordFactory(make)
    try:
        await speaker.run(lambda: library.warning("m"))
    finally:
        logging.setLogRecordFactory(factory)
    assert [entry.metadata for entry in speaker.entries()] == [{"request": "r1"}]


@captured
async def test_a_handler_that_prints_does_not_say_it_twice(library: logging.Logger) -> None:
    """Neither where it writes to the stream itself nor through `print`."""
    speaker = Speaker()

    class Printing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            print("printed", record.getMessage())
            library.warning("from the handler")

    def speak() -> None:
        import sys

        library.addHandler(logging.StreamHandler(sys.stdout))
        library.addHandler(Printing())
        library.warning("m")

    await speaker.run(speak)
    assert [message for _, _, message in speaker.told()] == ["m", "from the handler"]


@captured
async def test_a_handler_that_fails_is_told(library: logging.Logger) -> None:
    """As stdlib logging tells it: on stderr, which is the task's."""
    speaker = Speaker()

    class Failing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            try:
                raise OSError("no disk")
            except OSError:
                self.handleError(record)

    library.addHandler(Failing())
    await speaker.run(lambda: library.warning("m"))
    told = speaker.told()
    assert told[0] == ("a.library", "WARNING", "m")
    assert ("stderr", "WARNING", "OSError: no disk") in told


@captured
async def test_assert_logs_works_in_a_task(library: logging.Logger) -> None:
    """It puts a handler of its own in the place of all others."""
    speaker = Speaker()

    def speak() -> None:
        with unittest.TestCase().assertLogs("a.library", "DEBUG") as logs:
            library.debug("debugged")
        assert logs.output == ["DEBUG:a.library:debugged"]

    await speaker.run(speak)
    assert [message for _, _, message in speaker.told()] == ["debugged"]


@captured
async def test_a_queue_handler_is_fed(library: logging.Logger) -> None:
    """A library that logs by way of a listener's thread goes on doing so, and the record is said once."""
    speaker = Speaker()
    records: queue.SimpleQueue[Any] = queue.SimpleQueue()
    library.addHandler(logging.handlers.QueueHandler(records))
    await speaker.run(lambda: library.warning("m %d", 1))
    assert records.get(timeout=5).getMessage() == "m 1"
    assert speaker.told() == [("a.library", "WARNING", "m 1")]


@pytest.mark.parametrize("kind", [queue.Queue, multiprocessing.Queue], ids=["queue", "multiprocessing"])
@pytest.mark.parametrize("of_task", [True, False], ids=["its own", "nobody's"])
async def test_a_listener_that_prints_says_nothing_twice(
    library: logging.Logger,
    kind: Callable[[], Any],
    of_task: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whoever's thread it is: what it sends elsewhere arrives, and its output is the task's no second time."""
    service = logging.StreamHandler(sys.stderr)
    logging.root.addHandler(service)
    path = tmp_path / "listener.log"
    with capture_installed(Level.INFO):
        speaker, records = Speaker(), kind()
        outputs = [logging.StreamHandler(), RichHandler(), logging.StreamHandler(PrintingStream()), service]
        listener = logging.handlers.QueueListener(records, logging.FileHandler(path), *outputs)
        library.addHandler(logging.handlers.QueueHandler(records))

        def speak() -> None:
            if of_task:
                listener.start()
            library.warning("m %d", 1)
            listener.stop()

        if not of_task:
            listener.start()
        await speaker.run(speak)
        await asyncio.sleep(0)
    logging.root.removeHandler(service)
    listener.handlers[0].close()
    assert path.read_text() == "m 1\n"
    assert speaker.told() == [("a.library", "WARNING", "m 1")]
    assert capsys.readouterr() == ("", "")


class PrintingStream:
    """A stream around `print`, as libraries put one around a terminal."""

    def write(self, text: str) -> None:
        print(text)


@captured
async def test_a_record_that_is_handed_to_another_logger_is_one_entry(library: logging.Logger) -> None:
    """As a listener of several processes does it; the other logger's handlers get the record."""
    speaker, text = Speaker(), to_text(library)
    kept = logging.handlers.MemoryHandler(100)
    logging.getLogger("first").addHandler(kept)

    def hand_on() -> None:
        for record in kept.buffer:
            library.handle(copy.deepcopy(record))

    def speak() -> None:
        logging.getLogger("first").warning("m")
        hand_on()

    await speaker.run(speak)
    hand_on()
    logging.getLogger("first").removeHandler(kept)
    assert speaker.told() == [("first", "WARNING", "m")]
    assert text.getvalue() == "m\nm\n"
    assert type(pickle.loads(pickle.dumps(kept.buffer[0])).name) is str


@captured
async def test_a_configuration_inside_a_task_does_what_it_says(tmp_path: Path) -> None:
    """Its file is written at its level; what it sends to a stream is not said twice."""
    speaker = Speaker()
    path = tmp_path / "configured.log"
    handlers, level = logging.root.handlers[:], logging.root.level

    def speak() -> None:
        logging.config.dictConfig({
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"short": {"format": "%(levelname)s %(message)s"}},
            "handlers": {
                "file": {"class": "logging.FileHandler", "filename": str(path), "formatter": "short"},
                "console": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"},
            },
            "loggers": {"configured": {"level": "DEBUG"}},
            "root": {"level": "ERROR", "handlers": ["file", "console"]},
        })  # fmt: skip
        logging.getLogger("configured").debug("d")
        logging.getLogger("another").info("i")

    try:
        await speaker.run(speak)
    finally:
        for handler in logging.root.handlers:
            handler.close()
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)
        logging.getLogger("configured").setLevel(logging.NOTSET)
    assert path.read_text() == "DEBUG d\n"
    assert speaker.told() == [("configured", "DEBUG", "d"), ("another", "INFO", "i")]


async def test_whoever_hooks_in_over_us_is_not_taken_out(library: logging.Logger) -> None:
    """And finds us as if we were not there."""
    text, before = to_text(library), logging.Logger.callHandlers
    calls = []
    with capture_installed(Level.INFO):
        ours = logging.Logger.callHandlers

        def theirs(logger: logging.Logger, record: logging.LogRecord) -> None:
            calls.append(record.getMessage())
            ours(logger, record)

        logging.Logger.callHandlers = theirs  # type: ignore[method-assign, assignment]
    try:
        await Speaker().run(lambda: library.warning("later"))
    finally:
        logging.Logger.callHandlers = before  # type: ignore[method-assign]
    assert (calls, text.getvalue()) == (["later"], "later\n")


# Warnings


@captured
async def test_a_warning_is_an_entry_with_its_place() -> None:
    """One entry, under the name that stdlib logging has for warnings."""
    speaker = Speaker()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        await speaker.run(lambda: warnings.warn("old", DeprecationWarning, stacklevel=1))
    [entry] = speaker.entries()
    assert (entry.source, entry.level) == ("py.warnings", Level.WARNING)
    assert "DeprecationWarning: old" in entry.message
    assert entry.metadata is not None
    assert (entry.metadata["category"], entry.metadata["file"]) == ("DeprecationWarning", __file__)


@captured
async def test_filters_of_warnings_are_unchanged() -> None:
    """One place's warning is shown once; an error is raised; what is ignored is said nowhere."""
    speaker = Speaker()

    def speak() -> None:
        for _ in range(3):
            warnings.warn("default", UserWarning, stacklevel=1)
        warnings.simplefilter("ignore")
        warnings.warn("ignored", UserWarning, stacklevel=1)
        warnings.simplefilter("error")
        with pytest.raises(UserWarning):
            warnings.warn("raised", UserWarning, stacklevel=1)

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        await speaker.run(speak)
    assert len(speaker.entries()) == 1


@captured
async def test_warnings_that_are_recorded_are_not_said() -> None:
    """`catch_warnings(record=True)` in a task, as `pytest.warns` has it."""
    speaker = Speaker()

    def speak() -> None:
        with warnings.catch_warnings(record=True) as recorded:
            warnings.simplefilter("always")
            warnings.warn("recorded", UserWarning, stacklevel=1)
        assert [str(each.message) for each in recorded] == ["recorded"]
        with pytest.warns(UserWarning, match="expected"):
            warnings.warn("expected", UserWarning, stacklevel=1)

    await speaker.run(speak)
    assert speaker.told() == []


@captured
async def test_warnings_outside_of_a_task_go_where_they_went() -> None:
    """Here to the test runner, which records them."""
    with pytest.warns(UserWarning, match="outside"):
        warnings.warn("outside", UserWarning, stacklevel=1)
