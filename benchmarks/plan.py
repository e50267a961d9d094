"""`Plan`: how much is measured, where its files are, and the line that tells how far it is."""

import itertools
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.helpers.served import Served

ROOT = Path(__file__).parent.parent
PLUGINS = ROOT / "benchmarks" / "plugins"
# Seldom: to answer is work for the server that is measured.
LOOK_AGAIN_S = 0.25


@dataclass
class Plan:
    """
    The options of one run. `quick` takes about a twentieth of everything, to see that it works;
    `long` gives the two heaviest tails the 60 and 30 s of their bars.
    """

    directory: Path
    seed: int = 1
    quick: bool = False
    long: bool = False
    started: float = field(default_factory=time.monotonic)
    _number: Iterator[int] = field(default_factory=itertools.count)

    def scaled(self, usual: int, quick: int) -> int:
        """How many: `usual`, or `quick` in a quick run."""
        return quick if self.quick else usual

    def tell(self, part: str, what: str) -> None:
        """Say what is measured now: one line, written over on a terminal."""
        line = f"{time.monotonic() - self.started:5.0f} s  {part}: {what}"
        if sys.stderr.isatty():
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def fresh(self, name: str) -> Path:
        """A new directory."""
        path = self.directory / f"{next(self._number):02}-{name}"
        path.mkdir(parents=True)
        return path

    @contextmanager
    def served(self, name: str, *options: str) -> Iterator[Served]:
        """A real `taskd serve` with the benchmark's plugins, on a new data directory."""
        plugins = ("--plugins", str(PLUGINS))
        with Served(self.fresh(name), *plugins, *options, PYTHONPATH=str(ROOT)) as served:
            yield served


def wait_for(path: Path, within_s: float) -> None:
    """Wait until the file is there. Raises `TimeoutError`."""
    deadline = time.monotonic() + within_s
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path.name} did not come within {within_s:g} s")
        time.sleep(0.01)


def ended(served: Served, task_id: str, within_s: float = 300) -> dict[str, Any]:
    """Wait until the task has ended; the task. Raises `RuntimeError` where it failed, `TimeoutError`."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        task: dict[str, Any] = served.get(f"/api/tasks/{task_id}")
        if task["status"] == "succeeded":
            return task
        if task["status"] not in ("queued", "running"):
            raise RuntimeError(f"the task {task['status']}: {task['error']}")
        time.sleep(LOOK_AGAIN_S)
    raise TimeoutError(f"a task of {task['plugin']} did not end within {within_s:g} s")
