"""
Fold tracebacks for reading: show the frames of the plugin's own code, and count the others.

The metadata of an entry lists the files of its exception's frames and marks the plugin's own ones. Only
frames of the other files are folded. Lines that Python's traceback format does not have, and frames that
are not in the metadata, stay unchanged.
"""

import re
from collections.abc import Iterator
from typing import Any

HEAD = "Traceback (most recent call last):"
_FRAME = re.compile(r'  File "(?P<file>.+)", line \d+, in .+')
_OF_A_FRAME = ("    ", "  [Previous line repeated ")


def folded(message: str, raised: object) -> str:
    """Return `message` with each run of frames that are not the plugin's own replaced by one line."""
    own, foreign = _files(raised)
    # If an exception passed through no code of the plugin, all its frames matter.
    return "\n".join(_folded(message.split("\n"), foreign - own)) if own else message


def _folded(lines: list[str], foreign: set[str]) -> Iterator[str]:
    count, within, hidden = 0, False, False
    for line in lines:
        # A traceback ends with the line of the exception, which is not indented.
        within = line == HEAD or (within and line.startswith("  "))
        frame = _FRAME.fullmatch(line) if within else None
        if frame is not None:
            hidden = frame["file"] in foreign
            count += hidden
        elif not line.startswith(_OF_A_FRAME):
            hidden = False
        if hidden:
            continue
        if count:
            yield f"  … {count:,} frame{'s' * (count > 1)} (--output ndjson has them)"
            count = 0
        yield line


def _files(raised: object) -> tuple[set[str], set[str]]:
    """Return the files of the plugin's own frames and the files of the others, over an exception and its causes."""
    own: set[str] = set()
    foreign: set[str] = set()
    while isinstance(raised, dict):
        for frame in _dicts(raised.get("frames")):
            (own if frame.get("own") is True else foreign).add(str(frame.get("file")))
        raised = raised.get("cause")
    return own, foreign


def _dicts(value: object) -> Iterator[dict[str, Any]]:
    yield from (one for one in value if isinstance(one, dict)) if isinstance(value, list) else ()
