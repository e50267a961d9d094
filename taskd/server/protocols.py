"""
HTTP and WebSockets as they come off the wire: uvicorn's protocols, with the bounds that they lack.

uvicorn speaks the protocols; what it does not bound is bounded here, for all kinds of answers alike:

- how long a request may take to arrive, head and body, and how large its head may be. What comes
  without anything coming of it (a head that does not end, a chunk's extension, trailers) counts as
  head: uvicorn keeps it, and 36 MB of small header lines, which need no token, took 600 MB;
- one request at a time: what comes while another is answered is not read, and the connection ends
  with the answer. (uvicorn would queue it, and no longer notice that the client has left);
- what a head may be (`taskd.server.heads`), and that fields which come after the body (trailers) are no part
  of it: uvicorn appends them to the headers, and a token or a media type there would count;
- what a WebSocket's client says, which has nothing to say. Whole messages `taskd.api.websocket` counts;
  what never becomes one (fragments, and pings, whose answers nobody may read) is counted here, from
  one of our frames to the next.

What is refused here never reaches the application; it is a problem with safe headers all the same.
How many connections there are, and how long one may leave its answer waiting, is in
`taskd.server.limits`.
"""

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame

from taskd.api.middleware import SAFE_HEADERS
from taskd.api.problems import problem
from taskd.server.heads import framing_fault, handshake_fault, target_of
from taskd.server.limits import Patience, Room, cut
from taskd.settings import Settings

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent

# How long a client that was refused may take to read why, and how many such there may be.
REFUSED_WAIT_S = 1.0
REFUSED_MAX = 100
# Of one message; a client that says something in pieces says it in a few.
FRAGMENTS_MAX = 64
# What a header costs to keep, besides its text.
_HEADER_BYTES = 64


class EdgeConfig(uvicorn.Config):
    """uvicorn, as it serves `app` within the bounds of `settings`."""

    def __init__(self, app: ASGIApp, settings: Settings, *, close_wait_s: int) -> None:
        super().__init__(
            app,
            http=HttpConnection,
            ws=WebSocketConnection,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # the Host and Origin that are checked are those that came
            timeout_keep_alive=cast(int, settings.keep_alive_s),
            ws_max_size=settings.websocket_input_bytes_max,
            ws_per_message_deflate=False,
            ws_ping_interval=None,  # frames of our own keep the connection alive, and find out a dead one
            timeout_graceful_shutdown=close_wait_s,
        )
        self.settings = settings
        self.room = Room(settings.connections_max)


