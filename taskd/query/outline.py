"""
`Outline`: what is needed to draw a log and to jump in it, without the log.

Time is cut into equal bins, from the log's first entry to its last or, where the filter narrows
them, from `since` to `until`. A clock that was set back does not lose an entry: what lies before
the first bin counts in it, and what lies beyond the last in that. So the bins always add up to
the total. An anchor is the seq of every 1,024th match from the first: pages of 1,024 can be read
by `after` from the anchors, in any order and at the same cost.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from taskd.entries import Level
from taskd.query.counts import LogCounts, Stats
from taskd.query.filters import LogFilter

ANCHOR_ENTRIES = 1_024

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)


@dataclass(slots=True)
class Bin:
    """The matches of one slice of time: `start` is in it, `end` is not. `first_seq` is the smallest."""

    start: str
    end: str
    count: int = 0
    errors: int = 0
    first_seq: int | None = None


def make_bins(first: str | None, last: str | None, log_filter: LogFilter, count: int) -> list[Bin]:
    """
    At most `count` equal bins from `first` to `last`, timestamps of a log that `log_filter` narrows.

    They are whole microseconds wide, so a short time has fewer. None where there is no time.
    """
    if first is None or last is None:
        return []
    start, end = _us_of(min(first, last)), _us_of(max(first, last)) + 1
    if log_filter.since is not None:
        start = max(start, _us_of(log_filter.since))
    if log_filter.until is not None:
        end = min(end, _us_of(log_filter.until))
    if start >= end:
        # All that match lie before the first entry or after the last, by a clock that was set.
        start, end = min(start, end), min(start, end) + 1
    width = -(-(end - start) // count)
    edges = [_text_of(us) for us in range(start, end + width, width)]
    return [Bin(*edge) for edge in pairwise(edges)]


class Outline:
    """The outline of the matches that are added, in `seq` order."""

    def __init__(self, bins: list[Bin]) -> None:
        self.bins = bins
        self.anchors: list[int] = []
        self.counts = LogCounts()
        self.total = 0
        # What lies before the first bin is in it, so its start is no border.
        self.borders = [one.start for one in bins[1:]]

    def add(self, seq: int, timestamp: str, level: str, source: str) -> None:
        """Count one match."""
        if self.total % ANCHOR_ENTRIES == 0:
            self.anchors.append(seq)
        self.total += 1
        self.counts.add_one(Level(level), source, seq, timestamp)
        one = self.bins[self.bin_of(timestamp)]
        one.count += 1
        one.errors += level == Level.ERROR
        if one.first_seq is None:
            one.first_seq = seq

    def bin_of(self, timestamp: str) -> int:
        """The place of the bin that `timestamp` counts in."""
        return bisect_right(self.borders, timestamp)

    def add_many(self, seqs: Sequence[int], errors: bytes, first: int, borders: Sequence[int]) -> None:
        """
        Put matches into bins: those above `borders[0]` into bin `first`, above `borders[1]` into the next.

        `errors` has a 1 for each of them that is one, and may be empty where none is. What they are
        besides is left to `counts`.
        """
        self.anchors.extend(seqs[-self.total % ANCHOR_ENTRIES :: ANCHOR_ENTRIES])
        self.total += len(seqs)
        places = [*(bisect_right(seqs, border) for border in borders), len(seqs)]
        for place, (start, end) in enumerate(pairwise(places), first):
            if start < end:
                one = self.bins[place]
                one.count += end - start
                one.errors += errors.count(1, start, end)
                one.first_seq = seqs[start] if one.first_seq is None else one.first_seq

    def stats(self) -> Stats:
        """The matches by level and source."""
        return self.counts.stats(LogFilter())


def _us_of(timestamp: str) -> int:
    return (datetime.fromisoformat(timestamp) - _EPOCH) // _US


def _text_of(us: int) -> str:
    return (_EPOCH + us * _US).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")
