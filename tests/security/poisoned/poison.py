"""
Plugins that say, return, raise and print what no log can hold, in every place where something can be said.

`every` goes through the list, `drawn` lets hypothesis make it up, `end` ends with one of it. Between any
two the source `neighbour` says a number, so that a test can see that all others came through.
"""

import io
import itertools
import logging
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from taskd import Plugin, TaskContext
from tests.helpers.hostile_values import HOSTILE, LEAF, VALUE, Box, deep


class Recursive:
    def __repr__(self) -> str:
        return repr(self)


class Leaves:
    def __repr__(self) -> str:
        raise SystemExit(3)


class Speaks:
    """Its repr logs, which is to say: it comes back into the call that looks at it."""

    def __repr__(self) -> str:
        logging.getLogger("speaks").warning("said while it was looked at")
        print("printed while it was looked at")
        return "spoke"


class Wrong(str):
    __slots__ = ()

    def encode(self, *_: object) -> bytes:
        raise RuntimeError("no bytes")

    def isascii(self) -> bool:
        return True

    def replace(self, *_: object) -> Any:
        return 7

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        return True


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Gone:
    pass


def dead() -> Any:
    return weakref.proxy(Gone())


TEXTS = [
    "\ud800", "a\udcff", "\udc80\ud800", "\0", "a\0b",
    "\u202eesrever", "\u2066\u2069\u200f", "\u2028\u2029", "\ufeffbom",
    "\x1b]0;owned\x07\x9b31m\x1b[2J", "\r\nGET / HTTP/1.1", "\\ud800", "\\u0000", "\\", '"', "</script><img src=x>",
    "{0.__class__}", "%s%n%(x)s", "::set-env name=X::y", "'; DROP TABLE tasks; --", "\x7f\x80\x85\x9f",
    "\U0010ffff",
    "e\u0301" * 300, "x" * 200_000, "\ud83d", "=cmd|' /C calc'!A0", "\t\v\f", "", " ", "\n" * 1_000,
]  # fmt: skip
KEYS = ["__proto__", "constructor", "seq", "level", "source", "message", "self", "timestamp", "task_id", "metadata",
        "", "a.b", "$", "$.x", "\ud800", "\0", "progress", "group", "exception", "continued", "dropped",
        "args"]  # fmt: skip
POISON: list[Any] = [
    *TEXTS, *HOSTILE, Recursive(), Leaves(), Speaks(), Wrong("wr\ud800ng"), Unspeakable("x"), dead(),
    deep(300), deep(254),
    2**64, -(2**70), 1e400, itertools.count(), (n for n in range(3)), io.StringIO(), memoryview(b"\xff"),
    {"a": {"b": 2**63}},
    *({key: value} for key in KEYS for value in ("x", float("nan"), {"id": 2**80, "title": "\ud800", "label": None})),
]  # fmt: skip


def is_a(value: object, kinds: type | tuple[type, ...]) -> bool:
    """`isinstance`, without asking the value itself."""
    return issubclass(type(value), kinds)


def in_message(context: TaskContext, value: Any) -> None:
    context.logger.info(value)


def in_source(context: TaskContext, value: Any) -> None:
    context.logger.with_source(value).info("from there")


def in_field(context: TaskContext, value: Any) -> None:
    context.logger.info("a field", value=value, beside="intact")


def in_key(context: TaskContext, value: Any) -> None:
    with suppress(TypeError):  # what cannot be hashed is no key
        context.logger.info("keys", inside={value: 1}, beside="intact")
    if is_a(value, str):
        context.logger.info("key", **{value: 1})
    if is_a(value, dict) and all(is_a(key, str) for key in dict.keys(value)):
        context.logger.info("fields", **value)


def in_level(context: TaskContext, value: Any) -> None:
    context.logger.log(value, "at a level")


def in_arguments(context: TaskContext, value: Any) -> None:
    context.logger.warning("with arguments %s", value, value)


def in_progress(context: TaskContext, value: Any) -> None:
    with context.logger.progress(value, total=value, unit=value) as progress:
        progress.update(value, message=value)
        progress.advance(value)


def in_group(context: TaskContext, value: Any) -> None:
    with context.logger.group(value):
        context.logger.info("inside")


def in_exception(context: TaskContext, value: Any) -> None:
    try:
        try:
            raise ValueError(value, value)
        except ValueError as error:
            raise KeyError(value) from error
    except KeyError as error:
        with suppress(TypeError):  # a note is a text
            error.add_note(value)
        context.logger.exception(value, value=value)


