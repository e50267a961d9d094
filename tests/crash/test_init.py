"""As the first process of a container, taskd reaps what loses its parent, and takes no exit code from anybody."""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.served import Served

PR_SET_CHILD_SUBREAPER = 36
ORPHANING = """
import asyncio, os, subprocess

class Orphaning:
    name = "orphaning"

    async def execute(self, params, context):
        own = subprocess.Popen(["sh", "-c", "exit 7"])
        orphans = [await self.orphan() for _ in range(10)]
        # A zombie that nobody reaps is there for ever.
        while any(os.path.exists(f"/proc/{pid}") for pid in orphans):
            await asyncio.sleep(0.01)
        result = await context.run_process(["sh", "-c", "exit 8"], check=False)
        return {"codes": [own.wait(), result.returncode], "parent": os.getppid()}

    async def orphan(self):
        argv = ["sh", "-c", "sleep 0.05 >/dev/null 2>&1 & echo $!"]
        return int(subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout)
"""


def become_subreaper() -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def orphaning(tmp_path: Path) -> Served:
    served = Served(tmp_path)
    (tmp_path / "plugins").mkdir(exist_ok=True)
    (tmp_path / "plugins" / "orphaning.py").write_text(ORPHANING)
    return served


def ended(served: Served) -> Any:
    return served.wait_end(served.submit("orphaning"))["result"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_subreaper_reaps_orphans_and_nothing_else(tmp_path: Path, number: signal.Signals) -> None:
    """The service is its child, gets the signals that it gets, and its exit code is the service's."""
    served = orphaning(tmp_path)
    served.before_start = become_subreaper
    with served:
        assert ended(served) == {"codes": [7, 8], "parent": served.process.pid}
        assert served.stop(number) == 0


def test_the_service_ends_with_the_process_that_waits_for_it(tmp_path: Path) -> None:
    """A `kill -9` of the one that was started leaves no service behind that holds the data directory."""
    served = orphaning(tmp_path)
    served.before_start = become_subreaper
    with served:
        served.stop(signal.SIGKILL)
    with served:
        assert served.get("/api/health")["status"] == "ok"


def test_the_first_process_of_a_namespace_reaps_orphans(tmp_path: Path) -> None:
    """As in a container without an init of its own."""
    unshare = [shutil.which("unshare") or "unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    tried = subprocess.run([*unshare, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no PID namespace can be made here (run as root): {tried.stderr.strip()}")
    served = orphaning(tmp_path)
    served.wrapper = unshare
    with served:
        assert ended(served) == {"codes": [7, 8], "parent": 1}
        [init] = children_of(served.process.pid)
        os.kill(init, signal.SIGTERM)
        assert served.process.wait(25) == 0


def children_of(pid: int) -> list[int]:
    """The processes whose parent is `pid`."""
    children = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            fields = path.read_text().rpartition(")")[2].split()
            children += [int(path.parent.name)] if int(fields[1]) == pid else []
    return children
