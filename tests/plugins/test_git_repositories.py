"""`git` in repositories that an attacker has made, and in those that are merely unusual."""

import asyncio
import json
import os
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from taskd.service import Service
from tests.conftest import messages, read_all, running_service
from tests.helpers.hostile_git import HOSTILE, Mutation, snapshot
from tests.helpers.repositories import git, own_file, result, run

pytestmark = pytest.mark.usefixtures("git_configuration")

HERE = ("pull", "commit", "push", "status", "log")


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A program that leaves a trace when it is run."""
    program = tmp_path / "canary"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/pwned\ncat\n")
    program.chmod(0o755)
    return program


async def refusals(service: Service, checkout: Path) -> set[str | None]:
    """Return the errors of every action in a repository where there would be something to do."""
    (checkout / "new").touch()
    return {(await run(service, action, directory=checkout, message="m")).error for action in HERE}


# Configuration


@pytest.mark.parametrize(
    ("section", "key"),
    [
        (b'[filter "\xff"]\n\tclean = %s', r"filter.\xff.clean"),
        (b'[FILTER "X.y"]\n\tSmudge = %s', "filter.X.y.smudge"),
        (b"[filter.x]\n\tprocess = %s", "filter.x.process"),
        (b"[core]\n\tfsmonitor = %s", "core.fsmonitor"),
        (b"[core]\n\thooksPath = %s", "core.hookspath"),
        (b"[core]\n\tsshCommand = %s", "core.sshcommand"),
        (b"[core]\n\tgitProxy = %s", "core.gitproxy"),
        (b'[hook "x"]\n\tcommand = %s\n\tevent = pre-commit', "hook.x.command"),
        (b'[remote "origin"]\n\tuploadpack = %s', "remote.origin.uploadpack"),
        (b'[remote "origin"]\n\tproxy = http://127.0.0.1:1', "remote.origin.proxy"),
        (b'[remote "origin"]\n\tpromisor = true', "remote.origin.promisor"),
        (b"[extensions]\n\tpartialClone = origin", "extensions.partialclone"),
        (b"[credential]\n\thelper = !%s", "credential.helper"),
        (b'[credential "https://example.org"]\n\thelper = store', "credential.https://example.org.helper"),
        (b"[http]\n\tsslVerify = false", "http.sslverify"),
        (b'[http "https://example.org"]\n\tproxy = x', "http.https://example.org.proxy"),
        (b"[http]\n\tcookieFile = /etc/passwd", "http.cookiefile"),
        (b'[url "file:///etc/"]\n\tpushInsteadOf = https://example.org/', "url.file:///etc/.pushinsteadof"),
        (b'[url "ext::sh -c "]\n\tinsteadOf = https://example.org/', "url.ext::sh -c .insteadof"),
        (b"[include]\n\tpath = ../more", "include.path"),
        (b'[includeIf "gitdir:/"]\n\tpath = ../more', "includeif.gitdir:/.path"),
        (b"[gc]\n\trecentObjectsHook = %s", "gc.recentobjectshook"),
        (b"[extensions]\n\trefStorage = reftable:///tmp/refs", "extensions.refstorage"),
        (b'[submodule "x"]\n\tupdate = !%s', "submodule.x.update"),
        (b"[merge]\n\tverifySignatures = false", "merge.verifysignatures"),
        (b"[key]\n\tthatGitAddsLater", "key.thatgitaddslater"),
    ],
)
async def test_a_key_that_is_not_known_to_be_harmless_is_refused(
    service: Service, checkout: Path, canary: Path, section: bytes, key: str
) -> None:
    """By every action, in any spelling, and with its name and its file."""
    (checkout / ".git/info/attributes").write_bytes(b"* filter=x\n/new filter=\xff\n")
    (checkout / "more").write_text(f'[filter "x"]\n\tclean = {canary}\n')
    with (checkout / ".git/config").open("ab") as file:
        file.write(section.replace(b"%s", os.fsencode(canary)) + b"\n")
    [error] = await refusals(service, checkout)
    # A git that knows this extension refuses it before we do.
    assert (key.rpartition(".")[2] if "refstorage" in key else f"sets {key} (in .git/config)") in (error or "")
    assert not (canary.parent / "pwned").exists()


async def test_the_configuration_of_a_working_tree_is_the_repositorys_too(
    service: Service, checkout: Path, canary: Path
) -> None:
    """`config.worktree` is as good as `config`."""
    git(checkout, "config", "extensions.worktreeConfig", "true")
    await result(service, "status", directory=checkout)
    git(checkout, "config", "--worktree", "core.fsmonitor", str(canary))
    [error] = await refusals(service, checkout)
    assert "sets core.fsmonitor (in .git/config.worktree)" in (error or "")


async def test_what_the_user_of_taskd_configured_is_used(service: Service, checkout: Path, canary: Path) -> None:
    """It is that user's to decide."""
    git(checkout, "config", "--global", "filter.x.clean", str(canary))
    (checkout / ".gitattributes").write_text("* filter=x\n")
    await result(service, "commit", directory=checkout, message="m")
    assert (canary.parent / "pwned").exists()


