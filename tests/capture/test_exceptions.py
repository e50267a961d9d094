"""What nobody caught in a task is in its log, and what was raised outside goes where it went."""

import asyncio
import gc
import logging
import sys
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from typing import Any

import pytest
import uvloop

from taskd.capture.current import current
from taskd.capture.exceptions import GENERATORS_MIN, _Generators
from taskd.capture.install import capture_installed
from taskd.entries import Level, LogEntry
from tests.helpers.speakers import Speaker, captured


async def fail(message: str) -> None:
    raise ValueError(message)


def exception_of(entry: LogEntry) -> dict[str, Any]:
    told: dict[str, Any] = (entry.metadata or {})["exception"]
    return told


@captured
async def test_an_exception_of_an_asyncio_task_that_nobody_awaited_is_told() -> None:
    """As asyncio tells it: by its logger, with the traceback."""
    speaker = Speaker()

    async def speak() -> None:
        child = asyncio.create_task(fail("mine"))
        await asyncio.wait([child])

    await speaker.run(speak)
    [entry] = speaker.entries()
    assert (entry.source, entry.level) == ("asyncio", Level.ERROR)
    assert entry.message.startswith("Task exception was never retrieved")
    assert (exception_of(entry)["type"], exception_of(entry)["message"]) == ("ValueError", "mine")


@captured
async def test_it_is_told_to_its_own_task_whoever_collects_it() -> None:
    """The collector runs when it likes, in whatever context."""
    one, other = Speaker(), Speaker()
    kept: list[Any] = []

    async def begin() -> None:
        kept.append(asyncio.create_task(fail("of one")))
        await asyncio.wait(kept)

    await one.run(begin)
    await other.run(kept.clear)
    assert other.entries() == []
    assert [exception_of(entry)["message"] for entry in one.entries()] == ["of one"]


