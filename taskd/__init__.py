"""
taskd runs your asyncio plugins as tasks and gives every task its own log.

This is what a plugin's author imports. No module inside taskd imports it.
"""

from taskd.context import TaskContext
from taskd.entries import Level, LogEntry
from taskd.logger import TaskLogger
from taskd.plugins import Plugin
from taskd.version import __version__

__all__ = ["Level", "LogEntry", "Plugin", "TaskContext", "TaskLogger", "__version__"]