async def test_ordinary_configurations_are_accepted(service: Service, checkout: Path) -> None:
    """Those that git, its tools and the habits of users leave in a repository."""
    for key, value in {
        "user.name": "Ada",
        "core.autocrlf": "input",
        "core.sharedRepository": "group",
        "branch.main.rebase": "true",
        "branch.main.vscode-merge-base": "origin/main",
        "remote.origin.tagOpt": "--no-tags",
        "remote.origin.gh-resolved": "base",
        "remote.origin.prune": "true",
        "submodule.lib.url": "https://example.org/lib",
        "submodule.lib.active": "true",
        "lfs.repositoryformatversion": "0",
        "lfs.https://example.org/info/lfs.locksverify": "true",
        "status.aheadBehind": "false",
        "color.ui": "always",
        "log.follow": "true",
    }.items():
        git(checkout, "config", key, value)
    (checkout / "new").touch()
    for action in HERE:
        await result(service, action, directory=checkout, message="m")


@pytest.mark.parametrize("option", ["--object-format=sha256", "--ref-format=reftable"])
async def test_newer_formats_of_repositories_are_accepted(service: Service, tmp_path: Path, option: str) -> None:
    """Where this machine's git knows them."""
    if subprocess.run(["git", "init", "--quiet", option, tmp_path / "new"], capture_output=True).returncode:
        pytest.skip(f"this git does not know {option}")
    (tmp_path / "new" / "file").touch()
    made = await result(service, "commit", directory=tmp_path / "new", message="m")
    assert made["commit"] == git(tmp_path / "new", "rev-parse", "HEAD")
    git(tmp_path, "clone", "--quiet", "--bare", "new", "new.git")
    pushed = await result(service, "push", directory=tmp_path / "new", repository=tmp_path / "new.git")
    assert pushed["commit"] == made["commit"]


# The files of a repository


@pytest.mark.parametrize("make", HOSTILE)
async def test_a_repository_whose_files_lead_elsewhere_is_refused(
    service: Service, checkout: Path, tmp_path: Path, make: Mutation
) -> None:
    """By every action: git would follow, wait, or write over them. Nothing there changes."""
    bait = tmp_path / "bait"
    bait.mkdir()
    (bait / "file").write_text("precious\n")
    make(checkout / ".git", bait)
    before = snapshot(bait)
    for error in await refusals(service, checkout):
        assert "refused" in (error or "")
    assert snapshot(bait) == before


async def test_working_trees_and_git_directories_that_belong_together_are_accepted(
    service: Service, checkout: Path, tmp_path: Path
) -> None:
    """A linked working tree, one of a submodule, and a separate git directory that names its files."""
    git(checkout, "worktree", "add", "--quiet", "-b", "linked", str(tmp_path / "linked"))
    git(checkout, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(tmp_path / "work"), "sub")
    git(tmp_path, "clone", "--quiet", f"--separate-git-dir={tmp_path}/git", "origin.git", "separate")
    task = await run(service, "status", directory=tmp_path / "separate")
    assert f"set core.worktree there to {tmp_path}/separate" in (task.error or "")
    git(tmp_path / "separate", "config", "core.worktree", str(tmp_path / "separate"))
    for directory in (tmp_path / "linked", checkout / "sub", tmp_path / "separate"):
        (directory / "new").touch()
        assert (await result(service, "commit", directory=directory, message="m"))["changed"]


async def test_an_object_directory_below_the_roots_may_be_shared(tmp_path: Path, origin: Path) -> None:
    """The operator has opened it."""
    git(tmp_path, "clone", "--quiet", "--shared", str(origin), "shared")
    async with running_service(tmp_path, git_file_roots=[origin]) as service:
        await result(service, "log", directory=tmp_path / "shared")


async def test_what_an_older_taskd_left_is_ignored(service: Service, checkout: Path) -> None:
    """The log names it; nothing there is believed."""
    head = git(checkout, "rev-parse", "HEAD")
    (checkout / ".git/taskd").mkdir()
    (checkout / ".git/taskd/intent").write_text(f'{{"before": "{head}", "after": "{head}"}}')
    (checkout / ".git/index.lock").touch()
    task = await run(service, "commit", directory=checkout, message="m")
    assert [text for text in messages(await read_all(service, task.id)) if "of an older taskd and is ignored" in text]
    assert (checkout / ".git/index.lock").exists()


