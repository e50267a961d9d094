"""
`sys.stdout` and `sys.stderr`: a task's words go to its log, everybody else's pass through.

A stand-in takes the place of each for as long as the service runs. What is asked of it, other
than to write, the real stream answers (its encoding, its descriptor), so that `subprocess`,
`faulthandler` or `input` find what they look for; but a task cannot close, detach or reconfigure
what belongs to all, and its words are not on a terminal. Bytes written to `.buffer` are captured
too, so that a library which wraps that in a stream of its own is still heard.

A task that replaces `sys.stdout` (`redirect_stdout`, a test runner) replaces it for itself: its
child tasks and threads write there, other tasks do not, and with the task's end it is over. For
that the class of `sys` has the two names as properties. `print` and other C code look into the
module's dict, past the properties; there lies a `_Switch`, which sends each word to the stream of
whoever speaks. Outside of tasks to replace a stream is what it is without taskd.

What writes to the descriptors 1 and 2 itself (C code, child processes) and to `sys.__stdout__` is
not seen here.
"""

import codecs
import io
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Self

from taskd.capture.current import Capturing, speaking

NAMES = ("stdout", "stderr")


@contextmanager
def streams_captured() -> Iterator[None]:
    """Put the stand-ins in, for the length of a `with` block."""
    inside, kind = vars(sys), type(sys)
    before = {name: inside[name] for name in NAMES}
    switches = {name: _Switch(name, Stream(name, getattr(sys, name))) for name in NAMES}
    inside.update(switches)
    ours = sys.__class__ = _replaceable(switches)
    try:
        yield
    finally:
        if type(sys) is ours:
            sys.__class__ = kind
        for name in NAMES:
            # Whoever replaced a stream meanwhile keeps it.
            if inside.get(name) is switches[name]:
                inside[name] = before[name]


def is_service_stream(stream: object) -> bool:
    """Whether what is written there is the service's own output, outside of tasks."""
    if isinstance(stream, _StandIn | _Switch):
        return True
    switches = [switch for switch in map(vars(sys).get, NAMES) if isinstance(switch, _Switch)]
    return any(stream is real for real in (sys.__stdout__, sys.__stderr__, *(each.standing.real for each in switches)))


class _Switch:
    """What `print` finds: the stream of the task that speaks, or the stand-in."""

    def __init__(self, name: str, standing: "Stream") -> None:
        self._name = name
        self.standing = standing

    def stream(self) -> Any:
        """The stream that is in use here and now."""
        capturing = speaking()
        return self.standing if capturing is None else capturing.replaced.get(self._name, self.standing)

    def replace(self, stream: Any) -> None:
        """Put another stream in its place: for the task that speaks, or else for all."""
        capturing, back = speaking(), stream is self or stream is self.standing
        if capturing is None:
            vars(sys)[self._name] = self if back else stream
        elif back:
            capturing.replaced.pop(self._name, None)
        else:
            capturing.replaced[self._name] = stream

    def write(self, text: str, /) -> int:
        """Write it there; nowhere where a task has none."""
        stream = self.stream()
        return len(text) if stream is None else int(stream.write(text) or 0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream(), name)


def _replaceable(switches: dict[str, _Switch]) -> type[ModuleType]:
    """The class of `sys` while streams are captured."""

    def replaced(name: str) -> property:
        def get(module: ModuleType) -> Any:
            if name not in vars(module):
                raise AttributeError(f"module 'sys' has no attribute {name!r}")
            found = vars(module)[name]
            return found.stream() if found is switches[name] else found

        def put(module: ModuleType, stream: Any) -> None:
            switches[name].replace(stream)

        def take_out(module: ModuleType) -> None:
            if speaking() is None:
                del vars(module)[name]
            else:
                switches[name].replace(None)  # for the task alone

        return property(get, put, take_out)

    members: dict[str, object] = {name: replaced(name) for name in NAMES}
    # From 3.14 on the interpreter looks past the properties of a module's class, into its dict, unless
    # the class has this.
    if sys.version_info >= (3, 14):
        members["__getattr__"] = _raise_missing
    return type("module", (ModuleType,), members)


def _raise_missing(module: ModuleType, name: str) -> None:
    raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")


class _StandIn:
    """What a stand-in for text and one for bytes have in common."""

    def __init__(self, name: str, real: Any) -> None:
        self._stream = name
        self.real = real

    def writelines(self, lines: Iterable[Any]) -> None:
        """Write each, as a file does: without ends of lines."""
        for line in lines:
            self.write(line)

    def write(self, data: Any, /) -> int:
        """Write it to the log of the task that speaks, or else to the real stream."""
        raise NotImplementedError

    def flush(self) -> None:
        """Of the real stream; a task's partial line waits for its end."""
        if speaking() is None:
            self.real.flush()

    def isatty(self) -> bool:
        """A task does not speak to a terminal."""
        return speaking() is None and bool(self.real.isatty())

    def close(self) -> None:
        """Close the real stream; nothing in a task, for it is everybody's."""
        if speaking() is None:
            self.real.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.real)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class Stream(_StandIn):
    """Stands in for `sys.stdout` or `sys.stderr`."""

    def write(self, text: str, /) -> int:
        """Write it to the log of the task that speaks, or else to the real stream."""
        capturing = speaking()
        if capturing is None:
            return int(self.real.write(text))
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        capturing.write(self._stream, text)
        return len(text)

    @property
    def buffer(self) -> "Bytes":
        """The same for bytes. Raises `AttributeError` where the real stream has none."""
        return Bytes(self._stream, self.real.buffer)

    def detach(self) -> Any:
        """The stream for bytes; only outside of tasks is it taken off."""
        return self.real.detach() if speaking() is None else self.buffer

    def reconfigure(self, **options: Any) -> None:
        """Of the real stream; nothing in a task, for it is everybody's."""
        if speaking() is None:
            self.real.reconfigure(**options)


class Bytes(_StandIn):
    """Stands in for the `buffer` of one of them."""

    def write(self, data: Any, /) -> int:
        """Write it to the log of the task that speaks, as text, or else to the real stream."""
        capturing = speaking()
        if capturing is None:
            return int(self.real.write(data))
        with memoryview(data) as view:  # TypeError for a str, as any binary file
            capturing.write(self._stream, _decoder(capturing, self._stream).decode(view.tobytes()))
            return view.nbytes

    def _dealloc_warn(self, _: object) -> None:
        """A stream around this one that is collected asks for this: nothing was left unclosed."""


def _decoder(capturing: Capturing, stream: str) -> codecs.IncrementalDecoder:
    """Of the task's stream and this thread: a character may come in two writes."""
    decoders = capturing.decoders
    place = stream, threading.get_ident()
    if place not in decoders:
        decoders[place] = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    return decoders[place]


# What asks for their kind (`isinstance(sys.stdout, io.TextIOBase)`) is to have it; to inherit would
# close the real stream when the stand-in is collected.
io.TextIOBase.register(Stream)
io.BufferedIOBase.register(Bytes)
