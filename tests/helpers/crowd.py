"""
A crowd of viewers in a process of its own, over real WebSockets, as cheap as they can be.

    python -m tests.helpers.crowd JSON

says `ready` when all have caught up, and when the log has ended one line of JSON with what each
saw. A viewer with `leaves` goes away and comes back again and again: with a close frame, without
one, with a reset, or in the middle of a frame, reading at a pace that changes. It comes back with
the last seq of the frames that it has read whole.

It speaks RFC 6455 by hand and does not decode entries: a client made of a library would need more
of the machine than the server. An entry's time is in its metadata (`t`, of the clock that all
processes share); of a frame the oldest counts for all.
"""

import asyncio
import json
import random
import re
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import uvloop

from tests.helpers.served import Served

BEAT = '''
import asyncio, time
from pathlib import Path

from taskd import Level, Plugin


class Beat(Plugin):
    """Says `backlog` entries at once, then, from `start` on, `rate` a second until `gate` is there."""

    name = "beat"

    async def execute(self, params, context):
        sources = [context.logger.with_source(f"beat.{n}") for n in range(4)]
        levels = [Level.DEBUG, Level.INFO, Level.INFO, Level.WARNING, Level.ERROR]
        words = ["commit", "retry", "ОШИБКА", "fetched"]
        filling = "x" * params.get("filling", 0)

        def say(n):
            sources[n % 4].log(levels[n % 5], f"{words[n % 3]} {n}{filling}", n=n, t=time.monotonic_ns())

        n = params.get("backlog", 0)
        for number in range(n):
            say(number)
            if number % 500 == 0:
                await context.logger.drain()
        while "start" in params and not Path(params["start"]).exists():
            await asyncio.sleep(0.01)
        start = time.monotonic()
        first, rate, gate = n, params["rate"], Path(params["gate"])
        while not gate.exists():
            while n - first < (time.monotonic() - start) * rate:
                say(n)
                n += 1
            await asyncio.sleep(0.01)
'''