def in_exception_type(context: TaskContext, value: Any) -> None:
    with suppress(Exception):  # what Python itself does not take as a name
        context.logger.info("made a type", made=type(value, (Exception,), {"__module__": value})(value))
    try:
        raise ExceptionGroup("several", [Unspeakable(value), type("Ünnamed", (Unspeakable,), {})()])
    except ExceptionGroup:
        context.logger.exception("a group")


def in_print(context: TaskContext, value: Any) -> None:
    with suppress(Exception, SystemExit):  # print itself asks for its str
        print(value)
        print(value, file=sys.stderr)
    if is_a(value, (bytes, bytearray)):
        sys.stdout.buffer.write(value + b"\n")


def in_logging(context: TaskContext, value: Any) -> None:
    logging.getLogger("poison").warning(value)
    logging.getLogger("poison").warning("%s and %r", value, value)
    logging.getLogger("poison").error("extra", extra={"value": value, "beside": "intact"})
    logging.getLogger("poison").error("info", exc_info=ValueError(value))
    if is_a(value, str):
        logging.getLogger(value).error("named")


def in_warning(context: TaskContext, value: Any) -> None:
    with suppress(Exception, SystemExit):  # the module itself asks for its str
        warnings.warn(str(value), stacklevel=1)


def in_secret(context: TaskContext, value: Any) -> None:
    with suppress(Exception):  # a secret is a text, long enough, and else it is said that it is none
        context.add_secret(value)


PLACES: list[Callable[[TaskContext, Any], None]] = [
    in_message, in_source, in_field, in_key, in_level, in_arguments, in_progress, in_group, in_exception,
    in_exception_type, in_print, in_logging, in_warning,
]  # fmt: skip


class Neighbour:
    """Says numbers between the others."""

    def __init__(self, context: TaskContext) -> None:
        self._logger = context.logger.with_source("neighbour")
        self.said = 0

    def says(self) -> None:
        self.said += 1
        self._logger.info("intact", n=self.said)


class Every(Plugin):
    """Every value of the list in every place; or in those of `places`."""

    name = "every"

    async def execute(self, params: dict[str, Any], context: TaskContext) -> object:
        neighbour = Neighbour(context)
        for place, value in chosen(params):
            neighbour.says()
            place(context, value)
            if neighbour.said % 50 == 0:
                await context.logger.drain()
        neighbour.says()
        return {"cases": neighbour.said - 1}


def chosen(params: dict[str, Any]) -> Iterator[tuple[Callable[[TaskContext, Any], None], Any]]:
    """The cases of a run: those of all `of` whose turn is `part`."""
    cases = itertools.product(PLACES, POISON)
    return itertools.islice(cases, params.get("part", 0), None, params.get("of", 1))


class Drawn(Plugin):
    """What hypothesis makes up, anywhere; in a thread, for that takes long."""

    name = "drawn"

    def execute(self, params: dict[str, Any], context: TaskContext) -> Any:  # a thread's, not a coroutine
        neighbour = Neighbour(context)

        @seed(params["seed"])
        @settings(max_examples=params["cases"], database=None, deadline=None, phases=[Phase.generate],
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(st.sampled_from(PLACES), (LEAF | VALUE).map(Box))
        def say(place: Callable[[TaskContext, Any], None], box: Box) -> None:
            neighbour.says()
            place(context, box.value)

        say()
        neighbour.says()
        return {"cases": neighbour.said - 1}


class End(Plugin):
    """Ends with a value: returns or raises it."""

    name = "end"

    async def execute(self, params: dict[str, Any], context: TaskContext) -> object:
        value = POISON[params["place"] % len(POISON)]
        in_secret(context, value)
        context.logger.with_source("neighbour").info("intact", n=1)
        if params["how"] == "raise":
            raise ValueError(value)
        return value if params["how"] == "return" else [value, {"beside": "intact"}]


class Written(Plugin):
    """A program that writes bytes."""

    name = "written"

    async def execute(self, params: dict[str, Any], context: TaskContext) -> object:
        neighbour = Neighbour(context)
        program = "import sys; sys.stdout.buffer.write(bytes.fromhex(sys.argv[1])); sys.stdout.flush()"
        for text in params["hex"]:
            neighbour.says()
            await context.run_process([sys.executable, "-c", program, text], source=text[:8])
        neighbour.says()
        return {"cases": neighbour.said - 1}


class Odd(Plugin):
    """\x1b]0;owned\x07 \u202e <script>alert(1)</script>"""

    name = "odd"
    title = "\ud800\0\x1b[31m</title>"

    async def execute(self, params: dict[str, Any], context: TaskContext) -> None:
        context.logger.info("odd")
