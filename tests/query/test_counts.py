"""The kept counts say of a log what reading it would say."""

from hypothesis import given
from hypothesis import strategies as st

from taskd.entries import Level, LogEntry, timestamp_of
from taskd.query.counts import LogCounts, Stats, add_stats
from taskd.query.filters import LogFilter

KINDS = st.tuples(st.sampled_from(Level), st.sampled_from(["git", "git.fetch", "system"]))
FILTERS = st.builds(
    LogFilter,
    levels=st.none() | st.frozensets(st.sampled_from(Level)),
    sources=st.lists(st.sampled_from(["git", "git.*", "x"]), max_size=2).map(tuple),
)


def log_of(kinds: list[tuple[Level, str]], first_seq: int = 1) -> list[LogEntry]:
    return [
        LogEntry.make(seq, timestamp_of(seq), level, source, "m", None)
        for seq, (level, source) in enumerate(kinds, first_seq)
    ]


def read(entries: list[LogEntry], log_filter: LogFilter) -> Stats:
    """The stats by reading every entry: what the counts must agree with."""
    found = [entry for entry in entries if log_filter.matches(entry)]
    return Stats(
        total=len(found),
        by_level={level: sum(entry.level is level for entry in found) for level in Level},
        by_source={source: sum(e.source == source for e in found) for source in sorted({e.source for e in found})},
        first_timestamp=found[0].timestamp if found else None,
        last_timestamp=found[-1].timestamp if found else None,
    )


def comparable(stats: Stats) -> tuple[object, ...]:
    first_and_last = stats.first_timestamp, stats.last_timestamp
    return stats.total, stats.by_level, sorted(stats.by_source.items()), *first_and_last


@given(st.lists(KINDS), FILTERS)
def test_counts_answer_as_reading_the_log_does(kinds: list[tuple[Level, str]], log_filter: LogFilter) -> None:
    """For every filter by level and source the answer is exact."""
    entries = log_of(kinds)
    assert comparable(LogCounts.of(entries).stats(log_filter)) == comparable(read(entries, log_filter))


@given(st.lists(KINDS), st.lists(KINDS), FILTERS)
def test_two_parts_of_a_log_add_up_to_the_whole(
    one: list[tuple[Level, str]], two: list[tuple[Level, str]], log_filter: LogFilter
) -> None:
    """What is stored and what is pending together are the log."""
    stored, pending = log_of(one), log_of(two, len(one) + 1)
    parts = (LogCounts.of(part).stats(log_filter) for part in (stored, pending))
    assert comparable(add_stats(*parts)) == comparable(read(stored + pending, log_filter))


@given(st.lists(st.lists(KINDS)))
def test_counting_batch_by_batch_is_counting_at_once(batches: list[list[tuple[Level, str]]]) -> None:
    """However the entries are cut into batches, the groups are the same."""
    entries = log_of([kind for batch in batches for kind in batch])
    counts = LogCounts()
    seq = 0
    for batch in batches:
        counts.add(entries[seq : seq + len(batch)])
        seq += len(batch)
    assert list(counts) == list(LogCounts.of(entries))


def test_every_level_is_counted_also_where_there_is_none() -> None:
    """Zero is said, not left out."""
    counts = LogCounts.of(log_of([(Level.ERROR, "git"), (Level.ERROR, "system")]))
    assert counts.by_level == {Level.DEBUG: 0, Level.INFO: 0, Level.WARNING: 0, Level.ERROR: 2}


def test_sources_are_sorted_and_each_once() -> None:
    """Whoever spoke at several levels is one source."""
    counts = LogCounts.of(log_of([(Level.INFO, "z"), (Level.INFO, "a"), (Level.ERROR, "z")]))
    assert counts.sources == ["a", "z"]


def test_what_the_store_kept_is_what_was_counted() -> None:
    """The groups written out and read back give the same answers."""
    counted = LogCounts.of(log_of([(Level.INFO, "git"), (Level.ERROR, "git"), (Level.INFO, "git")]))
    kept = LogCounts()
    for level, source, count in counted:
        kept.add_group(level, source, count)
    assert kept.stats(LogFilter()) == counted.stats(LogFilter())