async def test_an_intent_is_not_that_of_a_new_repository_in_the_same_place(
    service: Service, checkout: Path, origin: Path
) -> None:
    """It belongs to the one that was there."""
    intent = own_file(service.settings.data_dir, checkout, "intent")
    intent.write_text("{}")
    checkout.rename(checkout.with_name("old"))
    git(origin.parent, "clone", "--quiet", str(origin), "checkout")
    await result(service, "pull", directory=checkout)
    assert intent.exists()


async def test_a_git_that_waits_for_ever_harms_its_own_task_alone(service: Service, checkout: Path) -> None:
    """The service goes on, and a cancelled task ends."""
    os.mkfifo(checkout / ".gitattributes")
    (checkout / "new").touch()
    task = await service.manager.submit("git", {"action": "commit", "directory": str(checkout), "message": "m"})
    while not own_file(service.settings.data_dir, checkout, "names").exists():
        await asyncio.sleep(0.01)
    assert (await run(service, "log", directory=checkout)).status == "succeeded"
    await service.manager.cancel(task.id)
    assert (await service.manager.wait(task.id)).status == "cancelled"


# Remotes


async def test_a_url_that_the_users_configuration_rewrites_for_a_push_is_looked_at(
    service: Service, checkout: Path, tmp_path: Path
) -> None:
    """The longest rule counts, as for git; a fetch is not changed by it."""
    git(tmp_path, "init", "--quiet", "--bare", "outside/r")
    git(checkout, "config", "--global", f"url.file://{tmp_path}/outside/.pushInsteadOf", "https://example.org/a/")
    git(checkout, "config", "--global", f"url.{tmp_path}/outside/.pushInsteadOf", "https://example.org/")
    task = await run(service, "push", directory=checkout, repository="https://example.org/a/r")
    assert "not below one of git_file_roots" in (task.error or "")
    await result(service, "push", directory=checkout, repository="https://example.org/r")
    assert git(tmp_path / "outside/r", "rev-parse", "main") == git(checkout, "rev-parse", "main")


async def test_a_url_that_the_users_configuration_rewrites_for_a_clone_is_looked_at(
    service: Service, checkout: Path, tmp_path: Path
) -> None:
    """It may lead out of the directory that was meant; a repository around the new one rewrites nothing."""
    git(checkout, "config", "--global", f"url.file://{tmp_path}/mirror/.insteadOf", "https://example.org/")
    git(checkout, "config", f"url.{tmp_path}/origin.git.insteadOf", "https://127.0.0.1:1/r")
    for url, error in {
        "https://example.org/../origin.git": "not below one of git_file_roots",
        "https://127.0.0.1:1/r": "git clone failed",
    }.items():
        task = await run(service, "clone", repository=url, directory=checkout / "clone")
        assert error in (task.error or "")
        assert not (checkout / "clone").exists()


@pytest.mark.parametrize("key", ["remote.origin.pushurl", "remote.other.url"])
async def test_a_push_looks_at_the_urls_that_it_pushes_to(service: Service, checkout: Path, key: str) -> None:
    """Also if it is the branch's own remote for pushes that has them."""
    git(checkout, "config", key, "file:///etc/r")
    if "other" in key:
        git(checkout, "config", "branch.main.pushRemote", "other")
    task = await run(service, "push", directory=checkout)
    assert "file:///etc/r is refused" in (task.error or "")


async def test_a_push_goes_to_the_remote_for_pushes(
    service: Service, checkout: Path, origin: Path, tmp_path: Path
) -> None:
    """As that of git: the branch's, then the repository's, then the one that is pulled from."""
    git(tmp_path, "clone", "--quiet", "--bare", "origin.git", "fork.git")
    git(checkout, "remote", "add", "fork", str(tmp_path / "fork.git"))
    git(checkout, "commit", "--quiet", "--allow-empty", "-m", "3")
    git(checkout, "config", "remote.pushDefault", "fork")
    assert (await result(service, "push", directory=checkout))["remote"] == "fork"
    git(checkout, "config", "branch.main.pushRemote", "origin")
    assert (await result(service, "push", directory=checkout))["remote"] == "origin"


async def test_a_push_to_this_machine_runs_nothing_there(
    service: Service, checkout: Path, origin: Path, canary: Path
) -> None:
    """Neither a hook nor what that repository's configuration names."""
    git(checkout, "commit", "--quiet", "--allow-empty", "-m", "3")
    (origin / "hooks/post-receive").symlink_to(canary)
    task = await run(service, "push", directory=checkout)
    assert "run its hooks (post-receive): that is refused" in (task.error or "")
    (origin / "hooks/post-receive").unlink()
    git(origin, "config", "core.alternateRefsCommand", str(canary))
    task = await run(service, "push", directory=checkout)
    assert f"configuration of {origin} sets core.alternaterefscommand" in (task.error or "")
    git(origin, "config", "--unset", "core.alternateRefsCommand")
    await result(service, "push", directory=checkout)
    assert not (canary.parent / "pwned").exists()


