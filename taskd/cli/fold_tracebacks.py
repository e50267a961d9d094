"""
The frames of a traceback as a person reads them: those of the plugin's own code, and how many others.

What an entry tells of its exception as data says which files are not the plugin's own. Only frames
of those are folded; what does not look as Python prints it, or is not in the data, stays as it is.
"""

import re
from collections.abc import Iterator
from typing import Any

HEAD = "Traceback (most recent call last):"
_FRAME = re.compile(r'  File "(?P<file>.+)", line \d+, in .+')
_OF_A_FRAME = ("    ", "  [Previous line repeated ")


def folded(message: str, raised: object) -> str:
    """`message` with each run of frames in its tracebacks that are not a plugin's own as one line."""
    own, foreign = _files(raised)
    # Of an exception that went through nothing of its own all frames matter.
    return "\n".join(_folded(message.split("\n"), foreign - own)) if own else message


def _folded(lines: list[str], foreign: set[str]) -> Iterator[str]:
    count, within, hidden = 0, False, False
    for line in lines:
        # A block ends with the line of the exception, which is not indented.
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
    """The files of an exception's own frames and of the others, with those of its causes."""
    own: set[str] = set()
    foreign: set[str] = set()
    while isinstance(raised, dict):
        for frame in _dicts(raised.get("frames")):
            (own if frame.get("own") is True else foreign).add(str(frame.get("file")))
        raised = raised.get("cause")
    return own, foreign


def _dicts(value: object) -> Iterator[dict[str, Any]]:
    yield from (one for one in value if isinstance(one, dict)) if isinstance(value, list) else ()
