"""
The service's own asyncio tasks, kept apart from those of plugins.

`for task in asyncio.all_tasks(): task.cancel()` is how many a program ends itself, and in a plugin it
would end the service: the store, the writers and the HTTP server are asyncio tasks of the same loop.
So those are left out of `all_tasks()`. Whose a task is, its context says (`taskd.capture.current`): what is
made in a plugin's is the plugin's.
"""

import asyncio
import weakref
from asyncio.tasks import _register_task, _unregister_task  # for whoever makes tasks: see "Extending" in asyncio's docs
from typing import Any

from taskd.capture.current import current

# Under this name a task has the factory of its own, if it has set one (`taskd.runtime.loop`).
TASK_FACTORY = "task factory"

_Task = asyncio.Task  # a plugin may put another into asyncio
_own: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()


def keep_own_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Leave tasks that are not made in a plugin's context out of `asyncio.all_tasks()` from now on."""

    def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        capturing = current.get()
        if capturing is not None:
            return capturing.replaced.get(TASK_FACTORY, _plain)(loop, coroutine, **options)
        task = _plain(loop, coroutine, **options)
        _unregister_task(task)
        _own.add(task)
        return task

    loop.set_task_factory(make)


def _plain(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
    return _Task(coroutine, loop=loop, **options)


def give_to_plugin(task: asyncio.Task[Any]) -> None:
    """A task that runs a plugin is for all to see, though the service made it."""
    _own.discard(task)
    _register_task(task)


def every_task() -> set[asyncio.Task[Any]]:
    """All asyncio tasks of the running loop that have not ended, whoever's they are."""
    return asyncio.all_tasks() | {task for task in _own if not task.done()}
