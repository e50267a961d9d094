"""
Which entries a reader wants: one predicate in two spellings, and its parsing.

`LogFilter.matches` decides about an entry in memory, `LogFilter.where` about a row in the
store. They agree on every entry, whatever its alphabet: a property test says so. Everything
that follows, pages or counts a log rests on that.

`search` and `exclude` are substrings under full Unicode case folding (The Unicode Standard,
section 3.13, "caseless matching": Python's `str.casefold`), without normalisation. SQLite's
LIKE folds ASCII alone and is several times faster than a function of ours, so rows of pure
ASCII are left to it. That is right because a folded ASCII needle is found in an ASCII
message by either, and a needle that folds to something outside ASCII in none.

With `regex` they are patterns of RE2 (`taskd.patterns`), which memory and store give to the same
engine. A metadata key and its value (`taskd.fields`) are always bound, never part of the SQL.

`PARAMETERS` is the one table of what a query string may say: it validates, and the OpenAPI
document is made from it.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from taskd.entries import Level, LogEntry
from taskd.errors import ParameterInvalid
from taskd.fields import field_equals, pieces
from taskd.patterns import Pattern, PatternInvalid, compile_pattern

PAGE_ENTRIES_DEFAULT = 200
PAGE_ENTRIES_MAX = 5_000
SEARCH_CHARACTERS_MAX = 1_000
SOURCE_CHARACTERS_MAX = 256
FIELD_CHARACTERS_MAX = 1_000
FIELD_PREFIX = "meta."
VALUES_MAX = 64
SEQ_MAX = 2**63 - 1

BINS_MAX = 2_000
BINS_DEFAULT = 200

Order = Literal["asc", "desc"]
Direction = Literal["next", "previous"]
Format = Literal["text", "ndjson", "csv"]


@dataclass(frozen=True, slots=True)
class LogFilter:
    """
    What an entry must be to match. A field left out asks nothing.

    `sources` are exact names, or `name.*` for a name and all below it. `since` is included,
    `until` is not; both are timestamps as entries have them. `search` must all be in the
    message and none of `exclude` may be; both are kept case-folded, or are patterns where `regex`
    says so. `fields` are names of metadata fields and what they must equal, as text.
    """

    levels: frozenset[Level] | None = None
    sources: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    since: str | None = None
    until: str | None = None
    regex: bool = False
    fields: tuple[tuple[str, str], ...] = ()
    _patterns: tuple[tuple[Pattern, ...], tuple[Pattern, ...]] = field(default=((), ()), init=False, compare=False)

    def __post_init__(self) -> None:
        if self.regex:
            # Kept here, too: many readers with patterns of their own would drive them out of the cache.
            patterns = tuple(map(compile_pattern, self.search)), tuple(map(compile_pattern, self.exclude))
            object.__setattr__(self, "_patterns", patterns)
            return
        object.__setattr__(self, "search", tuple(needle.casefold() for needle in self.search))
        object.__setattr__(self, "exclude", tuple(needle.casefold() for needle in self.exclude))

    @property
    def counted(self) -> bool:
        """True where the store's kept counts by level and source answer it, without a scan."""
        return not (self.search or self.exclude or self.since or self.until or self.fields)

    @property
    def everything(self) -> bool:
        """True where every entry matches."""
        return self.counted and self.levels is None and not self.sources

    def matches(self, entry: LogEntry) -> bool:
        """Whether a reader with this filter gets `entry`. The other spelling is `where`."""
        if not self.matches_kind(entry.level, entry.source):
            return False
        if self.since is not None and entry.timestamp < self.since:
            return False
        if self.until is not None and entry.timestamp >= self.until:
            return False
        if self.fields and not self._matches_fields(entry.metadata_json):
            return False
        return self.matches_message(entry.message) if self.search or self.exclude else True

    def matches_message(self, message: str) -> bool:
        """The part of `matches` that looks at the message alone."""
        if self.regex:
            text = message.encode()
            search, exclude = self._patterns
            return all(matches(text) for matches in search) and not any(matches(text) for matches in exclude)
        folded = message.casefold()
        return all(needle in folded for needle in self.search) and not any(needle in folded for needle in self.exclude)

    def _matches_fields(self, metadata_json: str | None) -> bool:
        if metadata_json is None:
            return False
        return all(
            any(piece in metadata_json for piece in pieces(key, text)) and field_equals(metadata_json, key, text)
            for key, text in self.fields
        )

    def matches_kind(self, level: Level, source: str) -> bool:
        """The part of `matches` that looks at level and source alone."""
        if self.levels is not None and level not in self.levels:
            return False
        return not self.sources or any(_is_source(source, wanted) for wanted in self.sources)

    def where(self, *, folding: bool = True) -> tuple[str, list[object]]:
        """
        The same predicate as a fragment of SQL over `task_logs`, and the values to bind to it.

        Without `folding` it may be asked only of messages that have no character outside ASCII
        whose folded form has one of ASCII (such as ß): then LIKE alone decides about ASCII.
        """
        parts: list[str] = []
        values: list[object] = []

        def add(fragment: str, *bound: object) -> None:
            parts.append(fragment)
            values.extend(bound)

        if self.levels is not None:
            add(f"level IN ({_marks(len(self.levels))})", *sorted(self.levels))
        if self.sources:
            fragments, bound = zip(*map(_where_source, self.sources), strict=True)
            add(f"({' OR '.join(fragments)})", *(value for group in bound for value in group))
        if self.since is not None:
            add("timestamp >= ?", self.since)
        if self.until is not None:
            add("timestamp < ?", self.until)
        for key, text in self.fields:
            standing = "(instr(metadata_json, ?) OR instr(metadata_json, ?))"
            add(f"{standing} AND field_equals(metadata_json, ?, ?)", *pieces(key, text), key, text)
        for needle in self.search:
            fragment, values_of_it = self._where_said(needle, folding)
            add(fragment, *values_of_it)
        for needle in self.exclude:
            fragment, values_of_it = self._where_said(needle, folding)
            add(f"NOT ({fragment})", *values_of_it)
        return " AND ".join(parts) or "1", values

    def _where_said(self, needle: str, folding: bool) -> tuple[str, tuple[object, ...]]:
        return ("matches_pattern(message, ?)", (needle,)) if self.regex else _where_contains(needle, folding)


