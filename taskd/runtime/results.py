"""
A task's result as JSON: whole, or with a report of each place where it was cut.

A result may be any Python value. The parts that orjson can encode are kept as orjson encodes
them, so a date looks the same beside a Decimal as it does alone. The other parts become the
nearest JSON: sets and tuples become arrays, paths, Decimals and integers over 64 bits become
text with all their digits, NaN becomes "nan", and an object becomes its `repr`.

Unlike metadata, a result has no limit on keys or items, only the one on its bytes. The limits
that remain are those of JSON and of Python's stack.
"""

import dataclasses
import enum
import math
import os
from collections import deque
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import orjson
from pydantic import BaseModel

from taskd.text.sanitise import RAISED, clean_text, free_key, type_name

RESULT_BYTES_MAX = 1_048_576
# Each value takes at least two bytes of the result: with more of them it is surely too long.
VALUES_MAX = RESULT_BYTES_MAX // 2
# Each level takes four frames of Python's thousand.
DEPTH_MAX = 150
# `repr` of a larger integer takes seconds; Python itself refuses one of over 4,300 digits.
INTEGER_BITS_MAX = 14_000
# Cut places that are named; the others are counted.
CUTS_NAMED_MAX = 10

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY
_AS_TEXT = (Decimal, Fraction, timedelta)
_CONTAINERS = (Mapping, list, tuple, set, frozenset, deque)


class ResultTooLarge(ValueError):
    """The result has more values than fit in its bytes."""


def encode_result(value: Any) -> tuple[bytes, list[str]]:
    """
    Return `value` as JSON, and a sentence for each place where something was cut.

    Runs the code of foreign objects, whose exceptions become text. Raises `ResultTooLarge`.
    """
    try:
        return _encoded(value, _Encoding(at_once=True))
    except TypeError:  # parts that orjson takes alone are too deep together
        return _encoded(value, _Encoding(at_once=False))


def _encoded(value: Any, encoding: "_Encoding") -> tuple[bytes, list[str]]:
    return orjson.dumps(encoding.plain(value, (), 0)), encoding.report()


class _Encoding:
    """One result on its way to JSON; `at_once` if orjson may take containers whole, with all that is in them."""

    def __init__(self, *, at_once: bool) -> None:
        self._at_once = at_once
        self._left = VALUES_MAX
        self._cuts: list[str] = []
        self._cut_count = 0
        self._inside: set[int] = set()

    def report(self) -> list[str]:
        more = self._cut_count - len(self._cuts)
        return [*self._cuts, f"{more:,} more places"] if more else self._cuts

    def plain(self, value: Any, path: tuple[str, ...], depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise ResultTooLarge(f"it has more than {VALUES_MAX:,} values")
        try:
            if self._at_once or not isinstance(value, _CONTAINERS):
                encoded = orjson.dumps(value, option=_OPTIONS)
                # A null may have been NaN, which is found below.
                if b"null" not in encoded or value is None:
                    return orjson.loads(encoded)
        except RAISED:  # something in it is not JSON, or raises when it is read
            pass
        try:
            return self._converted(value, path, depth)
        except ResultTooLarge:
            raise
        except RAISED as error:
            return self._cut(f"<{type_name(value)}: not readable, {type_name(error)}>", path)

    def _converted(self, value: Any, path: tuple[str, ...], depth: int) -> Any:
        if isinstance(value, enum.Enum):
            return self.plain(value.value, path, depth)
        if isinstance(value, str):
            return clean_text(str.__str__(value))
        if isinstance(value, int):
            return self._digits(int.__index__(value), path)
        if isinstance(value, float):
            number = float.__float__(value)
            return number if math.isfinite(number) else float.__repr__(number)
        if isinstance(value, _AS_TEXT):
            return clean_text(str(value))
        if isinstance(value, os.PathLike):
            return clean_text(os.fsdecode(value))
        members = _members(value)
        return clean_text(value) if members is None else self._container(value, members, path, depth)

    def _container(self, value: Any, members: Any, path: tuple[str, ...], depth: int) -> Any:
        if id(value) in self._inside:
            return self._cut("<cycle>", path)
        if depth >= DEPTH_MAX:
            return self._cut(f"<deeper than {DEPTH_MAX}>", path)
        self._inside.add(id(value))
        try:
            if isinstance(members, Mapping):
                return self._object(members, path, depth + 1)
            return [self.plain(item, (*path, str(place)), depth + 1) for place, item in enumerate(members)]
        finally:
            self._inside.discard(id(value))

    def _object(self, members: Mapping[Any, Any], path: tuple[str, ...], depth: int) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for key, item in members.items():
            name = free_key(clean_text(key), kept)
            kept[name] = self.plain(item, (*path, name), depth)
        return kept

    def _digits(self, value: int, path: tuple[str, ...]) -> int | str:
        bits = value.bit_length()
        if bits <= INTEGER_BITS_MAX:
            return value if -(2**63) <= value < 2**63 else int.__repr__(value)
        return self._cut(f"<integer of {bits:,} bits>", path)

    def _cut(self, mark: str, path: tuple[str, ...]) -> str:
        """Return the mark that stands for a part, and note its place."""
        self._cut_count += 1
        if len(self._cuts) < CUTS_NAMED_MAX:
            place = ".".join(path)[:200] or "the result itself"
            self._cuts.append(f"{mark} at {place}")
        return mark


def _members(value: Any) -> Any:
    """Return the members of a value that contains others, as a mapping or an iterable; None for any other value."""
    if isinstance(value, _CONTAINERS):
        return value
    if isinstance(value, BaseModel):
        return dict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value) if not field.name.startswith("_")]
        return {name: getattr(value, name) for name in fields}
    return None