async def left_unfinished(words: list[str]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        print(*words)
        raise ValueError("of a generator")


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_futures_and_generators_belong_to_the_task_that_made_them(
    run: Callable[..., None],
) -> None:
    """Another task that drops them, or makes the loop run once more, gets none of their words."""

    async def main() -> None:
        one, other = Speaker(), Speaker()
        kept: list[Any] = []

        async def begin() -> None:
            loop = asyncio.get_running_loop()
            generator = left_unfinished(["left"])
            await anext(generator)
            kept.extend([loop.create_future(), generator])
            kept[0].set_exception(ValueError("of a future"))

        async def drop() -> None:
            kept.clear()
            await asyncio.sleep(0.01)

        with capture_installed(Level.INFO):
            await one.run(begin)
            await other.run(drop)
        assert other.told() == []
        entries = one.entries()
        assert [exception_of(entry)["message"] for entry in entries if entry.source == "asyncio"] == [
            "of a future",
            "of a generator",
        ]
        assert [entry.message for entry in entries if entry.source == "stdout"] == ["left"]

    run(main())


@captured
async def test_many_generators_leave_nothing_noted() -> None:
    """Those that ended are forgotten, and those of nobody are not noted."""
    noted = _Generators()

    async def generate() -> AsyncIterator[None]:
        yield

    def speak() -> None:
        kept = generate()
        noted.note(kept)  # type: ignore[arg-type]  # it is one
        for _ in range(3 * GENERATORS_MIN):
            noted.note(generate())  # type: ignore[arg-type]
        assert len(noted._owners) <= GENERATORS_MIN
        assert noted.owner(kept) is current.get()  # type: ignore[arg-type]

    await Speaker().run(speak)


@captured
async def test_a_callback_of_a_pools_future_belongs_to_the_task_that_made_the_future() -> None:
    """A thread that serves all calls it; so what it prints and raises has no context."""
    speaker = Speaker()

    def call_back(_: Any) -> None:
        print("called back")
        raise ValueError("in a callback")

    def speak() -> None:
        gate = threading.Event()
        future = pool.submit(gate.wait, 10)
        future.add_done_callback(call_back)
        gate.set()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()  # its thread is made by nobody
        await speaker.run(speak)
    await asyncio.sleep(0)
    printed, raised = speaker.entries()
    assert printed.message == "called back"
    assert exception_of(raised)["message"] == "in a callback"


@captured
async def test_a_plugins_own_exception_handler_takes_nothing_from_others() -> None:
    """The loop calls it, and it speaks for the task to which the exception belongs."""
    speaker, loop = Speaker(), asyncio.get_running_loop()

    def speak() -> None:
        loop.call_soon(lambda: [][1])

    loop.set_exception_handler(lambda loop, context: print(context["exception"]))
    await speaker.run(speak)
    await asyncio.sleep(0)
    loop.set_exception_handler(None)
    assert [message for _, _, message in speaker.told()] == ["list index out of range"]


def test_it_is_told_on_the_loop_that_the_service_runs_on() -> None:
    """Callbacks too, now and later."""

    async def main() -> None:
        speaker = Speaker()

        async def speak() -> None:
            loop = asyncio.get_running_loop()
            asyncio.create_task(fail("child"))  # noqa: RUF006  # nobody keeps it: that is the point
            loop.call_soon(lambda: [][1])
            loop.call_later(0, lambda: int("k"))
            await asyncio.sleep(0.01)

        with capture_installed(Level.INFO):
            await speaker.run(speak)
        told = {exception_of(entry)["message"] for entry in speaker.entries()}
        assert told == {"child", "list index out of range", "invalid literal for int() with base 10: 'k'"}

    uvloop.run(main())
    asyncio.run(main())


@captured
async def test_outside_of_a_task_it_is_told_to_the_operator(caplog: pytest.LogCaptureFixture) -> None:
    """By asyncio's logger, as without taskd."""
    with capture_installed(Level.INFO):
        speaker = Speaker()
        child = asyncio.create_task(fail("outside"))
        await asyncio.wait([child])
        del child
        gc.collect()
    assert speaker.entries() == []
    assert any("never retrieved" in message for message in caplog.messages)


@captured
async def test_a_loops_own_handler_and_factory_are_called() -> None:
    """Those that were there before."""
    loop = asyncio.get_running_loop()
    seen: list[Any] = []

    def make(loop: Any, coroutine: Any, **options: Any) -> Any:
        seen.append("made")
        return asyncio.Task(coroutine, loop=loop, **options)

    before = loop.get_task_factory()
    loop.set_task_factory(make)
    loop.set_exception_handler(lambda loop, context: seen.append(str(context["exception"])))
    with capture_installed(Level.INFO):
        speaker = Speaker()

        async def speak() -> None:
            child = asyncio.create_task(fail("mine"))
            await asyncio.wait([child])

        await speaker.run(speak)
    assert seen == ["made", "made", "mine"]
    assert loop.get_task_factory() is make
    loop.set_exception_handler(None)
    loop.set_task_factory(before)


@captured
async def test_an_exception_that_ends_a_thread_is_told() -> None:
    """A plain thread of the task, and one that has its context."""
    speaker = Speaker()

    def fail_now() -> None:
        raise OSError("in a thread")

    def speak() -> None:
        for target in (fail_now, lambda: copy_context().run(fail_now)):
            thread = threading.Thread(target=target, name="worker")
            thread.start()
            thread.join()

    await speaker.run(speak)
    await asyncio.sleep(0)
    entries = speaker.entries()
    assert [(entry.source, exception_of(entry)["message"]) for entry in entries] == [("plugin", "in a thread")] * 2
    assert entries[0].message.startswith("uncaught exception in thread worker\nTraceback")


@captured
async def test_an_exception_in_a_destructor_is_told() -> None:
    """What Python can only ignore."""
    speaker = Speaker()

    class Dying:
        def __del__(self) -> None:
            raise OSError("at the end")

    def speak() -> None:
        Dying()

    await speaker.run(speak)
    [entry] = speaker.entries()
    assert exception_of(entry)["message"] == "at the end"
    assert "function" in entry.message.splitlines()[0]


def test_the_hooks_are_called_outside_of_tasks_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever set others meanwhile keeps theirs."""
    seen: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda told: seen.append(str(told.exc_value)))
    monkeypatch.setattr(sys, "unraisablehook", lambda told: seen.append(str(told.exc_value)))
    mine, unraisable = threading.excepthook, sys.unraisablehook

    def fail_now() -> None:
        raise OSError("outside")

    with capture_installed(Level.INFO):
        thread = threading.Thread(target=fail_now)
        thread.start()
        thread.join()
        sys.unraisablehook(type("Told", (), {"exc_value": "u"})())
    assert seen == ["outside", "u"]
    assert (threading.excepthook, sys.unraisablehook) == (mine, unraisable)


@captured
async def test_asyncio_in_a_thread_of_the_task_is_heard() -> None:
    """A synchronous plugin may run a loop of its own."""
    speaker = Speaker()

    async def inside() -> None:
        child = asyncio.create_task(fail("on a loop of its own"))
        await asyncio.wait([child])
        logging.getLogger("inside").warning("w")

    async def speak() -> None:
        await asyncio.to_thread(asyncio.run, inside())

    await speaker.run(speak)
    await asyncio.sleep(0)
    assert [entry.source for entry in speaker.entries()] == ["inside", "asyncio"]


def test_a_context_of_its_own_speaks_for_nobody() -> None:
    """Who leaves the context behind leaves the task behind."""
    assert Context().run(current.get) is None
