"""What tests share: a real service in `tmp_path`, plugins of a test's own, and reading a log."""

import os
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from taskd.entries import LogEntry
from taskd.query.filters import LogFilter
from taskd.reading.follow import Entries, follow
from taskd.service import Service
from taskd.settings import Settings
from taskd.system.trees import remove_tree
from tests.helpers.bars import Bars

# Hundreds of processes are started: compiled each time anew, taskd would take a fifth of the whole.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

PLUGIN_HEAD = """
import asyncio, concurrent.futures, logging, threading, time, warnings
from pydantic import BaseModel, ConfigDict, SecretStr
from taskd import Level, Plugin, TaskContext
"""


def pytest_configure(config: pytest.Config) -> None:
    """Know the bars R1 to R17, R20 and R23."""
    config.addinivalue_line(
        "markers", "bar(id): shows one of the bars in tests/helpers/bars.py; `make torture` runs them"
    )
    config.pluginmanager.register(Bars(), "bars")
    # A busy machine is no fault: no example has a time limit of its own.
    hypothesis.settings.register_profile("taskd", deadline=None)
    hypothesis.settings.load_profile("taskd")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The browser first: it takes minutes, and at the end all other processes would wait for it."""
    items.sort(key=lambda item: item.path.name != "test_browser.py")


@asynccontextmanager
async def running_service(tmp_path: Path, **settings: Any) -> AsyncIterator[Service]:
    """
    A running service whose data is in `tmp_path / "data"`, with `settings` over the defaults.

    At its stop it does not wait for running tasks to finish by themselves. On a slow machine the loop is
    late, and that is not to be in the logs.
    """
    chosen = {"data_dir": tmp_path / "data", "shutdown_grace_s": 0, "loop_block_warn_s": 30, **settings}
    async with Service(Settings(**chosen)) as service:
        yield service


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """A running service with the default settings and the shipped plugins."""
    async with running_service(tmp_path) as running:
        yield running


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A directory for trees that are too deep for pytest, which removes `tmp_path` by recursion some day."""
    (tmp_path / "deep").mkdir()
    yield tmp_path / "deep"
    parent = os.open(tmp_path, os.O_RDONLY)
    remove_tree("deep", dir_fd=parent)
    os.close(parent)


@pytest.fixture
def plugin_dir(tmp_path: Path) -> Callable[[str], Path]:
    """Write a plugin file, of which the imports are given; returns its directory."""

    def write(source: str, name: str = "mine.py") -> Path:
        directory = tmp_path / "plugins"
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(PLUGIN_HEAD + textwrap.dedent(source))
        return directory

    return write


async def read_all(service: Service, task_id: str, log_filter: LogFilter | None = None) -> list[LogEntry]:
    """Every match of a log, read to its end: it waits for a task that has not ended."""
    entries: list[LogEntry] = []
    async with aclosing(follow(service.manager, task_id, log_filter or LogFilter(), page_entries=1_000)) as events:
        async for event in events:
            if isinstance(event, Entries):
                entries += event.entries
    return entries


def messages(entries: Sequence[LogEntry], source: str | None = None) -> list[str]:
    """What entries say; with `source`, those of that source."""
    return [entry.message for entry in entries if source in (None, entry.source)]
