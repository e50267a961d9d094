"""Repositories to work in."""

from pathlib import Path

import pytest

from tests.helpers.repositories import git


@pytest.fixture
def git_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration of a user who has a name to commit as, and of no other."""
    config = tmp_path / "gitconfig"
    config.write_text("[user]\nname = Ada\nemail = ada@example.org\n[init]\ndefaultBranch = main\n[gc]\nauto = 0\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    return config


@pytest.fixture
def origin(tmp_path: Path, git_configuration: Path) -> Path:
    """A bare repository with two commits."""
    work = tmp_path / "work"
    work.mkdir()
    git(work, "init", "--quiet")
    for number in (1, 2):
        (work / "file").write_text(f"{number}\n")
        git(work, "add", ".")
        git(work, "commit", "--quiet", "-m", f"commit {number}")
    git(tmp_path, "clone", "--quiet", "--bare", "work", "origin.git")
    return tmp_path / "origin.git"


@pytest.fixture
def checkout(tmp_path: Path, origin: Path) -> Path:
    """A clone of `origin`."""
    git(tmp_path, "clone", "--quiet", str(origin), "checkout")
    return tmp_path / "checkout"
