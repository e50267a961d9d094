"""
What is counted for `GET /metrics`, and nothing of it on the path of an entry.

Entries are counted already: a seq is a count. A `Tally` sums what the queues know, and that of the
tasks that have ended is kept, so that no total ever falls, whatever becomes of the tasks. What
happens rarely (a flush, a commit, a new task, a block of the loop) is observed in `Metrics` where
it happens. `taskd.api.health` asks for both when it is asked itself.

The instruments are those of Prometheus's own library, in no registry: each service has its own,
and nothing is global. A label is a plugin's name or a status, so that there are few series.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric

# A commit takes milliseconds; a store that is locked, as long as it is.
_STORE_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LAG_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(slots=True)
class Tally:
    """What became of entries, of one task or of many; and how often a reader lagged."""

    accepted: int = 0
    stored: int = 0
    dropped: int = 0
    suppressed: int = 0
    lagged: int = 0

    def add(self, other: "Tally") -> None:
        """Count those of `other` too."""
        self.accepted += other.accepted
        self.stored += other.stored
        self.dropped += other.dropped
        self.suppressed += other.suppressed
        self.lagged += other.lagged


class Metrics:
    """What one service observes as it happens."""

    def __init__(self) -> None:
        self.tasks_accepted = _counter("tasks_accepted", "Tasks accepted.", "plugin")
        self.tasks_started = _counter("tasks_started", "Tasks that began to run.", "plugin")
        self.tasks_ended = _counter("tasks_ended", "Tasks whose end is stored.", "plugin", "status")
        self.tasks_refused = _counter("tasks_refused", "Tasks refused because too many wait (429).", "plugin")
        self.flush_seconds = _histogram(
            "flush_seconds", "A task's flush until it is committed, tries that failed included.", _STORE_S
        )
        self.commit_seconds = _histogram("commit_seconds", "A transaction of the store, of many tasks.", _STORE_S)
        self.store_errors = _counter("store_errors", "Transactions that the store refused: locked, full or failing.")
        self.restarts = _counter("restarts", "Parts of the service that died and were started again.", "part")
        self.loop_lag_seconds = _histogram("loop_lag_seconds", "How late the event loop comes to what is due.", _LAG_S)
        self.loop_blocks = _counter(
            "loop_blocks", "Times that the event loop stood still; plugin is empty where no task did it.", "plugin"
        )
        self.loop_blocks_untold = _counter("loop_blocks_untold", "Those of them that no log tells: too many.")
        self.loop_block_longest_seconds = _gauge("loop_block_longest_seconds", "The longest of them.", "plugin")
        # One series at a time: the task and the place are of the last one.
        self.loop_block_last_seconds = _gauge(
            "loop_block_last_seconds", "The last of them: which task it was, and where.", "plugin", "task", "where"
        )

    def collect(self) -> Iterator[Metric]:
        """All of them, as Prometheus's library takes them."""
        for instrument in vars(self).values():
            yield from instrument.collect()


def _counter(name: str, told: str, *labels: str) -> Counter:
    return Counter(f"taskd_{name}", told, labels, registry=None)


def _gauge(name: str, told: str, *labels: str) -> Gauge:
    return Gauge(f"taskd_{name}", told, labels, registry=None)


def _histogram(name: str, told: str, buckets_s: Sequence[float]) -> Histogram:
    return Histogram(f"taskd_{name}", told, buckets=buckets_s, registry=None)
