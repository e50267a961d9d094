"""A filter means the same in memory and in the store, and a query string means what the contract says."""

import re
import sqlite3
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from taskd import shipped
from taskd.entries import Level, LogEntry, timestamp_of
from taskd.errors import ParameterInvalid
from taskd.query import regex
from taskd.query.filters import SQL_FUNCTIONS, LogFilter, Lot, Sieve
from taskd.query.parameters import (
    EXPORT,
    FOLLOW,
    LOGS,
    NEXT,
    OUTLINE,
    PARAMETERS,
    STATS,
    LogQuery,
    parse_query,
    read_time,
)
from taskd.query.regex import PATTERNS_MAX, PatternInvalid, check_pattern, compile_pattern
from taskd.text.sources import clean_source

# Where case folding, LIKE and SQL have their corners, and then everything else that a log can hold.
CORNERS = "aAkKsSiIfFzZ09 %_\\'\"*.-/ßẞſİıKÅåΣσςŉǰﬁﬆИиёЁ\u0301\u0307\u0345ÇçąĄ😀🏳️👩🏽\ufeff\n\t\x1b\x7f"
CHARACTER = st.sampled_from(CORNERS) | st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXT = st.text(CHARACTER, max_size=12)
ASCII = st.text(st.characters(min_codepoint=1, max_codepoint=127), max_size=12)
LONG = "long." * 13
SOURCE = st.sampled_from(["git", "git.fetch", "git.", "git/", "git-x", "gitx", "Git", "ß.a", "ß", "a%", "a_", ".x"])
SOURCE |= st.sampled_from(["a,b", "a,", " git ", LONG, f"{LONG}x", f"{LONG}x.y"]).map(clean_source)
WANTED = (
    SOURCE
    | st.sampled_from([LONG, LONG[:60], f"{LONG}x"])
    | SOURCE.map(lambda name: f"{name}.*")
    | st.sampled_from([".*", "*", "", "%", "git.*.*"])
)
MOMENT = st.integers(1_790_000_000_000_000, 1_790_000_000_000_009).map(timestamp_of)


# Keys that would be SQL, a path or JSON of their own, where one is put into any of these.
KEYS = ["n", "user", "a.b", "$", 'q"', "k'", "a') OR 1=1--", "é", "", "\\", "%", "n n"]
VALUES: list[object] = [
    0,
    5,
    -1,
    5.0,
    0.1,
    1e300,
    2**63 - 1,
    2**53 + 1,
    True,
    False,
    None,
    "5",
    "true",
    "",
    "x",
    [],
    {},
]
PATTERNS = [
    "a", "^a", "a$", "(?-i)A", "(a+)+$", r"\ba", r"\d+|k", "[^a]", ".", r"\s", "", "ß|ss", "^$", r"(?s).\z", r"\pL{2}",
]  # fmt: skip
KEY = st.sampled_from(KEYS) | TEXT
VALUE: st.SearchStrategy[object] = st.sampled_from(VALUES)
METADATA = st.none() | st.dictionaries(KEY, VALUE, max_size=4).map(orjson.dumps)
PATTERN = st.sampled_from(PATTERNS)


