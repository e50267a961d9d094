"""
How many entries a log has, by level and source, without reading it.

The writer counts what it publishes and the store keeps the same counts beside the entries,
added in the transaction of each batch. So a task's badge, its sources and every question by
level or source alone cost a look at a small table, however long the log is.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from taskd.entries import Level, LogEntry
from taskd.query.filters import LogFilter


@dataclass(slots=True)
class Count:
    """The entries of one level and source: how many, the first and the last."""

    count: int
    first_seq: int
    last_seq: int
    first_timestamp: str
    last_timestamp: str


@dataclass(slots=True)
class Stats:
    """What the matches of a filter are, without the matches."""

    total: int
    by_level: dict[Level, int]
    by_source: dict[str, int]
    first_timestamp: str | None
    last_timestamp: str | None


class LogCounts:
    """The counts of (a part of) one log. Parts are added in `seq` order."""

    __slots__ = ("_groups",)

    def __init__(self) -> None:
        self._groups: dict[tuple[Level, str], Count] = {}

    @classmethod
    def of(cls, entries: Iterable[LogEntry]) -> "LogCounts":
        """The counts of `entries`, which are in `seq` order."""
        counts = cls()
        counts.add(entries)
        return counts

    def add(self, entries: Iterable[LogEntry]) -> None:
        """Count `entries`, which come after all that was counted."""
        groups = self._groups
        for entry in entries:
            group = groups.get((entry.level, entry.source))
            if group is None:
                first = Count(1, entry.seq, entry.seq, entry.timestamp, entry.timestamp)
                groups[entry.level, entry.source] = first
            else:
                group.count += 1
                group.last_seq = entry.seq
                group.last_timestamp = entry.timestamp

    def add_one(self, level: Level, source: str, seq: int, timestamp: str, count: int = 1) -> None:
        """Count `count` entries of which the last is at `seq`, after all that was counted."""
        group = self._groups.get((level, source))
        if group is None:
            self._groups[level, source] = Count(count, seq, seq, timestamp, timestamp)
        else:
            group.count += count
            group.last_seq, group.last_timestamp = seq, timestamp

    def add_group(self, level: Level, source: str, count: Count) -> None:
        """Put in what the store kept of one level and source."""
        self._groups[level, source] = count

    def __iter__(self) -> Iterator[tuple[Level, str, Count]]:
        return ((level, source, count) for (level, source), count in self._groups.items())

    @property
    def by_level(self) -> dict[Level, int]:
        """How many entries there are of each level, 0 included."""
        totals = dict.fromkeys(Level, 0)
        for (level, _), group in self._groups.items():
            totals[level] += group.count
        return totals

    @property
    def sources(self) -> list[str]:
        """Who has said something, sorted."""
        return sorted({source for _, source in self._groups})

    def stats(self, log_filter: LogFilter) -> Stats:
        """The answer for a filter by level and source alone (`LogFilter.counted`)."""
        stats = Stats(0, dict.fromkeys(Level, 0), {}, None, None)
        first, last = None, None
        for (level, source), group in sorted(self._groups.items()):
            if not log_filter.matches_kind(level, source):
                continue
            stats.total += group.count
            stats.by_level[level] += group.count
            stats.by_source[source] = stats.by_source.get(source, 0) + group.count
            first = group if first is None or group.first_seq < first.first_seq else first
            last = group if last is None or group.last_seq > last.last_seq else last
        stats.first_timestamp = first.first_timestamp if first else None
        stats.last_timestamp = last.last_timestamp if last else None
        return stats


def add_stats(earlier: Stats, later: Stats) -> Stats:
    """The stats of two parts of one log, of which `later` has the greater seqs."""
    by_source = dict(earlier.by_source)
    for source, count in later.by_source.items():
        by_source[source] = by_source.get(source, 0) + count
    return Stats(
        earlier.total + later.total,
        {level: earlier.by_level[level] + later.by_level[level] for level in Level},
        dict(sorted(by_source.items())),
        earlier.first_timestamp or later.first_timestamp,
        later.last_timestamp or earlier.last_timestamp,
    )