FILTERS = (
    "",
    "min_level=INFO",
    "level=INFO,ERROR",
    "min_level=WARNING",
    "source=beat.0",
    "source=beat.*",
    "source=beat.1,beat.2",
    "search=commit",
    "exclude=retry",
    "search=%D0%BE%D1%88%D0%B8%D0%B1%D0%BA%D0%B0&min_level=INFO",
)
OPEN_AT_ONCE = 50
TEXT, CLOSE = 1, 8
TIME = re.compile(rb'"t":(\d+)')
SEQ = re.compile(rb'"seq":(\d+)')
LAST_SEQ = re.compile(rb'"last_seq":(\d+)')
CLOSE_FRAME = bytes([0x88, 0x82, 0, 0, 0, 0]) + (1000).to_bytes(2)
HANDSHAKE = (
    "GET /api/tasks/{task}/logs/live?{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\n"
    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def handshake(task_id: str, query: str = "") -> bytes:
    """What opens a live view."""
    return HANDSHAKE.format(task=task_id, query=query).encode()


class Connection(asyncio.Protocol):
    """One connection of a viewer. `gone` is set when it is over, `ended` where that was the log's end."""

    def __init__(self, viewer: "Viewer", pace_s: float = 0.0) -> None:
        self.caught_up = asyncio.Event()
        self.gone = asyncio.Event()
        self.ended = False
        self.code: int | None = None
        self._viewer = viewer
        self._pace_s = pace_s
        self._upgraded = False
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._viewer.hello())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        position = 0
        if not self._upgraded:
            head, separator, _ = self._buffer.partition(b"\r\n\r\n")
            if not separator:
                return
            assert b" 101 " in head, head.decode()
            self._upgraded = True
            position = len(head) + len(separator)
        now = time.monotonic_ns()
        while (end := self._frame(position, now)) is not None:
            position = end
        self._buffer = self._buffer[position:]
        if self._pace_s and not self.transport.is_closing():
            self.transport.pause_reading()
            asyncio.get_running_loop().call_later(self._pace_s, self._read_on)

    def _read_on(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def _frame(self, position: int, now: int) -> int | None:
        """Take the frame at `position`; where it ends, or None while it is not whole."""
        buffer = self._buffer
        if len(buffer) < position + 2:
            return None
        length = buffer[position + 1] & 127
        start = position + 2
        if length > 125:
            size = 2 if length == 126 else 8
            length = int.from_bytes(buffer[start : start + size])
            start += size
        if len(buffer) < start + length:
            return None
        self._take(buffer[position] & 15, buffer[start : start + length], now)
        return start + length

    def _take(self, opcode: int, frame: bytes, now: int) -> None:
        if opcode == CLOSE:
            self.code = int.from_bytes(frame[:2])
            self.transport.write(CLOSE_FRAME)  # without it the server waits for one, for ten seconds
        elif frame.startswith(b'{"type":"entries"'):
            self._viewer.take(frame, now)
        elif frame.startswith((b'{"type":"caught_up"', b'{"type":"ping"')):
            self._viewer.reach(int(LAST_SEQ.findall(frame)[-1]))
            self.caught_up.set()
        elif frame.startswith(b'{"type":"end"'):
            self.ended = True

    def connection_lost(self, error: Exception | None) -> None:
        self.caught_up.set()
        self.gone.set()


class Viewer:
    """One who follows, and what it saw."""

    def __init__(self, port: int, task_id: str, query: str, leaves: int, rng: random.Random, keeps: bool) -> None:
        self.seqs: list[int] = []
        self.late_us: list[int] = []
        self.after = self.count = self.left = 0
        self.ordered = True
        self.connection: Connection
        self._port, self.task_id, self.query = port, task_id, query
        self._leaves, self._rng, self._keeps = leaves, rng, keeps

    def hello(self) -> bytes:
        return handshake(self.task_id, f"after={self.after}&{self.query}")

    def take(self, frame: bytes, now: int) -> None:
        seqs = [int(seq) for seq in SEQ.findall(frame)]
        self.ordered &= seqs[0] > self.after and (bool(self.query) or seqs[-1] - seqs[0] + 1 == len(seqs))
        self.ordered &= bool(self.query) or not self.count or seqs[0] == self.after + 1
        self.after = seqs[-1]
        self.count += len(seqs)
        if self._keeps:
            self.seqs += seqs
        if found := TIME.search(frame):
            self.late_us.append((now - int(found[1])) // 1_000)

    def reach(self, seq: int) -> None:
        """Every match up to `seq` has come."""
        self.after = max(self.after, seq)

    async def open(self, pace_s: float = 0.0, buffer_bytes: int = 0) -> Connection:
        sock = socket.socket()
        sock.setblocking(False)
        if buffer_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", self._port))
        _, self.connection = await loop.create_connection(lambda: Connection(self, pace_s), sock=sock)
        return self.connection

    async def stay(self) -> None:
        """Follow to the log's end, going away and coming back as often as was asked."""
        for _ in range(self._leaves):
            try:
                await asyncio.wait_for(self.connection.gone.wait(), self._rng.uniform(0.02, 1.0))
                if self.connection.ended:
                    return
            except TimeoutError:
                await self._leave()
            self.left += 1
            await self.open(self._rng.choice((0, 0, 0.002, 0.05)), self._rng.choice((0, 4_096)))
        await self.connection.gone.wait()

    async def _leave(self) -> None:
        connection, transport = self.connection, self.connection.transport
        match self._rng.choice(("close", "fin", "reset", "middle")):
            case "close":
                transport.write(CLOSE_FRAME)
            case "fin":
                transport.close()
            case "reset":
                transport.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                transport.abort()
            case "middle":
                transport.pause_reading()
                await asyncio.sleep(self._rng.uniform(0, 0.1))
                transport.abort()
        # After a close frame whole frames may still come, and count.
        await connection.gone.wait()


async def watch(port: int, tasks: list[str], count: int, leaves: int, keeps: bool) -> list[dict[str, Any]]:
    """Follow with so many viewers to the end of the logs; what each saw."""
    rng = random.Random(count)
    viewers = [
        Viewer(port, tasks[n % len(tasks)], FILTERS[n // len(tasks) % len(FILTERS)], leaves, rng, keeps)
        for n in range(count)
    ]
    for n, viewer in enumerate(viewers):
        await viewer.open()
        if n % OPEN_AT_ONCE == OPEN_AT_ONCE - 1:
            await viewer.connection.caught_up.wait()
    for viewer in viewers:
        await viewer.connection.caught_up.wait()
        viewer.late_us.clear()
    print("ready", flush=True)
    started = time.monotonic()
    await asyncio.gather(*[viewer.stay() for viewer in viewers])
    lasted_s = time.monotonic() - started
    return [
        {
            "task": viewer.task_id,
            "query": viewer.query,
            "seqs": viewer.seqs,
            "late_us": viewer.late_us,
            "count": viewer.count,
            "left": viewer.left,
            "ordered": viewer.ordered,
            "ended": viewer.connection.ended,
            "code": viewer.connection.code,
            "s": lasted_s,
        }
        for viewer in viewers
    ]


class Crowd:
    """The process of a crowd, as a test has it: `ready` when all have caught up; `saw()` at the end."""

    def __init__(self, served: Served, tasks: list[str], count: int, *, leaves: int = 0, keeps: bool = False) -> None:
        asked = json.dumps({"port": served.port, "tasks": tasks, "count": count, "leaves": leaves, "keeps": keeps})
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.crowd", asked],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent.parent.parent,
        )
        assert self._process.stdout
        assert self._process.stdout.readline() == "ready\n"

    def saw(self) -> list[dict[str, Any]]:
        """Wait until all have gone; what each saw."""
        said, _ = self._process.communicate()
        assert self._process.returncode == 0
        viewers: list[dict[str, Any]] = json.loads(said)
        return viewers


def late_ms(viewers: list[dict[str, Any]], part: float) -> float:
    """How late frames came, at a quantile."""
    late: list[int] = sorted(one for viewer in viewers for one in viewer["late_us"])
    return late[min(len(late) - 1, int(part * len(late)))] / 1_000


def with_beats(directory: Path, *options: str) -> Served:
    """A server, not started yet, that has the plugin `beat`."""
    plugins = directory / "beats"
    plugins.mkdir(exist_ok=True)
    (plugins / "beat.py").write_text(BEAT)
    return Served(directory, "--plugins", str(plugins), *options)


if __name__ == "__main__":
    print(json.dumps(uvloop.run(watch(**json.loads(sys.argv[1])))), flush=True)
