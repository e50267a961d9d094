"""
`Loop`: the event loop of taskd's own process, on which a plugin changes nothing for others.

All tasks and the service share one loop. A default executor, a task factory and an exception
handler that a plugin sets hold for its own task alone. What cannot be divided stays as it is:
debug mode, the signals that taskd needs, and the async generators of others.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import uvloop

from taskd.capture.current import current
from taskd.runtime.isolation import TASK_FACTORY
from taskd.system.signals import PROTECTED
from taskd.system.threads import in_thread

EXECUTOR = "default executor"
EXCEPTION_HANDLER = "exception handler"


class Loop(uvloop.Loop):
    """uvloop's loop; what the code of a task sets on it concerns that task."""

    def set_default_executor(self, executor: Any) -> None:
        own = _own()
        if own is None:
            super().set_default_executor(executor)
        elif not isinstance(executor, ThreadPoolExecutor):
            raise TypeError(f"executor must be ThreadPoolExecutor instance, got {type(executor).__name__}")
        else:
            own[EXECUTOR] = executor

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        if executor is None and (own := _own()) is not None:
            executor = own.get(EXECUTOR)
        return super().run_in_executor(executor, func, *args)

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  # asyncio's
        own = _own()
        if own is None:
            await super().shutdown_default_executor()
            return
        # Without one of its own, the task has none from now on; those of others stay.
        executor: ThreadPoolExecutor = own.setdefault(EXECUTOR, ThreadPoolExecutor(1))
        await in_thread(executor.shutdown, name="executor of a task")

    async def shutdown_asyncgens(self) -> None:
        if _own() is None:
            await super().shutdown_asyncgens()

    def set_task_factory(self, factory: Any) -> None:
        _set(super().set_task_factory, TASK_FACTORY, factory)

    def get_task_factory(self) -> Any:
        return (_own() or {}).get(TASK_FACTORY) or super().get_task_factory()

    def set_exception_handler(self, handler: Any) -> None:
        if handler is not None and not callable(handler):
            raise TypeError(f"A callable object or None is expected, got {handler!r}")
        _set(super().set_exception_handler, EXCEPTION_HANDLER, handler)

    def get_exception_handler(self) -> Any:
        return (_own() or {}).get(EXCEPTION_HANDLER) or super().get_exception_handler()

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Called in the context of the task concerned (`taskd.capture.exceptions`): its own handler comes first."""
        own = _own() or {}
        handler = own.pop(EXCEPTION_HANDLER, None)  # taken out, for it may call this
        if handler is None:
            super().default_exception_handler(context)
            return
        try:
            handler(self, context)
        except Exception as error:
            message = "Unhandled error in exception handler"
            super().default_exception_handler({"message": message, "exception": error, "context": context})
        finally:
            own.setdefault(EXCEPTION_HANDLER, handler)

    def set_debug(self, enabled: bool) -> None:
        if _own() is None:
            super().set_debug(enabled)

    def add_signal_handler(self, sig: int, callback: Callable[..., Any], *args: Any) -> None:  # type: ignore[override]
        if _own() is None or sig not in PROTECTED:
            super().add_signal_handler(sig, callback, *args)

    def remove_signal_handler(self, sig: int) -> bool:
        if _own() is None or sig not in PROTECTED:
            return bool(super().remove_signal_handler(sig))
        return False


def _own() -> dict[str, Any] | None:
    """What the task whose code runs here has set for itself; None outside of tasks."""
    capturing = current.get()
    return None if capturing is None else capturing.replaced


def _set(everywhere: Callable[[Any], None], name: str, value: Any) -> None:
    own = _own()
    if own is None:
        everywhere(value)
    elif value is None:
        own.pop(name, None)
    else:
        own[name] = value
