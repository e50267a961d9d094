"""
A log as lines of JSON, stored entries first and then live ones, to the end: for `curl -N`.

An answer that stops before the log's end, because the service stops or an error occurs, ends without the
last chunk, so that its reader can distinguish it from a complete one.
"""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from taskd.api import schemas
from taskd.api.operations import Answer, Operation, service_of
from taskd.api.viewers import Pace, Viewers, asked, first_of, until_gone, viewers_of
from taskd.errors import TaskdError
from taskd.query.parameters import FOLLOW, PARAMETERS
from taskd.reading.follow import End, Entries, Event, follow

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/x-ndjson"


async def stream_logs(request: Request) -> Response:
    """Answer with a log as NDJSON, followed to its end."""
    task, query = await asked(request)
    if request.method == "HEAD":
        return Response(None, media_type=MEDIA_TYPE, headers={"Content-Length": "0"})
    service = service_of(request)
    settings = service.settings
    events = follow(
        service.manager,
        task.id,
        query.filter,
        after=query.after,
        tail=query.tail,
        page_entries=settings.frame_entries_max,
    )
    pace = Pace(settings.frame_interval_s)
    return LogStream(events, pace, viewers_of(request))


class LogStream(Response):
    """An answer that sends the entries of `events`, one on each line, until the log ends or the client leaves."""

    media_type = MEDIA_TYPE

    def __init__(self, events: AsyncGenerator[Event, None], pace: Pace, viewers: Viewers) -> None:
        # Not Response.__init__: it would declare an empty body, because there is none yet.
        self.status_code = 200
        self.background = None
        self.init_headers()
        self._events = events
        self._pace = pace
        self._viewers = viewers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._viewers.seat():
            await first_of(until_gone(receive), self._serve(send), f"stream {scope['path']}")

    async def _serve(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            ended = await self._send_lines(send)
        except TaskdError as error:
            logger.warning("a stream broke off: %s", error)
            return
        if ended:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_lines(self, send: Send) -> bool:
        """Send the entries; return whether the log's end was reached."""
        async with aclosing(self._events) as events:
            async for event in events:
                if isinstance(event, Entries):
                    lines = b"".join(entry.encoded + b"\n" for entry in event.entries)
                    await send({"type": "http.response.body", "body": lines, "more_body": True})
                if isinstance(event, End):
                    return True
                await self._pace.rest(event)
        return False


OPERATIONS = (
    Operation(
        "GET",
        "/api/tasks/{task_id}/logs/stream",
        stream_logs,
        "stream_logs",
        "Follow a task's log as lines of JSON, stored entries first and then live ones, to its end",
        {200: Answer("One entry on each line.", schemas.Entry, MEDIA_TYPE)},
        parameters=tuple(PARAMETERS[name] for name in FOLLOW),
        refusals=(404,),
    ),
)
