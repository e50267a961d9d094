"""`make demo` does real work, again and again, and stops when it is told."""

import hashlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import zstandard

from docs.examples.demo import MIGRATIONS
from taskd.cli.client import Client
from tests.helpers.served import ENVIRONMENT

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small repository with some history, and the things that an archive should leave out."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (checkout / "README.md").write_text("# hello\n")
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "big").write_text("not this")
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "README.md"], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *words], cwd=checkout, check=True)
    return checkout


@contextmanager
def demonstrating(checkout: Path, port: int = 0) -> Iterator[tuple["subprocess.Popen[str]", list[str]]]:
    """The demonstration, and what it has printed when it has told where to look."""
    path = os.pathsep.join([str(ROOT), ENVIRONMENT.get("PYTHONPATH", "")])
    command = [sys.executable, str(ROOT / "docs" / "examples" / "demo.py"), "--port", str(port)]
    process = subprocess.Popen(
        command,
        cwd=checkout,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=ENVIRONMENT | {"PYTHONPATH": path},
    )
    with process:
        assert process.stdout
        printed: list[str] = []
        for line in process.stdout:
            printed.append(line)
            if "Ctrl-C" in line:
                break
        try:
            yield process, printed
        finally:
            process.terminate()


def url_of(printed: list[str]) -> str:
    return next(line.split()[-1].rstrip("/") for line in printed if line.startswith("The page:"))


def tasks_of(printed: list[str]) -> dict[str, Any]:
    """The three tasks, by plugin."""
    tasks = Client(url_of(printed)).get("/api/tasks", [("limit", "3")])["tasks"]
    return {task["plugin"]: task for task in tasks}


def test_three_tasks_succeed_on_real_input(checkout: Path) -> None:
    with demonstrating(checkout) as (process, printed):
        tasks = tasks_of(printed)
        process.send_signal(signal.SIGINT)
        assert process.stdout
        assert "Traceback" not in process.stdout.read()
        assert process.wait(20) == 0
    assert {task["status"] for task in tasks.values()} == {"succeeded"}, printed
    assert sum("succeeded" in line for line in printed) == 3
    results = [json.loads(line) for line in printed if line.lstrip().startswith("{")]
    assert sorted(map(str, results)) == sorted(str(task["result"]) for task in tasks.values())
    assert any(f"taskd --server {url_of(printed)} logs @last" in line for line in printed)
    archive_is_whole(tasks["backup"]["result"])
    assert tasks["migration"]["result"]["version"] == len(MIGRATIONS)
    assert_newest(checkout / "demo-data" / "library.db")
    clone_is_the_same(checkout)


def archive_is_whole(result: dict[str, Any]) -> None:
    archive = Path(result["archive"])
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == result["sha256"]
    with zstandard.open(archive, "rb") as stream, tarfile.open(fileobj=stream, mode="r|") as members:
        names = members.getnames()
    assert any(name.endswith("README.md") for name in names)
    assert not any(".venv" in name for name in names)
    if shutil.which("zstd"):  # what tar needs to read it; nobody must install it for the tests
        subprocess.run(["tar", "--zstd", "-tf", archive], stdout=subprocess.DEVNULL, check=True)


def assert_newest(database: Path) -> None:
    """What the last migration made is there, and finds what an earlier one put in."""
    with closing(sqlite3.connect(database)) as library:
        assert library.execute("SELECT count(*) FROM overdue").fetchone() == (1,)


def clone_is_the_same(checkout: Path) -> None:
    (clone,) = (checkout / "demo-data").glob("clone-*")
    heads = [
        subprocess.run(["git", "rev-parse", "HEAD"], cwd=where, capture_output=True, check=True).stdout
        for where in (checkout, clone)
    ]
    assert heads[0] == heads[1]


def test_it_works_again_on_what_it_left(checkout: Path) -> None:
    for _ in range(2):
        with demonstrating(checkout) as (process, printed):
            assert {task["status"] for task in tasks_of(printed).values()} == {"succeeded"}, printed
            process.terminate()
            assert process.wait(20) == 0


def test_a_port_in_use_is_told(checkout: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with demonstrating(checkout, port) as (process, printed):
            assert process.wait(20) == 1
    assert len(printed) == 1
    assert f"port {port}" in printed[0]


def test_the_migrations_are_sql_that_works() -> None:
    with closing(sqlite3.connect(":memory:")) as library:
        for name in sorted(MIGRATIONS):
            library.executescript(MIGRATIONS[name])
        assert library.execute("SELECT name, title FROM overdue").fetchall() == [("Ada", "Invisible Cities")]