@pytest.mark.parametrize("path", ["in?/../../work", "in%3f/../../work", "in#/../../work", "%ff"])
async def test_a_file_url_is_read_as_git_reads_it(tmp_path: Path, origin: Path, path: str) -> None:
    """`?` and `#` belong to its path."""
    for name in ("in?", "in#"):
        (tmp_path / "roots" / name).mkdir(parents=True)
    async with running_service(tmp_path, git_file_roots=[tmp_path / "roots"]) as service:
        git(tmp_path, "clone", "--quiet", str(origin), "checkout")
        git(tmp_path / "checkout", "remote", "set-url", "origin", f"file://{tmp_path}/roots/{path}")
        git(tmp_path / "checkout", "remote", "set-url", "--push", "origin", "file://localhost/x")
        for action in ("pull", "push"):
            assert "refused" in ((await run(service, action, directory=tmp_path / "checkout")).error or "")


# Submodules and hooks


@pytest.fixture
def hostile(checkout: Path, tmp_path: Path, canary: Path) -> Path:
    """A clone with a submodule, and with a repository that git does not know, which would both run programs."""
    git(checkout, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(tmp_path / "work"), "sub")
    git(checkout, "commit", "--quiet", "-m", "3")
    git(checkout, "clone", "--quiet", str(tmp_path / "work"), "nested \u00e4")
    for inner in (checkout / "sub", checkout / "nested \u00e4"):
        git(inner, "config", "core.fsmonitor", str(canary))
        git(inner, "config", "filter.x.clean", str(canary))
        (inner / ".gitattributes").write_text("* filter=x\n")
        (inner / "file").write_text("changed\n")
    return checkout


async def test_submodules_are_not_entered(service: Service, hostile: Path, origin: Path, tmp_path: Path) -> None:
    """Their configuration is not read, whatever is done; the log names them."""
    (hostile / "new").touch()
    for action in HERE:
        task = await run(service, action, directory=hostile, message="m")
        assert task.status == "succeeded", task.error
        if action in ("commit", "status"):
            assert "submodules are left as they are: sub" in messages(await read_all(service, task.id))
    assert git(hostile, "show", "--name-only", "--format=") == "new"
    assert not (tmp_path / "pwned").exists()


async def test_a_killed_pull_is_finished_without_entering_submodules(
    service: Service, hostile: Path, origin: Path, tmp_path: Path
) -> None:
    """They are left as they are."""
    before = git(hostile, "rev-parse", "HEAD~1")
    after = git(hostile, "rev-parse", "HEAD")
    git(hostile, "update-ref", "refs/heads/main", before)
    intent = own_file(service.settings.data_dir, hostile, "intent")
    intent.write_text(f'{{"before": "{before}", "after": "{after}"}}')
    intent.with_suffix(".gits").touch()
    (hostile / ".gitmodules").unlink()
    task = await run(service, "commit", directory=hostile, message="m")
    assert task.status == "succeeded", task.error
    assert (git(hostile, "rev-parse", "HEAD"), (hostile / ".gitmodules").exists()) == (after, True)
    assert not (tmp_path / "pwned").exists()


async def test_a_killed_pull_keeps_what_it_finds_without_entering_submodules(
    service: Service, hostile: Path, tmp_path: Path
) -> None:
    """Also if the content of a file decides whether it changed, which git asks the filter of the submodule for."""
    git(hostile, "commit", "--quiet", "--allow-empty", "-m", "4")
    before = git(hostile, "rev-parse", "HEAD~1")
    after = git(hostile, "rev-parse", "HEAD")
    git(hostile, "update-ref", "refs/heads/main", before)
    (hostile / "sub/file").write_text("9\n")
    (hostile / "file").write_text("mine\n")
    killed(service, hostile, before, after)
    task = await run(service, "push", directory=hostile)
    assert task.status == "succeeded", task.error
    [kept] = git(hostile, "for-each-ref", "--format=%(refname)", "refs/taskd/kept").splitlines()
    assert git(hostile, "show", f"{kept}:file") == "mine"
    assert not (tmp_path / "pwned").exists()


