"""`taskd plugins new` writes a plugin that works, and nothing that would not."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskd.cli.scaffold import write_plugin
from taskd.errors import PluginNotWritten
from taskd.runtime.plugins import NAME, PluginRegistry
from taskd.service import Service
from tests.conftest import messages, read_all
from tests.helpers.served import Served, run_taskd


async def test_what_is_written_runs_as_it_is(service: Service, tmp_path: Path) -> None:
    """With its defaults, and with a parameter of its own; bad ones have a path."""
    path = write_plugin("nightly-report", tmp_path / "new" / "plugins")
    assert path == tmp_path / "new" / "plugins" / "nightly_report.py"
    service.plugins.load_directory(path.parent)
    task = await service.manager.submit("nightly-report", {"count": 2})
    said = messages(await read_all(service, task.id))
    task = await service.manager.wait(task.id)
    assert (task.status, task.result) == ("succeeded", {"count": 2})
    assert said.count("did a thing") == 2
    assert task.progress is not None


@settings(max_examples=25, deadline=None)
@given(name=st.from_regex(NAME, fullmatch=True))
def test_every_name_that_a_plugin_may_have_gives_a_file_that_loads(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Also one that is a word of Python, or of taskd."""
    path = write_plugin(name, tmp_path_factory.mktemp("plugins"))
    registry = PluginRegistry()
    registry.load_directory(path.parent)
    assert (list(registry.plugins), registry.broken) == ([name], [])


@pytest.mark.parametrize("name", ["none", "true", "plugin", "field", "task_context", "a-", "x" * 64])
def test_names_that_are_words_already_load_too(name: str, tmp_path: Path) -> None:
    """The class has another name then."""
    registry = PluginRegistry()
    registry.load_directory(write_plugin(name, tmp_path).parent)
    assert (list(registry.plugins), registry.broken) == ([name], [])


@pytest.mark.parametrize(
    "name", ["", "Report", "9lives", "../report", "a b", "naïve", "x" * 65, "-x", "a.py", "backup"]
)
def test_a_name_that_could_not_be_loaded_is_refused(name: str, tmp_path: Path) -> None:
    """With what was expected; nothing is written, not even the directory."""
    with pytest.raises(PluginNotWritten, match=r"cannot be the name of a plugin: expected|of its own: give another"):
        write_plugin(name, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_nothing_is_written_over(tmp_path: Path) -> None:
    """A file that exists stays; what is no directory is told."""
    write_plugin("report", tmp_path).write_text("mine")
    with pytest.raises(PluginNotWritten, match=r"report\.py exists already"):
        write_plugin("report", tmp_path)
    assert (tmp_path / "report.py").read_text() == "mine"
    with pytest.raises(PluginNotWritten, match=r"report\.py is not a directory"):
        write_plugin("other", tmp_path / "report.py")


def test_the_command_needs_no_server_and_its_words_lead_to_a_log(tmp_path: Path) -> None:
    """Written, served and run, as it says itself."""
    written = run_taskd("plugins", "new", "report", str(tmp_path / "plugins"), TASKD_SERVER="http://127.0.0.1:9")
    assert (written.returncode, written.stdout) == (0, f"{tmp_path}/plugins/report.py\n")
    told = [
        f"taskd: serve it with: taskd serve --plugins {tmp_path}/plugins",
        "taskd: run it with: taskd run report -p count=5",
    ]
    assert written.stderr.splitlines() == told
    with Served(tmp_path) as served:
        listed = served.taskd("plugins")
        ran = served.taskd("run", "report", "-p", "count=1")
    assert "report  " in listed.stdout
    assert (ran.returncode, "did a thing" in ran.stdout) == (0, True)
    again = run_taskd("plugins", "new", "report", str(tmp_path / "plugins"))
    assert (again.returncode, "exists already" in again.stderr) == (2, True)


def test_what_is_written_is_as_clean_as_our_own(tmp_path: Path) -> None:
    """Formatted and typed like the files here."""
    path = write_plugin("report", tmp_path)
    root = Path(__file__).parent.parent.parent
    for check in (["ruff", "format", "--check"], ["ruff", "check"], ["mypy", "--strict"]):
        command = [sys.executable, "-m", *check, "--config-file" if check[0] == "mypy" else "--config"]
        done = subprocess.run(
            [*command, str(root / "pyproject.toml"), str(path)], cwd=root, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