def as_text(value: object) -> str:
    """A value as it stands in a query string."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def is_pattern(text: str) -> bool:
    try:
        compile_pattern(text)
    except PatternInvalid:
        return False
    return True


@st.composite
def logs_and_filters(draw: st.DrawFn) -> tuple[list[LogEntry], LogFilter]:
    messages = draw(st.lists(TEXT | ASCII, min_size=1, max_size=6))
    entries = [
        LogEntry.make(seq, draw(MOMENT), draw(st.sampled_from(Level)), draw(SOURCE), message, draw(METADATA))
        for seq, message in enumerate(messages, 1)
    ]
    # Half of the needles come from a message, spelt in another case, so that they are found.
    spelt = st.sampled_from([str, str.upper, str.lower, str.title, str.swapcase, str.casefold])
    cut = st.builds(
        lambda text, start, length, spell: spell(text[start : start + length]),
        st.sampled_from(messages), st.integers(0, 12), st.integers(1, 4), spelt,
    )  # fmt: skip
    needles = st.lists(TEXT | ASCII | cut, max_size=2).map(tuple)
    regex = draw(st.booleans())
    if regex:
        needles = st.lists(PATTERN | cut.map(re.escape).filter(is_pattern), max_size=2).map(tuple)
    return entries, LogFilter(
        levels=draw(st.none() | st.frozensets(st.sampled_from(Level))),
        sources=tuple(draw(st.lists(WANTED, max_size=3))),
        names=tuple(draw(st.lists(WANTED, max_size=2))),
        search=draw(needles),
        exclude=draw(needles),
        since=draw(st.none() | MOMENT),
        until=draw(st.none() | MOMENT),
        regex=regex,
        fields=tuple(draw(st.dictionaries(KEY, VALUE.map(as_text) | TEXT, max_size=2)).items()),
    )


def a_store() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.executescript(shipped.SCHEMA.read_text())
    for name, arguments, function in SQL_FUNCTIONS:
        connection.create_function(name, arguments, function, deterministic=True)
    return connection


STORE = a_store()


def in_store(entries: list[LogEntry], log_filter: LogFilter) -> list[int]:
    where, values = log_filter.where()
    rows = [("t", e.seq, e.timestamp, e.level.value, e.source, e.message, e.metadata_json) for e in entries]
    with STORE:
        STORE.execute("DELETE FROM task_logs")
        STORE.executemany("INSERT INTO task_logs VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)", rows)
    return [seq for (seq,) in STORE.execute(f"SELECT seq FROM task_logs WHERE {where} ORDER BY seq", values)]


def entry(
    message: str = "m", source: str = "git", level: Level = Level.INFO, us: int = 0, metadata: object = None
) -> LogEntry:
    metadata_json = None if metadata is None else orjson.dumps(metadata)
    return LogEntry.make(1, timestamp_of(us), level, source, message, metadata_json)


def found(message: str, **asked: Any) -> bool:
    """Whether a message is a match, which both spellings must agree on."""
    log_filter = LogFilter(**asked)
    in_memory = log_filter.matches(entry(message))
    assert in_store([entry(message)], log_filter) == ([1] if in_memory else [])
    return in_memory


# The two spellings


@settings(max_examples=400, deadline=None)
@given(logs_and_filters())
@example(([entry("\u212a")], LogFilter(search=("k",))))
@example(([entry("x%y_z\\")], LogFilter(search=("%Y_", "Z\\"))))
def test_memory_and_store_agree_on_every_entry(case: tuple[list[LogEntry], LogFilter]) -> None:
    """`matches` and `where` are one predicate, whatever the alphabet."""
    entries, log_filter = case
    matches = [entry for entry in entries if log_filter.matches(entry)]
    assert in_store(entries, log_filter) == [entry.seq for entry in matches]
    assert Sieve(log_filter).pick(Lot(entries)) == matches


@given(st.sampled_from(CORNERS) | st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
def test_a_message_is_found_by_any_spelling_of_itself(character: str) -> None:
    """Upper, lower and folded forms of a text find it."""
    message = f"a{character}b"
    for needle in (message, message.casefold(), character, character.casefold()):
        assert found(message, search=(needle,))


@pytest.mark.parametrize(
    ("needle", "message"),
    [
        ("ошибка", "ОШИБКА чтения"),
        ("strasse", "Hauptstraße 1"),
        ("STRAẞE", "strasse"),
        ("kelvin", "273 \u212aelvin"),
        ("boss", "BOſS"),
        ("İ", "i\u0307stanbul"),
        ("ΟΔΟΣ", "οδος"),
        ("50%", "done: 50% of 9"),
        ("a_b", "A_B"),
        ("c:\\x", "C:\\X\\y"),
        ("👩🏽", "hello 👩🏽"),
    ],
)
def test_search_ignores_case_in_every_alphabet(needle: str, message: str) -> None:
    """The comparison is Unicode case folding on both sides."""
    assert found(message, search=(needle,))


@pytest.mark.parametrize(
    ("needle", "message"),
    [("50%", "50 of 100"), ("a_b", "axb"), ("é", "e\u0301"), ("i", "I\u0307"[1:]), ("%", "x"), ("\\", "/")],
)
def test_search_is_literal_and_does_not_normalise(needle: str, message: str) -> None:
    """Wildcards of SQL are characters like others, and composed is not decomposed."""
    assert not found(message, search=(needle,))


def test_all_of_search_and_none_of_exclude_must_be_in_the_message() -> None:
    """Repeated, both narrow."""
    assert found("red green", search=("RED", "green"), exclude=("blue",))
    assert not found("red green", search=("red", "blue"))
    assert not found("red green", search=("red",), exclude=("blue", "GREEN"))


@pytest.mark.parametrize(
    ("wanted", "source", "matches"),
    [
        ("git", "git", True),
        ("git", "Git", False),
        ("git", "git.fetch", False),
        ("git.*", "git", True),
        ("git.*", "git.fetch.pack", True),
        ("git.*", "github", False),
        ("git.*", "git/x", False),
        ("g%", "git", False),
    ],
)
def test_a_source_is_exact_or_with_all_below_it(wanted: str, source: str, matches: bool) -> None:
    """`name.*` takes the name and what hangs below it by a dot, and nothing that only begins alike."""
    log_filter = LogFilter(sources=(wanted,))
    assert log_filter.matches(entry(source=source)) is matches
    assert in_store([entry(source=source)], log_filter) == ([1] if matches else [])


def test_since_is_included_and_until_is_not() -> None:
    """Two spans that share a border share no entry."""
    moment = timestamp_of(5)
    assert LogFilter(since=moment).matches(entry(us=5))
    assert not LogFilter(until=moment).matches(entry(us=5))
    assert LogFilter(until=moment).matches(entry(us=4))


def test_as_many_sources_as_a_query_may_name_are_a_statement_that_the_store_takes() -> None:
    """What `parse_query` accepts, SQLite executes: a long list is not a fault of the store."""
    values = [
        ("source", ",".join(f"s{number}.*" for number in range(start, start + 16))) for start in range(0, 992, 16)
    ]
    log_filter = parse_query(values, LOGS).filter
    assert in_store([entry(source="s7.x")], log_filter) == [1]
    with pytest.raises(ParameterInvalid, match="at most 1,000 names"):
        parse_query([*values, ("source", "a,b,c,d,e,f,g,h,i")], LOGS)


def test_kept_counts_answer_only_what_asks_for_level_and_source() -> None:
    """Anything that looks at the message or the time needs a scan."""
    assert LogFilter(levels=frozenset({Level.INFO}), sources=("git",)).counted
    for asked in ({"search": ("x",)}, {"exclude": ("x",)}, {"since": "x"}, {"until": "x"}, {"fields": (("a", "b"),)}):
        assert not LogFilter(**asked).counted


@pytest.mark.parametrize(
    ("pattern", "message", "matches"),
    [
        ("time(d )?out", "TIMEOUT", True),
        ("(?-i)timeout", "Timeout", False),
        (r"^took \d+ ms$", "took 15 ms", True),
        ("^took", "it took", False),
        ("ОШИБКА", "ошибка", True),
        ("a.b", "a\nb", False),
        ("(?s)a.b", "a\nb", True),
    ],
)
def test_a_pattern_is_re2s_and_ignores_case_unless_it_says_so(pattern: str, message: str, matches: bool) -> None:
    """In memory and in the store, by the same engine."""
    assert found(message, search=(pattern,), regex=True) is matches
    assert found(message, exclude=(pattern,), regex=True) is not matches


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", "(a*)*c", "(.*)*x", "a?" * 300 + "a" * 300])
def test_a_pattern_that_makes_others_take_for_ever_is_answered(pattern: str) -> None:
    """RE2 is linear; a backtracking engine would not return before the end of the universe."""
    assert not found("a" * 50_000 + "!", search=(f"(?:{pattern})(?:nowhere)",), regex=True)


@pytest.mark.parametrize(
    ("value", "text", "equal"),
    [
        ("5", "5", True),
        (5, "5", True),
        (5, "5.0", True),
        (5.0, "5", True),
        (5, "05", False),
        (5, "٥", False),
        (0, "0", True),
        (-0.0, "0", True),
        (0, "-0.0", True),
        (2**63 - 1, "9223372036854775807", True),
        (2**53 + 1, "9007199254740992", False),
        (str(2**64), "18446744073709551616", True),
        (1e23, "1" + "0" * 23, True),
        (5, "5" * 5_000, False),
        (True, "true", True),
        (True, "1", False),
        (1, "true", False),
        (False, "false", True),
        (None, "null", True),
        ("null", "null", True),
        ("Ünïcode", "Ünïcode", True),
        ("x", "X", False),
        ("", "", True),
        ([1], "[1]", False),
        ({}, "{}", False),
    ],
)
def test_a_field_equals_a_text_as_its_type_has_it(value: object, text: str, equal: bool) -> None:
    """A query string has no types: a string that is the same, a number as great, or the word for it."""
    log_filter = LogFilter(fields=(("k", text),))
    said = entry(metadata={"other": text, "k": value})
    assert log_filter.matches(said) is equal
    assert in_store([said], log_filter) == ([1] if equal else [])


@pytest.mark.parametrize(
    ("pattern", "taken"),
    [
        (r"\d{1,3}(\.\d{1,3}){3}", True), (r"\pL+", True), ("[ab]{0,300}", True), ("ошибка|таймаут", True),
        ("[ab]{0,999}[^ab]z", False), ("[ab]{0,999}" * 4, False), (r"\pL{1,20}", False),
    ],
)  # fmt: skip
def test_a_pattern_whose_program_is_long_is_refused(pattern: str, taken: bool) -> None:
    """RE2's time grows with it, and no call of RE2 can be interrupted."""
    if taken:
        check_pattern(pattern)
    else:
        with pytest.raises(PatternInvalid, match=r"too large: .* at character 1"):
            check_pattern(pattern)