async def test_a_killed_pull_leaves_the_files_of_a_submodule_that_it_removes(service: Service, hostile: Path) -> None:
    """As a pull does; in the index there is no more of it."""
    before = git(hostile, "rev-parse", "HEAD")
    git(hostile, "rm", "--quiet", "--cached", "sub")
    git(hostile, "commit", "--quiet", "-m", "4")
    after = git(hostile, "rev-parse", "HEAD")
    git(hostile, "reset", "--quiet", before)
    killed(service, hostile, before, after)
    task = await run(service, "push", directory=hostile)
    assert task.status == "succeeded", task.error
    assert (hostile / "sub/file").read_text() == "changed\n"
    assert git(hostile, "ls-files", "--", "sub") == ""


def killed(service: Service, checkout: Path, before: str, after: str) -> None:
    """Leave what a killed pull leaves."""
    intent = own_file(service.settings.data_dir, checkout, "intent")
    intent.write_text(f'{{"before": "{before}", "after": "{after}"}}')
    intent.with_suffix(".gits").touch()


async def test_a_configuration_is_read_without_what_it_includes(
    service: Service, checkout: Path, tmp_path: Path
) -> None:
    """The file may be a pipe, for which git would wait."""
    os.mkfifo(tmp_path / "pipe")
    git(checkout, "config", "include.path", str(tmp_path / "pipe"))
    task = await run(service, "status", directory=checkout)
    assert "include.path (in " in (task.error or "")


async def test_hooks_that_are_not_run_are_named(service: Service, checkout: Path, canary: Path) -> None:
    """A commit that passes without them is no surprise."""
    (checkout / ".git/hooks/pre-commit").symlink_to(canary)
    (checkout / "new").touch()
    task = await run(service, "commit", directory=checkout, message="m")
    assert f"the hooks of {checkout} are not run: pre-commit" in messages(await read_all(service, task.id))
    assert not (canary.parent / "pwned").exists()


# Names and histories


async def test_a_tag_with_the_name_of_the_branch_changes_nothing(
    service: Service, checkout: Path, origin: Path, tmp_path: Path
) -> None:
    """Every action means the branch, on both sides."""
    git(tmp_path, "clone", "--quiet", str(origin), "second")
    for repository in (checkout, tmp_path / "second", origin):
        git(repository, "tag", "main", "main~1")
    (checkout / "new").touch()
    made = await result(service, "commit", directory=checkout, message="3", branch="main")
    assert (await result(service, "push", directory=checkout))["branch"] == "main"
    assert git(origin, "rev-parse", "refs/heads/main") == made["commit"]
    for branch in ({}, {"branch": "main"}):
        pulled = await result(service, "pull", directory=tmp_path / "second", **branch)
        assert (pulled["branch"], pulled["commit"]) == ("main", made["commit"])
    about = await result(service, "status", directory=checkout)
    assert (about["branch"], about["ahead"], about["behind"]) == ("main", 0, 0)
    listed = await result(service, "log", directory=checkout, branch="main", depth=1)
    assert listed["commits"][0]["commit"] == made["commit"]
    cloned = await result(service, "clone", repository=origin, directory=tmp_path / "third", branch="main")
    assert (cloned["branch"], cloned["commit"]) == ("main", made["commit"])


@pytest.mark.parametrize("depth", [None, 1, 2, 100])
async def test_a_shallow_clone_is_pulled_with_any_depth(
    service: Service, origin: Path, tmp_path: Path, depth: int | None
) -> None:
    """Again and again, and it stays shallow."""
    work, clone = tmp_path / "work", tmp_path / "clone"
    await result(service, "clone", repository=f"{origin}", directory=clone, depth=1)
    for number in range(3, 9):
        git(work, "commit", "--quiet", "--allow-empty", "-m", f"{number}")
        if number % 3 == 0:
            continue
        git(work, "push", "--quiet", str(origin), "main")
        params = {"depth": depth} if depth else {}
        pulled = await result(service, "pull", directory=clone, **params)
        assert pulled["commit"] == git(work, "rev-parse", "HEAD") == git(clone, "rev-parse", "HEAD")
    assert git(clone, "rev-parse", "--is-shallow-repository") == "true"


async def test_a_whole_clone_stays_whole_when_it_is_pulled_with_a_depth(
    service: Service, origin: Path, checkout: Path, tmp_path: Path
) -> None:
    """What is here is not cut."""
    git(tmp_path / "work", "commit", "--quiet", "--allow-empty", "-m", "3")
    git(tmp_path / "work", "push", "--quiet", str(origin), "main")
    await result(service, "pull", directory=checkout, depth=1)
    assert git(checkout, "rev-list", "--count", "HEAD") == "3"


