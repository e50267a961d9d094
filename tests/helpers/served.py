"""
A real `taskd serve`, and the `taskd` command beside it, for tests from outside.

The server is a process of its own, as a person would start it; the port is a free one that the server
chose, unless a test needs the same one again. A process costs a good part of a second. So for rules that
are not about it a client's command runs in this one (`ask_taskd`), and what a server has left is looked at
without another (`tests.helpers.reopened`).
"""

import contextlib
import io
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self
from unittest import mock

import httpx

from taskd.cli.main import main

START_WAIT_S = 60.0
STOP_WAIT_S = 25.0
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("TASKD_")}
# On a slow machine the loop is late, and that is not to be in the logs.
ENVIRONMENT["TASKD_LOOP_BLOCK_WARN_S"] = "30"
# Tasks that run when a test ends need not be waited for.
ENVIRONMENT["TASKD_SHUTDOWN_GRACE_S"] = "0"

PLUGINS = '''
import asyncio, time
from pathlib import Path

from taskd import Plugin


class Talk(Plugin):
    """Says some words."""

    name = "talk"

    async def execute(self, params, context):
        for n in range(1, params.get("count", 3) + 1):
            context.logger.info(params.get("word", f"word {n}"), n=n)
        while "gate" in params and not Path(params["gate"]).exists():
            await asyncio.sleep(0.02)
        if params.get("fail"):
            raise ValueError("told to fail")
        context.logger.warning("last word")
        return {"said": params.get("count", 3)}


class Stubborn(Plugin):
    """Will not be cancelled."""

    name = "stubborn"

    async def execute(self, params, context):
        context.logger.info("never")
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                context.logger.info("no")


class Stuck(Plugin):
    """Blocks its thread."""

    name = "stuck"

    def execute(self, params, context):
        context.logger.info("stuck")
        time.sleep(600)
'''


class Served:
    """One `taskd serve` on a data directory; started with `start`, ended by leaving the context."""

    def __init__(self, directory: Path, *options: str, port: int = 0, **environment: str) -> None:
        self.data_dir = directory / "data"
        plugins = directory / "plugins"
        plugins.mkdir(exist_ok=True)
        (plugins / "spoken.py").write_text(PLUGINS)
        self.options = ["--data-dir", str(self.data_dir), "--plugins", str(plugins), *options]
        self.port = port
        self.environment = ENVIRONMENT | environment
        self.said: list[str] = []
        self.before_start: Callable[[], object] | None = None  # called in the new process
        self.wrapper: list[str] = []  # a command that starts the server

    def start(self) -> Self:
        """Start the server and wait for its ready line; broken plugins are told before it."""
        self.process = subprocess.Popen(
            [*self.wrapper, *taskd("serve"), "--port", str(self.port), *self.options],
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
            preexec_fn=self.before_start,
        )
        # Its own: the reader of a process that was killed may end after the next one has started.
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, args=(self.process, lines), daemon=True)
        self._reader.start()
        line: str | None = ""
        while line is not None and " ready on " not in line:
            line = lines.get(timeout=START_WAIT_S)
        assert line is not None, f"the server ended with {self.process.wait()}: {''.join(self.said)}"
        self.url = line.split()[-1]
        self.port = int(self.url.rsplit(":", 1)[1])
        return self

    def _read(self, process: subprocess.Popen[str], lines: queue.SimpleQueue[str | None]) -> None:
        assert process.stderr is not None
        with process.stderr as stderr:
            for line in stderr:
                self.said.append(line)
                lines.put(line)
        lines.put(None)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal and wait for the end; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(STOP_WAIT_S)
        self._reader.join(STOP_WAIT_S)
        return code

    def start_and_kill(self, after_s: float) -> None:
        """A start that dies after a while, wherever it then is; the moment is what matters."""
        command = [*taskd("serve"), "--port", str(self.port), *self.options]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=self.environment) as process:
            time.sleep(after_s)
            process.kill()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def __exit__(self, *raised: object) -> None:
        try:
            self.stop()
        finally:
            self.process.kill()
            self.process.wait()

    def taskd(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """The command, asked of this server; in this process."""
        return ask_taskd(*arguments, TASKD_SERVER=self.url, **environment)

    def get(self, path: str) -> Any:
        """The answer to a GET, as JSON."""
        return httpx.get(self.url + path, trust_env=False, verify=False).raise_for_status().json()

    def submit(self, plugin: str, **params: Any) -> str:
        """Start a task; its id."""
        body = {"plugin": plugin, "params": params}
        answer = httpx.post(f"{self.url}/api/tasks", json=body, trust_env=False, verify=False)
        return str(answer.raise_for_status().json()["id"])

    def entries(self, task_id: str) -> list[dict[str, Any]]:
        """The log so far, up to 5,000 entries."""
        entries: list[dict[str, Any]] = self.get(f"/api/tasks/{task_id}/logs?limit=5000")["entries"]
        return entries

    def wait_for(self, task_id: str, message: str) -> None:
        """Wait until the task has said `message`."""
        with httpx.stream("GET", f"{self.url}/api/tasks/{task_id}/logs/stream", trust_env=False, verify=False) as lines:
            assert any(f'"message":"{message}"' in line for line in lines.iter_lines()), message

    def wait_end(self, task_id: str) -> dict[str, Any]:
        """Wait until the task has ended; the task."""
        stream = f"{self.url}/api/tasks/{task_id}/logs/stream?tail=1"
        with httpx.stream("GET", stream, trust_env=False, verify=False, timeout=60) as answer:
            for _ in answer.raise_for_status().iter_raw():
                pass  # to its last chunk, which comes at the log's end
        task: dict[str, Any] = self.get(f"/api/tasks/{task_id}")
        return task


def taskd(*arguments: str) -> list[str]:
    """The command line of `taskd`, whether it is installed or only checked out."""
    return [sys.executable, "-m", "taskd", *arguments]


def run_taskd(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, with its words captured."""
    return subprocess.run(
        taskd(*arguments),
        capture_output=True,
        text=True,
        timeout=40,
        env=ENVIRONMENT | environment,
        check=False,
    )


def ask_taskd(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a client's command to its end in this process: its words and its exit code are the same."""
    out, error = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    code: object = None
    with (
        mock.patch.dict(os.environ, ENVIRONMENT | environment, clear=True),
        mock.patch.object(sys, "argv", ["taskd", *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(error),
    ):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    assert isinstance(code, int)
    return subprocess.CompletedProcess(arguments, code, _words(out), _words(error))


def _words(stream: io.TextIOWrapper) -> str:
    stream.flush()
    stream.seek(0)
    return stream.read()


def wait_until(condition: Any, within_s: float = 20.0) -> None:
    """Wait for what only looking can tell: a file, a process, a page."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)
