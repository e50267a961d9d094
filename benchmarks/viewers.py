"""
Many viewers of one log in one process, over real WebSockets, as cheap as they can be.

    python -m benchmarks.viewers PORT TASK VIEWERS

says `ready` when all have caught up, and at the task's end prints one line of JSON: how late
entries came (second by second, a histogram in steps of 0.1 ms), how many, and whether all was in
order. Viewer n has filter n % 10 of `FILTERS`.

It speaks RFC 6455 by hand, and looks for the time in a frame's bytes instead of decoding them: a
client made of a library would need more of the machine than the server, and would be what is
measured. The time of an entry is in its metadata (`t`, of the clock that all processes share);
it is received when the last byte of its frame is. At most 16 entries of a frame are looked at,
evenly, the oldest among them, and count for all of it.
"""

import asyncio
import functools
import json
import re
import sys
import time
from collections import Counter, defaultdict
from typing import cast

import uvloop

FILTERS = (
    "",
    "min_level=INFO",
    "level=INFO",
    "min_level=WARNING",
    "source=load.0",
    "source=load.*",
    "source=load.1,load.2",
    "search=commit",
    "exclude=retry",
    "min_level=INFO&source=load.3",
)
LOOKED_AT = 16
STEP_NS = 100_000
OPEN_AT_ONCE = 50
OPEN_WAIT_S = 60
TIME = re.compile(rb'"t":(\d+)')
SEQ = re.compile(rb'"seq":(\d+)')
TEXT, CLOSE = 1, 8
HANDSHAKE = (
    "GET /api/tasks/{task}/logs/live?{query} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\n"
    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


class Seen:
    """What all viewers of this process have received."""

    def __init__(self) -> None:
        self.late: defaultdict[int, Counter[int]] = defaultdict(Counter)
        self.delivered = 0
        self.frames = 0
        self.ordered = True

    def take(self, frame: bytes, now: int, whole: bool) -> int:
        """One frame of entries; its last seq."""
        seqs = SEQ.findall(frame)
        times = TIME.findall(frame)
        first, last = int(seqs[0]), int(seqs[-1])
        if whole and last - first + 1 != len(seqs):
            self.ordered = False
        self.frames += 1
        self.delivered += len(times)
        step = max(1, len(times) // LOOKED_AT)
        looked_at = times[::step]
        for text in looked_at:
            self.late[now // 1_000_000_000][(now - int(text)) // STEP_NS] += len(times) // len(looked_at)
        return last


class Viewer(asyncio.Protocol):
    """One connection. `caught_up` is set when what follows is live, `ended` at the log's end."""

    def __init__(self, seen: Seen, hello: bytes, whole: bool) -> None:
        self.caught_up = asyncio.Event()
        self.ended = asyncio.Event()
        self.lost = False
        self._seen = seen
        self._hello = hello
        self._whole = whole
        self._upgraded = False
        self._buffer = b""
        self._last_seq = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self._hello)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        self._buffer = buffer = self._buffer + data if self._buffer else data
        position = 0
        if not self._upgraded:
            head, separator, _ = buffer.partition(b"\r\n\r\n")
            if not separator:
                return
            if b" 101 " not in head:
                raise RuntimeError(head.decode())
            self._upgraded = True
            position = len(head) + len(separator)
        while (end := self._frame(buffer, position, now)) is not None:
            position = end
        self._buffer = buffer[position:]

    def _frame(self, buffer: bytes, position: int, now: int) -> int | None:
        """Take the frame at `position`; where it ends, or None while it is not whole."""
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
        opcode = buffer[position] & 15
        if opcode == TEXT:
            self._take(buffer[start : start + length], now)
        elif opcode != CLOSE:
            raise RuntimeError(f"a frame of kind {opcode}, which taskd does not send")
        return start + length

    def _take(self, frame: bytes, now: int) -> None:
        if frame.startswith(b'{"type":"entries"'):
            seq = self._seen.take(frame, now, self._whole)
            self._seen.ordered &= seq > self._last_seq
            self._last_seq = seq
        elif frame.startswith(b'{"type":"caught_up"'):
            self.caught_up.set()
        elif frame.startswith(b'{"type":"end"'):
            self.ended.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = not self.ended.is_set()
        self.caught_up.set()
        self.ended.set()


async def watch(port: int, task: str, count: int) -> dict[str, object]:
    """Follow with so many viewers to the log's end; what they saw."""
    seen = Seen()
    viewers: list[Viewer] = []
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(OPEN_WAIT_S):
        for n in range(count):
            query = FILTERS[n % len(FILTERS)]
            hello = HANDSHAKE.format(task=task, query=query, port=port).encode()
            make = functools.partial(Viewer, seen, hello, whole=not query)
            _, viewer = await loop.create_connection(make, "127.0.0.1", port)
            viewers.append(viewer)
            if n % OPEN_AT_ONCE == OPEN_AT_ONCE - 1:
                await viewer.caught_up.wait()
        for viewer in viewers:
            await viewer.caught_up.wait()
    print("ready", flush=True)
    cpu_s, started = time.process_time(), time.monotonic()
    for viewer in viewers:
        await viewer.ended.wait()
    return {
        "late": seen.late,
        "delivered": seen.delivered,
        "frames": seen.frames,
        "ordered": seen.ordered,
        "lost": sum(viewer.lost for viewer in viewers),
        "busy": (time.process_time() - cpu_s) / (time.monotonic() - started),
    }


def main() -> None:
    """Watch, and tell."""
    port, task, count = sys.argv[1:]
    told = json.dumps(uvloop.run(watch(int(port), task, int(count))))
    # Buffered, whatever PYTHONUNBUFFERED says: without, what a pipe does not take at once may be lost.
    with open(sys.stdout.fileno(), "w", closefd=False) as out:
        print(told, file=out)


if __name__ == "__main__":
    main()