async def test_a_shallow_clone_that_was_fetched_apart_is_joined(service: Service, origin: Path, tmp_path: Path) -> None:
    """As a pull of an older taskd, or `git fetch --depth=1`, leaves it."""
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{origin}", "clone")
    for number in range(3, 120):
        git(tmp_path / "work", "commit", "--quiet", "--allow-empty", "-m", f"{number}")
    git(tmp_path / "work", "push", "--quiet", str(origin), "main")
    git(tmp_path / "clone", "fetch", "--quiet", "--depth=1")
    git(tmp_path / "clone", "remote", "set-url", "origin", str(origin))
    pulled = await result(service, "pull", directory=tmp_path / "clone")
    assert pulled["commit"] == git(origin, "rev-parse", "main")


NAMES = ["\u00e4\u4e2d", 'a "quoted" name', "two\nlines", "tab\there", "back\\slash", " space ", "\udcff"]


async def test_names_of_files_are_what_they_are(service: Service, checkout: Path) -> None:
    """In the result as they are, in the log on one line, and once."""
    for name in NAMES:
        (checkout / name).write_text(name, errors="surrogateescape")
    task = await run(service, "status", directory=checkout)
    shown = [name.encode(errors="surrogateescape").decode(errors="backslashreplace") for name in NAMES]
    assert sorted(change["path"] for change in (task.result or {})["changes"]) == sorted(shown)
    told = [text for text in messages(await read_all(service, task.id), "git") if text.startswith("?? ")]
    assert sorted(told) == sorted(f"?? {name}".replace("\n", "\\n").replace("\t", "\\t") for name in shown)
    await result(service, "commit", directory=checkout, message="m")
    assert (await result(service, "status", directory=checkout))["clean"]


async def test_a_renamed_file_is_one_change(service: Service, checkout: Path) -> None:
    """Under its new name."""
    git(checkout, "mv", "file", "new name")
    changes = (await result(service, "status", directory=checkout))["changes"]
    assert changes == [{"status": "R.", "path": "new name"}]


async def test_a_commit_without_a_branch_is_possible(service: Service, checkout: Path) -> None:
    """A pull and a push need one, and the error asks for it."""
    git(checkout, "checkout", "--quiet", "--detach")
    (checkout / "new").touch()
    assert (await result(service, "commit", directory=checkout, message="m"))["branch"] is None
    assert (await result(service, "status", directory=checkout))["branch"] is None
    for action in ("pull", "push"):
        assert "give `branch`" in ((await run(service, action, directory=checkout)).error or "")


async def test_a_file_renamed_from_a_name_like_a_header_is_one_change(service: Service, checkout: Path) -> None:
    """The path before a rename is no header of the status, and the entry after it is not lost."""
    (checkout / "# old").write_text("text\n" * 50)
    git(checkout, "add", ".")
    git(checkout, "commit", "--quiet", "-m", "m")
    git(checkout, "mv", "# old", "new")
    (checkout / "other").touch()
    changes = (await result(service, "status", directory=checkout))["changes"]
    assert changes == [{"status": "R.", "path": "new"}, {"status": "??", "path": "other"}]


async def test_a_branch_is_pushed_under_its_whole_name(service: Service, origin: Path, checkout: Path) -> None:
    """A line separator of Unicode may be in it: the part before it is another branch."""
    git(checkout, "branch", "a", "main~1")
    git(checkout, "checkout", "--quiet", "-b", "a\u2028b")
    assert (await result(service, "push", directory=checkout))["branch"] == "a\u2028b"
    assert git(origin, "rev-parse", "refs/heads/a\u2028b") == git(checkout, "rev-parse", "main")
    assert not git(origin, "branch", "--list", "a")


async def test_any_character_may_be_in_an_author_and_a_subject(service: Service, checkout: Path) -> None:
    """Fields end with NUL, which neither can have."""
    git(checkout, "-c", "user.name=a\x1fb", "commit", "--quiet", "--allow-empty", "-m", "sub\x1fject")
    [commit] = (await result(service, "log", directory=checkout, depth=1))["commits"]
    assert (commit["author"], commit["subject"]) == ("a\x1fb", "sub\x1fject")
    assert commit["date"].startswith("20")


@pytest.mark.parametrize("credentials", ["", "user:secret@"])
async def test_a_remote_whose_name_is_a_url_is_looked_at(
    tmp_path: Path, origin: Path, checkout: Path, canary: Path, credentials: str
) -> None:
    """Git pushes to the URLs of that remote, and not to the one that is its name."""
    git(tmp_path, "clone", "--quiet", str(origin), "target")
    git(tmp_path / "target", "config", "receive.denyCurrentBranch", "updateInstead")
    git(tmp_path / "target", "config", "filter.x.smudge", str(canary))
    (checkout / ".gitattributes").write_text("* filter=x\n")
    git(checkout, "add", ".")
    git(checkout, "commit", "--quiet", "-m", "m")
    name = "https://127.0.0.1/x" if credentials else f"file://{origin}"
    git(checkout, "config", f"remote.{name}.url", name)
    git(checkout, "config", f"remote.{name}.pushurl", str(tmp_path / "target"))
    async with running_service(tmp_path, git_file_roots=[tmp_path]) as service:
        task = await run(service, "push", directory=checkout, repository=name.replace("//127", f"//{credentials}127"))
    assert "filter.x.smudge" in (task.error or "")
    assert not (tmp_path / "pwned").exists()


