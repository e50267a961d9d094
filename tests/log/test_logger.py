"""What a plugin says comes into its log as it was said, and saying it never fails."""

import asyncio
import concurrent.futures
import decimal
import fractions
import functools
import math
import re
import sqlite3
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskd import shipped
from taskd.entries import Level, LogEntry
from taskd.log import progress as progress_module
from taskd.log.logger import TaskLogger, as_level
from taskd.log.queue import LogQueue
from taskd.settings import Settings
from taskd.text.masking import Masker

Shown = list[tuple[str, dict[str, Any]]]


class Log:
    """A logger, and what came out of it."""

    def __init__(self) -> None:
        self.shown: Shown = []
        self.queue = LogQueue(
            Settings(), masker=Masker(), on_progress=lambda source, progress: self.shown.append((source, progress))
        )
        self.logger = TaskLogger(self.queue, "plugin")

    def entries(self) -> list[LogEntry]:
        return self.queue.take_rest()

    def messages(self) -> list[str]:
        return [entry.message for entry in self.entries()]


@pytest.fixture
async def log() -> Log:
    return Log()


class Clock:
    """A `time.monotonic` that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock  # type: ignore[return-value]  # a fixture


# Saying something


async def test_each_method_says_its_level(log: Log) -> None:
    """Four methods, four levels, and the fields of the call as metadata."""
    for method in (log.logger.debug, log.logger.info, log.logger.warning, log.logger.error):
        method("m", a=1)
    entries = log.entries()
    assert [entry.level for entry in entries] == list(Level)
    assert all((entry.source, entry.metadata) == ("plugin", {"a": 1}) for entry in entries)


async def test_what_a_habit_puts_behind_the_message_is_kept_and_not_formatted_in(log: Log) -> None:
    """A log call that raised would fail the task."""
    for method in (log.logger.debug, log.logger.info, log.logger.warning, log.logger.error):
        method("%s of %s", 1, object, a=1)
    for entry in log.entries():
        assert (entry.message, entry.metadata) == ("%s of %s", {"args": [1, "<class 'object'>"], "a": 1})


@pytest.mark.parametrize(
    ("level", "meant"),
    [
        (Level.DEBUG, "DEBUG"), ("debug", "DEBUG"), ("Warn", "WARNING"), ("CRITICAL", "ERROR"), ("fatal", "ERROR"),
        (5, "DEBUG"), (10, "DEBUG"), (20, "INFO"), (25, "INFO"), (30, "WARNING"), (50, "ERROR"), (99, "ERROR"),
        ("loud", "INFO"), (None, "INFO"), (1.5, "INFO"),
    ],
)  # fmt: skip
def test_a_level_is_a_name_in_any_case_or_a_number_of_logging(level: object, meant: str) -> None:
    """What means no level is INFO: a bad level does not lose the words."""
    assert as_level(level) is Level(meant)


async def test_a_message_is_never_formatted(log: Log) -> None:
    """`%` and braces are characters like others, also beside fields of their names."""
    log.logger.info("100% {a} %s %(a)s", a=1)
    assert log.messages() == ["100% {a} %s %(a)s"]


async def test_any_name_may_be_a_field(log: Log) -> None:
    """Also those of the methods' own parameters."""
    fields: dict[str, Any] = {"message": 1, "self": 2, "level": 3, "source": 4}
    log.logger.info("a", **fields)
    log.logger.log("error", "b", **fields)
    assert [entry.metadata for entry in log.entries()] == [fields, fields]


async def test_a_logger_with_another_source_speaks_in_the_same_log(log: Log) -> None:
    """The first keeps its own name; a name is one line of at most 64 characters."""
    log.logger.with_source("git").info("a")
    log.logger.info("b")
    log.logger.with_source("x\ny" * 100).info("c")
    sources = [entry.source for entry in log.entries()]
    assert sources[:2] == ["git", "plugin"]
    assert len(sources[2]) == 64
    assert "\n" not in sources[2]


async def test_an_exception_is_told_as_text_and_as_data(log: Log) -> None:
    """Inside `except`, the message is followed by the traceback and the fields are kept."""
    try:
        raise KeyError("missing")
    except KeyError:
        log.logger.exception("no config", attempt=2)
    entry = log.entries()[0]
    assert entry.level is Level.ERROR
    assert entry.message.startswith("no config\nTraceback (most recent call last):")
    assert entry.metadata is not None
    assert (entry.metadata["exception"]["type"], entry.metadata["attempt"]) == ("KeyError", 2)


