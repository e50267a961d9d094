"""
What is counted for `GET /metrics`, and nothing of it on the path of an entry.

Entries are counted already: a seq is a count. A `Tally` sums what the queues know, and that of the
tasks that have ended is kept, so that no total ever falls, whatever becomes of the tasks. What
happens rarely (a flush, a commit, a new task, a block of the loop) is observed in `Metrics` where
it happens. `taskd.api.metrics` asks for both when it is asked itself.

The instruments are those of Prometheus's own library, in no registry: each service has its own,
and nothing is global. A label is a plugin's name or a status, so that there are few series.
"""

from collections.abc import Iterator
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
        plugin = ("plugin",)
        self.tasks_accepted = Counter("taskd_tasks_accepted", "Tasks accepted since the start.", plugin, registry=None)
        self.tasks_started = Counter("taskd_tasks_started", "Tasks that began to run.", plugin, registry=None)
        self.tasks_ended = Counter(
            "taskd_tasks_ended", "Tasks whose end is stored.", ("plugin", "status"), registry=None
        )
        self.tasks_refused = Counter(
            "taskd_tasks_refused", "Tasks refused because too many were waiting (429).", plugin, registry=None
        )
        self.flush_seconds = Histogram(
            "taskd_flush_seconds",
            "From the beginning of a task's flush until it is committed, tries that failed included.",
            buckets=_STORE_S,
            registry=None,
        )
        self.commit_seconds = Histogram(
            "taskd_commit_seconds", "Transactions of the store, of many tasks each.", buckets=_STORE_S, registry=None
        )
        self.store_errors = Counter(
            "taskd_store_errors", "Transactions that the store refused: locked, full or failing.", registry=None
        )
        self.loop_lag_seconds = Histogram(
            "taskd_loop_lag_seconds",
            "How late the event loop comes to what is due, looked at several times a second.",
            buckets=_LAG_S,
            registry=None,
        )
        self.loop_blocks = Counter(
            "taskd_loop_blocks",
            "Times that the event loop did not turn for loop_block_warn_s; plugin is empty where no task did it.",
            plugin,
            registry=None,
        )
        self.loop_blocks_untold = Counter(
            "taskd_loop_blocks_untold", "Those of them that no entry tells, for there were too many.", registry=None
        )

        self.loop_block_longest_seconds = Gauge(
            "taskd_loop_block_longest_seconds", "The longest of them.", plugin, registry=None
        )
        # One series at a time: the task and the place are of the last one.
        self.loop_block_last_seconds = Gauge(
            "taskd_loop_block_last_seconds",
            "The last of them: which task it was, and where in its code.",
            ("plugin", "task", "where"),
            registry=None,
        )

    def collect(self) -> Iterator[Metric]:
        """All of them, as Prometheus's library takes them."""
        for instrument in vars(self).values():
            yield from instrument.collect()
