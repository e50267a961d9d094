"""
The name of a source: made from the name of a logger in the same way for an entry and for a filter.

A name is one line of visible text with 1 to 64 characters. A longer one keeps its beginning and gets a
digest, so that two long names stay two sources. A module of a plugin is loaded under a name that begins
with a digest of its path; its source is the name that the author knows (`reindex`, `reindex.sub`).
"""

import hashlib
import re

from taskd.text.sanitise import clean_text

SOURCE_CHARACTERS_MAX = 64
# Of one log: it keeps counts by level and source.
SOURCES_MAX = 1_000
# What a longer name keeps: an ellipsis and eight digits of its digest follow.
KEPT_CHARACTERS = SOURCE_CHARACTERS_MAX - 9

# The beginning of the name of a plugin's module: two directories may both have a `git.py`.
MODULE_PREFIX = "taskd_plugin_"
MODULE = re.compile(rf"\b{MODULE_PREFIX}[0-9a-f]{{12}}_")


def clean_source(value: object) -> str:
    """Return the name that `value` has as a source."""
    text = _visible(value)
    if len(text) <= SOURCE_CHARACTERS_MAX:
        return text or "unnamed"
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{_beginning(text)}{digest}"


def prefixes_below(name: str) -> list[str]:
    """
    Return what the sources below `name` begin with.

    Nothing shows whether a shortened source was below a name that is itself longer than what is
    kept, so all that share its beginning count as below it.
    """
    prefix = f"{_visible(name)}."
    whole = [prefix] if len(prefix) <= SOURCE_CHARACTERS_MAX else []
    return whole if len(prefix) <= KEPT_CHARACTERS else [*whole, _beginning(prefix)]


def _visible(value: object) -> str:
    text = clean_text(value)
    if MODULE_PREFIX in text:
        text = MODULE.sub("", text)
    return text if text.isprintable() else "".join(one if one.isprintable() else "�" for one in text)


def _beginning(text: str) -> str:
    return f"{text[:KEPT_CHARACTERS]}…"
