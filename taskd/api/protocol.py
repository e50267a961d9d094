"""
HTTP and WebSockets as they come off the wire: uvicorn's protocols, with the bounds that they lack.

uvicorn keeps whatever a client sends until it makes sense: 36 MB of small header lines, which
need no token, took 600 MB. So what comes without anything coming of it (a head that does not end,
a chunk's extension, trailers) is counted, and cut off with 431. A request line may also name a
host (RFC 9112, 3.2.2): where it is another than the `Host` that the guard looks at, somebody on
the way may have looked at the other one, and the request is refused.

What is refused here never reaches the application; it is a problem with safe headers all the same.

A WebSocket's client has nothing to say. What it says in whole messages `taskd.api.live` counts; what
never becomes one (fragments, and pings, whose answers nobody may read) is counted here, from one of
our frames to the next.
"""

from typing import TYPE_CHECKING

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame

from taskd.api.responses import SAFE_HEADERS, problem

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent

# Of one message; a client that says something in pieces says it in a few.
FRAGMENTS_MAX = 64

# What a header costs to keep, besides its text.
_HEADER_BYTES = 64


class _HeadRefused(Exception):
    """Raised within the parser, which ends with it."""


class BoundedHttp(HttpToolsProtocol):
    """One connection. The bound is where uvicorn has it for its other protocol: `h11_max_incomplete_event_size`."""

    _refusal: Response | None = None
    _unheard_bytes = 0

    def data_received(self, data: bytes) -> None:
        self._unheard_bytes += len(data)
        super().data_received(data)
        if self._unheard_bytes > self._head_bytes_max and not self.transport.is_closing():
            self._refusal = self._too_large()
            self.send_400_response("")

    def on_headers_complete(self) -> None:
        self._unheard_bytes = 0
        if sum(len(name) + len(value) + _HEADER_BYTES for name, value in self.headers) > self._head_bytes_max:
            self._refusal = self._too_large()
        elif not self._is_for_its_host():
            self._refusal = problem(400, "The request line names another host than the header Host.")
        if self._refusal is not None:
            raise _HeadRefused
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unheard_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unheard_bytes = 0
        super().on_message_complete()

    def _is_for_its_host(self) -> bool:
        if self.url.startswith(b"/") or self.url == b"*":
            return True
        _, _, rest = self.url.partition(b"://")
        hosts = [value for name, value in self.headers if name == b"host"]
        return hosts == [rest.partition(b"/")[0]]

    def send_400_response(self, msg: str) -> None:
        """Answer what was refused, or is no HTTP, with a problem, and close."""
        response = self._refusal or problem(400, "The request is not HTTP/1.1 as RFC 9112 has it.")
        headers = {**SAFE_HEADERS, **response.headers, "Connection": "close"}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("latin-1")
        self.transport.write(STATUS_LINE[response.status_code] + head + b"\r\n" + bytes(response.body))
        self.transport.close()

    @property
    def _head_bytes_max(self) -> int:
        assert self.config.h11_max_incomplete_event_size is not None, "the server sets it"
        return self.config.h11_max_incomplete_event_size

    def _too_large(self) -> Response:
        expected = f"expected at most {self._head_bytes_max:,} bytes (head_bytes_max)"
        return problem(431, f"The head of the request is too large: {expected}.")


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """One WebSocket. The bound is that of a message, `ws_max_size`."""

    _heard_bytes = 0
    _failed = False

    def data_received(self, data: bytes) -> None:
        if self.handshake_initiated:
            self._heard_bytes += len(data)
        super().data_received(data)
        if self._heard_bytes > self.config.ws_max_size:
            self._fail(CloseCode.POLICY_VIOLATION, "too much was said")

    async def send(self, message: "ASGISendEvent") -> None:
        self._heard_bytes = 0
        if self._failed:
            # The application cannot know yet, and uvicorn would take it for a mistake of ours.
            raise ClientDisconnected
        await super().send(message)

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= FRAGMENTS_MAX:
            self._fail(CloseCode.POLICY_VIOLATION, "too many fragments")
            return
        super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        # uvicorn closes too, but makes a traceback of it in the service's own output.
        if self.curr_msg_data_type == "text" and not _is_utf_8(b"".join(self.frames)):
            self._fail(CloseCode.INVALID_DATA, "not UTF-8")
            return
        super().send_receive_event_to_app()

    def handle_parser_exception(self) -> None:
        self._failed = True
        # Frames that are none, before the handshake was answered: there is no close frame to tell of.
        if self.conn.close_sent is None:
            self.queue.put_nowait({"type": "websocket.disconnect", "code": CloseCode.ABNORMAL_CLOSURE})
            self.transport.close()
            return
        super().handle_parser_exception()

    def _fail(self, code: int, reason: str) -> None:
        if not self.transport.is_closing():
            self.conn.fail(code, reason)
            self.handle_parser_exception()


def _is_utf_8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