async def test_outside_of_an_exception_it_is_an_error_like_others(log: Log) -> None:
    """Nothing is invented where nothing was raised."""
    log.logger.exception("x")
    entry = log.entries()[0]
    assert (entry.level, entry.message, entry.metadata) == (Level.ERROR, "x", None)


async def test_critical_is_an_error_that_keeps_its_name(log: Log) -> None:
    """As a record of stdlib logging of that level does."""
    log.logger.critical("m", a=1)
    [entry] = log.entries()
    assert (entry.level, entry.message, entry.metadata) == (Level.ERROR, "m", {"levelname": "CRITICAL", "a": 1})


@pytest.mark.parametrize("method", ["debug", "info", "warning", "error", "critical", "exception", "log"])
async def test_exc_info_adds_an_exception_to_any_call(log: Log, method: str) -> None:
    """The one that is being handled, or one that is given, by itself or in a tuple; it is no field."""
    call = getattr(log.logger, method) if method != "log" else functools.partial(log.logger.log, "info")
    try:
        raise KeyError("k")
    except KeyError as error:
        for exc_info in (True, 1, error, sys.exc_info()):
            call("failed", exc_info=exc_info, a=1)
    for entry in log.entries():
        assert entry.message.startswith("failed\nTraceback (most recent call last):")
        assert entry.metadata is not None
        assert (entry.metadata["exception"]["type"], entry.metadata["a"]) == ("KeyError", 1)
        assert "exc_info" not in entry.metadata
    assert entry.level is (Level.INFO if method == "log" else as_level(method if method != "exception" else "error"))


class NoTruth:
    def __bool__(self) -> bool:
        raise ValueError("no truth")


@pytest.mark.parametrize("exc_info", [True, False, None, 0, (), (None, None, None), (1, 2), NoTruth(), ValueError])
async def test_without_an_exception_exc_info_adds_nothing(log: Log, exc_info: object) -> None:
    """Outside of `except`, and with what is none."""
    log.logger.info("m", exc_info=exc_info, a=1)
    [entry] = log.entries()
    assert (entry.message, entry.metadata) == ("m", {"a": 1})


async def test_a_bound_logger_adds_its_fields_to_every_call(log: Log) -> None:
    """The call's own fields win; the first logger is as it was."""
    bound = log.logger.bind(order=7, a=0).bind(self=1)
    for method in (bound.debug, bound.info, bound.warning, bound.error, functools.partial(bound.log, 20)):
        method("m", a=1)
    log.logger.info("m", a=1)
    *entries, last = log.entries()
    assert [entry.metadata for entry in entries] == [{"order": 7, "a": 1, "self": 1}] * 5
    assert last.metadata == {"a": 1}


async def test_a_bound_logger_keeps_its_fields_with_another_source_and_in_groups_and_progress(log: Log) -> None:
    """What is reserved there is of the group and of the progress."""
    bound = log.logger.bind(order=7, progress="mine", group="mine").with_source("git")
    with bound.group("g"), bound.progress("p"):
        bound.info("m", *["more"], exc_info=ValueError("v"))
    entries = log.entries()
    assert {(entry.source, entry.metadata and entry.metadata["order"]) for entry in entries} == {("git", 7)}
    assert [entry.metadata["group"]["event"] for entry in (entries[0], entries[-1]) if entry.metadata] == [
        "start",
        "end",
    ]
    inside = entries[2].metadata or {}
    assert (inside["args"], inside["exception"]["type"], inside["progress"]) == (["more"], "ValueError", "mine")


@pytest.mark.parametrize("method", ["exception", "critical", "log"])
async def test_fields_of_other_loggers_are_fields(log: Log, method: str) -> None:
    """`extra`, `stack_info`, `stacklevel` and arguments behind the message raise nothing and are kept."""
    given = ["info", "%s"] if method == "log" else ["%s"]
    getattr(log.logger, method)(*given, 1, extra={"a": 1}, stack_info=True, stacklevel=2)
    [entry] = log.entries()
    assert entry.message == "%s"
    assert (entry.metadata or {}).items() >= {
        "args": [1],
        "extra": {"a": 1},
        "stack_info": True,
        "stacklevel": 2,
    }.items()


async def test_a_group_says_where_it_begins_and_ends(log: Log, clock: Clock) -> None:
    """Both entries carry its id and title; what is said inside stands between."""
    with log.logger.group("Upload"):
        log.logger.info("inside")
        clock.now += 2.5
    start, inside, end = log.entries()
    assert (start.message, inside.message, end.message) == ("Upload", "inside", "Upload: done after 2.5 s")
    first, last = (entry.metadata["group"] for entry in (start, end) if entry.metadata)
    assert (first["event"], last["event"], first["title"], first["id"]) == ("start", "end", "Upload", last["id"])


