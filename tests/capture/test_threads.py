"""Threads of a task speak for it; what serves all speaks for whoever asked; other processes for nobody."""

import asyncio
import logging
import multiprocessing
import multiprocessing.pool
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from taskd.capture.install import capture_installed
from taskd.entries import Level
from taskd.log.logger import TaskLogger
from tests.helpers.speakers import Speaker, captured
from tests.helpers.waiting import until

logger = logging.getLogger("spreading")


def say(word: str) -> None:
    print(word)
    logger.warning(word)


@captured
async def test_a_thread_that_a_task_starts_speaks_for_it() -> None:
    """A thread of its own class, a timer, and a thread of that thread too."""
    speaker = Speaker()

    class Own(threading.Thread):
        def run(self) -> None:
            inner = threading.Thread(target=say, args=("inner",))
            inner.start()
            inner.join()
            say("own")

    def speak() -> None:
        threads = [Own(), threading.Timer(0, say, ("timer",)), threading.Thread(target=say, args=("plain",))]
        for thread in threads:
            thread.start()
            thread.join()
            assert "run" not in vars(thread)

    await speaker.run(speak)
    await asyncio.sleep(0)
    words = [message for _, _, message in speaker.told()]
    assert words == [word for name in ("inner", "own", "timer", "plain") for word in (name, name)]


@captured
async def test_a_thread_whose_run_was_set_on_it_does_that() -> None:
    """It is not only a class that says what a thread does."""
    speaker, thread = Speaker(), threading.Thread()
    work = thread.run = lambda: say("set")  # type: ignore[method-assign]

    def speak() -> None:
        thread.start()
        thread.join()

    await speaker.run(speak)
    assert [message for _, _, message in speaker.told()] == ["set", "set"]
    assert thread.run is work


@captured
async def test_a_worker_of_a_pool_speaks_for_whoever_handed_it_the_call(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever had started it."""
    with capture_installed(Level.INFO), ThreadPoolExecutor(1) as pool:
        one, other = Speaker(), Speaker()
        loop = asyncio.get_running_loop()

        async def speak(word: str) -> None:
            await loop.run_in_executor(pool, say, word)
            list(pool.map(logger.warning, [f"{word} mapped"]))

        await one.run(lambda: speak("one"))
        await other.run(lambda: speak("other"))
        await loop.run_in_executor(pool, logger.warning, "nobody")
    await asyncio.sleep(0)
    assert [message for _, _, message in one.told()] == ["one", "one", "one mapped"]
    assert [message for _, _, message in other.told()] == ["other", "other", "other mapped"]
    assert caplog.messages == ["nobody"]


@captured
async def test_a_thread_that_outlives_its_task_keeps_its_name(caplog: pytest.LogCaptureFixture) -> None:
    """Its words are not lost: the operator gets them with the name of the task."""
    with capture_installed(Level.INFO):
        speaker, ended = Speaker(), threading.Event()

        def go_on() -> None:
            logger.warning("during")
            ended.wait(10)
            logger.warning("after")

        threads: list[threading.Thread] = []

        def speak() -> None:
            threads.append(threading.Thread(target=go_on))
            threads[0].start()
            while speaker.queue.last_seq < 1:
                pass

        await speaker.run(speak)
        speaker.queue.close()
        ended.set()
        threads[0].join()
        await until(lambda: bool(caplog.messages))
    assert [message for _, _, message in speaker.told()] == ["during"]
    assert caplog.messages == ["A task, after its end, spreading: after"]


@captured
async def test_workers_of_other_pools_speak_for_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """They may be shared, and who handed them the call is not known."""
    with capture_installed(Level.INFO):
        speaker = Speaker()

        def speak() -> None:
            with multiprocessing.pool.ThreadPool(1) as pool:
                pool.apply(logger.warning, ("from a worker",))

        await speaker.run(speak)
    assert speaker.told() == []
    assert caplog.messages == ["from a worker"]


def in_child(task_logger: Any, path: str) -> None:
    """What a forked child does: prints, logs, and speaks through the logger that it inherited."""
    with open(path, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    print("printed", flush=True)
    task_logger.info("said hunter22")
    with task_logger.progress("p") as progress:
        progress.advance()
    asyncio.run(task_logger.drain())
    os._exit(0)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # since 3.12
async def test_a_forked_child_does_not_touch_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It shares the journal's memory; what it says goes to its own output, masked."""
    with capfd.disabled(), capture_installed(Level.INFO):
        speaker = Speaker()
        speaker.queue.masker.add("hunter22")
        path = tmp_path / "child"

        def speak() -> None:
            process = multiprocessing.get_context("fork").Process(
                target=in_child, args=(TaskLogger(speaker.queue, "p"), str(path))
            )
            process.start()
            process.join(20)
            assert process.exitcode == 0

        await speaker.run(speak)
    assert speaker.told() == []
    assert "said ***" in path.read_text()
