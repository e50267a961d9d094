"""
How the service is: `/api/health` for people and load balancers, `/metrics` for Prometheus.

https://prometheus.io/docs/instrumenting/exposition_formats/ (text, version 0.0.4). Every metric is read
from the service at the moment of the request, so metrics cost nothing between two requests. Totals count
from the start of the process and never fall.
"""

import platform
import sqlite3
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from taskd.api import schemas
from taskd.api.auth import is_known
from taskd.api.bodies import json_response
from taskd.api.operations import Answer, Operation, service_of
from taskd.api.problems import problem
from taskd.api.viewers import Viewers
from taskd.metrics import Tally
from taskd.service import Service
from taskd.tasks import TaskStatus
from taskd.version import __version__

UNWELL = "The service cannot accept tasks or store entries now; show its token to read the reason."
ENTRIES = {
    "emitted": "Entries accepted: they have a seq and are in their task's log.",
    "stored": "Entries whose commit is known.",
    "dropped": "Entries refused because the task's queue was full; each log reports its own.",
    "suppressed": "Entries refused because the task logged more than entries_per_s_max; each log reports its own.",
}


async def show_health(request: Request) -> Response:
    """
    Answer 200 with the problems, if any; 503 if no task can be accepted or nothing can be stored.

    A request without the token, if one is set, gets the status and the version alone.
    """
    health = service_of(request).health()
    known = is_known(request.scope)
    if health.refusing:
        more = {"problems": health.problems} if known else {}
        return problem(503, " ".join(health.problems) if known else UNWELL, more={"version": health.version, **more})
    answer: dict[str, object] = {"status": health.status, "version": health.version}
    if known:
        answer |= {
            "database": health.database,
            "tasks_running": health.tasks_running,
            "entries_pending": health.entries_pending,
            "problems": health.problems,
        }
    return json_response(answer)


class ServiceCollector(Collector):
    """Collects the metrics of one service and of its viewers."""

    def __init__(self, service: Service, viewers: Viewers) -> None:
        self._service = service
        self._viewers = viewers

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics as they are now."""
        yield InfoMetricFamily(
            "taskd_build",
            "The version of taskd, Python and SQLite.",
            {"version": __version__, "python": platform.python_version(), "sqlite": sqlite3.sqlite_version},
        )
        yield self._tasks()
        yield from self._entries()
        yield from self._now()
        yield from self._service.metrics.collect()

    def _tasks(self) -> Metric:
        tasks = GaugeMetricFamily("taskd_tasks", "Tasks that run or wait now.", labels=("plugin", "status"))
        manager = self._service.manager
        running, queued = manager.running_by_plugin, manager.queued
        # Every plugin has a series, also with 0: a series that comes and goes is hard to query.
        for plugin in sorted(self._service.plugins.plugins):
            tasks.add_metric((plugin, TaskStatus.RUNNING.value), running.get(plugin, 0))
            tasks.add_metric((plugin, TaskStatus.QUEUED.value), queued.get(plugin, 0))
        return tasks

    def _entries(self) -> Iterator[Metric]:
        tallies = self._service.manager.tallies
        counted = {
            name: CounterMetricFamily(f"taskd_entries_{name}", description, labels=("plugin",))
            for name, description in ENTRIES.items()
        }
        pending = GaugeMetricFamily(
            "taskd_entries_pending", "Entries accepted and not yet committed.", labels=("plugin",)
        )
        for plugin in sorted(self._service.plugins.plugins):
            tally = tallies.get(plugin, Tally())
            for name, value in zip(
                ENTRIES, (tally.accepted, tally.stored, tally.dropped, tally.suppressed), strict=True
            ):
                counted[name].add_metric((plugin,), value)
            pending.add_metric((plugin,), tally.accepted - tally.stored)
        yield from counted.values()
        yield pending
        lagged = sum(tally.lagged for tally in tallies.values())
        yield CounterMetricFamily("taskd_lagged_readers", "Times that a reader fell back to the store.", value=lagged)

    def _now(self) -> Iterator[Metric]:
        health = self._service.health()
        yield GaugeMetricFamily(
            "taskd_healthy", "1 if /api/health is `ok`, 0 if it is `degraded`.", value=not health.problems
        )
        yield GaugeMetricFamily("taskd_viewers", "Readers that follow logs now.", value=self._viewers.count)
        yield GaugeMetricFamily(
            "taskd_journal_bytes", "Disk that the journal takes.", value=self._service.journal.bytes_used
        )


def registry_of(service: Service, viewers: Viewers) -> CollectorRegistry:
    """Return a registry for one application, so that one process may have several."""
    registry = CollectorRegistry()
    registry.register(ServiceCollector(service, viewers))
    ProcessCollector(registry=registry)
    return registry


async def show_metrics(request: Request) -> Response:
    """Answer with all metrics as text. They are read on the event loop, so all of them are of one moment."""
    registry: CollectorRegistry = request.app.state.metrics
    return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})


OPERATIONS = (
    Operation(
        "GET",
        "/api/health",
        show_health,
        "show_health",
        "Report whether the service is healthy",
        {200: Answer("The service works; `problems` has a sentence for each thing that is wrong.", schemas.Health)},
        public=True,
    ),
    Operation(
        "GET",
        "/metrics",
        show_metrics,
        "show_metrics",
        "Report metrics for Prometheus",
        {200: Answer("Prometheus's text format, version 0.0.4.", media_type="text/plain")},
        refusals=(400, 503),
    ),
)
