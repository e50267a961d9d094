"""
The tree that a restore writes, by descriptors.

Every name is made in an open directory, which this restore has made itself and recognises when it
returns to it. Nothing is opened through a link, and the links of the archive are made when
all files are written.
"""

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Callable

from taskd import PluginError, TaskLogger
from taskd.system.trees import DIRECTORY, Descent, Identity, identity

from . import attributes
from .attributes import Attributes
from .failures import check, shown
from .frames import is_zeros
from .members import Member
from .places import ROOT
from .plan import Plan
from .reader import Reader

FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# The names of attributes that a report has.
NAMED_MAX = 5


class Tree:
    """The tree that is being restored, from entries that a `Plan` has accepted."""

    def __init__(
        self, root: int, plan: Plan, reader: Reader, stop: threading.Event, advance: Callable[[int], None]
    ) -> None:
        self._root = root
        self._plan = plan
        self._places = plan.places
        self._reader = reader
        self._stop = stop
        self._advance = advance
        self._descent = Descent(os.dup(root))
        # The places of the directories from the root to the one that the descent has reached.
        self._way = [ROOT]
        self._made: dict[int, Identity] = {ROOT: identity(os.fstat(root))}
        # Mode, time and attributes that directories get in the end; links, with their times.
        self._directories: dict[int, tuple[int, int, Attributes]] = {}
        self._links: list[tuple[int, int]] = []
        self._dropped: Counter[str] = Counter()

    def add(self, place: int, member: Member) -> None:
        """Write the entry, unless it is one that is written in the end."""
        if member.isdir():
            self._go(place)
            self._directories[place] = (member.mode & 0o777, member.mtime_ns, member.attributes)
        elif place in self._plan.links:
            self._links.append((place, member.mtime_ns))
        elif place in self._plan.hard_links:
            self._link(place, self._plan.hard_links[place])
        else:
            self._go(self._places.parents[place])
            self._write(self._places.names[place], member)

    def finish(self) -> None:
        """Make the links; then give the directories but the root their modes and times, the inner ones first."""
        for place, mtime_ns in self._links:
            self._go(self._places.parents[place])
            name = self._places.names[place]
            os.symlink(self._plan.links[place], name, dir_fd=self._descent.fd)
            with contextlib.suppress(OSError, OverflowError):
                os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=self._descent.fd, follow_symlinks=False)
        for place in sorted(self._directories.keys() - {ROOT}, reverse=True):
            self._go(self._places.parents[place])
            fd = self._opened(place)
            try:
                self._describe(fd, *self._directories[place])
            finally:
                os.close(fd)

    def finish_root(self) -> None:
        """Give the root its mode and time, if the archive has them."""
        if ROOT in self._directories:
            self._describe(self._root, *self._directories[ROOT])

    def report(self, log: TaskLogger) -> None:
        """Log what could not be restored."""
        if self._dropped:
            most = self._dropped.most_common(NAMED_MAX)
            names = ", ".join(f"{shown(name)} of {count:,}" for name, count in most)
            more = len(self._dropped) - len(most)
            total = self._dropped.total()
            log.warning(
                f"{total:,} extended {'attribute is' if total == 1 else 'attributes are'} not restored: {names}"
                f"{f' and {more:,} other names' if more else ''}. A restore sets user.* and POSIX ACLs, "
                "if the file system takes them and knows the users"
            )

    def close(self) -> None:
        """Close every directory that is open, except the root, which is the caller's."""
        self._descent.close()

    def _go(self, place: int) -> None:
        """Go to a directory by the shortest way, and make those that are not there."""
        ahead = []
        depths = self._places.depths
        while depths[place] >= len(self._way) or self._way[depths[place]] != place:
            ahead.append(place)
            place = self._places.parents[place]
        while self._way[-1] != place:
            check(self._stop)
            self._descent.leave()
            self._way.pop()
        for below in reversed(ahead):
            check(self._stop)
            self._descent.enter(self._opened(below))
            self._way.append(below)

    def _opened(self, place: int) -> int:
        """Open a directory in the one that the descent has reached, and make it if it is not there."""
        name = self._places.names[place]
        made = self._made.get(place)
        if made is None:
            os.mkdir(name, dir_fd=self._descent.fd)
        fd = os.open(name, DIRECTORY, dir_fd=self._descent.fd)
        if made is None:
            os.fchmod(fd, 0o700)  # a default ACL of the parent may leave its owner without the right to enter
        found = identity(os.fstat(fd))
        if made not in (None, found):
            os.close(fd)
            raise PluginError(f"{shown(self._places.path(place))} was replaced while it was restored. Run again.")
        self._made[place] = found
        return fd

    def _link(self, place: int, target: int) -> None:
        self._go(self._places.parents[target])
        source = os.dup(self._descent.fd)
        try:
            self._go(self._places.parents[place])
            names = self._places.names
            os.link(
                names[target], names[place],
                src_dir_fd=source, dst_dir_fd=self._descent.fd, follow_symlinks=False,
            )  # fmt: skip
        finally:
            os.close(source)

    def _write(self, name: str, member: Member) -> None:
        fd = os.open(name, FILE, 0o600, dir_fd=self._descent.fd)
        try:
            done = 0
            for offset, data in self._reader.content():
                # Zeros become a hole again, which takes no room.
                if not is_zeros(data):
                    _write_at(fd, offset, data)
                self._advance(offset + len(data) - done)
                done = offset + len(data)
            os.ftruncate(fd, member.size)
            self._advance(member.size - done)
            self._describe(fd, member.mode & 0o777, member.mtime_ns, member.attributes)
        finally:
            os.close(fd)

    def _describe(self, fd: int, mode: int, mtime_ns: int, kept: Attributes) -> None:
        self._dropped.update(attributes.restore(fd, mode, kept))
        # An archive may hold any number as a time, and not every file system any time.
        with contextlib.suppress(OSError, OverflowError):
            os.utime(fd, ns=(mtime_ns, mtime_ns))


def _write_at(fd: int, offset: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, offset)
        rest, offset = rest[written:], offset + written
