"""
Which entries a reader wants: one predicate in two spellings.

`LogFilter.matches` decides about an entry in memory, `LogFilter.where` about a row in the
store. They agree on every entry, whatever its alphabet: a property test says so. Everything
that follows, pages or counts a log rests on that.

`search` and `exclude` are substrings under full Unicode case folding (The Unicode Standard,
section 3.13, "caseless matching": Python's `str.casefold`), without normalisation. SQLite's
LIKE folds ASCII alone and is several times faster than a function of ours, so rows of pure
ASCII are left to it. That is right because a folded ASCII needle is found in an ASCII
message by either, and a needle that folds to something outside ASCII in none.

With `regex` they are patterns of RE2 (`taskd.query.regex`), which memory and store give to the same
engine. A metadata key and its value (`taskd.query.metadata`) are always bound, never part of the SQL.
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import compress
from operator import attrgetter

from taskd.entries import Level, LogEntry
from taskd.query.metadata import field_equals, pieces
from taskd.query.regex import Pattern, compile_pattern
from taskd.text.sources import clean_source, prefixes_below


@dataclass(frozen=True, slots=True)
class LogFilter:
    """
    What an entry must be to match. A field left out asks nothing.

    `sources` are exact names, or `name.*` for a name and all below it; `names` are exact whatever they
    look like. Both stand for the sources that entries have for them (`taskd.text.sources`). `since` is included,
    `until` is not; both are timestamps as entries have them. `search` must all be in the
    message and none of `exclude` may be; both are kept case-folded, or are patterns where `regex`
    says so. `fields` are names of metadata fields and what they must equal, as text.
    """

    levels: frozenset[Level] | None = None
    sources: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    since: str | None = None
    until: str | None = None
    regex: bool = False
    fields: tuple[tuple[str, str], ...] = ()
    _exact: frozenset[str] = field(default=frozenset(), init=False, compare=False)
    _prefixes: tuple[str, ...] = field(default=(), init=False, compare=False)
    _patterns: tuple[tuple[Pattern, ...], tuple[Pattern, ...]] = field(default=((), ()), init=False, compare=False)

    def __post_init__(self) -> None:
        above = [name[:-2] for name in self.sources if name.endswith(".*")]
        exact = frozenset(map(clean_source, (*self.sources, *self.names, *above)))
        object.__setattr__(self, "_exact", exact)
        object.__setattr__(self, "_prefixes", tuple(prefix for name in above for prefix in prefixes_below(name)))
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
    def by_kind(self) -> bool:
        """True if it asks for levels or sources."""
        return self.levels is not None or bool(self._exact)

    @property
    def rest(self) -> "LogFilter":
        """The filter without what it asks of level and source."""
        return replace(self, levels=None, sources=(), names=())

    @property
    def everything(self) -> bool:
        """True where every entry matches."""
        return self.counted and not self.by_kind

    def matches(self, entry: LogEntry) -> bool:
        """Whether a reader with this filter gets `entry`. The other spelling is `where`."""
        return self.matches_kind(entry.level, entry.source) and self.matches_rest(entry)

    def matches_rest(self, entry: LogEntry) -> bool:
        """The part of `matches` that looks at everything else than level and source."""
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
        return not self._exact or source in self._exact or source.startswith(self._prefixes)

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
        if self._exact:
            exact = f"source IN ({_marks(len(self._exact))})"
            below = ["(source >= ? AND source < ?)"] * len(self._prefixes)
            add(
                _any_of([exact, *below]),
                *sorted(self._exact),
                *(end for each in self._prefixes for end in _range(each)),
            )
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


class Lot:
    """Entries that several sieves pick from: what they all ask of each is worked out once, if any asks it."""

    def __init__(self, entries: list[LogEntry]) -> None:
        self.entries = entries

    @functools.cached_property
    def kinds(self) -> list[tuple[Level, str]]:
        """The level and source of each."""
        return list(map(_kind_of, self.entries))

    @functools.cached_property
    def folded(self) -> list[str]:
        """The message of each, case-folded."""
        return _folded(self.entries)


class Sieve:
    """Picks what matches a filter out of many entries: as `LogFilter.matches` says of each, in fewer steps."""

    def __init__(self, log_filter: LogFilter) -> None:
        self._by_kind = log_filter.by_kind
        self._kinds = _Kinds(log_filter)
        self._rest = log_filter.rest
        # Texts, and whether they are to be in the message.
        self._needles: list[tuple[str, bool]] = []
        if not log_filter.regex:
            self._needles += [(needle, True) for needle in log_filter.search]
            self._needles += [(needle, False) for needle in log_filter.exclude]
            self._rest = replace(self._rest, search=(), exclude=())

    def pick(self, lot: Lot) -> list[LogEntry]:
        """The matches in a lot, in their order; its own list where the filter asks nothing."""
        entries = lot.entries
        if self._by_kind:
            entries = list(compress(entries, map(self._kinds.__getitem__, lot.kinds)))
        if self._needles:
            entries = self._said(entries, lot.folded if entries is lot.entries else _folded(entries))
        return entries if self._rest.everything else [entry for entry in entries if self._rest.matches_rest(entry)]

    def _said(self, entries: list[LogEntry], folded: list[str]) -> list[LogEntry]:
        for needle, wanted in self._needles:
            fits = [(needle in text) is wanted for text in folded]
            entries, folded = list(compress(entries, fits)), list(compress(folded, fits))
        return entries


class _Kinds(dict[tuple[Level, str], bool]):
    """Whether entries of a level and source can match: of those there are few, and of entries many."""

    def __init__(self, log_filter: LogFilter) -> None:
        self._filter = log_filter

    def __missing__(self, kind: tuple[Level, str]) -> bool:
        matches = self[kind] = self._filter.matches_kind(*kind)
        return matches


_kind_of = attrgetter("level", "source")


def _folded(entries: list[LogEntry]) -> list[str]:
    return [entry.message.casefold() for entry in entries]


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


def _any_of(fragments: list[str]) -> str:
    # Halved again and again, because SQLite takes no expression that is over 1,000 deep.
    if len(fragments) == 1:
        return fragments[0]
    half = len(fragments) // 2
    return f"({_any_of(fragments[:half])} OR {_any_of(fragments[half:])})"


def _range(prefix: str) -> tuple[str, str]:
    """Return the lowest text with this beginning, and the lowest text above all of them."""
    return prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1)


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
