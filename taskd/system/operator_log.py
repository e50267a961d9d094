"""
The service's own log on stderr, whatever a plugin does to stdlib logging.

Levels, `logging.disable`, disabled loggers, handlers and factories belong to the whole process. A
plugin may change any of them, also by accident: `dictConfig` disables all loggers that exist. So the
loggers of the service depend on none of them. They write warnings and errors to the stderr that
the service began with, past handlers and streams of others.
"""

import logging
import sys
from typing import TextIO

from taskd.text.escape import shown

OWN = ("taskd", "uvicorn.error")
# What a client does wrong is told to the client: here, anybody could fill the disk with it.
_LEVELS = {"uvicorn.error": logging.ERROR}
# aiosqlite logs each statement with its values at DEBUG, whatever task they belong to.
_QUIET = ("aiosqlite",)


class _Formatter(logging.Formatter):
    """Lines in which nothing speaks to the terminal: errors tell of what clients and plugins have sent."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(shown, super().format(record).split("\n")))


class OwnLogger(logging.Logger):
    """A logger of the service's own. It asks no level, flag or factory that a plugin can set."""

    # Bound here: a plugin may put others into the class `logging.Logger`.
    _log = logging.Logger._log
    _record = logging.LogRecord

    @property
    def disabled(self) -> bool:
        """False, whatever it is set to."""
        return False

    @disabled.setter
    def disabled(self, _: bool) -> None:
        pass

    def isEnabledFor(self, level: int) -> bool:  # stdlib's name
        return level >= _LEVELS.get(self.name, logging.WARNING)

    def makeRecord(self, name, level, fn, lno, msg, args, exc_info, func=None, extra=None, sinfo=None):  # type: ignore[no-untyped-def]
        return self._record(name, level, fn, lno, msg, args, exc_info, func, sinfo)

    def handle(self, record: logging.LogRecord) -> None:
        if self.isEnabledFor(record.levelno) and _is_news(record) and _handlers:
            _handlers[-1].handle(record)


_handlers: list[logging.Handler] = []


def log_to_stderr() -> None:
    """Write the service's own log to the stderr of now, and what others log outside of tasks from WARNING on."""
    _handlers.append(_handler(sys.stderr))
    others = _handler(sys.stderr)
    others.setLevel(logging.WARNING)
    logging.basicConfig(handlers=[others], level=logging.WARNING)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    own_loggers()


def own_loggers() -> None:
    """Make those loggers the service's own that were made since this was last called."""
    if not _handlers:
        return
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if type(logger) is logging.Logger and (name in OWN or name.startswith("taskd.")):
            vars(logger).pop("disabled", None)
            logger.__class__ = OwnLogger


def _handler(stream: TextIO) -> logging.Handler:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Formatter("taskd: %(levelname)s %(name)s: %(message)s"))
    return handler


def _is_news(record: logging.LogRecord) -> bool:
    # An answer is cut short on purpose where what was sent must not be taken for whole, and whoever did it said why.
    return "returned without completing response" not in record.getMessage()
