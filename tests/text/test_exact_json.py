"""Every value of a JSON text is kept as it is written, or is refused with its place."""

import math

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskd.text.exact_json import INTEGER_MAX, INTEGER_MIN, TooDeep, Unkept, faults_in, loads

WIDE = 2**70


@pytest.mark.parametrize(
    "text",
    [
        "18446744073709551616", "-9223372036854775809", "12345678901234567890123", "9" * 5_000, "1e400", "-1e400",
        "1e-400", "0.1000000000000000055", "9007199254740993.0", "12345678901234567890123.0", "-0",
    ],
)  # fmt: skip
def test_a_number_that_cannot_be_kept_is_refused_with_its_path(text: str) -> None:
    """At any place; the message has the expected range."""
    with pytest.raises(Unkept, match="expected ") as raised:
        loads(f'{{"params": {{"rows": [1, {{"id": {text}}}]}}}}')
    assert [fault["path"] for fault in raised.value.faults] == ["params.rows.1.id"]


@pytest.mark.parametrize(
    "text",
    [
        "18446744073709551615",
        "-9223372036854775808",
        "0",
        "1",
        "1.0",
        "-0.0",
        "0.1",
        "1.7976931348623157e+308",
        "5e-324",
    ],
)
def test_a_number_within_its_type_keeps_its_digits(text: str) -> None:
    """An integer stays one, and a float one."""
    assert orjson.dumps(loads(text)).decode() == text


@given(st.integers(-WIDE, WIDE))
def test_an_integer_is_kept_or_refused(value: int) -> None:
    """By its size alone."""
    try:
        assert loads(str(value)) == value
    except Unkept:
        assert not INTEGER_MIN <= value <= INTEGER_MAX


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_kept_however_a_program_writes_it(value: float) -> None:
    """In its shortest form, and in the 17 digits of C and Java."""
    assert loads(repr(value)) == loads(f"{value:.16e}") == value


@pytest.mark.parametrize(
    "text", ['{"a": {"b": 1, "b": 2}}', '{"a": {"b": 1, "c": 2, "b": 1}}', b'{"a": {"b": 1, "\\u0062": 2}}']
)
def test_a_key_that_is_given_twice_is_refused(text: str | bytes) -> None:
    """Two programs may each take another one of the two."""
    with pytest.raises(Unkept, match=r"^a\.b: given twice$"):
        loads(text)


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[NaN]", b"[-Infinity]", b"[\xff]", b'["\\ud800"]', b"\xef\xbb\xbf{}", "{}".encode("utf-16"),
        b"[01]", b"[1,]", b"[" * 100_000, b"1 2",
    ],
)  # fmt: skip
def test_what_is_no_json_is_refused_with_its_place(text: bytes) -> None:
    """As orjson reports it."""
    with pytest.raises(orjson.JSONDecodeError, match="line 1 column "):
        loads(text)


def test_json_that_could_not_be_written_again_is_too_deep() -> None:
    """Whatever the stack has room for."""
    assert loads("[" * 250 + "]" * 250)
    for levels in (300, 500, 1_000):
        with pytest.raises(TooDeep, match="250 levels"):
            loads("[" * levels + "]" * levels)


def test_many_faults_are_named_in_part() -> None:
    """A message of a megabyte is no help."""
    with pytest.raises(Unkept) as raised:
        loads(f"[{'1e999,' * 1_000}0]")
    assert len(raised.value.faults) == 20


def test_values_of_python_have_the_limits_of_their_json() -> None:
    """What orjson writes as null or refuses."""
    found = list(faults_in({"a": [1, math.nan, (2**64,)], "b": -1.5, "c": math.inf}, "params"))
    assert [fault["path"] for fault in found] == ["params.a.1", "params.a.2.0", "params.c"]
