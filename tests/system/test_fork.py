"""What a plugin forks has none of ours: it keeps no restart off, and is no second service."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.served import Served, wait_until

PLUGIN = '''
import asyncio, logging, multiprocessing, os, sys, time

from taskd import Plugin


def work():
    print("printed")
    logging.getLogger("lib").warning("logged")
    sys.stderr.write("without an end")
    sys.stderr.flush()
    time.sleep(600)


class Forker(Plugin):
    """Has a child that lives on."""

    name = "forker"

    async def execute(self, params, context):
        process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
        context.logger.info("forked", pid=process.pid)
        await asyncio.sleep(600)


class Twice(Plugin):
    """Comes out of its `execute` twice, once in each process."""

    name = "twice"

    async def execute(self, params, context):
        child = os.fork()
        if not child and params["how"] == "raises":
            raise ValueError("in the child")
        if not child and params["how"] == "waits":
            await asyncio.sleep(600)
        if child:
            _, status = await asyncio.to_thread(os.waitpid, child, 0)
            return {"child": os.waitstatus_to_exitcode(status)}


class Thread(Plugin):
    """The same in a thread."""

    name = "thread"

    def execute(self, params):
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            return {"child": "gone"}


class Pool(Plugin):
    """The same in a thread that serves all."""

    name = "pool"

    async def execute(self, params):
        child = await asyncio.to_thread(os.fork)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        return {"child": os.waitstatus_to_exitcode(status)}


class Commands(Plugin):
    """Runs a command."""

    name = "commands"

    async def execute(self, params, context):
        await context.run_process(["sh", "-c", "echo running; exec sleep 600"])


class Robber(Plugin):
    """Collects all children of the process, also those of others."""

    name = "robber"

    async def execute(self, params, context):
        os.mkfifo(params["gate"])
        running = asyncio.create_task(context.run_process(["sh", "-c", f"read line < {params['gate']}"]))
        with open(await asyncio.to_thread(os.open, params["gate"], os.O_WRONLY), "w") as gate:
            gate.write("go on")
        os.waitpid(-1, 0)  # on the loop, which so is not told before
        await running
'''


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "forking.py").write_text(PLUGIN)
    with Served(tmp_path) as served:
        yield served


@contextlib.contextmanager
def child_of(served: Served) -> Iterator[None]:
    """A child of a running task, which is ended afterwards."""
    task_id = served.submit("forker")
    served.wait_for(task_id, "forked")
    pid = served.entries(task_id)[-1]["metadata"]["pid"]
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_child_that_outlives_the_service_keeps_neither_its_data_nor_its_port(served: Served) -> None:
    """As the workers of a pool do, which nobody tells that their parent was killed."""
    with child_of(served):
        served.process.kill()
        served.process.wait()
        served.start()  # on the same port
        assert served.get("/api/health")["status"] == "ok"


def test_what_a_child_says_comes_out(served: Served) -> None:
    """The thread that writes the service's own words is not in it."""
    with child_of(served):
        wait_until(lambda: "taskd: WARNING lib: logged\n" in served.said)
    served.stop()
    assert any("without an end" in line for line in served.said)


@pytest.mark.parametrize("how", ["returns", "raises", "waits"])
def test_a_child_that_comes_out_of_its_plugin_ends(served: Served, how: str) -> None:
    """It would be a second service on the same sockets and files."""
    task = served.wait_end(served.submit("twice", how=how))
    assert (task["status"], task["result"]) == ("succeeded", {"child": 1})


def test_a_child_that_comes_out_of_a_plugin_in_a_thread_ends(served: Served) -> None:
    task = served.wait_end(served.submit("thread"))
    assert (task["status"], task["result"]) == ("succeeded", {"child": "gone"})


def test_a_child_that_is_forked_in_a_thread_of_the_pool_ends(served: Served) -> None:
    """It would take what waits for the pool, a second time, and never end."""
    task = served.wait_end(served.submit("pool"))
    assert (task["status"], task["result"]) == ("succeeded", {"child": 1})


def test_a_command_whose_exit_code_somebody_takes_has_ended(served: Served, tmp_path: Path) -> None:
    """Nobody is told of the end of a process that `os.waitpid(-1)` has collected; and the stop does not wait for it."""
    task = served.wait_end(served.submit("robber", gate=str(tmp_path / "gate")))
    assert task["status"] == "failed"
    assert "sh ended, and how is not known" in task["error"]
    assert served.stop() == 0


def test_what_the_service_opens_is_closed_when_a_plugin_starts_a_program(served: Served) -> None:
    """However it does so: every descriptor above 2 is close-on-exec, also while a command runs."""
    served.wait_for(served.submit("commands"), "running")
    folder = Path(f"/proc/{served.process.pid}/fdinfo")
    flags = {}
    for name in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            flags[name] = (folder / name).read_text().split("flags:")[1].split()[0]
    inherited = {name for name, octal in flags.items() if not int(octal, 8) & os.O_CLOEXEC}
    assert inherited <= {"0", "1", "2"}
    assert len(flags) > 10
