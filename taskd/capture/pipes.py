"""
`Pipe`: one output of a command, from the command's end to the bytes that we read.

The child gets the write end as its 1 or 2 and nothing else: both ends are close-on-exec, and a
process that a plugin forks meanwhile lets go of them (`taskd.system.fork`). The read end is read
without blocking and only as fast as the caller asks, so a full pipe slows the command down.
"""

import asyncio
import fcntl
import os
import struct
import termios

from taskd.system.fork import keep_file_from_children

READ_BYTES = 4_096


class Pipe:
    """
    One pipe. `write_fd` goes to the child; `read` is for one reader.

    `ended` is true when every process has closed the write end and all bytes were read.
    """

    def __init__(self) -> None:
        self._read_fd, self.write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        for descriptor in (self._read_fd, self.write_fd):
            keep_file_from_children(descriptor)
        self.ended = False
        self.settled = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._given = False
        self._taken = 0
        self._owed = 0
        self._limit: int | None = None
        self._waiter: asyncio.Future[None] | None = None

    def give(self) -> None:
        """Close our copy of the write end, which would keep the pipe from ever ending. Idempotent."""
        if not self._given:
            self._given = True
            os.close(self.write_fd)

    def close(self) -> None:
        """Close both ends. The reader must have ended."""
        self.give()
        os.close(self._read_fd)

    async def read(self) -> bytes:
        """Wait for some bytes and return them; return none when the pipe has ended or was given up."""
        while self._limit is None or self._taken < self._limit:
            settled = self._taken >= self._owed
            data = self._read()
            if settled:
                self.settled.set()
            if data is not None:
                self._taken += len(data)
                self.ended = not data
                return data
            await self._wait()
        self.ended = not self._unread() and self._read() == b""
        return b""

    def settle(self) -> None:
        """Have `settled` set when all bytes that are in the pipe now were read, and one more read was tried."""
        self._owed = self._taken + self._unread()
        self.settled.clear()
        self._wake()

    def give_up(self) -> None:
        """Let `read` return the bytes that are in the pipe now, and then none."""
        self._limit = self._taken + self._unread()
        self._wake()

    def _read(self) -> bytes | None:
        try:
            return os.read(self._read_fd, READ_BYTES)
        except BlockingIOError:
            return None

    def _unread(self) -> int:
        answer = fcntl.ioctl(self._read_fd, termios.FIONREAD, bytes(4))
        return int(struct.unpack("i", answer)[0])

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        self._loop.add_reader(self._read_fd, self._wake)
        try:
            await self._waiter
        finally:
            self._loop.remove_reader(self._read_fd)
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
