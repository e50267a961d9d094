"""
What a process has only once, kept for all tasks in the state that taskd gave it.

The working directory, logging's root, the collector, limits, patched built-ins: a plugin that
changes one of them changes it for the service and for every other task. When a task ends,
`take_back` undoes each change that was made while it ran, by it or by another that still runs.
Changes that were made before it began belong to others and stay. While plugins load, too, nothing
of this changes for good, except what they set up for their own logging.

Signals that taskd depends on are not changed even for a moment: `signal.signal` does nothing for
them in a task's code, nor while plugins load, and no import blocks them. What a task's handler of
another signal raises reaches that task's code alone: a signal interrupts whatever runs, and in the
loop's own callbacks it would close a socket of the service. All of this is only for a process that is
taskd's own (`taskd.server.server`).
"""

import builtins
import contextlib
import faulthandler
import fcntl
import functools
import gc
import locale
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from taskd.capture.current import Capturing, current
from taskd.entries import Level
from taskd.system.operator_log import own_loggers
from taskd.system.signals import PROTECTED, StopSignals

# Modules in which a patched function would reach the service and all tasks.
_PATCHED = (builtins, time, socket)
_LIMITS = [value for name, value in vars(resource).items() if name.startswith("RLIMIT_")]
# A timer that outlives its task would end the process with its signal.
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_HANDLED = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF)
# Loggers of what the service is made of, that write to its stderr through the root.
_LIBRARIES = ("aiosqlite", "asyncio", "uvicorn", "uvicorn.asgi", "uvicorn.access", "websockets")

State = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Part:
    """One thing that the process has once: how it is read, and how it is put back."""

    read: Callable[[], Any]
    write: Callable[[Any], object]
    loading: bool = True  # whether a plugin that loads must not change it either


class SharedState:
    """How it all was when it was made, on the loop, in the main thread."""

    def __init__(self, signals: StopSignals) -> None:
        self._signals = signals
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._standard = _copies_of_standard()
        self.loading = True
        self._before = _read()

    def loaded(self) -> None:
        """The plugins are loaded: what they set up for their logging is kept, all else is as before."""
        self.loading = False
        self.take_back(dict.fromkeys(PARTS), loading=True)
        now = _read()
        self._before |= {name: now[name] for name, part in PARTS.items() if not part.loading}

    def take_back(self, since: State, *, loading: bool = False) -> None:
        """Undo each change that was made after `since` was read."""
        for name, part in PARTS.items():
            if loading and not part.loading:
                continue
            # What a limit or a plugin's own object forbids stays as it is; the other parts do not depend on it.
            with contextlib.suppress(Exception):
                now = part.read()
                if now != self._before[name] and now != since[name]:
                    part.write(self._before[name])
        self._open_standard()
        os.umask(self._umask)  # cannot be read without a change
        for timer in _TIMERS:
            signal.setitimer(timer, 0)
        faulthandler.cancel_dump_traceback_later()  # which may end the process
        self._signals.take_back()
        own_loggers()

    def _open_standard(self) -> None:
        """Open those of 0, 1 and 2 that are closed: the next socket would take their place, and hear what we log."""
        for number, kept_copy in self._standard.items():
            try:
                os.fstat(number)
            except OSError:
                os.dup2(kept_copy, number)

    def close(self) -> None:
        """Close what was kept open."""
        for kept_copy in self._standard.values():
            os.close(kept_copy)


def _copies_of_standard() -> dict[int, int]:
    """Copies of the descriptors 0, 1 and 2, of those that are open."""
    copies = {}
    for number in range(3):
        with contextlib.suppress(OSError):
            copies[number] = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3)
    return copies


_kept: SharedState | None = None


@contextlib.contextmanager
def kept(signals: StopSignals) -> Iterator[SharedState]:
    """Keep the state of now for the length of a `with` block."""
    global _kept
    before, _kept = _kept, SharedState(signals)
    patched = signal.signal, signal.pthread_sigmask
    signal.signal, signal.pthread_sigmask = _protecting(signal.signal), _letting_in(signal.pthread_sigmask)
    try:
        yield _kept
    finally:
        signal.signal, signal.pthread_sigmask = patched
        _kept.close()
        _kept = before


def loaded() -> None:
    """The plugins are loaded; see `SharedState.loaded`."""
    if _kept is not None:
        _kept.loaded()


def state() -> State:
    """The state of now, for `take_back`; nothing if it is not kept."""
    return {} if _kept is None else _read()


def take_back(since: State) -> None:
    """Undo what was changed since then, if the state is kept: a task has ended. In the main thread."""
    if _kept is not None and since:
        _kept.take_back(since)


def _protecting(set_signal: Callable[[int, Any], Any]) -> Any:
    @functools.wraps(set_signal)
    def protecting(signalnum: int, handler: Any) -> Any:
        capturing = current.get()
        loading = _kept is not None and _kept.loading
        if (capturing is not None or loading) and signalnum in PROTECTED:
            return signal.getsignal(signalnum)
        if capturing is not None and callable(handler):
            handler = _raising_in(capturing, handler)
        return set_signal(signalnum, handler)

    return protecting


def _letting_in(set_mask: Callable[..., Any]) -> Any:
    @functools.wraps(set_mask)
    def letting_in(how: int, numbers: Iterable[int]) -> Any:
        if _kept is not None and _kept.loading and how != signal.SIG_UNBLOCK:
            numbers = set(numbers) - PROTECTED
        return set_mask(how, numbers)

    return letting_in


