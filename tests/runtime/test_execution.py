"""Whatever a plugin does, there is an outcome, and nobody else is touched by it."""

import asyncio
import threading
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from taskd.capture.install import capture_installed
from taskd.entries import Level
from taskd.log.logger import TaskLogger
from taskd.log.queue import LogQueue
from taskd.runtime.context import TaskContext
from taskd.runtime.execution import Outcome, execute
from taskd.runtime.plugins import LoadedPlugin, PluginRegistry
from taskd.settings import Settings
from taskd.text.masking import Masker

Write = Callable[..., Path]
whose: ContextVar[str] = ContextVar("whose", default="nobody's")


class Ready:
    """One plugin, ready to be executed, with a log."""

    def __init__(self, plugin: LoadedPlugin, params: Any = None) -> None:
        settings = Settings()
        self.queue = LogQueue(settings, masker=Masker(), on_progress=lambda source, progress: None)
        self.plugin = plugin
        self.context = TaskContext(
            task_id="a-task",
            plugin=plugin.name,
            params=params,
            logger=TaskLogger(self.queue, plugin.name),
            masker=self.queue.masker,
            settings=settings,
        )

    def start(self) -> asyncio.Task[Outcome]:
        return asyncio.create_task(execute(self.plugin, self.context))

    async def outcome(self) -> Outcome:
        async with asyncio.timeout(10):
            return await self.start()


@pytest.fixture
def ready(plugin_dir: Write) -> Callable[..., Ready]:
    """A plugin whose `execute` has the given signature and body."""

    def make(signature: str, *body: str, params: Any = None) -> Ready:
        lines = "\n        ".join(body)
        registry = PluginRegistry()
        registry.load_directory(plugin_dir(f"class One:\n    name = 'one'\n    {signature}:\n        {lines}"))
        return Ready(registry["one"], params)

    return make


Make = Callable[..., Ready]
OLD, NEW = "def execute(self, params)", "async def execute(self, params, context)"
BOTH = pytest.mark.parametrize("signature", [OLD, NEW])


@BOTH
async def test_what_is_returned_is_the_result(ready: Make, signature: str) -> None:
    """A coroutine's and a function's alike."""
    assert await ready(signature, "return {'got': params}", params=3).outcome() == Outcome(result={"got": 3})


@BOTH
@pytest.mark.parametrize("raised", ["ValueError('x')", "SystemExit(3)", "KeyboardInterrupt()", "GeneratorExit()"])
async def test_whatever_is_raised_becomes_the_outcome(ready: Make, signature: str, raised: str) -> None:
    """What would end the process ends this task, and the loop goes on."""
    outcome = await ready(signature, f"raise {raised}").outcome()
    assert (type(outcome.error).__name__, outcome.cancelled) == (raised.split("(")[0], False)


@BOTH
async def test_the_traceback_begins_in_the_plugin(ready: Make, signature: str) -> None:
    """Frames of taskd's own tell a plugin's author nothing."""
    error = (await ready(signature, "raise ValueError('x')").outcome()).error
    assert error is not None
    assert error.__traceback__ is not None
    assert error.__traceback__.tb_frame.f_code.co_filename.endswith("mine.py")


async def test_a_stop_iteration_is_an_error_like_others(ready: Make) -> None:
    """A function that calls `next` once too often does not end something else."""
    assert (await ready(OLD, "return next(iter(()))").outcome()).error is not None


@BOTH
async def test_a_plugin_that_cannot_be_made_fails_its_task(ready: Make, signature: str) -> None:
    """What `__init__` raises is an outcome too."""
    one = ready(signature, "return 1")
    one.plugin.factory.__init__ = lambda self: 1 / 0
    assert isinstance((await one.outcome()).error, ZeroDivisionError)


async def test_a_plugin_is_given_a_context_only_where_it_takes_one(ready: Make) -> None:
    """By name, by `**kwargs`, or not at all."""
    for signature, result in (
        ("async def execute(self, params, context=None)", "context.task_id"),
        ("def execute(self, params, **more)", "more['context'].task_id"),
        (OLD, "'a-task'"),
    ):
        assert (await ready(signature, f"return {result}").outcome()).result == "a-task"


async def test_a_cancelled_coroutine_is_cancelled_and_says_nothing_else(ready: Make) -> None:
    """The outcome has neither result nor error."""
    one = ready(NEW, "context.logger.info('begun')", "await asyncio.Event().wait()")
    running = one.start()
    await one.queue.take()
    running.cancel()
    assert await running == Outcome(cancelled=True)


