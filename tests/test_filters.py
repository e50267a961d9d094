"""A filter means the same in memory and in the store, and a query string means what the contract says."""

import re
import sqlite3
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from taskd import shipped
from taskd.entries import Level, LogEntry, timestamp_of
from taskd.errors import ParameterInvalid
from taskd.filters import (
    FOLLOW,
    LOGS,
    PARAMETERS,
    STATS,
    LogFilter,
    LogQuery,
    contains_folded,
    parse_query,
    read_time,
)

# Where case folding, LIKE and SQL have their corners, and then everything else that a log can hold.
CORNERS = "aAkKsSiIfFzZ09 %_\\'\"*.-/ßẞſİıKÅåΣσςŉǰﬁﬆИиёЁ\u0301\u0307\u0345ÇçąĄ😀🏳️👩🏽\ufeff\n\t\x1b\x7f"
CHARACTER = st.sampled_from(CORNERS) | st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXT = st.text(CHARACTER, max_size=12)
ASCII = st.text(st.characters(min_codepoint=1, max_codepoint=127), max_size=12)
SOURCE = st.sampled_from(["git", "git.fetch", "git.", "git/", "git-x", "gitx", "Git", "ß.a", "ß", "a%", "a_", ".x"])
WANTED = SOURCE | SOURCE.map(lambda name: f"{name}.*") | st.sampled_from([".*", "*", "", "%", "git.*.*"])
MOMENT = st.integers(1_790_000_000_000_000, 1_790_000_000_000_009).map(timestamp_of)


@st.composite
def logs_and_filters(draw: st.DrawFn) -> tuple[list[LogEntry], LogFilter]:
    messages = draw(st.lists(TEXT | ASCII, min_size=1, max_size=6))
    entries = [
        LogEntry.make(seq, draw(MOMENT), draw(st.sampled_from(Level)), draw(SOURCE), message, None)
        for seq, message in enumerate(messages, 1)
    ]
    # Half of the needles come from a message, spelt in another case, so that they are found.
    spelt = st.sampled_from([str, str.upper, str.lower, str.title, str.swapcase, str.casefold])
    cut = st.builds(
        lambda text, start, length, spell: spell(text[start : start + length]),
        st.sampled_from(messages), st.integers(0, 12), st.integers(1, 4), spelt,
    )  # fmt: skip
    needles = st.lists(TEXT | ASCII | cut, max_size=2).map(tuple)
    return entries, LogFilter(
        levels=draw(st.none() | st.frozensets(st.sampled_from(Level))),
        sources=tuple(draw(st.lists(WANTED, max_size=3))),
        search=draw(needles),
        exclude=draw(needles),
        since=draw(st.none() | MOMENT),
        until=draw(st.none() | MOMENT),
    )


def a_store() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.executescript(shipped.SCHEMA.read_text())
    connection.create_function("contains_folded", 2, contains_folded, deterministic=True)
    return connection


STORE = a_store()


def in_store(entries: list[LogEntry], log_filter: LogFilter) -> list[int]:
    where, values = log_filter.where()
    rows = [("t", e.seq, e.timestamp, e.level.value, e.source, e.message, None) for e in entries]
    with STORE:
        STORE.execute("DELETE FROM task_logs")
        STORE.executemany("INSERT INTO task_logs VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)", rows)
    return [seq for (seq,) in STORE.execute(f"SELECT seq FROM task_logs WHERE {where} ORDER BY seq", values)]


def entry(message: str = "m", source: str = "git", level: Level = Level.INFO, us: int = 0) -> LogEntry:
    return LogEntry.make(1, timestamp_of(us), level, source, message, None)


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
    assert in_store(entries, log_filter) == [e.seq for e in entries if log_filter.matches(e)]


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
    names = ",".join(f"s{number}.*" for number in range(1_500))
    try:
        log_filter = parse_query([("source", names)], LOGS).filter
    except ParameterInvalid:
        return
    assert in_store([entry(source="s7.x")], log_filter) == [1]


def test_kept_counts_answer_only_what_asks_for_level_and_source() -> None:
    """Anything that looks at the message or the time needs a scan."""
    assert LogFilter(levels=frozenset({Level.INFO}), sources=("git",)).counted
    for asked in ({"search": ("x",)}, {"exclude": ("x",)}, {"since": "x"}, {"until": "x"}):
        assert not LogFilter(**asked).counted


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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("level", "loud"),
        ("level", ""),
        ("level", "info,,error"),
        ("min_level", "info,error"),
        ("source", ""),
        ("source", "a,,b"),
        ("source", "x" * 257),
        ("search", ""),
        ("search", "x" * 1_001),
        ("exclude", ""),
        ("since", "yesterday"),
        ("since", "2026-11-23"),
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
    ],
)
def test_a_bad_value_is_refused_with_the_parameter_the_value_and_what_was_expected(name: str, value: str) -> None:
    """The answer to a mistake says how to make it right."""
    with pytest.raises(ParameterInvalid) as caught:
        parse_query([(name, value)], LOGS)
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


SAMPLES = {
    "level": ["info", "INFO", "Info , error", " debug", "warn", "info,", "", ",", "info;error", "infos", "\tinfo"],
    "min_level": ["info", "ERROR", " info", "info,error", "", "critical"],
    "source": ["a", "a,b", " a , b ", "git.*", "*", "", ",", " ", "a,,b", "ß" * 256, "x" * 257, "x" * 256 + ",y"],
    "search": ["x", " ", "x" * 1_000, "x" * 1_001, "", "😀" * 1_000],
    "exclude": ["x", "x" * 1_001, ""],
    "after": ["0", "1", "-1", str(2**63 - 1), str(2**63)],
    "before": ["1", "0", "-5", str(2**63 - 1)],
    "order": ["asc", "desc", "ASC", ""],
    "offset": ["0", "7", "-1"],
    "limit": ["1", "5000", "0", "5001"],
    "tail": ["1", "5000", "0", "5001"],
    "total": ["true", "false", "True", "1", ""],
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
    """Only the times are left out: what a date-time is, JSON Schema leaves to RFC 3339."""
    assert set(PARAMETERS) - set(SAMPLES) == {"since", "until"}
    assert PARAMETERS["since"].schema == {"type": "string", "format": "date-time"}
