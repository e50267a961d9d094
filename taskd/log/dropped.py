"""
`Dropped`: the entries of one task that found no room, counted until the log reports them.

The report is an entry of `system` directly before the next entry that is accepted, so it stands
at the place of the gap. The queue guards this with its lock.
"""

import orjson

from taskd.entries import SYSTEM, Level, LogEntry


class Dropped:
    """`count` entries were dropped since the last report, and `total` since the task began."""

    def __init__(self) -> None:
        self.count = 0
        self.total = 0
        self._since = ""

    def add(self, entries: int, timestamp: str) -> None:
        """Count entries that are dropped at `timestamp`."""
        if not self.count:
            self._since = timestamp
        self.count += entries
        self.total += entries

    def report(self, seq: int, timestamp: str) -> LogEntry:
        """Return the entry, with this seq, that reports what was dropped. The count begins again."""
        message = f"{self.count:,} entries were dropped here, since {self._since}: the queue was full"
        metadata = orjson.dumps({"dropped": self.count, "since": self._since, "until": timestamp})
        self.count = 0
        return LogEntry.make(seq, timestamp, Level.WARNING, SYSTEM, message, metadata)