async def test_a_coroutine_may_clean_up_when_it_is_cancelled(ready: Make) -> None:
    """What it says and returns then is kept."""
    one = ready(
        NEW, "try:", "    context.logger.info('begun')", "    await asyncio.Event().wait()",
        "except asyncio.CancelledError:", "    context.logger.info('cleaned up')", "    return 'partial'",
    )  # fmt: skip
    running = one.start()
    await one.queue.take()
    running.cancel()
    assert await running == Outcome(result="partial")
    assert [entry.message for entry in one.queue.take_rest()] == ["cleaned up"]


async def test_a_thread_is_awaited_cancelled_or_not(ready: Make) -> None:
    """It cannot be stopped, so its task ends when it does."""
    go = threading.Event()
    one = ready("def execute(self, params, context)", "context.logger.info('begun')", "params.wait()", "return 'done'")
    one.context.params = go
    running = one.start()
    await one.queue.take()
    for _ in range(3):
        running.cancel()
        assert not (await asyncio.wait([running], timeout=0.01))[0]
    go.set()
    async with asyncio.timeout(5):
        assert await running == Outcome(result="done")


async def test_a_function_runs_in_a_daemon_thread_of_its_own(ready: Make) -> None:
    """It neither blocks the loop nor keeps the process."""
    one = ready(OLD, "thread = threading.current_thread()", "return thread.daemon, thread.ident, thread.name")
    daemon, ident, name = (await one.outcome()).result
    assert daemon
    assert ident != threading.get_ident()
    assert name == "plugin a-task"


async def test_a_function_has_the_context_variables_of_its_task(ready: Make) -> None:
    """So what it prints and logs is known to be its own; what it sets stays with it."""
    whose.set("the test's")
    one = ready(OLD, "before = params.get()", "params.set('the plugin')", "return before", params=whose)
    assert (await one.outcome()).result == "the test's"
    assert whose.get() == "the test's"


@BOTH
async def test_prints_and_logging_are_in_the_log_the_last_line_too(ready: Make, signature: str) -> None:
    """Also where the plugin raises in the middle of a line."""
    one = ready(signature, "logging.getLogger('lib').warning('w')", "print('a\\nb', end='')", "raise ValueError")
    with capture_installed(Level.INFO):
        await one.outcome()
    told = [(entry.source, entry.message) for entry in one.queue.take_rest()]
    assert told == [("lib", "w"), ("stdout", "a"), ("stdout", "b")]


async def test_a_function_that_returns_an_awaitable_is_awaited(ready: Make) -> None:
    """On the loop, as a decorated coroutine function is."""
    body = ("async def work():", "    await asyncio.sleep(0)", "    return threading.get_ident()", "return work()")
    assert (await ready(OLD, *body).outcome()).result == threading.get_ident()


@pytest.mark.parametrize(
    ("signature", "returned", "told"),
    [
        (NEW, "asyncio.sleep(0)", "type coroutine that nobody awaits"),
        (NEW, "asyncio.ensure_future(asyncio.sleep(0))", "type Task that nobody awaits"),
        (OLD, "(number for number in [1])", "type generator, whose work nobody does"),
        (OLD, "map(print, [1])", "type map, whose work nobody does"),
        (OLD, "concurrent.futures.Future()", "type Future, whose work nobody does"),
    ],
)
async def test_work_that_nobody_would_do_is_no_result(ready: Make, signature: str, returned: str, told: str) -> None:
    """The task fails, and the error says what to return."""
    outcome = await ready(signature, f"return {returned}").outcome()
    assert isinstance(outcome.error, TypeError)
    assert told in str(outcome.error)


async def test_a_plugin_that_raises_does_not_cancel_its_sibling(ready: Make) -> None:
    """Each has an outcome of its own."""
    sibling = ready(NEW, "context.logger.info('begun')", "await context.params.wait()", "return 'fine'")
    sibling.context.params = asyncio.Event()
    running = sibling.start()
    await sibling.queue.take()
    # The same file under the same name would be the same class: another plugin needs another body.
    other = ready(NEW, "raise SystemExit(1)")
    assert isinstance((await other.outcome()).error, SystemExit)
    sibling.context.params.set()
    assert await running == Outcome(result="fine")
