"""
What a forked child must not keep open of ours.

A plugin that forks (`os.fork`, `multiprocessing`) gives its child all our descriptors, and the child may
outlive us: a pool's workers wait for ever for a parent that was killed. The lock that it then holds would
keep the next taskd from the data directory, and the socket from its port; and clients would not notice
that we are gone. So in the child they become the null device. They are not closed: somebody there may
close them once more, and hit what has their number by then.
"""

import contextlib
import os
import socket
import stat
import sys
from collections.abc import Iterator

_files: dict[int, tuple[int, int]] = {}
_ports: set[int] = set()


@contextlib.contextmanager
def children_ended() -> Iterator[None]:
    """
    End a child that was forked inside a `with` block and comes out of it.

    Behind the block there is the service: another loop, or a worker that takes what waits for others.
    """
    process = os.getpid()
    try:
        yield
    finally:
        if os.getpid() != process:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(1)


def keep_file_from_children(descriptor: int) -> None:
    """Have forked children let go of an open file, as long as the descriptor stands for it."""
    told = os.fstat(descriptor)
    _files[descriptor] = told.st_dev, told.st_ino


def keep_port_from_children(listener: socket.socket) -> None:
    """Have forked children let go of every socket with the listener's port: its own, and those of its clients."""
    _ports.add(listener.getsockname()[1])


def _let_go_in_child() -> None:
    if not _files and not _ports:
        return
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in map(int, os.listdir("/dev/fd")):
        with contextlib.suppress(OSError):  # the list's own is closed already
            if _is_ours(descriptor):
                os.dup2(nothing, descriptor, inheritable=False)
    os.close(nothing)


def _is_ours(descriptor: int) -> bool:
    told = os.fstat(descriptor)
    if stat.S_ISSOCK(told.st_mode):
        return _port_of(descriptor) in _ports
    return _files.get(descriptor) == (told.st_dev, told.st_ino)


def _port_of(descriptor: int) -> int | None:
    with socket.socket(fileno=os.dup(descriptor)) as own:
        return own.getsockname()[1] if own.family in (socket.AF_INET, socket.AF_INET6) else None


os.register_at_fork(after_in_child=_let_go_in_child)