def contains_folded(message: str, folded: str) -> bool:
    """`folded` (case-folded already) is in `message` under case folding: the store calls this in SQL."""
    return folded in message.casefold()


def matches_pattern(message: str, pattern: str) -> bool:
    """`pattern` matches somewhere in `message`: the store calls this in SQL."""
    return compile_pattern(pattern)(message.encode())


# What `LogFilter.where` calls, by the name and number of arguments that it uses.
SQL_FUNCTIONS: tuple[tuple[str, int, Callable[..., bool]], ...] = (
    ("contains_folded", 2, contains_folded),
    ("matches_pattern", 2, matches_pattern),
    ("field_equals", 3, field_equals),
)


def _is_source(source: str, wanted: str) -> bool:
    if not wanted.endswith(".*"):
        return source == wanted
    return source == wanted[:-2] or source.startswith(wanted[:-1])


def _where_source(wanted: str) -> tuple[str, tuple[object, ...]]:
    if not wanted.endswith(".*"):
        return "source = ?", (wanted,)
    # '.' + 1 is '/': every text that begins with "name." lies in ["name.", "name/").
    return "(source = ? OR (source >= ? AND source < ?))", (wanted[:-2], wanted[:-1], wanted[:-2] + "/")


def _where_contains(folded: str, folding: bool) -> tuple[str, tuple[object, ...]]:
    if not folded.isascii() or "\0" in folded:
        return "contains_folded(message, ?)", (folded,)
    like = "%" + re.sub(r"([%_\\])", r"\\\1", folded) + "%"
    if not folding:
        return r"message LIKE ? ESCAPE '\'", (like,)
    is_ascii = "length(message) = length(CAST(message AS BLOB))"
    return (
        rf"CASE WHEN {is_ascii} THEN message LIKE ? ESCAPE '\' ELSE contains_folded(message, ?) END",
        (like, folded),
    )


def _marks(count: int) -> str:
    return ", ".join("?" * count)


@dataclass(frozen=True, slots=True)
class LogQuery:
    """
    One reader's whole request: the filter, and which part of the matches.

    `origin` is where `next` looks from; None is from beyond the end that it looks away from.
    """

    filter: LogFilter = LogFilter()
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


def _read_levels(text: str) -> list[Level]:
    return [Level(part.strip(" ").upper()) for part in text.split(",")]


def _read_sources(text: str) -> list[str]:
    sources = [part.strip(" ") for part in text.split(",")]
    if len(sources) > VALUES_MAX or not all(sources) or any(len(source) > SOURCE_CHARACTERS_MAX for source in sources):
        raise ValueError
    return sources


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
    """An RFC 3339 time as entries have it; without an offset it is UTC. Raises ValueError."""
    if not re.match(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d", text, re.ASCII):
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
_TIME = {"type": "string", "format": "date-time"}

# Patterns as ECMA 262 has them: OpenAPI asks for that, and it has no "any case".
_ANY_LEVEL = "|".join("".join(f"[{letter}{letter.lower()}]" for letter in level) for level in Level)
_LEVEL = {"type": "string", "pattern": f"^({_ANY_LEVEL})$"}
_LEVELS = {"type": "string", "pattern": f"^ *({_ANY_LEVEL}) *(, *({_ANY_LEVEL}) *)*$"}
_ANY_SOURCE = f" *[^, ]([^,]{{0,{SOURCE_CHARACTERS_MAX - 2}}}[^, ])? *"
_SOURCES = {"type": "string", "pattern": f"^{_ANY_SOURCE}(,{_ANY_SOURCE}){{0,{VALUES_MAX - 1}}}$"}

_FOLDED = f"under Unicode case folding, 1 to {SEARCH_CHARACTERS_MAX} characters"
_EXCLUDES = "excludes after, before, offset and order"
_RFC_3339 = "an RFC 3339 time such as 2026-01-31T12:00:00Z (UTC where it has no offset)"
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
            "level", "DEBUG, INFO, WARNING or ERROR, in any case; several separated by ','",
            _LEVELS, _read_levels, repeatable=True,
        ),
        Parameter(
            "min_level", "DEBUG, INFO, WARNING or ERROR, in any case: that level and above",
            _LEVEL, lambda text: Level(text.upper()),
        ),
        Parameter(
            "source", "names of sources separated by ','; name.* takes the name and all below it",
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
    log_filter = LogFilter(
        levels=_levels(asked.pop("level", []), asked.pop("min_level", None)),
        sources=tuple(source for one in asked.pop("source", []) for source in one),
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
                compile_pattern(pattern)
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


def _levels(lists: list[list[Level]], lowest: Level | None) -> frozenset[Level] | None:
    """The levels named and at least `lowest`; none at all where the two exclude each other."""
    if not lists and lowest is None:
        return None
    named = {level for one in lists for level in one} or set(Level)
    return frozenset(level for level in named if lowest is None or level.rank >= lowest.rank)
