"""Is the service well, and what can it run."""

from starlette.requests import Request
from starlette.responses import Response

from taskd.api import schemas
from taskd.api.operations import Answer, Operation, service_of
from taskd.api.responses import Refused, json_response
from taskd.plugins import LoadedPlugin


async def show_health(request: Request) -> Response:
    """200 where all is well, else 503 with what is not."""
    health = service_of(request).health()
    if health.problems:
        raise Refused(503, " ".join([*health.problems, *health.notices]))
    answer: dict[str, object] = {
        "status": "ok",
        "version": health.version,
        "database": health.database,
        "tasks_running": health.tasks_running,
        "entries_pending": health.entries_pending,
    }
    return json_response(answer | ({"notices": health.notices} if health.notices else {}))


async def list_plugins(request: Request) -> Response:
    """The plugins, and what failed to load."""
    registry = service_of(request).plugins
    shown = [_shown(plugin) for _, plugin in sorted(registry.plugins.items())]
    broken = [{"name": each.name, "error": each.error} for each in registry.broken]
    return json_response({"plugins": shown, "broken": broken})


def _shown(plugin: LoadedPlugin) -> dict[str, object]:
    return {
        "name": plugin.name,
        "title": plugin.title,
        "description": plugin.description,
        "params_schema": plugin.params_schema,
        "context": plugin.takes_context,
    }


OPERATIONS = (
    Operation(
        "GET",
        "/api/health",
        show_health,
        "show_health",
        "Whether the service is well",
        {200: Answer("It is.", schemas.Health)},
        public=True,
    ),
    Operation(
        "GET",
        "/api/plugins",
        list_plugins,
        "list_plugins",
        "What can be run, and what failed to load",
        {200: Answer("The plugins.", schemas.Plugins)},
    ),
)