async def test_a_remote_may_have_a_slash_in_its_name(service: Service, checkout: Path) -> None:
    """It is no path if the repository has it."""
    git(checkout, "remote", "rename", "origin", "team/origin")
    assert not (await result(service, "pull", directory=checkout, repository="team/origin"))["updated"]
    assert (await result(service, "push", directory=checkout, repository="team/origin"))["remote"] == "team/origin"


async def test_a_repository_around_a_new_clone_is_not_read(service: Service, origin: Path, tmp_path: Path) -> None:
    """Git's ceiling is no help where a directory has a colon in its name."""
    (tmp_path / "a:b").mkdir()
    git(tmp_path / "a:b", "init", "--quiet")
    git(tmp_path / "a:b", "config", "core.bare", "maybe")
    await result(service, "clone", repository=origin, directory=tmp_path / "a:b" / "new")


async def test_every_lock_that_a_killed_git_leaves_is_removed(
    service: Service, origin: Path, checkout: Path, tmp_path: Path
) -> None:
    """With harmless settings a fetch and a commit write files that have locks of their own."""
    for key in ("fetch.writeCommitGraph", "fetch.prune", "rerere.enabled"):
        git(checkout, "config", key, "true")
    git(origin, "branch", "gone")
    git(checkout, "fetch", "--quiet")
    git(checkout, "pack-refs", "--all")
    git(origin, "branch", "-D", "gone")
    own_file(service.settings.data_dir, checkout, "intent").write_text("{}")
    graphs = ("objects/info/commit-graph.lock", "objects/info/commit-graphs/commit-graph-chain.lock")
    locks = [checkout / ".git" / name for name in ("MERGE_RR.lock", "packed-refs.new", *graphs)]
    for lock in locks:
        lock.parent.mkdir(exist_ok=True)
        lock.touch()
    await result(service, "pull", directory=checkout)
    (checkout / "new").touch()
    await result(service, "commit", directory=checkout, message="m")
    assert not [lock for lock in locks if lock.exists()]


@pytest.mark.parametrize("form", ["quoted", "nul", "return", "link", "nested"])
async def test_an_object_directory_outside_the_roots_is_refused_in_every_form(
    tmp_path: Path, origin: Path, form: str
) -> None:
    """Git unquotes a path, ends at a NUL, removes `..` before it follows a link, and goes on from there."""
    root = tmp_path / "root"
    (root / "deep/a/b/c/objects/info").mkdir(parents=True)
    (root / "link").symlink_to(root / "deep/a/b/c")
    git(root, "clone", "--quiet", str(origin), "checkout")
    objects = origin / "objects"
    (root / "deep/a/b/c/objects/info/alternates").write_text(f"{objects}\n")
    lines = {
        "quoted": f'"{objects}"\n',
        "nul": f"{objects}\0/../../root\n",
        "return": f"{root}/x\r#/../../origin.git/objects\n",
        "link": f"{root}/link/../../origin.git/objects\n",
        "nested": f"{root}/deep/a/b/c/objects\n",
    }
    (root / "checkout/.git/objects/info/alternates").write_text(lines[form], newline="")
    async with running_service(tmp_path, git_file_roots=[root]) as service:
        task = await run(service, "log", directory=root / "checkout")
    assert "which is not below one of git_file_roots" in (task.error or "")


def packet(content: bytes) -> bytes:
    """Return a packet of git's protocol."""
    return f"{len(content) + 4:04x}".encode() + content


