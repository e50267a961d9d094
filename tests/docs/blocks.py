"""The code blocks of a Markdown page, and a machine on which a reader would try them."""

import os
import re
import shlex
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.helpers.served import ENVIRONMENT, STOP_WAIT_S, taskd, wait_until

ROOT = Path(__file__).parent.parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "plugins" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
FENCE = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)
USUAL_PORT = "8642"
BLOCK_S = 50


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its file if it has a title, and its text."""

    language: str
    title: str
    text: str


def blocks_of(page: Path, *languages: str) -> list[Block]:
    """Return the blocks of a page in order, those of `languages` if any are given."""
    found = [Block(*match) for match in FENCE.findall(page.read_text())]
    return [block for block in found if not languages or block.language in languages]


def block_called(title: str) -> str:
    """Return the text of the one block with this title."""
    (text,) = {block.text for page in PAGES for block in blocks_of(page) if block.title == title}
    return text


class Machine:
    """A directory with `taskd` on PATH. A block that starts a service replaces the one that runs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = str(free_port())
        self.url = f"http://127.0.0.1:{self.port}"
        self._served: subprocess.Popen[bytes] | None = None
        self._command = directory / ".venv" / "bin" / "taskd"
        self._command.parent.mkdir(parents=True)
        self._command.write_text(f'#!/bin/sh\nexec {shlex.join(taskd())} "$@"\n')
        self._command.chmod(0o755)
        self._environment = ENVIRONMENT | {
            "PATH": f"{self._command.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "TASKD_SERVER": self.url,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()

    def run(self, block: Block) -> str:
        """Do as the block asks and return its output."""
        text = block.text.replace(USUAL_PORT, self.port)
        if block.language == "python":
            return self._write_or_run(block.title, text)
        if text.startswith("make "):
            return self._check_make(text)
        if text.strip() == "pip install .":
            return ""  # tests/test_packaging.py does
        if text.startswith("taskd serve"):
            return self.serve(*shlex.split(text)[2:])
        return self._ended("sh", "-ec", text)

    def serve(self, *arguments: str) -> str:
        """Start a service, after the one before it has stopped, and wait until it is ready."""
        self.stop()
        log = self.directory / "serve.log"
        with log.open("wb") as stderr:
            command = [str(self._command), "serve", "--port", self.port, *arguments]
            self._served = subprocess.Popen(command, stderr=stderr, cwd=self.directory, env=self._environment)
        running = self._served
        wait_until(lambda: " ready on " in log.read_text() or running.poll() is not None, 40)
        assert running.poll() is None, log.read_text()
        return log.read_text()

    def stop(self) -> None:
        """Stop the service, if one runs."""
        if self._served is not None:
            self._served.terminate()
            try:
                assert self._served.wait(STOP_WAIT_S) == 0
            finally:
                self._served.kill()
                self._served.wait()
                self._served = None

    def _write_or_run(self, title: str, text: str) -> str:
        if not title:
            return self._ended(sys.executable, "-c", text)
        if title.startswith("plugins/"):
            assert (ROOT / title).read_text() == text, f"{title} differs from what the page shows"
            return ""
        path = self.directory / title
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return ""

    def _check_make(self, text: str) -> str:
        """Check that each target exists. Serve a task after `make demo`, which tests/test_demo.py runs."""
        for line in text.splitlines():
            words = shlex.split(line, comments=True)
            subprocess.run([*words, "-n"], cwd=ROOT, check=True, capture_output=True, timeout=BLOCK_S)
            if words == ["make", "demo"]:
                self.serve()
                self._ended("taskd", "run", "checksum", "-p", "path=/etc/hostname")
        return ""

    def _ended(self, *command: str) -> str:
        """Return the output of a command that succeeds."""
        result = subprocess.run(
            command,
            cwd=self.directory,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BLOCK_S,
            check=False,
        )
        assert result.returncode == 0, f"{shlex.join(command)}\n{result.stdout}"
        return result.stdout


def free_port() -> int:
    """Return a port that is free now; a service that starts again needs the same one."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port
