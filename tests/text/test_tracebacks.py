"""An exception is told as text and as data, both within bounds, whatever exception it is."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from taskd.runtime.plugins import _import
from taskd.text.masking import Masker
from taskd.text.sanitise import clean_metadata
from taskd.text.tracebacks import (
    CAUSES_MAX,
    EXCEPTION_BYTES_MAX,
    FRAMES_MAX,
    exception_line,
    exception_metadata,
    exception_text,
    mark_as_own,
)


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


class StrExits(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class Unsayable(BaseException):
    def __str__(self) -> str:
        raise self

    __repr__ = __str__


class Nameless(type):
    def __getattribute__(cls, name: str) -> Any:
        if name in ("__name__", "__qualname__"):
            raise Unsayable
        return super().__getattribute__(name)


class Anonymous(Exception, metaclass=Nameless):
    pass


class ReprRaises(Exception):
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


@pytest.mark.parametrize(
    "error",
    [
        StrRaises("x"),
        ReprRaises("x"),
        StrExits("x"),
        Unsayable(),
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


def test_an_exception_whose_type_will_not_be_named_is_told() -> None:
    """As its class was written."""

    def fail() -> None:
        raise Anonymous("x")

    told = raised(fail)
    assert exception_metadata(told)["type"] == "Anonymous"
    assert exception_line(told) == "Anonymous: x"
    assert "x" in exception_text(told)


def test_of_a_huge_message_only_the_ends_are_looked_at() -> None:
    """It would hold the loop for seconds, and what is between them is not shown anyway."""
    looked_at = []

    def mask(text: str) -> str:
        looked_at.append(len(text))
        return text

    line = exception_line(ValueError("a" * 10_000_000 + "z"), mask)
    assert max(looked_at) <= 2**20
    assert "… 9,996,001 characters left out …" in line
    assert line.endswith("z")


def test_an_exception_without_a_message_is_its_type() -> None:
    """`KeyboardInterrupt`, not `KeyboardInterrupt: `."""
    assert exception_line(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert exception_line(ValueError("x")) == "ValueError: x"


def test_what_a_group_holds_is_described() -> None:
    """Its members with their causes; of many the first, and it says so."""
    errors: list[Exception] = [ValueError(str(number)) for number in range(100)]
    errors[0].__cause__ = OSError("why")
    told = exception_metadata(ExceptionGroup("several", [*errors[:2], ExceptionGroup("inner", [KeyError("k")])]))
    assert [member["message"] for member in told["exceptions"]] == ["0", "1", "inner (1 sub-exception)"]
    assert told["exceptions"][0]["cause"]["message"] == "why"
    assert told["exceptions"][2]["exceptions"][0]["type"] == "KeyError"
    assert "omitted" not in told
    assert exception_metadata(ExceptionGroup("many", errors))["omitted"] is True


def test_a_cause_that_was_only_being_handled_is_told_apart() -> None:
    """`raise … from` names it; another is the context."""
    assert exception_metadata(raised(fail_with_cause))["chained"] == "cause"
    with_context = ValueError("x")
    with_context.__context__ = OSError("before")
    assert exception_metadata(with_context)["chained"] == "context"


def test_notes_are_told() -> None:
    """Also what is no text; what is no list is none."""
    error = ValueError("x")
    error.add_note("while it rained")
    assert exception_metadata(error)["notes"] == ["while it rained"]
    error.__notes__ = 3  # type: ignore[assignment]  # anybody can
    assert "notes" not in exception_metadata(error)


@pytest.mark.parametrize("levels", [1, 20, 400])
def test_the_data_always_fits(levels: int) -> None:
    """However long, deep and wide it is; the newest frame and the message are there."""
    deep = chain_of(30, levels)
    deep.args = ("ß" * 100_000,)
    assert isinstance(deep, Exception)
    group = ExceptionGroup("wide", [ExceptionGroup("wider", [deep] * 30)] * 30)
    for error in (deep, group):
        told = exception_metadata(error)
        assert len(orjson.dumps(told)) <= EXCEPTION_BYTES_MAX
        assert told["message"]
        assert b'"omitted":true' in orjson.dumps(told)


def test_a_plugins_own_frames_are_marked(tmp_path: Path) -> None:
    """Those of its directory, but not of libraries that lie below it."""
    mark_as_own(tmp_path)
    library = tmp_path / ".venv" / "lib" / "site-packages" / "lib.py"
    library.parent.mkdir(parents=True)
    library.write_text("def call(function): function()\n")
    (tmp_path / "mine.py").write_text("def fail(): raise OSError('mine')\n")
    mine, theirs = (runpy.run_path(str(path)) for path in (tmp_path / "mine.py", library))
    frames = exception_metadata(raised(lambda: theirs["call"](mine["fail"])))["frames"]
    assert [frame.get("own", False) for frame in frames[-2:]] == [False, True]
    assert not any("own" in frame for frame in frames[:-1])


def test_a_time_limit_that_says_nothing_says_where() -> None:
    """`asyncio.timeout` raises without a word."""

    def time_out() -> None:
        raise TimeoutError

    line = exception_line(raised(time_out))
    assert line.startswith("TimeoutError: a time limit was over in time_out (test_tracebacks.py:")
    assert exception_line(TimeoutError("after 5 s")) == "TimeoutError: after 5 s"


def test_a_secret_in_a_line_of_code_is_hidden() -> None:
    """Somebody wrote it into the source."""
    masker = Masker()
    masker.add("hunter22")

    def fail() -> None:
        password = "hunter22"; raise ValueError(password)  # fmt: skip  # noqa: E702

    told = exception_metadata(raised(fail), masker)
    assert "hunter22" not in orjson.dumps(told).decode()
    assert "***" in told["frames"][-1]["code"]


def test_a_plugins_module_is_told_by_the_name_that_its_author_knows(tmp_path: Path) -> None:
    """What keeps two files of one name apart is in no text that a person reads."""
    (tmp_path / "__init__.py").write_text("class Failed(Exception): pass\n")
    module = _import(tmp_path / "__init__.py")
    error = module.Failed(f"{module.Failed}")
    told = f"<class '{tmp_path.name}.Failed'>"
    assert exception_text(error) == f"{tmp_path.name}.Failed: {told}"
    assert exception_line(error) == f"Failed: {told}"