def test_a_field_that_is_not_there_equals_nothing_and_a_key_below_the_top_is_not_there() -> None:
    """`null` neither; nor is the key as a value or in a message."""
    log_filter = LogFilter(fields=(("k", "null"),))
    for metadata in (None, {}, {"j": "k"}, {"j": {"k": None}}, {"K": None}):
        assert not log_filter.matches(entry(metadata=metadata))
        assert in_store([entry(metadata=metadata)], log_filter) == []


@pytest.mark.parametrize("key", ["a') OR 1=1--", '"', "$.k", "k\\", "'; DROP TABLE task_logs; --", "?", "%", "\n"])
def test_a_metadata_key_is_data(key: str) -> None:
    """Whatever it looks like, it names a field, and only of the entries that have it."""
    log_filter = LogFilter(fields=((key, "1"),))
    assert in_store([entry(metadata={"k": 1})], log_filter) == []
    assert in_store([entry(metadata={key: 1})], log_filter) == [1]


# The query string


def asked(query: str, accepted: tuple[str, ...] = LOGS) -> LogQuery:
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return parse_query([(name, value) for name, _, value in pairs], accepted)


def test_an_empty_query_asks_for_the_beginning_of_everything() -> None:
    """The defaults are the contract's."""
    query = asked("")
    assert query == LogQuery(LogFilter(), after=0, before=None, order="asc", offset=0, limit=200)
    assert query.tail is None


