"""
Secrets out of what is stored, shown and written.

A task registers the values that must not appear: its secret params, and what it adds itself.
They are replaced by `***` in messages and metadata before an entry is encoded, so neither the
store nor any reader ever has them. Each is looked for in the forms in which secrets escape: as
it is, URL-encoded, inside JSON, a `repr` or a shell's quotes (each character for itself, for
programs differ in which they escape), as base64, and line by line where it has several. The
password in `scheme://user:password@host` is always hidden, and so is a token in the user's place.

This is best effort: what a program transforms in other ways before it says it, no list finds.
"""

import base64
import functools
import re
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from taskd.text.sanitise import free_key

MASK = "***"
SECRET_CHARACTERS_MIN = 4
# A longer secret is looked for as it is, as base64 and line by line.
ESCAPED_CHARACTERS_MAX = 8_192
# What one character may become: four bytes of UTF-8, each as `%XX`.
FORM_SHARE = 12
# More than one backslash: JSON inside JSON, the repr of a repr.
SLASHES_MAX = 8
# Where common encoders end a line of base64.
BASE64_COLUMNS = (64, 76)

# No backtracking: each part excludes the character that ends it.
_URL_PASSWORD = re.compile(r"(?<=://)([^\s/:@?#]*):([^\s/]+)@")
# What stands where a user's name does and is longer than a name is a token.
_URL_TOKEN = re.compile(r"(?<=://)[^\s/:@?#]{20,}+(?=(?::\*\*\*)?@)")


