"""
taskd runs your asyncio plugins as tasks and gives every task its own log.

This is what a plugin's author imports. No module inside taskd imports it. Each name is loaded when
it is first asked for: the `taskd` command has to be ready for a signal before it loads anything.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taskd.capture.process import ProcessResult
    from taskd.entries import Level, LogEntry
    from taskd.errors import PluginError, ProcessFailed
    from taskd.log.logger import TaskLogger
    from taskd.runtime.context import TaskContext
    from taskd.runtime.plugins import Plugin
    from taskd.version import __version__

__all__ = [
    "Level",
    "LogEntry",
    "Plugin",
    "PluginError",
    "ProcessFailed",
    "ProcessResult",
    "TaskContext",
    "TaskLogger",
    "__version__",
]

_WHERE = {
    "Level": "entries",
    "LogEntry": "entries",
    "Plugin": "runtime.plugins",
    "PluginError": "errors",
    "ProcessFailed": "errors",
    "ProcessResult": "capture.process",
    "TaskContext": "runtime.context",
    "TaskLogger": "log.logger",
    "__version__": "version",
}


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    return value


def __dir__() -> list[str]:
    return [*globals(), *(name for name in __all__ if name not in globals())]
