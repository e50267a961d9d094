"""
Stdlib logging and warnings of a task, into its log.

Records are taken in `Logger.callHandlers`: every record that its logger's own level and filters
let pass comes by there, made by whatever subclass, adapter or `handle()`. A handler on the root
logger would miss those of loggers that do not propagate, and `logging.config.dictConfig` removes
it. The usual call, which has neither filter nor handler to show a record to, is said without one
being made (`Logger._log`): that and the search for the caller are most of what a call costs.

In a task the record goes to the task's log and not to the service's own output: its handlers
run, except those the service itself had when capture was installed, and those that write to
`sys.stdout` or `sys.stderr`. So a file that a library logs to, `caplog` and `assertLogs` get what
they get without taskd; of what such a handler prints nothing is captured again. The same holds for
handlers that get the record later, from another handler or in the thread of a `QueueListener`: a record
that is an entry already carries a mark (`_Said`), also in its copies.

Inside tasks the service's `capture_level` counts where a logger, and those above it other than
the root, set no level. Handlers are called only for what would have reached them anyway.

A shown warning has the source `py.warnings`, the name under which stdlib logging knows them. The
filters stay as they are.

taskd's own loggers are never captured: what they say about a task is for the operator. That, and
that a handler's own records find the handlers muted, is why no loop can form.
"""

import logging
import os
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from multiprocessing.reduction import ForkingPickler
from typing import Any

from taskd.capture.current import Capturing, current, speaking, speaking_as
from taskd.capture.streams import is_service_stream
from taskd.entries import Level
from taskd.log.logger import as_level, error_in
from taskd.system.hooks import hooked
from taskd.text.sanitise import RAISED, clean_text
from taskd.text.tracebacks import exception_line

WARNINGS = "py.warnings"

_Handle = Callable[[logging.Logger, logging.LogRecord], None]
_Enabled = Callable[[logging.Logger, int], bool]

# What every record has; the rest is what its caller gave as `extra`. 3.12 adds `taskName`.
_PLAIN = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})
_PLAIN_MIN = len(vars(logging.makeLogRecord({})))
# What means something to taskd's readers; a library means something else by it.
_RESERVED = frozenset({"progress", "group", "exception", "continued", "dropped", "suppressed"})
_LEVEL_NAMES = frozenset({level.value for level in Level})
_LEVELS = {logging.getLevelNamesMapping()[level.value]: level for level in Level}


@contextmanager
def logging_captured(capture_level: Level) -> Iterator[None]:
    """Hook stdlib logging for the length of a `with` block, once per process."""
    stdlib = logging.Logger
    hook = _Hook(stdlib.callHandlers, stdlib.isEnabledFor, logging.getLevelNamesMapping()[capture_level])
    calling, enabling = hook.methods()
    with (
        hooked(stdlib, "callHandlers", calling),
        hooked(stdlib, "isEnabledFor", enabling),
        hooked(stdlib, "_log", hook.short_cut(calling)),
        hooked(logging.Handler, "handle", hook.handing(logging.Handler.handle)),
    ):
        try:
            yield
        finally:
            # A hook of others over ours goes on calling ours, and finds it as if it were not there.
            hook.installed = False


