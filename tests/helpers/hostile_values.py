"""Values that no log can keep unchanged: a list, and hypothesis strategies that draw more."""

import decimal
import math
from collections.abc import Iterator
from typing import Any
from unittest import mock

from hypothesis import strategies as st


class ReprRaises:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class ReprIsNoText:
    def __repr__(self) -> str:
        return 7  # type: ignore[return-value]  # that is the point


class ClassRaises:
    @property  # type: ignore[misc]  # that is the point
    def __class__(self) -> type:
        raise RuntimeError("no class")


class Text(str):
    def __str__(self) -> str:
        raise RuntimeError("no str")

    def __len__(self) -> int:
        return 10**9


class Number(int):
    def __int__(self) -> int:
        raise RuntimeError("no int")

    def __ge__(self, other: object) -> bool:
        raise RuntimeError("no order")


class Fraction(float):
    def __float__(self) -> float:
        raise RuntimeError("no float")


class Mapping(dict[Any, Any]):
    def items(self) -> Any:
        raise RuntimeError("no items")


class Sequence(list[Any]):
    def __iter__(self) -> Iterator[Any]:
        raise RuntimeError("no items")


def a_cycle() -> list[Any]:
    cycle: list[Any] = [1]
    cycle.append({"again": cycle})
    return cycle


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


HOSTILE = [
    ReprRaises(), ReprIsNoText(), ClassRaises(), Text("x\ud800"), Number(3), Fraction(1.5), Mapping(a=1), Sequence([1]),
    mock.Mock(spec=str), mock.Mock(spec=int), mock.Mock(spec=bool), mock.Mock(spec=dict), mock.Mock(spec=list),
    a_cycle(), deep(10_000), 10**5_000, -(2**63) - 1, 2**63, math.nan, math.inf, -math.inf, decimal.Decimal("1.5"),
    b"\xff\0", "\0", "\ud800", "a\udc80b", {1: "a", "1": "b", None: "c", (1,): "d"}, {"\0": "\0", "\ud800": 1},
    object, print, iter(()), {1, "a"}, frozenset({b"x"}), Ellipsis, 1j, range(3), bytearray(b"x"),
]  # fmt: skip
SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | st.binary() | st.text() | st.complex_numbers()
# Drawn by index, because hypothesis inspects what it draws. Values that cannot be inspected are left out.
SEEN = [value for value in HOSTILE if type(value) not in (ClassRaises, mock.Mock)]
LEAF = SCALAR | st.text(st.characters(exclude_categories=())) | st.integers(0, len(SEEN) - 1).map(lambda at: SEEN[at])
KEY = st.text(st.characters(exclude_categories=())) | st.integers() | st.none() | st.binary() | st.just(Text("k"))
VALUE = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(KEY, inner, max_size=4),
    max_leaves=12,
)
METADATA = st.dictionaries(st.text(st.characters(exclude_categories=()), max_size=300), VALUE, max_size=6)


class Box:
    """A drawn value whose repr may raise."""

    def __init__(self, value: Any) -> None:
        self.value = value


ANYTHING = VALUE.map(Box)
ANY_METADATA = METADATA.map(Box)
