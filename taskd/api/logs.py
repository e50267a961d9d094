"""
Logs as pages, counts and sources. What follows a log to its end is in `stream` and `live`.

An entry was encoded when it was emitted, and a page is joined from those bytes: nothing on
the way from the store to the socket encodes it again.
"""

from starlette.requests import Request
from starlette.responses import Response

from taskd.api import schemas
from taskd.api.operations import Answer, Operation, parameters_of, service_of, task_id_of
from taskd.api.responses import encode, json_response
from taskd.filters import LOGS, PARAMETERS, STATS, parse_query
from taskd.pages import Page, read_page, read_sources, read_stats


async def show_logs(request: Request) -> Response:
    """A page of entries."""
    query = parse_query(parameters_of(request), LOGS)
    page = await read_page(service_of(request).manager, task_id_of(request), query)
    return Response(_joined(page), media_type="application/json")


async def show_stats(request: Request) -> Response:
    """How many entries match, and which."""
    query = parse_query(parameters_of(request), STATS)
    stats = await read_stats(service_of(request).manager, task_id_of(request), query)
    return json_response(
        {
            "total": stats.total,
            "by_level": stats.by_level,
            "by_source": stats.by_source,
            "first_timestamp": stats.first_timestamp,
            "last_timestamp": stats.last_timestamp,
        }
    )


async def show_sources(request: Request) -> Response:
    """Who spoke."""
    sources = await read_sources(service_of(request).manager, task_id_of(request))
    return json_response({"sources": sources})


def _joined(page: Page) -> bytes:
    """The page as JSON."""
    rest = {
        "total": page.total,
        "offset": page.offset,
        "limit": page.limit,
        "last_seq": page.last_seq,
        "more": page.more,
        "ended": page.ended,
    }
    return b'{"entries":[' + b",".join([entry.encoded for entry in page.entries]) + b"]," + encode(rest)[1:]


OPERATIONS = (
    Operation(
        "GET",
        "/api/tasks/{task_id}/logs",
        show_logs,
        "show_logs",
        "A page of a task's log",
        {200: Answer("A page of entries.", schemas.Page)},
        parameters=tuple(PARAMETERS[name] for name in LOGS),
        refusals=(404,),
    ),
    Operation(
        "GET",
        "/api/tasks/{task_id}/logs/stats",
        show_stats,
        "show_stats",
        "How many entries match, by level and source",
        {200: Answer("The counts.", schemas.Stats)},
        parameters=tuple(PARAMETERS[name] for name in STATS),
        refusals=(404,),
    ),
    Operation(
        "GET",
        "/api/tasks/{task_id}/logs/sources",
        show_sources,
        "show_sources",
        "The sources in a task's log",
        {200: Answer("The sources.", schemas.Sources)},
        refusals=(404,),
    ),
)
