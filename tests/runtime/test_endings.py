"""What came out of a plugin decides how its task ended, and the log says it in a sentence."""

import asyncio
import json
import re
from datetime import datetime, timedelta
from typing import Any

import pytest

from taskd.entries import Level
from taskd.errors import PluginError
from taskd.runtime.execution import Ending, Outcome, ending_of
from taskd.runtime.results import RESULT_BYTES_MAX
from taskd.tasks import TaskStatus
from taskd.text.masking import Masker

STARTED = "2026-11-23T14:11:42.123456Z"
CANCELLED, INTERRUPTED = TaskStatus.CANCELLED, TaskStatus.INTERRUPTED


def ending(
    outcome: Outcome, stop_as: TaskStatus | None = None, secret: str = "", started: str | None = STARTED
) -> Ending:
    masker = Masker()
    masker.add(secret)
    return ending_of(outcome, stop_as, started, masker)


def raised(error: BaseException) -> Outcome:
    try:
        raise error
    except BaseException as caught:
        return Outcome(error=caught)


@pytest.mark.parametrize(
    ("outcome", "stop_as", "status"),
    [
        (Outcome(result=1), None, "succeeded"),
        (Outcome(result=1), CANCELLED, "cancelled"),
        (Outcome(result=1), INTERRUPTED, "interrupted"),
        (Outcome(cancelled=True), CANCELLED, "cancelled"),
        (Outcome(cancelled=True), INTERRUPTED, "interrupted"),
        (Outcome(cancelled=True), None, "failed"),
        (raised(ValueError("x")), None, "failed"),
        (raised(ValueError("x")), CANCELLED, "failed"),
        (raised(SystemExit(0)), INTERRUPTED, "failed"),
    ],
)
def test_outcome_and_request_decide_the_status(outcome: Outcome, stop_as: TaskStatus | None, status: str) -> None:
    """Asked to stop and returned is stopped; raised is failed; cancelled unasked is failed."""
    ended = ending(outcome, stop_as)
    assert ended.end.status == status
    assert ended.words[-1][1].startswith(f"{status} after ")
    assert (ended.end.error is not None) == (status == "failed")


@pytest.mark.parametrize(
    ("stop_as", "level"), [(None, Level.INFO), (CANCELLED, Level.WARNING), (INTERRUPTED, Level.WARNING)]
)
def test_the_last_word_weighs_what_the_end_does(stop_as: TaskStatus | None, level: Level) -> None:
    """A success is INFO, a stop WARNING, a failure ERROR."""
    assert ending(Outcome(), stop_as).words[-1][0] is level
    assert ending(raised(ValueError())).words[-1][0] is Level.ERROR


def test_one_failure_is_one_error() -> None:
    """Its first line names the error, which is the task's too; the traceback is in it as text and data."""
    ended = ending(raised(ValueError("no disk")))
    [(level, text, metadata)] = ended.words
    assert (level, metadata and metadata["exception"]["message"]) == (Level.ERROR, "no disk")
    first, second, *_, last = text.split("\n")
    assert re.fullmatch(r"failed after [\d,]+\.\d s: ValueError: no disk", first)
    assert (second, last) == ("Traceback (most recent call last):", "ValueError: no disk")
    assert (ended.end.error, ended.end.result_json) == ("ValueError: no disk", None)


def test_a_cancellation_from_within_is_one_error_too() -> None:
    """With the traceback if there is one."""
    for cancellation in (None, raised(asyncio.CancelledError("why")).error):
        [(level, text, _)] = ending(Outcome(cancelled=True, cancellation=cancellation)).words
        assert level is Level.ERROR
        assert ("nobody asked for it: why\nTraceback" in text) == (cancellation is not None)


def test_a_result_is_kept_as_json() -> None:
    """Also that of a task which was asked to stop and still returned one."""
    for stop_as in (None, CANCELLED):
        ended = ending(Outcome(result={"files": [1, None, "ß"]}), stop_as)
        assert json.loads(ended.end.result_json or "") == ended.result == {"files": [1, None, "ß"]}


@pytest.mark.parametrize(
    "value",
    [object(), {1: 2}, b"\xff", 2**70, {"a": "\ud800"}, {1, 2}, float("nan"), [[]], iter(())],
    ids=lambda value: type(value).__name__,
)
def test_a_result_that_json_cannot_hold_is_kept_as_what_it_can(value: Any) -> None:
    """A task that has done its work succeeds, whatever it returned."""
    ended = ending(Outcome(result=value))
    assert ended.end.status is TaskStatus.SUCCEEDED
    assert json.loads(ended.end.result_json or "") == ended.result


def test_a_result_over_the_limit_is_not_kept_and_the_log_says_so() -> None:
    """The task succeeds all the same."""
    ended = ending(Outcome(result="x" * RESULT_BYTES_MAX))
    assert (ended.result, ended.end.result_json, ended.end.status) == (None, "null", TaskStatus.SUCCEEDED)
    assert ended.words[0][:2] == (
        Level.WARNING, "the result is not kept: it has 1,048,578 bytes, and 1,048,576 is the limit",
    )  # fmt: skip
    assert len(ending(Outcome(result="x" * (RESULT_BYTES_MAX - 2))).words) == 1


def test_secrets_are_hidden_in_result_and_error() -> None:
    """Neither is an entry, so neither passes through the log's masking."""
    kept = ending(Outcome(result={"hunter22": ["a hunter22"]}), secret="hunter22")
    assert "hunter22" not in (kept.end.result_json or "hunter22")
    assert kept.result == {"***": ["a ***"]}
    failed = ending(raised(ValueError("hunter22")), secret="hunter22")
    assert failed.end.error == "ValueError: ***"
    assert "hunter22" not in failed.words[-1][1]


def test_an_end_says_how_long_it_took() -> None:
    """In seconds, from the start to now; a clock that was set back makes it no less than none."""
    assert re.fullmatch(r"succeeded after [\d,]+\.\d s", ending(Outcome()).words[-1][1])
    tomorrow = datetime.fromisoformat(ending(Outcome()).end.finished_at) + timedelta(days=1)
    ended = ending(Outcome(), started=tomorrow.isoformat())
    assert ended.words[-1][1] == "succeeded after 0.0 s"


def test_a_task_that_never_ran_says_so() -> None:
    """Cancelled while it waited."""
    assert ending(Outcome(cancelled=True), CANCELLED, started=None).words == [
        (Level.WARNING, "cancelled before it ran", None)
    ]


def test_a_plugin_error_is_its_sentence_and_advice_without_a_traceback() -> None:
    """It is for the person who started the task: neither a type nor frames help there. Secrets stay hidden."""
    ended = ending(raised(PluginError("hunter22 has no header.", "Give a CSV file.")), secret="hunter22")
    assert ended.end.error == "*** has no header. Give a CSV file."
    [(level, text, metadata)] = ended.words
    assert (level, text.partition(": ")[2], metadata) == (Level.ERROR, ended.end.error, None)
