"""What `pip` makes of this: a wheel with everything in it, that works where nothing else is."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from taskd.version import __version__
from tests.served import ENVIRONMENT

ROOT = Path(__file__).resolve().parent.parent


def run(*command: str | Path, cwd: Path) -> str:
    """What the command says; it must succeed."""
    result = subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", directory, ROOT, cwd=directory)
    return next(directory.glob("*.whl"))


@pytest.mark.timeout(120)
def test_the_wheel_carries_the_package_and_what_is_shipped_with_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    sources = {path for path in (ROOT / "taskd").rglob("*") if path.suffix in (".py", ".typed")}
    shipped = {ROOT / "schema.sql", *(ROOT / "plugins").rglob("*.py"), *(ROOT / "web").glob("*.*")}
    expected = {path.relative_to(ROOT).as_posix() for path in sources}
    expected |= {f"taskd/_shipped/{path.relative_to(ROOT).as_posix()}" for path in shipped}
    assert expected <= names
    assert f"taskd-{__version__}.dist-info/licenses/LICENSE" in names


@pytest.mark.timeout(120)
def test_the_wheel_carries_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {"taskd", f"taskd-{__version__}.dist-info"}
    assert not [name for name in names if "__pycache__" in name]


@pytest.fixture
def installed(wheel: Path, tmp_path: Path) -> Path:
    """The `taskd` of a new environment that holds the wheel and what it asks for, and no more."""
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    run(tmp_path / "venv/bin/python", "-m", "pip", "install", "--quiet", wheel, cwd=tmp_path)
    return tmp_path / "venv/bin/taskd"


@pytest.mark.timeout(180)
def test_installed_alone_it_serves_and_runs_a_plugin(installed: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with subprocess.Popen(
        [installed, "serve", "--port", "0"], cwd=empty, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as serving:
        try:
            assert serving.stderr
            url = serving.stderr.readline().split()[-1]
            said = run(installed, "run", "checksum", "-p", "path=/etc/hostname", "--server", url, cwd=empty)
            assert "/etc/hostname" in said
            assert "succeeded" in run(installed, "tasks", "--server", url, cwd=empty)
        finally:
            serving.terminate()
            serving.communicate(timeout=30)
    assert serving.returncode == 0
    assert [path.name for path in empty.iterdir()] == ["taskd-data"]