class _Hook:
    """What is done with a record, by whose it is."""

    def __init__(self, handle: _Handle, enabled: _Enabled, capture_level: int) -> None:
        self.installed = True
        self._handle = handle
        self._enabled = enabled
        self._capture_level = capture_level
        self._service_handlers = list(logging.root.handlers)

    def methods(self) -> tuple[_Handle, _Enabled]:
        """In place of `Logger.callHandlers` and `Logger.isEnabledFor`."""

        handle, enabled, capture_level = self._handle, self._enabled, self._capture_level

        def call_handlers(logger: logging.Logger, record: logging.LogRecord) -> None:
            capturing = speaking()
            if type(record.name) is _Said and self.installed:
                self._hand_on(record.name.capturing, logger, record)
            elif capturing is None or not self.installed:
                handle(logger, record)
            elif _is_own(logger.name):
                # Its handlers may write to a stream that is captured.
                _run(None, handle, logger, record)
            else:
                self._capture(capturing, logger, record)

        def is_enabled_for(logger: logging.Logger, level: int) -> bool:
            if enabled(logger, level):
                return True
            if level < capture_level or speaking() is None or not self.installed or _is_own(logger.name):
                return False
            return not _has_own_level(logger) and level > logger.manager.disable and not logger.disabled

        return call_handlers, is_enabled_for

    def short_cut(self, calling: _Handle) -> Any:
        """In place of `Logger._log`: what needs no record is said without one."""
        stdlib, log = logging.Logger, logging.Logger._log
        make, handle = stdlib.makeRecord, stdlib.handle

        def is_short(capturing: Capturing, logger: logging.Logger, level: int) -> bool:
            kind = type(logger)
            return (
                level in _LEVELS
                and not logger.filters
                and not logger.disabled
                and kind.makeRecord is make
                and kind.handle is handle
                and kind.callHandlers is calling
                and logging.getLogRecordFactory() is logging.LogRecord
                and (level >= self._capture_level or _has_own_level(logger))
                and not _is_own(logger.name)
                and (capturing.quiet or not self._foreign_handlers(logger, level))
            )

        def _log(
            logger: logging.Logger, level: int, msg: object, args: Any, exc_info: Any = None, extra: Any = None,
            stack_info: bool = False, stacklevel: int = 1,
        ) -> None:  # fmt: skip
            capturing = speaking()
            plain = not exc_info and extra is None and not stack_info and type(msg) is str and self.installed
            if capturing is None or not plain or not is_short(capturing, logger, level):
                log(logger, level, msg, args, exc_info, extra, stack_info, stacklevel)
                return
            try:
                # As `LogRecord` has it: one dict is what the names in the message refer to.
                one = args[0] if len(args) == 1 and isinstance(args[0], Mapping) and args[0] else args
                message = str(msg) % one if args else msg
            except RAISED:
                log(logger, level, msg, args, exc_info, extra, stack_info, stacklevel)
                return
            capturing.speaker(logger.name).say(_LEVELS[level], message, None)

        # Whoever looks for the caller passes over the frames of stdlib logging; this is one.
        _log.__code__ = _log.__code__.replace(co_filename=logging.addLevelName.__code__.co_filename)
        return _log

    def _capture(self, capturing: Capturing, logger: logging.Logger, record: logging.LogRecord) -> None:
        level = record.levelno
        # What is not enabled was handed to `handle()`, which asks for no level.
        if level >= self._capture_level or _has_own_level(logger) or not self._enabled(logger, level):
            _say(capturing, record)
            record.name = _Said(record.name, capturing)
        if not capturing.quiet and (self._enabled(logger, level) or level < self._capture_level):
            self._hand_on(capturing, logger, record)

    def _hand_on(self, capturing: Capturing, logger: logging.Logger, record: logging.LogRecord) -> None:
        for handler in self._foreign_handlers(logger, record.levelno):
            _run(capturing.muted(), handler.handle, record)

    def handing(self, handle: Callable[[logging.Handler, logging.LogRecord], Any]) -> Any:
        """In place of `Handler.handle`: of a record that is an entry already, nothing is captured again."""

        def _handle(handler: logging.Handler, record: logging.LogRecord) -> Any:
            name, speaker = record.name, current.get()
            if type(name) is not _Said or (speaker is not None and speaker.quiet) or not self.installed:
                return handle(handler, record)
            if self._is_service(handler):
                return False
            with speaking_as(name.capturing.muted()):
                return handle(handler, record)

        return _handle

    def _foreign_handlers(self, logger: logging.Logger, level: int) -> list[logging.Handler]:
        """The handlers for the record that are not the service's own output."""
        found: list[logging.Handler] = []
        above: logging.Logger | None = logger
        while above is not None:
            if above.handlers:
                found += [each for each in above.handlers if level >= each.level and not self._is_service(each)]
            above = above.parent if above.propagate else None
        return found

    def _is_service(self, handler: logging.Handler) -> bool:
        if handler in self._service_handlers:
            return True
        return isinstance(handler, logging.StreamHandler) and is_service_stream(handler.stream)


