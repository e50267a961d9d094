"""Is the service well, and what can it run."""

from starlette.requests import Request
from starlette.responses import Response

from taskd.api import schemas
from taskd.api.auth import is_known
from taskd.api.operations import Answer, Operation, service_of
from taskd.api.responses import json_response, problem
from taskd.runtime.plugins import LoadedPlugin

UNWELL = "The service cannot accept tasks or store entries now; show its token to read why."


async def show_health(request: Request) -> Response:
    """
    200 with what is wrong, if anything is; 503 if no task can be accepted or nothing can be stored.

    Without the token of a service that has one: the status and the version alone.
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
        {200: Answer("It works; `problems` has what is wrong all the same.", schemas.Health)},
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
