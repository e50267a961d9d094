"""
Logs as pages, counts and sources. `ndjson` and `websocket` follow a log to its end.

An entry was encoded when the task emitted it. A page is joined from those bytes, and nothing between the
store and the socket encodes them again.
"""

from starlette.requests import Request
from starlette.responses import Response

from taskd.api import schemas
from taskd.api.bodies import encode, json_response
from taskd.api.operations import Answer, Operation, Refused, parameters_of, service_of, task_id_of
from taskd.api.viewers import while_there
from taskd.query.parameters import LOGS, NEXT, OUTLINE, PARAMETERS, STATS, parse_query
from taskd.reading.pages import Page, read_next, read_outline, read_page, read_sources, read_stats


async def show_logs(request: Request) -> Response:
    """Answer with a page of entries."""
    query = parse_query(parameters_of(request), LOGS)
    page = await while_there(request, read_page(service_of(request).manager, task_id_of(request), query))
    return Response(_joined(page), media_type="application/json")


async def show_stats(request: Request) -> Response:
    """Answer with the number of matches, by level and source."""
    query = parse_query(parameters_of(request), STATS)
    stats = await while_there(request, read_stats(service_of(request).manager, task_id_of(request), query))
    return json_response(
        {
            "total": stats.total,
            "by_level": stats.by_level,
            "by_source": stats.by_source,
            "first_timestamp": stats.first_timestamp,
            "last_timestamp": stats.last_timestamp,
        }
    )


async def show_outline(request: Request) -> Response:
    """Answer with the matches over time and the anchors, from which the page draws a log and jumps in it."""
    query = parse_query(parameters_of(request), OUTLINE)
    outline, last_seq = await while_there(
        request, read_outline(service_of(request).manager, task_id_of(request), query)
    )
    stats = outline.stats()
    bins = [
        {"start": one.start, "end": one.end, "count": one.count, "errors": one.errors, "first_seq": one.first_seq}
        for one in outline.bins
    ]
    return json_response(
        {
            "total": outline.total,
            "by_level": stats.by_level,
            "by_source": stats.by_source,
            "bins": bins,
            "anchors": outline.anchors,
            "last_seq": last_seq,
        }
    )


async def show_next(request: Request) -> Response:
    """Answer with the nearest match. Raises `Refused` (404) if there is none."""
    query = parse_query(parameters_of(request), NEXT)
    nearest = await while_there(request, read_next(service_of(request).manager, task_id_of(request), query))
    if nearest is None:
        raise Refused(404, f"There is no {query.direction} match.")
    rest = {"ordinal": nearest.ordinal, "total": nearest.total}
    return Response(b'{"entry":' + nearest.entry.encoded + b"," + encode(rest)[1:], media_type="application/json")


async def show_sources(request: Request) -> Response:
    """Answer with the sources in the log."""
    sources = await read_sources(service_of(request).manager, task_id_of(request))
    return json_response({"sources": sources})


def _joined(page: Page) -> bytes:
    """Return the page as JSON."""
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
        "Read a page of a task's log",
        {200: Answer("A page of entries.", schemas.Page)},
        parameters=tuple(PARAMETERS[name] for name in LOGS),
        refusals=(404,),
    ),
    Operation(
        "GET",
        "/api/tasks/{task_id}/logs/stats",
        show_stats,
        "show_stats",
        "Count the matching entries, by level and source",
        {200: Answer("The counts.", schemas.Stats)},
        parameters=tuple(PARAMETERS[name] for name in STATS),
        refusals=(404,),
    ),
    Operation(
        "GET",
        "/api/tasks/{task_id}/logs/outline",
        show_outline,
        "show_outline",
        "Outline a task's log, to draw it and to jump in it: the matches over time, and every 1,024th seq",
        {200: Answer("The outline.", schemas.Outline)},
        parameters=tuple(PARAMETERS[name] for name in OUTLINE),
        refusals=(404,),
    ),
    Operation(
        "GET",
        "/api/tasks/{task_id}/logs/next",
        show_next,
        "show_next",
        "Find the nearest match strictly beyond a seq, forwards or backwards",
        {200: Answer("The match and its place.", schemas.Nearest)},
        parameters=tuple(PARAMETERS[name] for name in NEXT),
        refusals=(404,),
    ),
    Operation(
        "GET",
        "/api/tasks/{task_id}/logs/sources",
        show_sources,
        "show_sources",
        "List the sources in a task's log",
        {200: Answer("The sources.", schemas.Sources)},
        refusals=(404,),
    ),
)