class HttpConnection(HttpToolsProtocol):
    """One connection that speaks HTTP, until it closes or becomes a WebSocket."""

    config: EdgeConfig

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._settings = self.config.settings
        self._room = self.config.room
        self._timer: asyncio.TimerHandle | None = None
        self._unheard_bytes = 0
        self._in_request = self._in_head = True
        self._fault: tuple[int, str] | None = None
        self._deaf = self._refused = False

    # Coming and going

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        self._patience = Patience(transport, self._settings.send_timeout_s)
        if self._room.enter(transport):
            self._expect_request()
        elif self._room.refused < REFUSED_MAX:
            self._room.refused += 1
            self._refused = True
            self._refuse(503, f"All {self._settings.connections_max:,} connections are in use (connections_max).")
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._patience.end()
        self._room.leave(self.transport)
        self._room.refused -= self._refused
        super().connection_lost(exc)

    # A request

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            self._ignore(len(data))
            return
        self._unset_keepalive_if_required()
        self._unheard_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._upgrade()
        except httptools.HttpParserError as error:
            if self._fault is None and self._deaf:
                return  # A second request: see `on_message_begin`.
            self._refuse(*(self._fault or (400, f"This is not HTTP/1.1: {_told(error)}.")))
        else:
            if self._unheard_bytes > self._settings.head_bytes_max:
                self._refuse(*self._head_too_large())
            elif self._in_request and self._timer is None:
                self._expect_request()

    def on_message_begin(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._deaf = True
            self._unheard_bytes = 0
            self.cycle.keep_alive = False
            raise _NotNow
        self._in_request = self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        # A trailer may not change how its request is framed, routed, authorised or read (RFC 9110, 6.5.1).
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._unheard_bytes = 0
        self._fault = self._head_fault()
        if self._fault is not None:
            raise _NotNow
        super().on_headers_complete()

    def _head_fault(self) -> tuple[int, str] | None:
        size = len(self.url) + sum(len(name) + len(value) + _HEADER_BYTES for name, value in self.headers)
        if size > self._settings.head_bytes_max:
            return self._head_too_large()
        target = target_of(self.url, self.headers)
        if target is None:
            return 400, "The request line: expected a path, or a URL of the host that the header Host names."
        self.url = target
        is_handshake = self.parser.should_upgrade() and self._should_upgrade()
        return framing_fault(self.parser.get_http_version(), self.headers) or (
            handshake_fault(self.parser.get_method(), self.headers) if is_handshake else None
        )

    def on_body(self, body: bytes) -> None:
        self._unheard_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unheard_bytes = 0
        self._in_request = False
        self._stop_timer()
        self._room.answer(self.transport)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._room.answered(self.transport)
        super().on_response_complete()

    def handle_websocket_upgrade(self) -> None:
        super().handle_websocket_upgrade()
        self._stop_timer()
        self._room.answer(self.transport)

    def _upgrade(self) -> None:
        if not self._should_upgrade():
            # Answered as if it had not asked (RFC 9110, 7.8); what comes behind may be of that protocol.
            self._deaf = True
            self._unheard_bytes = 0
            self.cycle.keep_alive = False
            return
        self.handle_websocket_upgrade()
        protocol = self.transport.get_protocol()
        if isinstance(protocol, WebSocketConnection) and not protocol.handshake_initiated:
            # Its own limits, of 128 headers of 8 KiB: it would wait for more, for ever.
            self.transport.set_protocol(self)
            protocol.connection_lost(ConnectionError())  # without an error it would close
            self.connections.add(self)
            self._refuse(*self._head_too_large())

    # Its limits

    def _expect_request(self) -> None:
        self._timer = self.loop.call_later(self._settings.request_timeout_s, self._too_late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_late(self) -> None:
        self._timer = None
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering and self.cycle.response_started:
            cut(self.transport)
        elif answering or self._unheard_bytes:
            limit_s = self._settings.request_timeout_s
            self._refuse(408, f"The request was not complete within {limit_s:g} s (request_timeout_s).")
        else:
            self.transport.close()

    def _head_too_large(self) -> tuple[int, str]:
        return 431, f"The head is too large: expected at most {self._settings.head_bytes_max:,} bytes (head_bytes_max)."

    def _refuse(self, status: int, told: str) -> None:
        """Answer in the application's place, and close when the client has had time to read it."""
        if self.transport.is_closing():
            return
        self._deaf = True
        self._unheard_bytes = 0
        self._stop_timer()
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        headers = {**SAFE_HEADERS, "Connection": "close", **({"Retry-After": "5"} if status == 503 else {})}
        response = problem(status, told, headers=headers)
        head = [b"HTTP/1.1 %d %b" % (status, HTTPStatus(status).phrase.encode())]
        head += [b"%b: %b" % header for header in (*self.server_state.default_headers, *response.raw_headers)]
        self.transport.write(b"\r\n".join([*head, b"", bytes(response.body)]))
        self.transport.write_eof()
        self._timer = self.loop.call_later(REFUSED_WAIT_S, self.transport.abort)

    def _ignore(self, size: int) -> None:
        self._unheard_bytes += size
        if self._unheard_bytes > self._settings.head_bytes_max:
            cut(self.transport)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._patience.begin()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._patience.end()


class WebSocketConnection(WebSocketsSansIOProtocol):
    """One connection that has become a WebSocket."""

    config: EdgeConfig
    _heard_bytes = 0
    _failed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._patience = Patience(self.transport, self.config.settings.send_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._patience.end()
        if self.transport.is_closing():
            self.config.room.leave(self.transport)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._patience.begin()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._patience.end()

    async def send(self, message: "ASGISendEvent") -> None:
        self._heard_bytes = 0
        if self._failed:
            # The application cannot know yet, and uvicorn would take it for a mistake of ours.
            raise ClientDisconnected
        await super().send(message)

    def data_received(self, data: bytes) -> None:
        if self.handshake_initiated:
            self._heard_bytes += len(data)
        super().data_received(data)
        if self._heard_bytes > self.config.ws_max_size:
            self._fail(CloseCode.POLICY_VIOLATION, "too much was said")

    def handle_ping(self) -> None:
        # A client that asks and does not read would have its pongs kept for it, without a bound. One
        # pong may stand for several pings (RFC 6455, section 5.5.3).
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

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
        if not self.handshake_initiated:
            return  # It was no request: `HttpConnection` refuses it.
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


class _NotNow(Exception):
    """Stops the parser."""


def _told(error: httptools.HttpParserError) -> str:
    """What the parser says, as one line of visible characters."""
    return "".join(letter for letter in str(error) if letter.isprintable()) or type(error).__name__


def _is_utf_8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
