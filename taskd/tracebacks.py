"""
An exception as data and as text: what a log says of it.

Both are bounded: a recursion of a thousand frames or a chain of a hundred causes must not
become a megabyte in the log. What is left out is counted.
"""

import traceback
from typing import Any

from taskd.sanitise import clean_text

FRAMES_MAX = 50
CAUSES_MAX = 10
MESSAGE_CHARACTERS_MAX = 4_000


def exception_metadata(error: BaseException) -> dict[str, Any]:
    """`type`, `message`, `frames` (the newest last) and `cause`, as the contract names them."""
    return _described(error, CAUSES_MAX)


def exception_text(error: BaseException) -> str:
    """The traceback as Python prints it, long runs of frames left out."""
    # `limit` is of frames, the newest: -50 keeps those where it happened.
    try:
        lines = traceback.format_exception(type(error), error, error.__traceback__, limit=-FRAMES_MAX)
    except Exception:  # the exception's own __str__, or an attribute of it, raises
        lines = [exception_line(error)]
    return clean_text("".join(lines)).rstrip()


def exception_line(error: BaseException) -> str:
    """`type: message` in one text, for a task's `error`."""
    message = _message(error)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _described(error: BaseException, causes_max: int) -> dict[str, Any]:
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return {
        "type": type(error).__qualname__,
        "message": _message(error),
        "frames": _frames(error),
        "cause": None if cause is None or causes_max == 0 else _described(cause, causes_max - 1),
    }


def _frames(error: BaseException) -> list[dict[str, Any]]:
    summary = traceback.extract_tb(error.__traceback__, limit=-FRAMES_MAX)
    return [
        {"file": frame.filename, "line": frame.lineno, "function": frame.name, "code": frame.line} for frame in summary
    ]


def _message(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as raised:
        text = f"<its str raised {type(raised).__name__}>"
    return clean_text(text)[:MESSAGE_CHARACTERS_MAX]
