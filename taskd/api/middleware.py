"""
The outermost layer of the application, `LastResort`, and the refusal of a connection before any route.

An entry may hold any text that a task produced, so the headers set here keep browsers from guessing its
type, framing it, storing it, or handing it to another origin.
"""

import asyncio
import contextlib

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from taskd.api.operations import Headers
from taskd.api.problems import fault, problem_of
from taskd.errors import Stopping

# How long to wait until a refused WebSocket is closed.
CLOSE_WAIT_S = 1.0
# On every answer.
SAFE_HEADERS: Headers = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


class LastResort:
    """
    Middleware that adds the safe headers to every answer and turns unexpected errors into problems.

    An answer that has begun cannot become a problem. Then the error goes on to the server, which cuts
    the connection, so that a client never takes half an answer for a whole one.
    """

    def __init__(self, app: ASGIApp, stopping: asyncio.Event) -> None:
        self._app = app
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = refused = False

        async def watched(message: Message) -> None:
            nonlocal begun, refused
            refused = message["type"].startswith("websocket.http.response")
            if message["type"].endswith("response.start"):
                headers = MutableHeaders(scope=message)
                for name, value in SAFE_HEADERS.items():
                    headers.setdefault(name, value)
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if begun and _is_gone(error):
                return
            if begun:
                raise
            await refuse(scope, receive, watched, self._answer(error))
        if refused:
            await _until_closed(receive)

    def _answer(self, error: Exception) -> Response:
        # The store closes before the server does: a request that fails in between is no fault.
        return problem_of(Stopping()) if self._stopping.is_set() else fault(error)


def _is_gone(error: Exception) -> bool:
    """Return whether a send failed because its transport was closed: uvloop raises a RuntimeError then."""
    return isinstance(error, RuntimeError) and "closed" in str(error)


async def _until_closed(receive: Receive) -> None:
    """Wait until a refused WebSocket is closed: uvicorn logs an application that returns before as a fault."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_WAIT_S):
            # The event comes twice: when uvicorn has the refusal to send, and when the connection is gone.
            for _ in range(2):
                while (await receive())["type"] != "websocket.disconnect":
                    pass


async def refuse(scope: Scope, receive: Receive, send: Send, response: Response) -> None:
    """Answer with `response`; a WebSocket is refused before its upgrade."""
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        # This server cannot send a body before the upgrade: it makes a bare 403 of a close.
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
        return
    await response(scope, receive, send)
