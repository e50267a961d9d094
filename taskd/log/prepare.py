"""
`Parts`: what is said, whatever it is, as the parts that become entries.

A message becomes text that every store can hold, its secrets are masked, and where it is longer than
`message_bytes_max` it is split; the metadata is with the first part, and the others say that they
continue it.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from taskd.entries import body_of
from taskd.settings import Settings
from taskd.text.masking import Masker
from taskd.text.sanitise import clean_metadata, clean_text, split_text

# One message may take this share of the queue's bytes; what is longer is cut, and says so.
MESSAGE_SHARE = 8
# How far behind a cut a URL with a password is looked for.
URL_CHARACTERS_MAX = 4_096

# What becomes one entry: its message, and that with its metadata as JSON (`body_of`).
Part = tuple[str, bytes]

_CONTINUED = b'{"continued":true}'


class Parts:
    """The parts of one task's messages."""

    def __init__(self, masker: Masker, settings: Settings) -> None:
        self._masker = masker
        self._message_bytes_max = settings.message_bytes_max
        self._metadata_bytes_max = settings.metadata_bytes_max
        # A character takes at most four bytes: what is no longer than this needs no splitting.
        self._short_characters = settings.message_bytes_max // 4
        parts_max = max(1, settings.queue_max // 2)
        self._characters_max = min(settings.queue_bytes_max // MESSAGE_SHARE, parts_max * self._short_characters)

    def of(self, message: object, metadata: dict[str, Any] | None) -> tuple[Part, Sequence[Part]]:
        """The first part, with the metadata, and those behind it. Never raises; it may run foreign code."""
        masker, cut = self._masker, 0
        margin = max(masker.longest, URL_CHARACTERS_MAX)
        if type(message) is str and len(message) > self._characters_max + margin:
            cut = len(message) - self._characters_max
            message = message[: self._characters_max + margin]
        text = clean_text(message)
        encoded = clean_metadata(metadata, self._metadata_bytes_max, masker) if metadata else None
        if masker.needed or "://" in text:
            text = masker(text)
        if cut:
            # There may be half of a secret at its end, which was not recognised.
            text = text[:-margin]
        if encoded is not None and (masker.needed or b"://" in encoded):
            encoded = orjson.dumps(masker.value(orjson.loads(encoded)))
        if len(text) <= self._short_characters and not cut:
            return (text, body_of(text, encoded)), ()
        first, *others = self._split(text, cut)
        return (first, body_of(first, encoded)), [(part, body_of(part, _CONTINUED)) for part in others]

    def _split(self, text: str, cut: int) -> Iterator[str]:
        # A repr, an escape or a mask may have made it longer again.
        cut += max(0, len(text) - self._characters_max)
        text = text[: self._characters_max]
        if cut:
            text = f"{text} <{cut:,} more characters cut>"
        return split_text(text, self._message_bytes_max)
