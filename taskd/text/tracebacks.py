"""
An exception as data and as text: what a log says of it.

Both are bounded: a recursion of a thousand frames or a chain of a hundred causes must not
become a megabyte in the log, and the data must fit in an entry's metadata beside what else is
said there. Whatever is cut is masked before, so that no part of a secret is left at the edge.
"""

import linecache
import os
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import orjson

from taskd.text.sanitise import RAISED, clean_text, clean_value, type_name
from taskd.text.sources import MODULE

FRAMES_MAX = 50
CAUSES_MAX = 10
GROUP_MAX = 10
MESSAGE_CHARACTERS_MAX = 4_000
CODE_CHARACTERS_MAX = 500
TEXT_CHARACTERS_MAX = 32_000
# More of a text is not looked at: of one with a hundred million characters, all but its ends is left out anyway.
LOOKED_AT_MAX = 1_048_576
# Half of what an entry's metadata may have by default.
EXCEPTION_BYTES_MAX = 32_768

Mask = Callable[[str], str]

# Where plugins were loaded from: a directory, or a file that stands alone among libraries.
_own_places: set[str] = set()
# Below such a place there may be an environment, whose libraries are not the plugin's own code.
_LIBRARIES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


def mark_as_own(place: str | os.PathLike[str]) -> None:
    """Mark what lies at `place`, a directory or a file, as plugins' own code in every exception."""
    _own_places.add(os.path.abspath(place))


@dataclass(frozen=True, slots=True)
class _Bounds:
    """How much of an exception is described; `depth` counts causes and groups inside of groups."""

    frames: int
    depth: int
    members: int
    characters: int


# The first with which it fits.
_BOUNDS = (
    _Bounds(FRAMES_MAX, CAUSES_MAX, GROUP_MAX, MESSAGE_CHARACTERS_MAX),
    _Bounds(20, 5, 5, 2_000),
    _Bounds(8, 3, 3, 500),
    _Bounds(3, 1, 2, 200),
    _Bounds(1, 0, 0, 100),
)


def exception_metadata(error: BaseException, mask: Mask = str) -> dict[str, Any]:
    """
    `type`, `message`, `frames` (the newest last) and `cause`, as the contract names them.

    A frame in a plugin's own code has `own`; what a group holds is in `exceptions`, notes are in
    `notes`, and `chained` says whether the cause was named (`cause`) or was being handled
    (`context`). `omitted` says that something was left out.
    """
    told: dict[str, Any] = {}
    for bounds in _BOUNDS:
        told = _Describing(bounds, mask).describe(error, bounds.depth)
        if bounds is not _BOUNDS[0]:
            told["omitted"] = True
        if len(orjson.dumps(clean_value(told))) <= EXCEPTION_BYTES_MAX:
            break
    return told


def exception_text(error: BaseException, mask: Mask = str) -> str:
    """The traceback as Python prints it; of a long one the beginning and the end."""
    # `limit` counts frames; a negative one keeps the newest, where it happened.
    try:
        lines = traceback.format_exception(type(error), error, error.__traceback__, limit=-FRAMES_MAX)
    except RAISED:  # its own __str__, or an attribute of it, raises
        lines = [exception_line(error)]
    older = sum(1 for _ in traceback.walk_tb(error.__traceback__)) - FRAMES_MAX
    if older > 0:
        lines.insert(0, f"{older:,} older frames are left out.\n")
    return _shortened("".join(lines).rstrip(), mask, TEXT_CHARACTERS_MAX)


def exception_line(error: BaseException, mask: Mask = str) -> str:
    """`type: message` in one text, for a task's `error`; without a message, where a time limit was over."""
    message = _message(error, mask, MESSAGE_CHARACTERS_MAX)
    if not message and isinstance(error, TimeoutError):
        message = _timed_out(error, mask)
    return f"{type_name(error)}: {message}" if message else type_name(error)


def _timed_out(error: BaseException, mask: Mask) -> str:
    """`asyncio.timeout` raises without a word: in which line of the plugin's own it was."""
    frames = _frames(error, FRAMES_MAX, mask)
    own = [frame for frame in frames if "own" in frame] or frames
    if not own:
        return "a time limit was over"
    frame = own[-1]
    return mask(f"a time limit was over in {frame['function']} ({os.path.basename(frame['file'])}:{frame['line']})")