@pytest.mark.parametrize(
    "words",
    [
        [b"[rejected]" * 6_500] * 14,
        [b"X: 1%% (%s/1)\n" % (b"9" * 5_000)],
        [b"L%d: 1%% (1/2)\n" % i for i in range(5_000)],
    ],
    ids=["long", "digits", "bars"],
)
async def test_no_words_of_a_remote_stop_the_service(service: Service, tmp_path: Path, words: list[bytes]) -> None:
    """A line without an end, numbers that are too long, and progress of thousands of things are text in the log."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4_096)
        commit = b"1" * 40
        writer.write(
            packet(commit + b" HEAD\0side-band-64k ofs-delta\n") + packet(commit + b" refs/heads/main\n") + b"0000"
        )
        await reader.readuntil(b"done")
        writer.write(b"0008NAK\n" + b"".join(packet(b"\x02" + text) for text in words) + packet(b"\x03bye\n"))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"git://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
        task = await asyncio.wait_for(run(service, "clone", repository=url, directory=tmp_path / "new"), 20)
    assert (task.error or "").startswith("git clone failed with exit code 128: early EOF")
    bars = [entry for entry in await read_all(service, task.id) if "progress" in (entry.metadata or {})]
    assert len(bars) < 100


async def test_an_output_that_is_too_long_is_an_error_that_says_so(
    service: Service, checkout: Path, tmp_path: Path
) -> None:
    """The limit of 64 MiB is not taken for a kill."""
    (tmp_path / "message").write_text("x" * 68_000_000)
    git(checkout, "commit", "--quiet", "--allow-empty", "--file", str(tmp_path / "message"))
    assert "git log printed more than 64 MiB" in ((await run(service, "log", directory=checkout)).error or "")


async def test_a_file_does_not_take_the_place_of_a_submodule_with_files(
    service: Service, origin: Path, checkout: Path
) -> None:
    """Git would remove them, those that nobody has committed too."""
    git(checkout, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(origin), "sub")
    git(checkout, "commit", "--quiet", "-m", "with")
    git(checkout, "rm", "--quiet", "--cached", "sub")
    blob = git(checkout, "rev-parse", "HEAD:file")
    git(checkout, "update-index", "--add", "--cacheinfo", f"100644,{blob},sub")
    git(checkout, "commit", "--quiet", "-m", "without")
    git(checkout, "push", "--quiet")
    git(checkout, "reset", "--quiet", "HEAD~1")
    (checkout / "sub/mine").touch()
    task = await run(service, "pull", directory=checkout)
    assert "in the place of the submodule sub" in (task.error or "")
    assert (checkout / "sub/mine").exists()
    shutil.rmtree(checkout / "sub")
    assert (await result(service, "pull", directory=checkout))["updated"]


async def test_a_killed_pull_is_finished_without_an_index(service: Service, origin: Path, checkout: Path) -> None:
    """No task is stopped by it again and again."""
    head = git(checkout, "rev-parse", "HEAD")
    own_file(service.settings.data_dir, checkout, "intent").write_text(json.dumps({"before": head, "after": head}))
    (checkout / ".git/index").unlink()
    (checkout / "file").write_text("not committed")
    await result(service, "pull", directory=checkout)
    [kept] = git(checkout, "for-each-ref", "--format=%(refname)", "refs/taskd/kept").split()
    assert git(checkout, "show", f"{kept}:file") == "not committed"


async def test_a_file_in_the_way_of_the_first_pull_is_kept(service: Service, origin: Path, tmp_path: Path) -> None:
    """The error names it and gives advice, as it does for a bare repository."""
    git(tmp_path, "init", "--quiet", "new")
    (tmp_path / "new/file").write_text("mine")
    task = await run(service, "pull", directory=tmp_path / "new", repository=origin, branch="main")
    assert "Commit or remove them first." in (task.error or "")
    assert (tmp_path / "new/file").read_text() == "mine"
    assert "It is a bare repository" in ((await run(service, "status", directory=origin)).error or "")


async def test_a_directory_that_cannot_be_opened_is_an_error_of_the_task(service: Service, tmp_path: Path) -> None:
    """A circle of links, and a name that is too long."""
    (tmp_path / "circle").symlink_to("circle")
    for name in ("circle", "x" * 300):
        error = (await run(service, "status", directory=tmp_path / name)).error or ""
        assert error.startswith(("The directory", "There is no directory"))


async def test_a_clone_may_have_a_name_as_long_as_any(service: Service, origin: Path, tmp_path: Path) -> None:
    """Its hidden name is no longer than a name may be, in bytes."""
    name = "\U0001f600" * 60
    await result(service, "clone", repository=origin, directory=tmp_path / name)
    assert not [path for path in os.listdir(tmp_path) if path.endswith(".cloning")]


async def test_credentials_follow_no_redirect(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git would send them to the other host, with the request after the first."""
    monkeypatch.setenv("GIT_SSL_NO_VERIFY", "1")
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        port = server.sockets[0].getsockname()[1]
        answer = f"HTTP/1.1 302 Found\r\nLocation: https://localhost:{port}/x.git/info/refs?service=git-upload-pack\r\n"
        writer.write(f"{answer}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(Path(__file__).parents[1] / "helpers" / "localhost.pem")
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        url = f"https://user:secret-word@127.0.0.1:{server.sockets[0].getsockname()[1]}/x.git"
        task = await run(service, "clone", repository=url, directory=tmp_path / "new")
    assert "Credentials follow no redirect" in (task.error or "")
    assert len(asked) == 1
