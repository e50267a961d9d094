"""
An exception as data and as text: what a log says of it.

Both are bounded: a recursion of a thousand frames or a chain of a hundred causes must not
become a megabyte in the log. Whatever is cut is masked before, so that no part of a secret is
left at the edge.
"""

import traceback
from collections.abc import Callable
from typing import Any

from taskd.sanitise import clean_text

FRAMES_MAX = 50
CAUSES_MAX = 10
MESSAGE_CHARACTERS_MAX = 4_000
TEXT_CHARACTERS_MAX = 32_000

Mask = Callable[[str], str]


def exception_metadata(error: BaseException, mask: Mask = str) -> dict[str, Any]:
    """`type`, `message`, `frames` (the newest last) and `cause`, as the contract names them."""
    return _described(error, mask, CAUSES_MAX)


def exception_text(error: BaseException, mask: Mask = str) -> str:
    """The traceback as Python prints it; of a long one the beginning and the end."""
    # `limit` counts frames; a negative one keeps the newest, where it happened.
    try:
        lines = traceback.format_exception(type(error), error, error.__traceback__, limit=-FRAMES_MAX)
    except Exception:  # its own __str__, or an attribute of it, raises
        lines = [exception_line(error)]
    older = sum(1 for _ in traceback.walk_tb(error.__traceback__)) - FRAMES_MAX
    if older > 0:
        lines.insert(0, f"{older:,} older frames are left out.\n")
    return _middle_out(mask(clean_text("".join(lines)).rstrip()), TEXT_CHARACTERS_MAX)


def exception_line(error: BaseException, mask: Mask = str) -> str:
    """`type: message` in one text, for a task's `error`."""
    message = _message(error, mask)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _described(error: BaseException, mask: Mask, causes_max: int) -> dict[str, Any]:
    cause = _cause(error)
    return {
        "type": type(error).__qualname__,
        "message": _message(error, mask),
        "frames": _frames(error),
        "cause": None if cause is None or causes_max == 0 else _described(cause, mask, causes_max - 1),
    }


def _cause(error: BaseException) -> BaseException | None:
    # Not by truth: an exception may be false.
    if error.__cause__ is not None or error.__suppress_context__:
        return error.__cause__
    return error.__context__


def _frames(error: BaseException) -> list[dict[str, Any]]:
    summary = traceback.extract_tb(error.__traceback__, limit=-FRAMES_MAX)
    return [
        {"file": frame.filename, "line": frame.lineno, "function": frame.name, "code": frame.line} for frame in summary
    ]


def _message(error: BaseException, mask: Mask) -> str:
    try:
        text = str(error)
    except Exception as raised:
        text = f"<its str raised {type(raised).__name__}>"
    return _middle_out(mask(clean_text(text)), MESSAGE_CHARACTERS_MAX)


def _middle_out(text: str, characters_max: int) -> str:
    if len(text) <= characters_max:
        return text
    half = characters_max // 2
    return f"{text[:half]}\n… {len(text) - 2 * half:,} characters left out …\n{text[-half:]}"
