"""
JSON whose values are kept as they are written, or refused with their place.

orjson reads an integer beyond 64 bits as a float, rounds a number that no float holds, and lets the
last of two equal keys win: a task would run with other params than it was given. So the standard
library reads the text first and marks such values. Its result is used for nothing else: orjson is the
stricter of the two (NaN, lone surrogates, bytes that are not UTF-8).
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

import orjson

from taskd.errors import Fault

INTEGER_MIN, INTEGER_MAX = -(2**63), 2**64 - 1
# Every 64-bit float has a shortest form of at most 17 digits (IEEE 754).
FLOAT_DIGITS_MAX = 17
# With the point, 15 digits, which any float holds.
SURELY_HELD = 16
# Of a text with thousands of such values, as many are named.
FAULTS_MAX = 20

NOT_AN_INTEGER = f"expected an integer from {INTEGER_MIN} to {INTEGER_MAX}, or text"
NOT_A_FLOAT = f"expected a number that a 64-bit float holds ({FLOAT_DIGITS_MAX} digits at most), or text"
NEGATIVE_ZERO = "expected 0, or -0.0"
TWICE = "given twice"


class Unkept(ValueError):
    """Values cannot be kept as they are written; `faults` has the place of each."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("; ".join(": ".join(filter(None, (fault["path"], fault["message"]))) for fault in faults))
        self.faults = faults


class TooDeep(ValueError):
    """JSON that can be read and not be written again: orjson reads 1,024 levels and writes 254."""

    def __init__(self) -> None:
        super().__init__("nested too deeply: expected at most 250 levels")


def loads(text: bytes | str) -> Any:
    """Return the value of a JSON text. Raises `Unkept`, `TooDeep` and `orjson.JSONDecodeError`."""
    marks = _Marks()
    marked = marks.read(text)
    if marks.made:
        raise Unkept(list(islice(faults_in(marked), FAULTS_MAX)))
    value = orjson.loads(text)
    try:
        orjson.dumps(value)
    except orjson.JSONEncodeError as error:
        raise TooDeep from error
    return value


def faults_in(value: object, path: str = "") -> Iterator[Fault]:
    """Yield the place of each value that JSON text cannot keep. May raise `RecursionError`."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from faults_in(item, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from faults_in(item, f"{path}.{place}" if path else str(place))
    elif message := _fault_of(value):
        yield {"path": path, "message": message}


def _fault_of(value: object) -> str:
    if isinstance(value, _Mark):
        return value.message
    if isinstance(value, int) and not INTEGER_MIN <= value <= INTEGER_MAX:
        return NOT_AN_INTEGER
    return NOT_A_FLOAT if isinstance(value, float) and not math.isfinite(value) else ""


class _Mark:
    """Stands for a value that cannot be kept."""

    def __init__(self, message: str) -> None:
        self.message = message


class _Marks:
    """What the standard library's decoder calls for each number and object of one text."""

    def __init__(self) -> None:
        self.made = False

    def read(self, text: bytes | str) -> object:
        """Return the value with its marks; None if the text is no JSON, which orjson reports."""
        try:
            return json.loads(
                text if isinstance(text, str) else text.decode(),
                parse_int=self._integer,
                parse_float=self._float,
                object_pairs_hook=self._object,
            )
        except (ValueError, RecursionError):
            self.made = False
            return None

    def _integer(self, digits: str) -> object:
        if digits == "-0":
            return self._mark(NEGATIVE_ZERO)
        # Python refuses to read 4,300 digits; 64 bits have 20.
        kept = len(digits) < 19 or (len(digits) <= 20 and INTEGER_MIN <= int(digits) <= INTEGER_MAX)
        return None if kept else self._mark(NOT_AN_INTEGER)

    def _float(self, written: str) -> object:
        return None if _holds(written) else self._mark(NOT_A_FLOAT)

    def _object(self, pairs: list[tuple[str, object]]) -> object:
        members = dict(pairs)
        if len(members) < len(pairs):
            counts = Counter(name for name, _ in pairs)
            members |= {name: self._mark(TWICE) for name, count in counts.items() if count > 1}
        return members

    def _mark(self, message: str) -> _Mark:
        self.made = True
        return _Mark(message)


def _holds(written: str) -> bool:
    """Whether a float has the digits that are written, as many as there are."""
    if len(written) <= SURELY_HELD and "e" not in written.lower():
        return True
    digits = _digits_of(written)
    if not digits or len(digits) > FLOAT_DIGITS_MAX:
        return not digits
    value = float(written)
    # Its shortest form and its digits to that place may differ: half-way, one rounds up and one to even.
    return digits in (_digits_of(repr(value)), _digits_of(f"{value:.{len(digits) - 1}e}"))


def _digits_of(written: str) -> str:
    """Return the significant digits, without the zeros around them."""
    return re.split("[eE]", written, maxsplit=1)[0].lstrip("-").replace(".", "").strip("0")