class _Said(str):
    """
    The name of the logger of a record that is an entry already, of the task `capturing`.

    In the name, because a copy of a record keeps it, and no formatter shows it. Elsewhere it is a plain
    text, except in this process at the other end of a queue of `multiprocessing`.
    """

    capturing: Capturing

    def __new__(cls, name: str, capturing: Capturing) -> "_Said":
        said = super().__new__(cls, name)
        said.capturing = capturing
        return said

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (str(self),)

    def __deepcopy__(self, memo: object) -> "_Said":
        return self


_capturings: weakref.WeakValueDictionary[int, Capturing] = weakref.WeakValueDictionary()


def _packed(name: _Said) -> tuple[Any, ...]:
    _capturings[id(name.capturing)] = name.capturing
    return _unpacked, (str(name), os.getpid(), id(name.capturing))


def _unpacked(name: str, process: int, key: int) -> str:
    capturing = _capturings.get(key) if process == os.getpid() else None
    return name if capturing is None else _Said(name, capturing)


ForkingPickler.register(_Said, _packed)


def _run(capturing: Capturing | None, function: Callable[..., object], *arguments: object) -> None:
    with speaking_as(capturing):
        function(*arguments)


def _say(capturing: Capturing, record: logging.LogRecord) -> None:
    try:
        message = record.getMessage()
    except RAISED as error:  # a bad format must not fail the task
        message = f"{clean_text(record.msg)} % {clean_text(record.args)} ({exception_line(error)})"
    speaker = capturing.speaker(record.name)
    level = _LEVELS.get(record.levelno) or as_level(record.levelno)
    metadata = _metadata(record)
    raised = error_in(record.exc_info)
    if raised is None and record.exc_text:  # of a record that came from elsewhere
        message = f"{message}\n{record.exc_text}"
    if raised is not None:
        speaker.tell_exception(level, message, raised, metadata, record.stack_info)
    else:
        speaker.say(level, f"{message}\n{record.stack_info}" if record.stack_info else message, metadata)


def _metadata(record: logging.LogRecord) -> dict[str, Any]:
    """What the caller gave as `extra`, and a level's name that has no level here."""
    fields = vars(record)
    if len(fields) <= _PLAIN_MIN and record.levelno in _LEVELS:  # nearly every record
        return {}
    extra = {f"{key}_" if key in _RESERVED else key: fields[key] for key in fields if key not in _PLAIN}
    if record.levelname not in _LEVEL_NAMES:
        extra["levelname"] = record.levelname
    return extra


def _has_own_level(logger: logging.Logger) -> bool:
    """Whether it, or one above it other than the root, was given a level."""
    above: logging.Logger | None = logger
    while above is not None and above.parent is not None:
        if above.level:
            return True
        above = above.parent
    return False


def _is_own(name: str) -> bool:
    return name.startswith("taskd") and (name == "taskd" or name.startswith("taskd."))


@contextmanager
def warnings_captured() -> Iterator[None]:
    """
    Hook the place that shows a warning which the filters let pass.

    Not `warnings.showwarning`: to replace that takes from others what a ResourceWarning knows of
    its origin. `catch_warnings(record=True)`, whoever replaces `showwarning`, and
    `logging.captureWarnings` come before this place and go on working. Where an interpreter has
    no such place, the warning is captured as what it writes to stderr.
    """
    shown = getattr(warnings, "_showwarnmsg_impl", None)

    def show(message: warnings.WarningMessage) -> None:
        capturing = speaking()
        if capturing is None or message.file is not None or _recorded():
            assert shown is not None
            shown(message)
        else:
            _say_warning(capturing, message)

    with hooked(warnings, "_showwarnmsg_impl", show) if shown is not None else nullcontext():
        yield


def _recorded() -> bool:
    """Return whether `catch_warnings` keeps warnings in its context, as it may from Python 3.14 on."""
    context = getattr(warnings, "_get_context", None)
    return context is not None and context().log is not None


def _say_warning(capturing: Capturing, warning: warnings.WarningMessage) -> None:
    told, category, file, line = warning.message, warning.category, warning.filename, warning.lineno
    try:
        text = warnings.formatwarning(told, category, file, line, warning.line)
    except RAISED as error:  # its text raises, or somebody else's `formatwarning` does
        text = f"{file}:{line}: {category.__name__} ({exception_line(error)})"
    fields = {"category": category.__name__, "file": file, "line": line}
    capturing.speaker(WARNINGS).say(Level.WARNING, clean_text(text).rstrip(), fields)
