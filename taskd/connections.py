"""
Connections: how many there may be, how long a client may take to ask and to take its answer.

uvicorn speaks the protocols; what it does not bound is bounded here, for all kinds of answers alike:

- how many connections there are. Where there is no room, the one that has been without a whole
  request for the longest makes room; where all are being answered, a new one gets a 503;
- how long a request may take to arrive, head and body, and how large its head may be;
- one request at a time: what comes while another is answered is not read, and the connection ends
  with the answer. (uvicorn would queue it, and no longer notice that the client has left.);
- how long a client may leave its answer waiting. Any progress counts, so that a slow reader is
  served; the kernel hands over by pieces, so "none for `send_timeout_s`" is some 3 KiB/s at least.

Where a client has gone without a word, or never takes the last bytes of an answer that is closed
already, nothing is seen from here: the kernel finds it out (`watch_clients`).
"""

import asyncio
import logging
import socket
import struct
import sys
from typing import Any, cast

import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from taskd.api.responses import SAFE_HEADERS, problem
from taskd.settings import KIB, Settings

# How long a client that was refused may take to read why, and how many such there may be.
REFUSED_WAIT_S = 1.0
REFUSED_MAX = 100
# What the kernel holds for a client beyond what is on its way: little, so that progress is seen here.
UNSENT_BYTES = 128 * KIB

_log = logging.getLogger("taskd.connections")


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


class Room:
    """The connections of one server: at most so many at once."""

    def __init__(self, connections_max: int) -> None:
        self._max = connections_max
        self._open: set[asyncio.BaseTransport] = set()
        # Those without a whole request, the longest first.
        self._waiting: dict[asyncio.Transport, None] = {}
        self.refused = 0
        self._told = 0.0

    def enter(self, transport: asyncio.Transport) -> bool:
        """Take a place; False where all are taken by clients that are being answered."""
        if len(self._open) >= self._max and self._waiting:
            longest = next(iter(self._waiting))
            self.leave(longest)
            cut(longest)
        if len(self._open) >= self._max:
            self._tell()
            return False
        self._open.add(transport)
        self._waiting[transport] = None
        return True

    def leave(self, transport: asyncio.Transport) -> None:
        """Give the place back. Idempotent."""
        self._open.discard(transport)
        self._waiting.pop(transport, None)

    def answer(self, transport: asyncio.Transport) -> None:
        """It has asked: it does not make room for others until it is answered."""
        self._waiting.pop(transport, None)

    def answered(self, transport: asyncio.Transport) -> None:
        """It may ask again, or make room."""
        if transport in self._open:
            self._waiting[transport] = None

    def _tell(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._told > 60:
            self._told = now
            _log.warning("All %d connections (connections_max) are in use; others are refused", self._max)


def cut(transport: asyncio.Transport) -> None:
    """Close at once, with a reset: what still waits for the client is thrown away, also by the kernel."""
    client = transport.get_extra_info("socket")
    if client is not None and not transport.is_closing():
        # Otherwise the kernel keeps what the client does not take, and does not get to tell it of the end.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class _Patience:
    """Cuts a connection that for so long takes not one byte of what waits for it."""

    def __init__(self, transport: asyncio.Transport, seconds: float) -> None:
        self._transport = transport
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self._left = 0

    def begin(self) -> None:
        """More waits than the transport likes to keep."""
        self.end()
        self._left = self._transport.get_write_buffer_size()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._look)

    def end(self) -> None:
        """It has taken enough, or has gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        if self._transport.get_write_buffer_size() < self._left:
            self.begin()
        else:
            cut(self._transport)


class HttpConnection(HttpToolsProtocol):
    """One connection that speaks HTTP, until it closes or becomes a WebSocket."""

    config: EdgeConfig

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._settings = self.config.settings
        self._room = self.config.room
        self._timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._in_head = True
        self._in_request = True
        self._fault: tuple[int, str] | None = None
        self._deaf = self._refused = False

    # Coming and going

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        self._patience = _Patience(transport, self._settings.send_timeout_s)
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
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._upgrade()
        except httptools.HttpParserError as error:
            if self._fault is None and self._deaf:
                return  # A second request: see `on_message_begin`.
            self._refuse(*(self._fault or (400, f"This is not HTTP/1.1: {_told(error)}.")))
        else:
            if self._in_head and self._head_bytes > self._settings.head_bytes_max:
                self._refuse(*self._head_too_large())
            elif self._in_request and self._timer is None:
                self._expect_request()

    def on_message_begin(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._deaf = True
            self._head_bytes = 0
            self.cycle.keep_alive = False
            raise _NotNow
        self._in_head = self._in_request = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self._settings.head_bytes_max:
            self._fault = self._head_too_large()
            raise _NotNow
        super().on_headers_complete()

    def on_message_complete(self) -> None:
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
            self._refuse(501, "Upgrade: expected websocket.")
            return
        self.handle_websocket_upgrade()
        protocol = self.transport.get_protocol()
        if isinstance(protocol, WebSocketConnection) and not protocol.handshake_initiated:
            # Its own limits, of 128 headers of 8 KiB: it would wait for more, for ever.
            self.transport.set_protocol(self)
            protocol.connection_lost(None)
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
        elif answering or self._head_bytes:
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
        self._head_bytes = 0
        self._stop_timer()
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        headers = {**SAFE_HEADERS, "Connection": "close", **({"Retry-After": "5"} if status == 503 else {})}
        response = problem(status, told, headers=headers)
        head = [b"HTTP/1.1 %d %b" % (status, _REASONS[status])]
        head += [b"%b: %b" % header for header in (*self.server_state.default_headers, *response.raw_headers)]
        self.transport.write(b"\r\n".join([*head, b"", bytes(response.body)]))
        self.transport.write_eof()
        self._timer = self.loop.call_later(REFUSED_WAIT_S, self.transport.abort)

    def _ignore(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self._settings.head_bytes_max:
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

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._patience = _Patience(self.transport, self.config.settings.send_timeout_s)

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

    def handle_ping(self) -> None:
        # A client that asks and does not read would have its pongs kept for it, without a bound. One
        # pong may stand for several pings (RFC 6455, section 5.5.3).
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

    def handle_cont(self, event: Frame) -> None:
        # Parts without content count for nothing, so there is no end of them.
        if event.data or event.fin:
            super().handle_cont(event)


class _NotNow(Exception):
    """Stops the parser."""


_REASONS = {
    400: b"Bad Request",
    408: b"Request Timeout",
    431: b"Request Header Fields Too Large",
    501: b"Not Implemented",
    503: b"Service Unavailable",
}


def _told(error: httptools.HttpParserError) -> str:
    """What the parser says, as one line of visible characters."""
    return "".join(letter for letter in str(error) if letter.isprintable()) or type(error).__name__


def watch_clients(listener: socket.socket, send_timeout_s: float) -> None:
    """Have the kernel cut the connections, of all that `listener` accepts, whose client is gone or takes nothing."""
    # A transport that is closed waits for its buffer, and a client that is stuck never drains it:
    # only the kernel ends that (RFC 5482). Connections inherit the options from the listener. Half the
    # time, for it may begin when the last ping is sent, and is looked at only now and then.
    half_s = send_timeout_s / 2
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(half_s * 1_000))
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, round(half_s)))
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, round(half_s / 2)))
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