class Masker:
    """
    The secrets of one task; calling it hides them in a text.

    `needed` is False while none is registered: then only URLs need to be looked at.
    """

    def __init__(self) -> None:
        self.needed = False
        self.longest = 0
        self._forms: set[str] = set()
        self._encoded: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self._lock = threading.Lock()

    def add(self, secret: str) -> None:
        """Hide `secret` from now on. Under 4 characters it is left alone: it would hide half of every log."""
        lines = secret.splitlines()
        plain = _long_enough({secret, secret.strip(), *lines, *map(str.strip, lines)})
        with self._lock:
            self._forms.update(plain)
            self._encoded.update(_long_enough(_base64_forms(secret)))
            self._pattern = None  # made anew when it is next needed
            self.longest = max((FORM_SHARE * len(form) for form in self._forms), default=0)
            self.needed = bool(self._forms)

    def __call__(self, text: str) -> str:
        """`text` with every secret as `***`."""
        # The secrets first: one may itself be a URL with a password.
        if self.needed:
            text = (self._pattern or self._compiled()).sub(MASK, text)
        return _URL_TOKEN.sub(MASK, _URL_PASSWORD.sub(rf"\1:{MASK}@", text)) if "://" in text else text

    def finds(self, encoded: bytes) -> bool:
        """Whether something in a JSON text may have to be hidden: a secret, or what may be one escaped."""
        return self.needed and (
            b"\\" in encoded or (self._pattern or self._compiled()).search(encoded.decode()) is not None
        )

    def value(self, value: Any) -> Any:
        """The same in every text, keys included, of a value that JSON can hold; a number that is a secret goes too."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, dict):
            masked: dict[str, Any] = {}
            for key, item in value.items():
                masked[free_key(self(key), masked)] = self.value(item)
            return masked
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if self.needed and type(value) in (int, float) and str(value) in self._forms:
            return MASK
        return value

    def _compiled(self) -> re.Pattern[str]:
        with self._lock:
            encoded = self._encoded - self._forms
            # The longest first, or a secret that contains another would be hidden in part.
            longest_first = sorted(self._forms | encoded, key=len, reverse=True)
            forms = (re.escape(form) if form in encoded else _escaped(form) for form in longest_first)
            self._pattern = re.compile("|".join(forms))
            return self._pattern


def _long_enough(forms: Iterable[str]) -> Iterator[str]:
    return (form for form in forms if len(form) >= SECRET_CHARACTERS_MIN)


def _escaped(form: str) -> str:
    """A pattern for a text in which any character may be escaped."""
    if len(form) > ESCAPED_CHARACTERS_MAX:
        return re.escape(form)
    pieces = _PIECES.findall(form)
    return "".join(_piece(piece, before[:1] == "\\") for before, piece in zip(["", *pieces], pieces, strict=False))


def _piece(piece: str, behind_slash: bool) -> str:
    """A run of backslashes, a run of what is never escaped, or one other character."""
    if piece[0] == "\\":
        # Everything here that repeats is possessive: nothing is tried twice.
        return rf"(?:\\{{{len(piece)},{SLASHES_MAX * len(piece)}}}+|(?:%(?:25)*5[cC]){{{len(piece)}}})"
    if piece.isascii() and piece.isalnum():
        return piece
    # The run before has taken this one's backslashes too.
    return _either(piece, "" if behind_slash else _SLASHES)


_SHORT = {"\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f", "\v": "v", "\a": "a", "\0": "0"}
_HTML = {"&": "amp|#38|#x26", "<": "lt|#60", ">": "gt|#62", '"': "quot|#34|#x22", "'": "apos|#39|#x27"}
_SLASHES = rf"\\{{1,{SLASHES_MAX}}}+"
_PIECES = re.compile(r"\\+|[a-zA-Z0-9]+|[^a-zA-Z0-9\\]")


@functools.lru_cache(4_096)
def _either(character: str, slashes: str) -> str:
    """A pattern for one character, as itself or escaped; the longer alternatives come first."""
    code = ord(character)
    data = character.encode("utf-8", "surrogatepass")
    raw = character.encode("utf-8", "surrogateescape") if 0xDC80 <= code <= 0xDCFF else data
    units = character.encode("utf-16-be", "surrogatepass")
    ways = [slashes + _SLASHES.join(f"u{_hex(units[place : place + 2])}" for place in range(0, len(units), 2))]
    ways += [slashes + _SLASHES.join(f"x{_hex(bytes([byte]))}" for byte in part) for part in {data, raw}]
    ways += ["".join(f"%(?:25)*{_hex(bytes([byte]))}" for byte in part) for part in {data, raw}]
    if code > 0xFFFF:
        ways.append(f"{slashes}U{_hex(code.to_bytes(4, 'big'))}")
    elif 0x80 <= code <= 0xFF:
        ways.append(f"{slashes}x{_hex(bytes([code]))}")
    if character in _SHORT:
        ways.append(f"{slashes}{_SHORT[character]}")
    if character in _HTML:
        ways.append(f"&(?:{_HTML[character]});")
    if character == "'":
        ways += [r"'\"'\"'", r"'\\''"]  # as a shell's words are quoted
    if character == "\n":
        ways.append("\r\n")
    if character == " ":
        ways.append(r"\+")
    ways.append(rf"\\{{0,{SLASHES_MAX}}}+{re.escape(character)}")
    return f"(?:{'|'.join(ways)})"


def _hex(data: bytes) -> str:
    """A pattern for the digits, small or capital."""
    return "".join(digit if digit.isdigit() else f"[{digit}{digit.upper()}]" for digit in data.hex())


def _base64_forms(secret: str) -> Iterator[str]:
    data = secret.encode("utf-8", "surrogatepass")
    # Where base64 text holds the secret among other bytes, its digits depend on where in a
    # group of three it begins; the digits that mix with a neighbour are left off.
    for shift in range(3):
        digits = base64.b64encode(b"\0" * shift + data).decode().rstrip("=")
        inner = digits[(0, 2, 3)[shift] : len(digits) - (len(data) + shift) % 3]
        yield inner
        yield inner.replace("+", "-").replace("/", "_")
    whole = base64.b64encode(data).decode()
    for columns in BASE64_COLUMNS:
        if len(whole) > columns:
            yield from (whole[start : start + columns] for start in range(0, len(whole), columns))