def _raising_in(capturing: Capturing, handler: Callable[[int, Any], object]) -> Callable[[int, Any], None]:
    """A task's signal handler, of which the task's own code gets what it raises, and its log what interrupts others."""

    @functools.wraps(handler)
    def handle(number: int, frame: Any) -> None:
        try:
            handler(number, frame)
        except BaseException as error:
            if current.get() is capturing:
                raise
            message = f"exception in the handler of {signal.Signals(number).name}, which interrupted other code"
            capturing.logger.tell_exception(Level.ERROR, message, error, {})

    return handle


def _read() -> State:
    found = {}
    for name, part in PARTS.items():
        try:
            found[name] = part.read()
        except Exception:  # a directory that was removed, a handler that cannot be looked at
            found[name] = None
    return found


def _attribute(place: Any, name: str) -> _Part:
    return _Part(lambda: getattr(place, name), lambda value: setattr(place, name, value))


def _functions(module: ModuleType) -> _Part:
    """The functions and classes of a module; those that are added stay."""
    names = [name for name, value in vars(module).items() if callable(value)]
    inside = vars(module)
    return _Part(
        lambda: [inside.get(name) for name in names], lambda values: inside.update(zip(names, values, strict=True))
    )


def _limit(number: int) -> _Part:
    def write(limits: tuple[int, int]) -> None:
        try:
            resource.setrlimit(number, limits)
        except (ValueError, OSError):  # the hard limit was lowered, and only root can raise it
            hard = resource.getrlimit(number)[1]
            resource.setrlimit(number, (hard, hard))

    return _Part(lambda: resource.getrlimit(number), write)


def _handler(number: signal.Signals) -> _Part:
    return _Part(lambda: signal.getsignal(number), lambda handler: signal.signal(number, handler), loading=False)


def _logger(name: str) -> _Part:
    logger = logging.getLogger(name)

    def read() -> tuple[Any, ...]:
        handlers = [(each, each.level, each.filters[:]) for each in logger.handlers]
        return logger.level, handlers, logger.filters[:], logger.propagate, logger.disabled

    def write(values: tuple[Any, ...]) -> None:
        level, handlers, filters, propagate, disabled = values
        logger.setLevel(level)
        logger.handlers[:], logger.filters[:] = [each for each, _, _ in handlers], filters
        logger.propagate, logger.disabled = propagate, disabled
        for handler, level, own_filters in handlers:
            handler.setLevel(level)
            handler.filters[:] = own_filters

    return _Part(read, write, loading=False)


def _disabled() -> list[logging.Logger]:
    """The loggers that are disabled, as `dictConfig` does with all that exist."""
    loggers = list(logging.root.manager.loggerDict.values())
    return [each for each in loggers if isinstance(each, logging.Logger) and each.disabled]


def _enable_but(disabled: list[logging.Logger]) -> None:
    for logger in _disabled():
        if logger not in disabled:
            logger.disabled = False


PARTS: dict[str, _Part] = {
    "working directory": _Part(os.getcwd, os.chdir),
    "recursion limit": _Part(sys.getrecursionlimit, sys.setrecursionlimit),
    # Python cuts it to microseconds each time.
    "switch interval": _Part(sys.getswitchinterval, lambda seconds: sys.setswitchinterval(seconds + 1e-7)),
    "collector": _Part(gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
    "collector's thresholds": _Part(gc.get_threshold, lambda thresholds: gc.set_threshold(*thresholds)),
    "collector's debugging": _Part(gc.get_debug, gc.set_debug),
    "trace function": _Part(sys.gettrace, sys.settrace),
    "profile function": _Part(sys.getprofile, sys.setprofile),
    "threads' trace function": _Part(threading.gettrace, threading.settrace),
    "threads' profile function": _Part(threading.getprofile, threading.setprofile),
    "exception hook": _attribute(sys, "excepthook"),
    "unraisable hook": _attribute(sys, "unraisablehook"),
    "threads' hook": _attribute(threading, "excepthook"),
    "socket timeout": _Part(socket.getdefaulttimeout, socket.setdefaulttimeout),
    "threads' stack size": _Part(threading.stack_size, threading.stack_size),
    "digits of integers": _Part(sys.get_int_max_str_digits, sys.set_int_max_str_digits),
    "processors": _Part(lambda: os.sched_getaffinity(0), lambda numbers: os.sched_setaffinity(0, numbers)),
    "locale": _Part(lambda: locale.setlocale(locale.LC_ALL), lambda name: locale.setlocale(locale.LC_ALL, name)),
    "priority": _Part(
        lambda: os.getpriority(os.PRIO_PROCESS, 0), lambda nice: os.setpriority(os.PRIO_PROCESS, 0, nice)
    ),
    "logging.disable": _Part(lambda: logging.root.manager.disable, logging.disable),
    "logging.raiseExceptions": _attribute(logging, "raiseExceptions"),
    "logging.lastResort": _attribute(logging, "lastResort"),
    "logger class": _Part(logging.getLoggerClass, logging.setLoggerClass),
    "record factory": _Part(logging.getLogRecordFactory, logging.setLogRecordFactory),
    "root logger": _logger("root"),
    **{f"logger {name}": _logger(name) for name in _LIBRARIES},
    "disabled loggers": _Part(_disabled, _enable_but, loading=False),
    **{f"functions of {module.__name__}": _functions(module) for module in _PATCHED},
    **{f"handler of {number.name}": _handler(number) for number in _HANDLED},
    **{f"limit {number}": _limit(number) for number in _LIMITS},
}
