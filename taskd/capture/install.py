"""
Words that were not said through a `TaskLogger`, into the log of the task that said them.

Each way in which Python code speaks is hooked once per process, where everything passes, and a
context variable says whose task is speaking. Overlapping tasks, child tasks and threads each keep
their own words; a hook put in and taken out per task would lose them where tasks overlap. Outside
a task everything behaves as if taskd were not there.

    print, sys.stdout, sys.stderr        taskd.capture.streams
    stdlib logging, warnings             taskd.capture.stdlib_logging
    exceptions that nobody caught        taskd.capture.exceptions
    whose words: threads, processes      taskd.capture.threads
"""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from taskd.capture.exceptions import loops_captured, uncaught_captured
from taskd.capture.stdlib_logging import logging_captured, warnings_captured
from taskd.capture.streams import streams_captured
from taskd.capture.threads import threads_captured
from taskd.entries import Level


@contextmanager
def capture_installed(level: Level) -> Iterator[None]:
    """
    Capture for the length of a `with` block, once per process; on loops of asyncio and of the kind that runs.

    `level` applies inside tasks to stdlib loggers that set none themselves.
    """
    with ExitStack() as stack:
        stack.enter_context(streams_captured())
        stack.enter_context(logging_captured(level))
        stack.enter_context(warnings_captured())
        stack.enter_context(uncaught_captured())
        stack.enter_context(threads_captured())
        stack.enter_context(loops_captured(asyncio._get_running_loop()))
        yield