def stack_frames(frame: FrameType | None) -> list[dict[str, Any]]:
    """
    Where a thread is, as `exception_metadata` tells frames: the newest last, and from the first on
    that is a plugin's own, where one is.

    Nothing of the thread's own runs for it: no `repr` of a value, no loader of a module.
    """
    frames: list[dict[str, Any]] = []
    while frame is not None and len(frames) < FRAMES_MAX:
        code, line = frame.f_code, frame.f_lineno or 0
        text = linecache.getline(code.co_filename, line) if os.path.isfile(code.co_filename) else ""
        frames.append(_frame(traceback.FrameSummary(code.co_filename, line, code.co_name, line=text.strip()), str))
        frame = frame.f_back
    frames.reverse()
    return frames[next((place for place, each in enumerate(frames) if "own" in each), 0) :]


def stack_text(frames: Sequence[dict[str, Any]]) -> str:
    """The same as Python prints it."""
    lines = [
        f'  File "{each["file"]}", line {each["line"]}, in {each["function"]}\n    {each["code"]}' for each in frames
    ]
    return _middle_out("\n".join(lines), TEXT_CHARACTERS_MAX)


class _Describing:
    """One exception on its way into data, with those behind it."""

    def __init__(self, bounds: _Bounds, mask: Mask) -> None:
        self._bounds = bounds
        self._mask = mask

    def describe(self, error: BaseException, depth: int) -> dict[str, Any]:
        told: dict[str, Any] = {
            "type": type.__dict__["__qualname__"].__get__(type(error)),
            "message": _message(error, self._mask, self._bounds.characters),
            "frames": _frames(error, self._bounds.frames, self._mask),
        }
        if notes := self._notes(error):
            told["notes"] = notes
        if isinstance(error, BaseExceptionGroup):
            self._describe_group(told, error, depth)
        cause = _cause(error)
        told["cause"] = None if cause is None or depth == 0 else self.describe(cause, depth - 1)
        if cause is not None:
            told["chained"] = "cause" if cause is error.__cause__ else "context"
            if depth == 0:
                told["omitted"] = True
        return told

    def _describe_group(self, told: dict[str, Any], group: BaseExceptionGroup[Any], depth: int) -> None:
        members = group.exceptions[: self._bounds.members] if depth else ()
        # Of a group's members each may have as many: what is behind them is told shortly.
        told["exceptions"] = [self.describe(member, min(depth - 1, 2)) for member in members]
        if len(members) < len(group.exceptions):
            told["omitted"] = True

    def _notes(self, error: BaseException) -> list[str]:
        notes = getattr(error, "__notes__", None)
        if not isinstance(notes, list):
            return []
        return [_shortened(note, self._mask, self._bounds.characters) for note in notes[:10]]


def _cause(error: BaseException) -> BaseException | None:
    # Not by truth: an exception may be false.
    if error.__cause__ is not None or error.__suppress_context__:
        return error.__cause__
    return error.__context__


def _frames(error: BaseException, frames_max: int, mask: Mask) -> list[dict[str, Any]]:
    summary = traceback.extract_tb(error.__traceback__, limit=-frames_max)
    return [_frame(frame, mask) for frame in summary]


def _frame(frame: traceback.FrameSummary, mask: Mask) -> dict[str, Any]:
    code = _middle_out(mask(clean_text(frame.line or "")), CODE_CHARACTERS_MAX)
    told = {"file": frame.filename, "line": frame.lineno, "function": frame.name, "code": code}
    return {**told, "own": True} if _is_own(frame.filename) else told


def _is_own(file: str) -> bool:
    return any(
        file == place
        or (file.startswith(place + os.sep) and not any(name in file[len(place) :] for name in _LIBRARIES))
        for place in _own_places
    )


def _message(error: BaseException, mask: Mask, characters_max: int) -> str:
    try:
        text = str(error)
    except RAISED as raised:
        text = f"<its str raised {type_name(raised)}>"
    return _shortened(text, mask, characters_max)


def _shortened(text: object, mask: Mask, characters_max: int) -> str:
    """Clean, masked, with plugins' modules by the names that their authors know, and without its middle if long."""
    whole = text if type(text) is str else clean_text(text)
    ends = _ends(whole, LOOKED_AT_MAX)
    return _middle_out(mask(MODULE.sub("", clean_text(ends))), characters_max, len(whole) - len(ends))


def _ends(text: str, characters_max: int) -> str:
    """Without its middle, which nobody sees, where it is far too long."""
    half = characters_max // 2
    return text if len(text) <= characters_max else text[:half] + text[-half:]


def _middle_out(text: str, characters_max: int, left_out: int = 0) -> str:
    """The same with a mark where the middle was; `left_out` were taken out of it before."""
    if len(text) <= characters_max:
        return text
    half = characters_max // 2
    return f"{text[:half]}\n… {len(text) - 2 * half + left_out:,} characters left out …\n{text[-half:]}"
