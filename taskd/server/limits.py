"""
Connections: how many there may be, and how long one may leave what waits for it.

Where there is no room, the one that has been without a whole request for the longest makes room;
where all are being answered, a new one is refused. A client may leave its answer waiting for so
long: any progress counts, so that a slow reader is served; the kernel hands over by pieces, so
"none for `send_timeout_s`" is some 3 KiB/s at least.

Where a client has gone without a word, or never takes the last bytes of an answer that is closed
already, nothing is seen from here: the kernel finds it out (`watch_clients`).
"""

import asyncio
import logging
import socket
import struct
import sys

from taskd.settings import KIB

# What the kernel holds for a client beyond what is on its way: little, so that progress is seen here.
UNSENT_BYTES = 128 * KIB

_log = logging.getLogger("taskd.connections")


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


class Patience:
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
