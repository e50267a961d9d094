"""
Secrets out of what is stored, shown and written.

A task registers the values that must not appear: its secret params, and what it adds itself.
They are replaced by `***` in messages and metadata before an entry is encoded, so neither the
store nor any reader ever has them. Each is looked for in the forms in which secrets escape:
as it is, as base64, URL-encoded, inside JSON, and line by line where it has several. The
password in `scheme://user:password@host` is always hidden.

This is best effort: what a program transforms in other ways before it says it, no list finds.
"""

import base64
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, quote_plus

from taskd.sanitise import clean_text

MASK = "***"
SECRET_CHARACTERS_MIN = 4

# No backtracking: each part excludes the character that ends it.
_URL_PASSWORD = re.compile(r"(?<=://)([^\s/:@?#]*):([^\s/]+)@")


class Masker:
    """
    The secrets of one task; calling it hides them in a text.

    `needed` is False while none is registered: then only URLs need to be looked at.
    """

    def __init__(self) -> None:
        self.needed = False
        self._forms: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def add(self, secret: str) -> None:
        """Hide `secret` from now on. Under 4 characters it is left alone: it would hide half of every log."""
        self._forms.update(form for form in _forms(secret) if len(form) >= SECRET_CHARACTERS_MIN)
        # The longest first, or a secret that contains another would be hidden in part.
        longest_first = sorted(self._forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
        self.needed = bool(longest_first)

    def __call__(self, text: str) -> str:
        """`text` with every secret as `***`."""
        # The secrets first: one may itself be a URL with a password.
        text = self._pattern.sub(MASK, text) if self._pattern else text
        return _URL_PASSWORD.sub(rf"\1:{MASK}@", text) if "://" in text else text

    def value(self, value: Any) -> Any:
        """The same in every text, keys included, of a value that JSON can hold."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, dict):
            return {self(key): self.value(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.value(item) for item in value]
        return value


def _forms(secret: str) -> Iterator[str]:
    for line in {secret, secret.strip(), *secret.splitlines()}:
        yield line
        yield clean_text(line)
        yield quote(line, safe="", errors="surrogateescape")
        yield quote_plus(line, errors="surrogateescape")
        yield json.dumps(line)[1:-1]
        yield json.dumps(line, ensure_ascii=False)[1:-1]
    data = secret.encode("utf-8", "surrogatepass")
    # Where base64 text holds the secret among other bytes, its digits depend on where in a
    # group of three it begins; the digits that mix with a neighbour are left off.
    for shift in range(3):
        digits = base64.b64encode(b"\0" * shift + data).decode().rstrip("=")
        inner = digits[(0, 2, 3)[shift] : len(digits) - (len(data) + shift) % 3]
        yield inner
        yield inner.replace("+", "-").replace("/", "_")