@pytest.mark.parametrize(
    ("query", "levels"),
    [
        ("level=info", {Level.INFO}),
        ("level=info,ERROR&level=Debug", {Level.INFO, Level.ERROR, Level.DEBUG}),
        ("min_level=warning", {Level.WARNING, Level.ERROR}),
        ("min_level=warning&level=error,info", {Level.ERROR}),
        ("min_level=error&level=info", set()),
    ],
)
def test_level_and_min_level_narrow_each_other(query: str, levels: set[Level]) -> None:
    """Where they exclude each other nothing matches, which is not the same as everything."""
    assert set(asked(query).filter.levels or ()) == levels
    assert asked(query).filter.levels is not None


def test_repeated_parameters_are_all_kept() -> None:
    """`source`, `search` and `exclude` may come as often as needed."""
    log_filter = asked("source=a,b&source=c.*&search=X&search=y&exclude=Z").filter
    assert (log_filter.sources, log_filter.search, log_filter.exclude) == (("a", "b", "c.*"), ("x", "y"), ("z",))


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-23T14:11:42.123456Z",
        "2026-11-23t14:11:42.123456z",
        "2026-11-23 14:11:42.123456",
        "2026-11-23T16:11:42.123456+02:00",
        "2026-11-23T16:11:42.123456 02:00",
        "2026-11-23T09:41:42.123456-04:30",
    ],
)
def test_a_time_is_rfc_3339_and_utc_unless_it_says_otherwise(text: str) -> None:
    """Every spelling of one moment is one timestamp; a '+' that became a space is meant as '+'."""
    assert read_time(text) == "2026-11-23T14:11:42.123456Z"


def test_a_date_alone_is_its_midnight() -> None:
    """In UTC, as a time without an offset is."""
    assert read_time("2026-11-25") == "2026-11-25T00:00:00.000000Z"


