"""
What taskd owes as the first process of a container: it reaps orphans.

A process whose parent has ended becomes a child of process 1, or of a subreaper, and stays a zombie
until that one waits for it. To wait for any child would take exit codes from whoever started one:
`run_process`, and plugins by any other way. So the service runs in a child of its own, and this
process only waits, passes signals on, and ends as the service does.
"""

import contextlib
import ctypes
import os
import signal

from taskd.system.signals import stopping

PR_SET_PDEATHSIG = 1
PR_GET_CHILD_SUBREAPER = 37


def become_init() -> None:
    """Return at once, or, in a process that adopts orphans, in a child of it. To be called before any thread starts."""
    if not adopts_orphans():
        return
    init, signals = os.getpid(), stopping()
    # None may come before it is known what to do with it.
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    child = os.fork()
    if child:
        _wait_for(child, signals)
    _end_with(init)
    _take_terminal()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)


def adopts_orphans() -> bool:
    """Whether processes that lose their parent become children of this one."""
    flag = ctypes.c_int(0)
    _prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(flag))
    return os.getpid() == 1 or bool(flag.value)


def _prctl(option: int, argument: object) -> None:
    """Do nothing on a system without prctl: only Linux has it."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(option, argument, 0, 0, 0)


def _wait_for(child: int, signals: list[signal.Signals]) -> None:
    """Reap whatever ends until the child does; then end this process with its exit code."""

    def pass_on(number: int, frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in signals:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    ended = 0
    while ended != child:
        ended, status = os.waitpid(-1, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _end_with(init: int) -> None:
    """Have this process killed when its parent is: nobody else would pass signals on."""
    _prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != init:
        os._exit(1)


def _take_terminal() -> None:
    """Be the terminal's own process group: otherwise Ctrl-C would reach this process twice."""
    with contextlib.suppress(OSError):
        if os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp():
            os.setpgid(0, 0)
            before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            os.tcsetpgrp(0, os.getpid())
            signal.signal(signal.SIGTTOU, before)
