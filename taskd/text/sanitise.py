"""
Any Python value into what JSON, SQLite and PostgreSQL can all hold.

A log call must not raise for what it is given, and one bad entry must not take its batch
down. What makes orjson or a database refuse is known: lone surrogates (any file name that is
not UTF-8), NUL, integers outside 64 bits, NaN and infinities, nesting too deep, cycles, keys
that are not text, bytes, objects, and objects whose `repr` raises. Each becomes visible text
here, once, before the entry is encoded; after that nothing can fail.

The common case (short ASCII message, a few plain values) is decided by a few type checks and
costs well under a microsecond. Everything else takes the slow path.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import orjson

DEPTH_MAX = 16
KEYS_MAX = 1_000
# Values looked at in one result; in metadata, no more than it may have bytes.
VALUES_MAX = 100_000
KEY_CHARACTERS_MAX = 256

Mask = Callable[[str], str]

# What the code of a foreign object may raise. All of it: a cancellation comes where something is awaited,
# and Ctrl-C raises nothing (`taskd.system.signals`), so what is raised in a `repr` is that object's own.
RAISED = BaseException
_PLAIN = frozenset({str, bool, type(None)})
_BACKSLASH, _AT = b"\\@"
_dumps = orjson.dumps
_INTEGER_MIN, _INTEGER_MAX = -(2**63), 2**63 - 1


def plain_body(message: object, metadata: dict[str, Any] | None, bytes_max: int) -> bytes | None:
    """
    `body_of` what is said, where nothing in it needs cleaning, masking or cutting; else None.

    The common case, in one look: what is wrong with a text shows in its JSON. `bytes_max` is the
    least of the limits of message and metadata.
    """
    if type(message) is not str:
        return None
    if metadata:
        for value in metadata.values():
            kind = type(value)
            if kind is int:
                if value > _INTEGER_MAX:  # those that are too small orjson refuses itself
                    return None
            elif kind is float:
                if value - value:  # what is not finite, less itself, is no number
                    return None
            elif kind not in _PLAIN:
                return None
    try:
        body = _dumps({"message": message, "metadata": metadata or None})
    except (orjson.JSONEncodeError, RecursionError):  # a lone surrogate, a key that is no text
        return None
    if len(body) > KEY_CHARACTERS_MAX and (len(body) > bytes_max or (metadata and not _keys_fit(metadata))):
        return None
    # A byte is found much faster than several: those two are in most texts not there at all.
    if (_BACKSLASH in body and b"\\u0000" in body) or (_AT in body and b"://" in body):
        return None
    return body


def clean_text(value: object) -> str:
    """`value` as text that is valid UTF-8 and has no NUL: both are shown escaped, as `\\udc80`, `\\x00`."""
    text = value if type(value) is str else _text(value)
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode()
    return text.replace("\0", "\\x00") if "\0" in text else text


def clean_metadata(metadata: dict[str, Any], bytes_max: int, mask: Mask | None = None) -> bytes | None:
    """
    `metadata` as a JSON object, or None where it is empty.

    Longer than `bytes_max`, its largest values are replaced by marks that say how long they
    were, until it fits. `mask` hides secrets in keys that are cut; the rest is for the caller to mask.
    """
    if not metadata:
        return None
    encoded = orjson.dumps(_Cleaning(bytes_max, mask).members(metadata, 1))
    return encoded if len(encoded) <= bytes_max else _cut(orjson.loads(encoded), bytes_max)


def split_text(text: str, bytes_max: int) -> Iterator[str]:
    """`text` in parts of at most `bytes_max` bytes of UTF-8, never inside a character."""
    if len(text) * 4 <= bytes_max or len(text.encode()) <= bytes_max:
        yield text
        return
    data = text.encode()
    start = 0
    while start < len(data):
        end = min(start + bytes_max, len(data))
        # 0b10xxxxxx continues a character: step back to where one begins.
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1
        yield data[start:end].decode()
        start = end


def clean_value(value: object, mask: Mask | None = None) -> Any:
    """`value` as what JSON can hold: for a task's result and params. `mask` as for `clean_metadata`."""
    return _Cleaning(VALUES_MAX, mask).clean(value, 0)


def type_name(value: object) -> str:
    """What the type of `value` is called, whatever its metaclass would say."""
    return str(type.__dict__["__name__"].__get__(type(value)))