def test_warn_is_a_name_of_warning() -> None:
    """As other loggers call it, in any case and among others."""
    assert parse_query([("level", "debug, Warn")], LOGS).filter.levels == frozenset({Level.DEBUG, Level.WARNING})
    assert parse_query([("min_level", "warn")], LOGS).filter.levels == frozenset({Level.WARNING, Level.ERROR})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("level", "loud"),
        ("level", ""),
        ("level", "info,,error"),
        ("min_level", "info,error"),
        ("source", ""),
        ("source", "," * 1_000),
        ("search", ""),
        ("search", "x" * 1_001),
        ("exclude", ""),
        ("since", "yesterday"),
        ("since", "2026-11"),
        ("since", "2026-11-31"),
        ("since", "2026-11-23Z"),
        ("since", "2026-11-23\n"),
        ("since", "2026-13-01T00:00:00Z"),
        ("until", "0001-01-01T00:00:00+23:00"),
        ("until", "12:00"),
        ("after", "-1"),
        ("after", "1.0"),
        ("after", "٣"),
        ("after", str(2**63)),
        ("before", "0"),
        ("order", "ASC"),
        ("offset", "-1"),
        ("limit", "0"),
        ("limit", "5001"),
        ("tail", "0"),
        ("tail", "1e3"),
        ("total", "yes"),
        ("regex", "1"),
        ("meta.KEY", "x" * 1_001),
        ("bins", "0"),
        ("from", "-1"),
        ("direction", "up"),
        ("format", "pdf"),
    ],
)
def test_a_bad_value_is_refused_with_the_parameter_the_value_and_what_was_expected(name: str, value: str) -> None:
    """The answer to a mistake says how to make it right."""
    with pytest.raises(ParameterInvalid) as caught:
        parse_query([(name, value)], (*LOGS, *OUTLINE, *NEXT, *EXPORT))
    assert (caught.value.parameter, caught.value.value) == (name, value)
    assert caught.value.expected == PARAMETERS[name].description


def test_every_parameter_has_a_bad_value_above() -> None:
    """A parameter that is added comes with its refusal."""
    marks = test_a_bad_value_is_refused_with_the_parameter_the_value_and_what_was_expected.pytestmark  # type: ignore[attr-defined]  # pytest's
    assert {name for name, _ in marks[0].args[1]} == set(PARAMETERS)


def test_an_unknown_parameter_is_refused_by_name_with_those_there_are() -> None:
    """A misspelt filter does not show everything."""
    with pytest.raises(ParameterInvalid, match=r"^levle='info': expected one of the parameters after, before, "):
        asked("levle=info")


@pytest.mark.parametrize("query", ["after=1&after=2", "min_level=info&min_level=info", "tail=1&tail=1"])
def test_a_parameter_that_has_one_value_may_come_once(query: str) -> None:
    """Two values would leave it to chance which of them counts."""
    with pytest.raises(ParameterInvalid, match="expected it once"):
        asked(query)


def test_a_repeatable_parameter_may_come_sixty_four_times() -> None:
    """A request cannot make the store compare for ever."""
    assert len(asked("&".join(["search=x"] * 64)).filter.search) == 64
    with pytest.raises(ParameterInvalid, match="at most 64"):
        asked("&".join(["search=x"] * 65))


@pytest.mark.parametrize("other", ["after=1", "before=9", "offset=1", "order=desc"])
def test_tail_excludes_what_also_says_which_part(other: str) -> None:
    """The last N matches are the last N: no second word about it."""
    with pytest.raises(ParameterInvalid, match="together with tail"):
        asked(f"tail=5&{other}")


@pytest.mark.parametrize("name", ["before", "until", "order", "offset", "limit", "total"])
def test_following_refuses_what_would_end_or_turn_it(name: str) -> None:
    """`live` and `stream` go forward and do not end by themselves."""
    assert name not in FOLLOW
    with pytest.raises(ParameterInvalid):
        asked(f"{name}=1", FOLLOW)


def test_stats_take_the_filters_and_a_span_of_seqs() -> None:
    """What orders or pages has no meaning for a count."""
    assert set(LOGS) - set(STATS) == {"order", "offset", "limit", "tail", "total"}


