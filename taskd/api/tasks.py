"""Tasks (create, list, show, cancel, retry, delete), and the plugins that tasks run."""

import re

from starlette.requests import Request
from starlette.responses import Response

from taskd.api import schemas
from taskd.api.bodies import json_response, read_body, read_optional_body
from taskd.api.operations import Answer, Operation, parameters_of, service_of, task_id_of
from taskd.query.parameters import Parameter, integer_parameter, read_choice, read_parameters
from taskd.runtime.plugins import LoadedPlugin
from taskd.tasks import Task, TaskStatus

TASKS_DEFAULT = 50
TASKS_MAX = 1_000
NAME_CHARACTERS_MAX = 64
ENDING_CHARACTERS_MAX = 36

_TASK_ID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def _read_task_id(text: str) -> str:
    if not re.fullmatch(_TASK_ID, text):
        raise ValueError
    return text


def _read_ending(text: str) -> str:
    if not re.fullmatch(rf"[0-9a-f-]{{1,{ENDING_CHARACTERS_MAX}}}", text):
        raise ValueError
    return text


def _read_plugin(text: str) -> str:
    if not re.fullmatch(rf"[a-z][a-z0-9_-]{{0,{NAME_CHARACTERS_MAX - 1}}}", text):
        raise ValueError
    return text


PARAMETERS = (
    Parameter(
        "status",
        f"one of {', '.join(TaskStatus)}",
        {"type": "string", "enum": list(TaskStatus)},
        read_choice(*TaskStatus),
    ),
    Parameter(
        "plugin",
        "the name of a plugin: a-z, then a-z 0-9 _ -",
        {"type": "string", "pattern": f"^[a-z][a-z0-9_-]{{0,{NAME_CHARACTERS_MAX - 1}}}$"},
        _read_plugin,
    ),
    Parameter(
        "id",
        f"the ending of a task's id: 1 to {ENDING_CHARACTERS_MAX} of 0-9 a-f -",
        {"type": "string", "pattern": f"^[0-9a-f-]{{1,{ENDING_CHARACTERS_MAX}}}$"},
        _read_ending,
    ),
    integer_parameter("limit", f"a whole number of tasks from 1 to {TASKS_MAX}", 1, TASKS_MAX, default=TASKS_DEFAULT),
    Parameter(
        "before",
        "a task's id, such as next_before of the previous page: only older tasks",
        {"type": "string", "format": "uuid"},
        _read_task_id,
    ),
)


async def create_task(request: Request) -> Response:
    """Start a task."""
    asked = await read_body(request, schemas.TaskCreation)
    return _created(await service_of(request).manager.submit(asked.plugin, asked.params))


async def list_tasks(request: Request) -> Response:
    """Answer with a page of tasks, the newest first."""
    asked = read_parameters(parameters_of(request), {each.name: each for each in PARAMETERS})
    status = asked.get("status")
    tasks, next_before = await service_of(request).manager.tasks(
        status=None if status is None else TaskStatus(status),
        plugin=asked.get("plugin"),
        ending=asked.get("id"),
        limit=asked.get("limit", TASKS_DEFAULT),
        before=asked.get("before"),
    )
    return json_response({"tasks": [task.to_json() for task in tasks], "next_before": next_before})


async def show_task(request: Request) -> Response:
    """Answer with one task."""
    task = await service_of(request).manager.task(task_id_of(request))
    return json_response(task.to_json())


async def cancel_task(request: Request) -> Response:
    """Ask a task to stop."""
    task = await service_of(request).manager.cancel(task_id_of(request))
    return json_response(task.to_json(), 202)


async def retry_task(request: Request) -> Response:
    """Run a task again, as a new one."""
    asked = await read_optional_body(request, schemas.TaskRetry)
    params = None if asked is None else asked.params
    return _created(await service_of(request).manager.retry(task_id_of(request), params))


async def delete_task(request: Request) -> Response:
    """Delete a task, log and all."""
    await service_of(request).manager.delete(task_id_of(request))
    return Response(None, 204)


def _created(task: Task) -> Response:
    return json_response(task.to_json(), 201, {"Location": f"/api/tasks/{task.id}"})


async def list_plugins(request: Request) -> Response:
    """Answer with the plugins, and with those that failed to load."""
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


_CREATED = Answer("The new task.", schemas.Task, headers={"Location": "The new task's path"})

OPERATIONS = (
    Operation(
        "POST",
        "/api/tasks",
        create_task,
        "create_task",
        "Start a task",
        {201: _CREATED},
        body=schemas.TaskCreation,
        refusals=(404, 422, 429),
    ),
    Operation(
        "GET",
        "/api/tasks",
        list_tasks,
        "list_tasks",
        "List the tasks, the newest first",
        {200: Answer("A page of tasks.", schemas.TaskList)},
        parameters=PARAMETERS,
    ),
    Operation(
        "GET",
        "/api/tasks/{task_id}",
        show_task,
        "show_task",
        "Show a task",
        {200: Answer("The task.", schemas.Task)},
        refusals=(404,),
    ),
    Operation(
        "POST",
        "/api/tasks/{task_id}/cancel",
        cancel_task,
        "cancel_task",
        "Ask a task to stop",
        {202: Answer("The task, which ends soon; a queued task has ended.", schemas.Task)},
        refusals=(404, 409),
    ),
    Operation(
        "POST",
        "/api/tasks/{task_id}/retry",
        retry_task,
        "retry_task",
        "Run a task again, as a new one",
        {201: _CREATED},
        body=schemas.TaskRetry,
        body_required=False,
        refusals=(404, 409, 422, 429),
    ),
    Operation(
        "DELETE",
        "/api/tasks/{task_id}",
        delete_task,
        "delete_task",
        "Delete a task, log and all",
        {204: Answer("The task is deleted.")},
        refusals=(404, 409),
    ),
    Operation(
        "GET",
        "/api/plugins",
        list_plugins,
        "list_plugins",
        "List the plugins, and those that failed to load",
        {200: Answer("The plugins.", schemas.Plugins)},
    ),
)
