"""
What a reader asks of a log, read from a query string: the filter, and which of its matches.

`PARAMETERS` is the one table of what a query string may say: it validates, and the OpenAPI
document is made from it.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from taskd.entries import Level
from taskd.errors import ParameterInvalid
from taskd.query.filters import LogFilter
from taskd.query.regex import PatternInvalid, check_pattern
from taskd.text.sources import SOURCES_MAX

PAGE_ENTRIES_DEFAULT = 200
PAGE_ENTRIES_MAX = 5_000
SEARCH_CHARACTERS_MAX = 1_000
FIELD_CHARACTERS_MAX = 1_000
FIELD_PREFIX = "meta."
VALUES_MAX = 64
_LEVEL_ALIASES = {"WARN": "WARNING"}
SEQ_MAX = 2**63 - 1

BINS_MAX = 2_000
BINS_DEFAULT = 200

Order = Literal["asc", "desc"]
Direction = Literal["next", "previous"]
Format = Literal["text", "ndjson", "csv"]


@dataclass(frozen=True, slots=True)
class LogQuery:
    """
    One reader's whole request: the filter, and which part of the matches.

    `origin` is where `next` looks from; None is from beyond the end that it looks away from.
    """

    filter: LogFilter = field(default_factory=LogFilter)
    after: int = 0
    before: int | None = None
    order: Order = "asc"
    offset: int = 0
    limit: int = PAGE_ENTRIES_DEFAULT
    tail: int | None = None
    total: bool = False
    bins: int = BINS_DEFAULT
    origin: int | None = None
    direction: Direction = "next"
    format: Format = "text"


@dataclass(frozen=True, slots=True)
class Parameter:
    """
    One parameter of the query string: what it means, its JSON Schema and how it is read.

    With a `prefix` it stands for all parameters whose names begin with it and go on.
    """

    name: str
    description: str
    schema: dict[str, Any]
    read: Callable[[str], Any]
    repeatable: bool = False
    prefix: str = ""


def _read_level(text: str) -> Level:
    name = text.upper()
    return Level(_LEVEL_ALIASES.get(name, name))


def _read_levels(text: str) -> list[Level]:
    return [_read_level(part.strip(" ")) for part in text.split(",")]


def _read_sources(text: str) -> tuple[str, list[str]]:
    """Return the whole value, which may be the name of one source, and the names that it lists."""
    if not text or text.count(",") >= SOURCES_MAX:
        raise ValueError
    return text, [part.strip(" ") for part in text.split(",") if part.strip(" ")]


def _read_needle(text: str) -> str:
    if not 0 < len(text) <= SEARCH_CHARACTERS_MAX:
        raise ValueError
    text.encode()  # a lone surrogate is not text, and no message has one
    return text


def _read_field_value(text: str) -> str:
    if len(text) > FIELD_CHARACTERS_MAX:
        raise ValueError
    text.encode()
    return text


def read_time(text: str) -> str:
    """An RFC 3339 time as entries have it, a date as its midnight; without an offset it is UTC. Raises ValueError."""
    if not re.match(r"\d{4}-\d\d-\d\d(\Z|[Tt ]\d\d:\d\d)", text, re.ASCII):
        raise ValueError
    # A '+' that a query string turned into a space is meant as '+'.
    moment = datetime.fromisoformat(re.sub(r" (\d\d:\d\d)$", r"+\1", text.upper()))
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f").rjust(26, "0") + "Z"


def read_integer(lowest: int, highest: int) -> Callable[[str], int]:
    """A reader of plain decimal integers from `lowest` to `highest`."""

    def read(text: str) -> int:
        if not re.fullmatch(r"-?\d{1,19}", text, re.ASCII):
            raise ValueError
        value = int(text)
        if not lowest <= value <= highest:
            raise ValueError
        return value

    return read


def read_choice(*choices: str) -> Callable[[str], str]:
    """A reader of one of `choices`, exactly."""

    def read(text: str) -> str:
        if text not in choices:
            raise ValueError
        return text

    return read


def read_flag(text: str) -> bool:
    """`true` or `false`. Raises ValueError."""
    return read_choice(*_FLAGS)(text) == "true"


def integer_parameter(name: str, description: str, lowest: int, highest: int, **more: Any) -> Parameter:
    """A parameter that is an integer from `lowest` to `highest`."""
    schema = {"type": "integer", "minimum": lowest, "maximum": highest, **more}
    return Parameter(name, description, schema, read_integer(lowest, highest))


_TEXT = {"type": "string", "minLength": 1, "maxLength": SEARCH_CHARACTERS_MAX}
_TIME = {"type": "string", "anyOf": [{"format": "date-time"}, {"format": "date"}]}

# Patterns as ECMA 262 has them: OpenAPI asks for that, and it has no "any case".
_ANY_LEVEL = "|".join("".join(f"[{letter}{letter.lower()}]" for letter in level) for level in [*Level, *_LEVEL_ALIASES])
_LEVEL = {"type": "string", "pattern": f"^({_ANY_LEVEL})$"}
_LEVELS = {"type": "string", "pattern": f"^ *({_ANY_LEVEL}) *(, *({_ANY_LEVEL}) *)*$"}
_SOURCES = {"type": "string", "minLength": 1, "pattern": f"^[^,]*(,[^,]*){{0,{SOURCES_MAX - 1}}}$"}

_FOLDED = f"under Unicode case folding, 1 to {SEARCH_CHARACTERS_MAX} characters"
_EXCLUDES = "excludes after, before, offset and order"
_RFC_3339 = "an RFC 3339 time such as 2026-01-31T12:00:00Z (UTC where it has no offset), or a date (its midnight, UTC)"
_ORDERS = ("asc", "desc")
_DIRECTIONS = ("next", "previous")
_FORMATS = ("text", "ndjson", "csv")
_FLAGS = ("true", "false")
_FLAG = {"type": "string", "enum": [*_FLAGS], "default": "false"}
_PATTERN = "with regex=true a regular expression in RE2's syntax, in any case unless it says (?-i)"

PARAMETERS: dict[str, Parameter] = {
    parameter.name: parameter
    for parameter in (
        Parameter(
            "level", "DEBUG, INFO, WARNING (or WARN) or ERROR, in any case; several separated by ','",
            _LEVELS, _read_levels, repeatable=True,
        ),
        Parameter(
            "min_level", "DEBUG, INFO, WARNING (or WARN) or ERROR, in any case: that level and above",
            _LEVEL, _read_level,
        ),
        Parameter(
            "source", f"a name, or up to {SOURCES_MAX:,} separated by ','; name.* takes the name and all below it",
            _SOURCES, _read_sources, repeatable=True,
        ),
        Parameter(
            "search", f"text in the message, {_FOLDED}; repeated: all of them; {_PATTERN}",
            _TEXT, _read_needle, repeatable=True,
        ),
        Parameter(
            "exclude", f"text not in the message, {_FOLDED}; repeated: none of them; {_PATTERN}",
            _TEXT, _read_needle, repeatable=True,
        ),
        Parameter(
            "regex", "true (search and exclude are regular expressions in RE2's syntax) or false",
            _FLAG, read_flag,
        ),
        Parameter(
            "meta.KEY",
            f"meta.KEY=VALUE, for any KEY of 1 to {FIELD_CHARACTERS_MAX} characters: the top-level field KEY of the "
            f"metadata equals VALUE (up to {FIELD_CHARACTERS_MAX} characters), a string that is the same, a number as "
            "great, or true, false or null",
            {"type": "string", "maxLength": FIELD_CHARACTERS_MAX}, _read_field_value, prefix=FIELD_PREFIX,
        ),
        Parameter("since", f"{_RFC_3339}; it is included", _TIME, read_time),
        Parameter("until", f"{_RFC_3339}; it is excluded", _TIME, read_time),
        integer_parameter("after", "a seq, excluded: a whole number from 0 to last_seq", 0, SEQ_MAX, default=0),
        integer_parameter("before", "a seq, excluded: a whole number from 1", 1, SEQ_MAX),
        Parameter(
            "order", "asc (the oldest first) or desc",
            {"type": "string", "enum": [*_ORDERS], "default": "asc"}, read_choice(*_ORDERS),
        ),
        integer_parameter("offset", "matches to skip: a whole number from 0 (after is faster)", 0, SEQ_MAX, default=0),
        integer_parameter(
            "limit", f"entries on the page: a whole number from 1 to {PAGE_ENTRIES_MAX}",
            1, PAGE_ENTRIES_MAX, default=PAGE_ENTRIES_DEFAULT,
        ),
        integer_parameter(
            "tail", f"a whole number from 1 to {PAGE_ENTRIES_MAX}: so many of the last matches; {_EXCLUDES}",
            1, PAGE_ENTRIES_MAX,
        ),
        Parameter(
            "total", "true (count the matches even where that needs a scan) or false",
            _FLAG, read_flag,
        ),
        integer_parameter(
            "bins", f"how many equal slices of time to count in: a whole number from 1 to {BINS_MAX}",
            1, BINS_MAX, default=BINS_DEFAULT,
        ),
        integer_parameter(
            "from", "a seq, excluded: a whole number from 0; without it from beyond the end of the log", 0, SEQ_MAX
        ),
        Parameter(
            "direction", "next (the nearest match after from) or previous (before it)",
            {"type": "string", "enum": [*_DIRECTIONS], "default": "next"}, read_choice(*_DIRECTIONS),
        ),
        Parameter(
            "format", "text, ndjson or csv",
            {"type": "string", "enum": [*_FORMATS], "default": "text"}, read_choice(*_FORMATS),
        ),
    )
}  # fmt: skip

_FILTERS = ("level", "min_level", "source", "search", "exclude", "regex", "meta.KEY", "since")
LOGS = (*_FILTERS, "until", "after", "before", "order", "offset", "limit", "tail", "total")
STATS = (*_FILTERS, "until", "after", "before")
OUTLINE = (*STATS, "bins")
NEXT = (*STATS, "from", "direction")
EXPORT = (*STATS, "order", "format")
FOLLOW = (*_FILTERS, "after", "tail")


def parse_query(pairs: Iterable[tuple[str, str]], accepted: tuple[str, ...]) -> LogQuery:
    """
    The `LogQuery` that a query string asks for, of which a route takes the `accepted` parameters.

    Raises `ParameterInvalid` for an unknown parameter, a repeated one that may not be, a bad
    value, and for `tail` together with what it excludes.
    """
    asked = read_parameters(pairs, {name: PARAMETERS[name] for name in accepted})
    for name in ("after", "before", "offset", "order"):
        if "tail" in asked and name in asked:
            raise ParameterInvalid(name, str(asked[name]), "no such parameter together with tail")
    since, until = asked.pop("since", None), asked.pop("until", None)
    regex = asked.pop("regex", False)
    if regex:
        check_patterns(asked)
    names, sources = _sources(asked.pop("source", []))
    log_filter = LogFilter(
        levels=_levels(asked.pop("level", []), asked.pop("min_level", None)),
        sources=sources,
        names=names,
        search=tuple(asked.pop("search", ())),
        exclude=tuple(asked.pop("exclude", ())),
        since=since,
        until=until,
        regex=regex,
        fields=tuple((name.removeprefix(FIELD_PREFIX), asked.pop(name)) for name in _fields_in(asked)),
    )
    if "from" in asked:
        asked["origin"] = asked.pop("from")
    return LogQuery(log_filter, **asked)


def check_patterns(asked: Mapping[str, Any]) -> None:
    """Raise `ParameterInvalid`, which says where, for a `search` or `exclude` that is no regular expression."""
    for name in ("search", "exclude"):
        for pattern in asked.get(name, ()):
            try:
                check_pattern(pattern)
            except PatternInvalid as error:
                raise ParameterInvalid(name, pattern, f"a regular expression in RE2's syntax: {error}") from error


def _fields_in(asked: Iterable[str]) -> list[str]:
    return sorted(name for name in asked if name.startswith(FIELD_PREFIX))


def read_parameters(pairs: Iterable[tuple[str, str]], accepted: dict[str, Parameter]) -> dict[str, Any]:
    """The values of the `accepted` parameters in `pairs`; of repeatable ones a list. Raises `ParameterInvalid`."""
    asked: dict[str, Any] = {}
    for name, text in pairs:
        parameter = _parameter(name, accepted)
        if parameter is None:
            raise ParameterInvalid(name, text, f"one of the parameters {', '.join(sorted(accepted)) or '(none)'}")
        value = _value(parameter, name, text)
        if parameter.repeatable:
            values = asked.setdefault(name, [])
            values.append(value)
            if len(values) > VALUES_MAX:
                raise ParameterInvalid(name, text, f"at most {VALUES_MAX} of it")
        elif name in asked:
            raise ParameterInvalid(name, text, "it once")
        else:
            asked[name] = value
    return asked


def _parameter(name: str, accepted: dict[str, Parameter]) -> Parameter | None:
    """The one that `name` means: the one of that name, or one whose prefix it goes on from."""
    exact = accepted.get(name)
    if exact is not None and not exact.prefix:
        return exact
    for parameter in accepted.values():
        begins = bool(parameter.prefix) and name.startswith(parameter.prefix)
        if begins and 0 < len(name) - len(parameter.prefix) <= FIELD_CHARACTERS_MAX:
            return parameter
    return None


def _value(parameter: Parameter, name: str, text: str) -> Any:
    try:
        return parameter.read(text)
    except (ValueError, OverflowError) as error:
        raise ParameterInvalid(name, text, parameter.description) from error


def _sources(values: list[tuple[str, list[str]]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of whole values that are not listed anyway, and the listed ones."""
    listed = [name for _, names in values for name in names]
    if len(listed) > SOURCES_MAX:
        raise ParameterInvalid("source", values[-1][0], f"at most {SOURCES_MAX:,} names")
    return tuple(whole for whole, names in values if whole not in names), tuple(listed)


def _levels(lists: list[list[Level]], lowest: Level | None) -> frozenset[Level] | None:
    """The levels named and at least `lowest`; none at all where the two exclude each other."""
    if not lists and lowest is None:
        return None
    named = {level for one in lists for level in one} or set(Level)
    return frozenset(level for level in named if lowest is None or level.rank >= lowest.rank)