@pytest.mark.parametrize(
    ("pattern", "place"),
    [
        ("a(b", "missing ) at character 2"),
        ("(a)b)", "unexpected ) at character 5"),
        ("ошибка**", "bad repetition operator at character 7"),
        ("a*|*b", "no argument for repetition operator at character 4"),
        ("x[z-a]", "invalid character class range at character 3"),
        ("[[(]](", "missing ) at character 6"),
        (r"\Q(\E(", "missing ) at character 6"),
        (r"a\1", "invalid escape sequence at character 2"),
        ("x(?<=a)b", "invalid perl operator at character 2"),
        ("((a{100}){100}){100}", "invalid repetition size at character 10"),
        ("a\\", "trailing \\ at character 2"),
    ],
)
def test_a_bad_pattern_is_refused_with_the_place(pattern: str, place: str) -> None:
    """Without `regex` it is text like any other."""
    for name in ("search", "exclude"):
        with pytest.raises(ParameterInvalid, match=re.escape(f"a regular expression in RE2's syntax: {place}")):
            parse_query([(name, pattern), ("regex", "true")], LOGS)
        parse_query([(name, pattern), ("regex", "false")], LOGS)


def test_a_pattern_keeps_its_case_and_what_is_compiled_is_bounded() -> None:
    """Folding would make another pattern of it."""
    assert asked(r"regex=true&search=\W(?-i)A").filter.search == (r"\W(?-i)A",)
    for number in range(2 * PATTERNS_MAX):
        compile_pattern(f"a{number}")
    assert regex._compiled.cache_info().currsize <= PATTERNS_MAX


def test_fields_are_asked_for_by_any_key() -> None:
    """What follows `meta.` is the key, dots and all; twice the same asks twice, and is refused."""
    log_filter = asked("meta.b=1&meta.a.c=x&meta.KEY=").filter
    assert log_filter.fields == (("KEY", ""), ("a.c", "x"), ("b", "1"))
    for query in ("meta.=1", "meta=1", "meta.a=1&meta.a=2", f"meta.{'x' * 1_001}=1"):
        with pytest.raises(ParameterInvalid):
            asked(query)


SAMPLES = {
    "level": ["info", "INFO", "Info , error", " debug", "warn", "info,", "", ",", "info;error", "infos", "\tinfo"],
    "min_level": ["info", "ERROR", " info", "info,error", "", "critical"],
    "source": ["a", "a,b", " a , b ", "git.*", "*", "", ",", " ", "\n", "a,,b", "ß" * 9_999, "," * 999, "," * 1_000],
    "search": ["x", " ", "x" * 1_000, "x" * 1_001, "", "😀" * 1_000],
    "exclude": ["x", "x" * 1_001, ""],
    "after": ["0", "1", "-1", str(2**63 - 1), str(2**63)],
    "before": ["1", "0", "-5", str(2**63 - 1)],
    "order": ["asc", "desc", "ASC", ""],
    "offset": ["0", "7", "-1"],
    "limit": ["1", "5000", "0", "5001"],
    "tail": ["1", "5000", "0", "5001"],
    "total": ["true", "false", "True", "1", ""],
    "regex": ["true", "false", "True", "1", ""],
    "meta.KEY": ["", "x", "x" * 1_000, "x" * 1_001],
    "bins": ["1", "2000", "0", "2001"],
    "from": ["0", "-1", str(2**63 - 1), str(2**63)],
    "direction": ["next", "previous", "NEXT", ""],
    "format": ["text", "ndjson", "csv", "CSV", ""],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in SAMPLES.items() for text in texts])
def test_the_schema_of_a_parameter_accepts_what_is_read(name: str, text: str) -> None:
    """The OpenAPI document promises neither more nor less than the service takes."""
    parameter = PARAMETERS[name]
    try:
        parameter.read(text)
        read = True
    except ValueError:
        read = False
    value: object = int(text) if re.fullmatch(r"-?\d+", text) and parameter.schema["type"] == "integer" else text
    assert Draft202012Validator(parameter.schema).is_valid(value) == read


def test_every_parameter_is_compared_with_its_schema() -> None:
    """Only the times are left out: what a date-time and a date are, JSON Schema leaves to RFC 3339."""
    assert set(PARAMETERS) - set(SAMPLES) == {"since", "until"}
    assert PARAMETERS["since"].schema == {"type": "string", "anyOf": [{"format": "date-time"}, {"format": "date"}]}