async def test_groups_may_be_nested_and_left_by_an_exception(log: Log) -> None:
    """Each has an id of its own, and the exception goes on its way."""
    with pytest.raises(ValueError, match="x"), log.logger.group("a"), log.logger.group("b"):
        raise ValueError("x")
    entries = log.entries()
    assert [re.sub(r"\d+\.\d", "N", entry.message) for entry in entries] == [
        "a", "b", "b: failed after N s (ValueError)", "a: failed after N s (ValueError)",
    ]  # fmt: skip
    assert len({entry.metadata["group"]["id"] for entry in entries if entry.metadata}) == 2


@pytest.mark.parametrize(
    "cancelled", [asyncio.CancelledError, type("Stopped", (concurrent.futures.CancelledError,), {})]
)
async def test_a_group_that_is_cancelled_has_not_failed(log: Log, cancelled: type[BaseException]) -> None:
    """On the loop or in a thread that has seen that it should stop."""
    with pytest.raises(cancelled), log.logger.group("a"):
        raise cancelled
    assert log.entries()[-1].message.startswith("a: cancelled after ")


# Progress


async def test_a_progress_keeps_its_first_its_last_and_at_most_one_a_second(log: Log, clock: Clock) -> None:
    """A million changes are a handful of entries."""
    with log.logger.progress("Copy", total=1_000, unit="files") as progress:
        for _ in range(1_000):
            clock.now += 0.01
            progress.advance()
    entries = log.entries()
    told = [entry.metadata["progress"] for entry in entries if entry.metadata]
    assert 10 <= len(told) <= 12
    assert [(each["current"], each["done"]) for each in (told[0], told[-1])] == [(0, False), (1_000, True)]
    assert entries[-1].message == "Copy: 1,000/1,000 files"
    assert told[0] == {
        "id": told[-1]["id"], "label": "Copy", "current": 0, "total": 1_000, "unit": "files", "done": False,
    }  # fmt: skip


async def test_a_progress_is_shown_at_most_ten_times_a_second(log: Log, clock: Clock) -> None:
    """And at least eight where it moves all the time; the last state is shown whatever came before."""
    with log.logger.progress("Copy") as progress:
        for _ in range(1_000):
            clock.now += 0.01
            progress.advance()
    assert 80 <= len(log.shown) <= 100
    assert log.shown[-1][1]["done"] is True


async def test_no_second_has_more_than_ten_frames_of_a_progress(log: Log, clock: Clock) -> None:
    """Whatever falls into it: entries, the end, and a change that was to be shown later."""
    times: list[float] = []
    log.queue.on_progress = lambda source, progress: times.append(clock.now)
    later: list[tuple[float, Any]] = []
    log.queue.later = lambda delay_s, function: later.append((clock.now + delay_s, function))  # type: ignore[method-assign]  # on the test's clock
    with log.logger.progress("Copy") as progress:
        for _ in range(3_000):
            clock.now += 0.001
            due = [function for at, function in later if at <= clock.now]
            later = [(at, function) for at, function in later if at > clock.now]
            for function in due:
                function()
            progress.advance()
    assert all(times[place + 10] - times[place] >= 1 for place in range(len(times) - 10))
    assert len(times) >= 25


async def test_threads_may_move_one_progress(log: Log) -> None:
    """No step is lost between them."""

    def advance() -> None:
        for _ in range(5_000):
            progress.advance()

    with log.logger.progress("Copy", total=20_000) as progress:
        await asyncio.gather(*(asyncio.to_thread(advance) for _ in range(4)))
    assert progress.current == 20_000
    assert log.entries()[-1].message == "Copy: 20,000/20,000"


async def test_the_source_of_a_progress_is_masked(log: Log) -> None:
    """What is only shown is no entry, and is masked all the same."""
    log.queue.masker.add("hunter22")
    sources: list[str] = []
    log.queue.on_progress = lambda source, progress: sources.append(source)
    with log.logger.with_source("x" * 58 + "hunter22").progress("p"):
        pass
    assert set(sources) == {"x" * 58 + "***"}


async def test_the_last_change_before_a_pause_is_shown(log: Log) -> None:
    """Viewers do not stay at an old number because the next change is far away."""
    with log.logger.progress("Copy") as progress:
        progress.update(1)
        progress.update(2)
        async with asyncio.timeout(5):
            while log.shown[-1][1]["current"] != 2:
                await asyncio.sleep(0.005)


async def test_two_progresses_have_ids_of_their_own(log: Log) -> None:
    """Viewers tell them apart also where the labels are equal."""
    with log.logger.progress("a"), log.logger.progress("a"):
        assert len({progress["id"] for _, progress in log.shown}) == 2


