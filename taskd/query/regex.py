"""
Regular expressions, in RE2's syntax and by RE2: in memory and in the store alike.

RE2 (https://github.com/google/re2/wiki/Syntax) has no backreferences and no look-around, and in
return its time is linear in the text whatever the pattern: nobody can stop a search with
`(a+)+$`. Linear, but at worst in the length of the pattern's program too (`[ab]{0,999}` is long),
and no call of RE2 can be interrupted: so a program has at most `PROGRAM_MAX` instructions, which
is 0.3 s for a message of 64 KiB at the very worst.

Patterns ignore case unless they say `(?-i)`, and are in UTF-8. What has been compiled is kept, as
much as `PATTERNS_MAX` says; each may use `PATTERN_BYTES_MAX` of memory.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

PATTERNS_MAX = 64
# Less, and RE2 falls back to a way that takes a hundred times as long for programs of this length.
PATTERN_BYTES_MAX = 8 * 1_024 * 1_024
# `\pL+` has 1,202.
PROGRAM_MAX = 1_500
# For many messages in one call.
LINES_PROGRAM_MAX = 300

# RE2's words for where a whole pattern is unbalanced: it names no place for these.
_UNCLOSED, _UNOPENED = "missing )", "unexpected )"
_GROUPING = re.compile(r"\\Q.*?(?:\\E|$)|\\.|\[\^?\]?(?:\[:\w*:\]|\\.|[^\]\\])*\]|[()]", re.DOTALL)


Pattern = Callable[[bytes], bool]


class PatternInvalid(ValueError):
    """A pattern that RE2 does not take: why, and the character (from 1) where."""

    def __init__(self, why: str, place: int, fragment: str) -> None:
        super().__init__(f"{why} at character {place}: {fragment!r}")


def compile_pattern(pattern: str) -> Pattern:
    """Whether a message (in UTF-8) matches `pattern` somewhere. Raises `PatternInvalid`."""
    return _compiled(pattern)


def check_pattern(pattern: str) -> None:
    """Raise `PatternInvalid` for one that RE2 does not take, or whose program is too long."""
    compiled = _compile(pattern)
    if not compiled.ok():
        raise _told(pattern, compiled.error().decode(errors="replace"))
    if (size := compiled.ProgramSize()) > PROGRAM_MAX:
        why = f"pattern too large: {size:,} steps of at most {PROGRAM_MAX:,}, mostly for what is repeated"
        raise PatternInvalid(why, 1, pattern)


def compile_lines(pattern: str) -> Pattern | None:
    """
    For messages joined by line breaks: False means that `pattern` matches none of them.

    One call for hundreds of messages, which is what makes a search fast. None where that cannot
    be told: the pattern asks for the beginning or the end of the text in a way that has no like
    in the middle of one; or it is so long that one call would take seconds.
    """
    # `^` and `$` become the ends of lines, where each message has its ends, and `\b` sees no letter
    # beyond either. `\A`, `\z` and `(?-m)` would still mean the whole.
    if re.search(r"\\[Az]|\(\?[a-zA-Z]*-[a-zA-Z]*m", pattern):
        return None
    if _compile(pattern).ProgramSize() > LINES_PROGRAM_MAX:
        return None
    return _compiled(f"(?m){pattern}")


@functools.lru_cache(PATTERNS_MAX)
def _compiled(pattern: str) -> Pattern:
    compiled = _compile(pattern)
    if not compiled.ok():
        raise _told(pattern, compiled.error().decode(errors="replace"))
    match, anywhere = compiled.Match, compiled.Anchor.UNANCHORED

    def matches(text: bytes) -> bool:
        return bool(match(anywhere, text, 0, len(text))[0] != _NOWHERE)

    return matches


_NOWHERE = (-1, -1)


# RE2 itself, below its imitation of Python's `re`, which takes several times as long for a call.
def _compile(pattern: str) -> Any:
    # Not with the module: a service that is not searched does not need its 3 MB.
    import re2

    options = re2.Options()
    options.case_sensitive = False
    options.never_capture = True
    options.log_errors = False
    options.max_mem = PATTERN_BYTES_MAX
    return re2._re2.RE2(pattern.encode(), options)


def _told(pattern: str, error: str) -> PatternInvalid:
    why, _, fragment = error.partition(": ")
    place = _place(pattern, error, why, fragment)
    return PatternInvalid(why, place + 1, pattern[place : place + max(len(fragment), 1)])


def _place(pattern: str, error: str, why: str, fragment: str) -> int:
    """The index of what RE2 complains about; it names the fragment and not where it stands."""
    if why in (_UNCLOSED, _UNOPENED):
        return _unbalanced(pattern)
    if fragment:
        # The first place where the pattern up to there has the same fault.
        for found in re.finditer(re.escape(fragment), pattern):
            if _compile(pattern[: found.end()]).error().decode(errors="replace") == error:
                return found.start()
    return max(pattern.find(fragment), 0) if fragment else max(len(pattern) - 1, 0)


def _unbalanced(pattern: str) -> int:
    """The parenthesis without another: the first that closes nothing, else the last that stays open."""
    opened: list[int] = []
    for found in _GROUPING.finditer(pattern):
        if found[0] == "(":
            opened.append(found.start())
        elif found[0] == ")":
            if not opened:
                return found.start()
            opened.pop()
    return opened[-1] if opened else 0
