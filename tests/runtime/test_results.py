"""A result is kept whole, whatever stands in it; a part that is cut is reported with its place."""

import dataclasses
import datetime
import decimal
import enum
import json
import math
import pathlib
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from taskd.runtime.results import CUTS_NAMED_MAX, DEPTH_MAX, VALUES_MAX, ResultTooLarge, encode_result


class Colour(enum.Enum):
    RED = decimal.Decimal("0.1")


class Model(BaseModel):
    path: pathlib.Path
    size: decimal.Decimal


@dataclasses.dataclass
class Point:
    x: object
    _hidden: int = 0


class Pair(NamedTuple):
    a: object
    b: object


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")


ODD = [decimal.Decimal("1.50"), math.nan, pathlib.Path("/x"), {1}, 2**64, b"\xff", "\ud800", Hostile(), {(1, 2): 3}]


def kept(value: object) -> Any:
    encoded, cuts = encode_result(value)
    assert not cuts
    return json.loads(encoded)


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: type(odd).__name__)
def test_one_odd_value_cuts_nothing_beside_it(odd: object) -> None:
    """Neither items, nor keys, nor long keys, nor nested ones."""
    rows = [{"n": number, "when": datetime.datetime(2026, 1, 2)} for number in range(1_500)]
    keys = {f"{'k' * 300}{number}": [[None]] for number in range(1_500)}
    shown = kept({"rows": rows, "odd": odd, "keys": keys, "again": [*rows, odd]})
    assert shown["rows"] == [{"n": number, "when": "2026-01-02T00:00:00"} for number in range(1_500)]
    assert shown["keys"] == keys
    assert shown["again"] == [*shown["rows"], shown["odd"]]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (decimal.Decimal("1.50"), "1.50"),
        (2**64, "18446744073709551616"),
        (-(10**4_000), f"-1{'0' * 4_000}"),
        ([math.nan, -math.inf, None], ["nan", "-inf", None]),
        (pathlib.Path("/a\udcff"), "/a\\udcff"),
        (datetime.timedelta(hours=1), "1:00:00"),
        (Pair(1, {2}), [1, [2]]),
        ({1: "a", "1": "b", None: "c"}, {"1": "a", "1 (2)": "b", "None": "c"}),
        (Colour.RED, "0.1"),
        (Point(x=Colour.RED), {"x": "0.1"}),
        (Model(path=pathlib.Path("/x"), size=decimal.Decimal("2.0")), {"path": "/x", "size": "2.0"}),
        (b"\xff", "b'\\xff'"),
        (Hostile(), "<Hostile: its repr raised RuntimeError>"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_becomes_the_nearest_json(value: object, shown: object) -> None:
    """Alone or beside others; numbers keep their digits, and NaN is not taken for nothing."""
    assert kept(value) == shown
    assert kept([value, {"a": value}]) == [shown, {"a": shown}]


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(), st.lists, max_leaves=20))
def test_json_is_kept_as_it_is(value: Any) -> None:
    """But for an integer that no store can hold."""
    if "9223372036854775808" not in repr(value) and "\\u" not in ascii(value):
        assert kept(value) == value


def nested(depth: int, end: object) -> object:
    for _ in range(depth):
        end = [end]
    return end


def test_a_cut_is_reported_with_its_place() -> None:
    """So that a reader knows what is missing."""
    cycle: dict[str, Any] = {"rows": [1]}
    cycle["rows"].append(cycle)
    assert encode_result(cycle) == (b'{"rows":[1,"<cycle>"]}', ["<cycle> at rows.1"])
    _, cuts = encode_result(nested(300, decimal.Decimal(1)))
    assert cuts == [f"<deeper than {DEPTH_MAX}> at {'0.' * 100}"]
    _, cuts = encode_result([2**20_000] * (CUTS_NAMED_MAX + 5))
    assert (cuts[0], cuts[-1]) == ("<integer of 20,001 bits> at 0", "5 more places")


def test_parts_that_are_too_deep_together_are_cut() -> None:
    """Each of them is not; the result is JSON that can be read again."""
    encoded, cuts = encode_result({"a": nested(240, 1), "b": nested(40, nested(240, {1}))})
    assert json.loads(encoded)["a"] != json.loads(encoded)["b"]
    assert cuts


def test_more_values_than_its_bytes_allow_are_not_looked_at() -> None:
    """A small value that is astronomic when it is written out does not hold up the loop."""
    value: Any = [decimal.Decimal(1)] * 10
    while len(value) < VALUES_MAX:
        value = value * 10
    with pytest.raises(ResultTooLarge):
        encode_result(value)
