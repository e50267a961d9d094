"""
Hostile addresses, names and repositories for the git plugin, asked for over HTTP: nothing of them is run.

GitPython CVE-2022-24439, simple-git CVE-2022-25912, go-git CVE-2025-21613 (arguments that are options,
protocols that are programs), git CVE-2024-52005 (the remote's words in a terminal).
`tests/plugins/test_git.py` has every parameter of every action.
"""

import subprocess
from pathlib import Path

import pytest

from tests.security.conftest import Target


def git(directory: Path, *words: str) -> None:
    environment = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null", "PATH": "/usr/bin:/bin"}
    author = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    subprocess.run(["git", *author, *words], cwd=directory, check=True, capture_output=True, env=environment)


@pytest.mark.parametrize(
    "params",
    [
        {"repository": "--upload-pack=touch PWNED"}, {"repository": "ext::sh -c touch% PWNED"},
        {"repository": "fd::17"},
        {"repository": "ssh://-oProxyCommand=touch PWNED/x"}, {"repository": "-u"},
        {"repository": "x@-oProxyCommand=x:y"},
        {"repository": "https://example.org/x\n--upload-pack=touch PWNED"}, {"repository": "http://example.org/x"},
        {"repository": "/r", "branch": "--upload-pack=touch PWNED"}, {"repository": "/r", "directory": "--config=x"},
        {"repository": "/r", "branch": "a\0b"}, {"repository": "transport::x"}, {"repository": ["--upload-pack=x",
        "/r"]},
    ],
)  # fmt: skip
def test_what_would_be_an_option_or_a_program_is_refused(
    here: Target, tmp_path: Path, params: dict[str, object]
) -> None:
    """Before there is a task; each fault names its parameter."""
    filled = {
        name: value.replace("PWNED", str(tmp_path / "pwned")) if isinstance(value, str) else value
        for name, value in params.items()
    }
    answer = here.http("POST", "/api/tasks", json={"plugin": "git", "params": {"action": "clone", **filled}})
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["path"].startswith("params.")
    assert not (tmp_path / "pwned").exists()


def test_a_file_url_leads_nowhere_without_roots(here: Target) -> None:
    """It would read any repository of this machine; `git_file_roots` says which may be read."""
    task = here.run_task("git", action="clone", repository="file:///etc")
    assert task["status"] == "failed"
    assert "git_file_roots" in task["error"]


def test_no_hook_of_a_repository_runs(here: Target, tmp_path: Path) -> None:
    """Whoever made the directory does not run programs as the service, by committing or by checking out."""
    work = tmp_path / "work"
    work.mkdir()
    git(work, "init", "-b", "main")
    (work / "a").write_text("a")
    for name in ("pre-commit", "post-commit", "post-checkout", "commit-msg"):
        hook = work / ".git" / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/pwned\n")
        hook.chmod(0o755)
    task = here.run_task("git", action="commit", directory=str(work), message="m")
    assert task["status"] == "succeeded", task["error"]
    assert not (tmp_path / "pwned").exists()


def test_the_words_of_a_remote_are_words(here: Target, tmp_path: Path) -> None:
    """A commit's message that speaks to terminals is stored as it is, and shown escaped (test_output.py)."""
    work = tmp_path / "work"
    work.mkdir()
    git(work, "init", "-b", "main")
    git(work, "commit", "--allow-empty", "-m", "\x1b]0;owned\x07 ::set-env name=X::y")
    task = here.run_task("git", action="log", directory=str(work))
    assert task["status"] == "succeeded", task["error"]
    assert "::set-env" in str(task["result"]) + str(here.log(task["id"]))


def test_credentials_of_an_address_are_in_nothing(here: Target) -> None:
    """Stripped before anything is said; git itself is given them where no process list shows them."""
    task = here.run_task("git", action="clone", repository="https://lovelace:s3cret-p%40ss@127.0.0.1:1/r.git")
    told = here.http("GET", f"/api/tasks/{task['id']}").text + str(here.log(task["id"]))
    assert "s3cret" not in told
    files = [path for path in here.data_dir.rglob("*") if path.is_file()]
    assert not [path for path in files if b"s3cret" in path.read_bytes()]