async def test_a_progress_left_by_an_exception_says_that_it_stopped(log: Log) -> None:
    """It is done with, at the number it had reached."""
    progress = log.logger.progress("Copy", total=3)
    progress.advance(2)
    with pytest.raises(ValueError, match="x"), progress:
        raise ValueError("x")
    last = log.entries()[-1]
    assert last.message == "Copy: 2/3, stopped"
    assert last.metadata is not None
    assert last.metadata["progress"]["done"] is True


async def test_a_progress_may_say_more_than_its_numbers(log: Log, clock: Clock) -> None:
    """Where the end is not known there is no total."""
    with log.logger.progress("Scan", unit="files") as progress:
        clock.now += 1.5
        progress.update(7, "in /etc")
    assert log.messages() == ["Scan: 0 files", "Scan: 7 files, in /etc", "Scan: 7 files"]


NUMBERS: list[Any] = [
    "300", None, b"\xff", object(), math.nan, math.inf, 2**70, decimal.Decimal("1.5"), fractions.Fraction(1, 3),
    1j, mock.Mock(spec=int), "a\ud800",
]  # fmt: skip


@pytest.mark.parametrize("place", range(len(NUMBERS)), ids=lambda place: type(NUMBERS[place]).__name__)
async def test_a_progress_takes_whatever_it_is_given_for_a_number(log: Log, clock: Clock, place: int) -> None:
    """A header's text as total, or a Decimal, fails neither the plugin, its viewers nor the store."""
    value = NUMBERS[place]
    with log.logger.progress("Copy", total=value, unit="B") as progress:
        for step in (progress.update, progress.advance):
            clock.now += 2
            step(value)
            clock.now += 0.5
            step(value)
    for _, shown in log.shown:
        assert orjson.loads(orjson.dumps(shown))["label"] == "Copy"
    assert log.entries()[-1].metadata


# Never failing


class ReprRaises:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Text(str):
    def __str__(self) -> str:
        raise RuntimeError("no str")


def a_cycle() -> list[Any]:
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


POISON: list[Any] = [
    ReprRaises(), Text("x"), b"\xff\0", "\0", "\ud800", math.nan, 2**63, -(2**63) - 1, 10**5_000, a_cycle(),
    {1: 2, None: 3}, decimal.Decimal(1), {"\udc80": {"\0": b""}}, object, ValueError("\ud800"),
]  # fmt: skip
ANYTHING = (
    st.integers(0, len(POISON) - 1).map(lambda place: POISON[place])
    | st.text(st.characters(exclude_categories=()))
    | st.integers()
    | st.floats()
    | st.binary()
)


class Call:
    """One call's arguments, which may have no repr."""

    def __init__(self, level: Any, source: Any, message: Any, metadata: dict[str, Any]) -> None:
        self.level, self.source, self.message, self.metadata = level, source, message, metadata


CALLS = st.builds(
    Call,
    ANYTHING,
    ANYTHING,
    ANYTHING,
    st.dictionaries(st.text(st.characters(exclude_categories=())), ANYTHING | st.lists(ANYTHING), max_size=3),
)


@settings(max_examples=200, deadline=None)
@given(CALLS)
async def test_no_call_raises_and_its_neighbours_are_stored(call: Call) -> None:
    """Whatever stands in any field, the entries before and after it are in the table, and it between them."""
    log = Log()
    log.logger.info("before")
    log.logger.with_source(call.source).log(call.level, call.message, **call.metadata)
    log.logger.info("after")
    with sqlite3.connect(":memory:") as store:
        store.executescript(shipped.SCHEMA.read_text())
        insert = "INSERT INTO task_logs VALUES (NULL, 't', ?, ?, ?, ?, ?, ?)"
        rows = [(e.seq, e.timestamp, e.level.value, e.source, e.message, e.metadata_json) for e in log.entries()]
        store.executemany(insert, rows)
        stored = store.execute("SELECT seq, timestamp, level, source, message, metadata_json FROM task_logs").fetchall()
    store.close()
    entries = [LogEntry.from_row(row) for row in stored]
    assert [entry.seq for entry in entries] == [1, 2, 3]
    assert [entries[0].message, entries[2].message] == ["before", "after"]


async def test_labels_and_titles_may_be_anything(log: Log) -> None:
    """What is not text becomes text here too."""
    for value in POISON:
        with log.logger.group(value), log.logger.progress(value, unit=value):
            log.logger.info(value)
    assert [entry.seq for entry in log.entries()] == list(range(1, 5 * len(POISON) + 1))