def free_key(key: str, taken: dict[str, Any]) -> str:
    """`key`, or with a number behind it where it is taken: two keys that have become one are still two."""
    # Not from 1 on: a thousand keys that are alike when they are cut would look a thousand times each.
    unique, number = key, len(taken)
    while unique in taken:
        number += 1
        unique = f"{key} ({number})"
    return unique


def _keys_fit(metadata: dict[str, Any]) -> bool:
    return len(metadata) <= KEYS_MAX and max(map(len, metadata)) <= KEY_CHARACTERS_MAX


class _Cleaning:
    """One value on its way to JSON: what it is inside of, and how many more values may be looked at."""

    def __init__(self, values_max: int, mask: Mask | None) -> None:
        self._left = values_max
        self._mask = mask
        self._inside: set[int] = set()

    def clean(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            return "<more>"
        try:
            return self._clean(value, depth)
        except RAISED as error:  # a subclass, or what only says it is one, may do anything when it is read
            return f"<{type_name(value)}: not readable, {type_name(error)}>"

    def _clean(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if value is None or kind is bool:
            return value
        if issubclass(kind, str):
            return clean_text(str.__str__(value))
        if issubclass(kind, int):
            plain = int.__index__(value)
            return plain if _INTEGER_MIN <= plain <= _INTEGER_MAX else _digits(plain)
        if issubclass(kind, float):
            plain_float = float.__float__(value)
            return plain_float if math.isfinite(plain_float) else float.__repr__(plain_float)
        if not issubclass(kind, dict | list | tuple | set | frozenset):
            return clean_text(_text(value))
        return self._container(value, depth)

    def _container(self, value: Any, depth: int) -> Any:
        if id(value) in self._inside:
            return "<cycle>"
        if depth >= DEPTH_MAX:
            return f"<deeper than {DEPTH_MAX}>"
        self._inside.add(id(value))
        try:
            if isinstance(value, dict):
                return self.members(value, depth + 1)
            items = [self.clean(item, depth + 1) for item, _ in zip(value, range(KEYS_MAX), strict=False)]
            return [*items, f"<{len(value) - KEYS_MAX} more>"] if len(value) > KEYS_MAX else items
        finally:
            self._inside.discard(id(value))

    def members(self, value: dict[Any, Any], depth: int) -> dict[str, Any]:
        cleaned: dict[str, Any] = {}
        for count, (key, item) in enumerate(value.items()):
            if count == KEYS_MAX:
                cleaned["<more>"] = f"{len(value) - KEYS_MAX} keys left out"
                break
            cleaned[self._key(key, cleaned)] = self.clean(item, depth)
        return cleaned

    def _key(self, key: object, taken: dict[str, Any]) -> str:
        text = clean_text(key)
        # Masked before it is cut, or half of a secret would be left.
        if self._mask is not None and len(text) > KEY_CHARACTERS_MAX:
            text = self._mask(text)
        # 1 and "1" are different keys to Python and one to JSON: keep both.
        return free_key(_shortened(text, KEY_CHARACTERS_MAX), taken)


def _shortened(text: str, characters_max: int) -> str:
    """Cut, and marked as cut, where it is too long."""
    return text if len(text) <= characters_max else f"{text[: characters_max - 1]}…"


def _cut(metadata: dict[str, Any], bytes_max: int) -> bytes:
    sizes = {key: len(orjson.dumps(value)) for key, value in metadata.items()}
    # With the quotes, the colon and the comma around each.
    whole = sum(size + len(orjson.dumps(key)) + 2 for key, size in sizes.items())
    for key in sorted(sizes, key=lambda key: sizes[key], reverse=True):
        mark = f"<{sizes[key]:,} bytes cut>"
        metadata[key] = mark
        whole -= sizes[key] - len(mark) - 2
        if whole <= bytes_max:
            return orjson.dumps(metadata)
    return orjson.dumps({"<cut>": f"{len(sizes):,} keys, {sum(sizes.values()):,} bytes"})


def _digits(value: int) -> str:
    # `str` refuses integers of over 4,300 digits.
    bits = value.bit_length()
    return int.__repr__(value) if bits < 10_000 else f"<integer of {bits:,} bits>"


def _text(value: object) -> str:
    """`str` of text, `repr` of anything else; what goes wrong in it becomes the text."""
    try:
        text = str.__str__(value) if isinstance(value, str) else repr(value)
        return str.__str__(text)
    except RAISED as error:
        return f"<{type_name(value)}: its repr raised {type_name(error)}>"
