"""
A log as a file to download, streamed as it is read: only one page of it is in memory.

An export that breaks off (the store fails, the task is deleted, the service stops) reports that in its
last line and ends without the last chunk. An export whose server dies has no last line at all.
"""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from taskd.api.operations import Answer, Operation, parameters_of, service_of, task_id_of
from taskd.api.viewers import Viewers, first_of, until_gone, viewers_of
from taskd.errors import TaskdError
from taskd.query.parameters import EXPORT, PARAMETERS, parse_query
from taskd.reading.export import ENDINGS, MEDIA_TYPES, Export
from taskd.reading.pages import check_after, read_all
from taskd.tasks import SHORT_ID

logger = logging.getLogger(__name__)


async def export_logs(request: Request) -> Response:
    """Answer with the matches as a file."""
    asked = parameters_of(request)
    query = parse_query(asked, EXPORT)
    service = service_of(request)
    task = await service.manager.task(task_id_of(request))
    check_after(query.after, task.last_seq)
    stated = [(name, value) for name, value in asked if name != "format"]
    export = Export(task.id, task.plugin, stated, task.last_seq, query.format)
    pages = read_all(service.manager, task.id, query, task.last_seq)
    return LogExport(export, export.body(pages), viewers_of(request))


class LogExport(Response):
    """An answer that sends the file until it is complete or the client leaves."""

    def __init__(self, export: Export, body: AsyncGenerator[bytes, None], viewers: Viewers) -> None:
        # Not Response.__init__: it would declare an empty body, because there is none yet.
        self.status_code = 200
        self.media_type = MEDIA_TYPES[export.format]
        self.background = None
        name = f"{export.plugin}-{export.task_id[-SHORT_ID:]}.{ENDINGS[export.format]}"
        self.init_headers({"Content-Disposition": f'attachment; filename="{name}"'})
        self._export = export
        self._body = body
        self._viewers = viewers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._viewers.seat():
            serving = self._serve_head(send) if scope["method"] == "HEAD" else self._serve(send)
            await first_of(until_gone(receive), serving, f"export {scope['path']}")

    async def _serve_head(self, send: Send) -> None:
        await self._body.aclose()
        await self._start(send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _serve(self, send: Send) -> None:
        async with aclosing(self._body) as body:
            # The first page is read before the first byte is sent: an error until then is still answered as a problem.
            chunks = [await anext(body), await anext(body)]
            await self._start(send)
            try:
                for chunk in chunks:
                    await _send_chunk(send, chunk)
                async for chunk in body:
                    await _send_chunk(send, chunk)
            except TaskdError as error:
                logger.warning("an export broke off: %s", error)
                await _send_chunk(send, self._export.tail())
                return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _start(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})


async def _send_chunk(send: Send, chunk: bytes) -> None:
    await send({"type": "http.response.body", "body": chunk, "more_body": True})


OPERATIONS = (
    Operation(
        "GET",
        "/api/tasks/{task_id}/logs/export",
        export_logs,
        "export_logs",
        "A task's log as a file that states its task, filter and last_seq, and in its last line that it is complete",
        {
            200: Answer(
                "The file. Its last line has the count and `complete`; without that line the export broke off.",
                media_type=MEDIA_TYPES["text"],
                more_media_types=(MEDIA_TYPES["ndjson"], MEDIA_TYPES["csv"]),
            )
        },
        parameters=tuple(PARAMETERS[name] for name in EXPORT),
        refusals=(404,),
    ),
)
