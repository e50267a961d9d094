"""An exception is told as text and as data, both within bounds, whatever exception it is."""

from collections.abc import Callable

import orjson
import pytest

from taskd.sanitise import clean_metadata
from taskd.tracebacks import CAUSES_MAX, FRAMES_MAX, exception_line, exception_metadata, exception_text


def raised(function: Callable[[], object]) -> BaseException:
    """What `function` raises."""
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("it raised nothing")


def fail(message: object = "no disk") -> None:
    raise OSError(message)


def fail_with_cause() -> None:
    try:
        fail()
    except OSError as error:
        raise ValueError("no backup") from error


def down(levels: int) -> None:
    """Two functions in turn: Python shortens the traceback of one that calls itself."""
    if levels == 0:
        fail("at the bottom")
    down_too(levels - 1)


def down_too(levels: int) -> None:
    down(levels)


def chain_of(length: int, levels: int = 100) -> BaseException:
    error: BaseException = raised(lambda: down(levels))
    for number in range(length):
        following = raised(lambda: down(levels))
        following.__cause__ = error
        following.args = (f"number {number}",)
        error = following
    return error


def test_an_exception_is_described_by_type_message_frames_and_cause() -> None:
    """The fields are the contract's; the newest frame is the last."""
    told = exception_metadata(raised(fail))
    assert (told["type"], told["message"], told["cause"]) == ("OSError", "no disk", None)
    last = told["frames"][-1]
    assert last == {
        "file": __file__,
        "line": fail.__code__.co_firstlineno + 1,
        "function": "fail",
        "code": last["code"],
    }
    assert last["code"] == "raise OSError(message)"


def test_a_cause_is_described_in_full() -> None:
    """`raise … from` and an exception while handling one both have the earlier one as cause."""
    assert exception_metadata(raised(fail_with_cause))["cause"]["message"] == "no disk"
    with_context = ValueError("x")
    with_context.__context__ = OSError("before")
    assert exception_metadata(with_context)["cause"]["type"] == "OSError"


def test_raise_from_none_has_no_cause() -> None:
    """What the author hid stays hidden."""
    error = ValueError("x")
    error.__context__ = OSError("before")
    error.__suppress_context__ = True
    assert exception_metadata(error)["cause"] is None


def test_a_cause_that_is_empty_is_still_a_cause() -> None:
    """An exception class with a length may have the length 0."""

    class Errors(Exception):
        def __len__(self) -> int:
            return 0

    error = ValueError("x")
    error.__cause__ = Errors("why")
    assert exception_metadata(error)["cause"]["message"] == "why"


def test_the_text_is_the_traceback_as_python_prints_it() -> None:
    """A person reads what Python would have shown, causes included."""
    text = exception_text(raised(fail_with_cause))
    assert text.startswith("Traceback (most recent call last):")
    assert "OSError: no disk" in text
    assert "The above exception was the direct cause of the following exception" in text
    assert text.endswith("ValueError: no backup")


def test_of_many_frames_the_newest_are_kept() -> None:
    """Where it happened matters more than how it came there."""
    frames = exception_metadata(raised(lambda: down(300)))["frames"]
    assert len(frames) == FRAMES_MAX
    assert frames[-1]["function"] == "fail"


def test_the_text_says_how_many_frames_it_leaves_out() -> None:
    """`raised`, its lambda, `fail` and two for each level are there; all but the newest are counted."""
    text = exception_text(raised(lambda: down(300)))
    assert text.count('File "') == FRAMES_MAX
    assert str(2 * 300 + 1 + 3 - FRAMES_MAX) in text


def test_of_many_causes_the_first_are_described() -> None:
    """A chain of a hundred is cut at `CAUSES_MAX`."""
    told = exception_metadata(chain_of(100, levels=1))
    depth = 0
    while told["cause"] is not None:
        told, depth = told["cause"], depth + 1
    assert depth == CAUSES_MAX


def test_a_long_chain_does_not_become_a_megabyte_of_text() -> None:
    """The text is bounded like the data, however many causes there are."""
    assert len(exception_text(chain_of(300))) < 1_000_000


def test_causes_in_a_circle_come_to_an_end() -> None:
    """A program can tie exceptions into a ring."""
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    exception_metadata(one)
    assert exception_text(one).endswith("ValueError: one")


def test_a_long_message_is_cut() -> None:
    """A megabyte in an exception is not a megabyte in every field that tells of it."""
    error = ValueError("x" * 1_000_000)
    assert len(exception_line(error)) < 5_000
    assert len(exception_metadata(error)["message"]) < 5_000


class StrRaises(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no str")


class ReprRaises(Exception):
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


@pytest.mark.parametrize(
    "error",
    [
        StrRaises("x"),
        ReprRaises("x"),
        ValueError("a\0\ud800"),
        ValueError(b"\xff"),
        SystemExit(3),
        KeyboardInterrupt(),
        ExceptionGroup("several", [ValueError("one"), StrRaises("two")]),
        SyntaxError("bad", ("file", "no line", None, "text\ud800")),  # type: ignore[arg-type]  # that is the point
    ],
    ids=lambda error: type(error).__name__,
)
def test_any_exception_can_be_told(error: BaseException) -> None:
    """What an exception does when it is looked at does not fail the one who tells of it."""

    def fail() -> None:
        raise error

    told = raised(fail)
    assert orjson.loads(clean_metadata(exception_metadata(told), 65_536) or b"")["type"] == type(error).__qualname__
    assert type(error).__name__ in exception_text(told)
    assert "\0" not in exception_text(told)
    exception_text(told).encode()
    assert exception_line(told).startswith(type(error).__name__)


def test_an_exception_without_a_message_is_its_type() -> None:
    """`KeyboardInterrupt`, not `KeyboardInterrupt: `."""
    assert exception_line(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert exception_line(ValueError("x")) == "ValueError: x"
