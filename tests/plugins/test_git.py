"""`git`: real repositories, real git, and everything that it must not be talked into."""

import asyncio
import json
import os
import re
import socket
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from taskd.entries import LogEntry
from taskd.errors import ParamsInvalid
from taskd.service import Service
from tests.conftest import messages, read_all, running_service
from tests.helpers.daemon import git_daemon
from tests.helpers.repositories import git, own_file, result, run

pytestmark = pytest.mark.usefixtures("git_configuration")


def progress_labels(entries: list[LogEntry]) -> set[str]:
    """Of what a log tells the progress."""
    return {metadata["progress"]["label"] for entry in entries if "progress" in (metadata := entry.metadata or {})}


async def test_a_clone_has_the_commit_that_git_has(service: Service, origin: Path, tmp_path: Path) -> None:
    """The result names directory, branch and commit; nothing else is left beside it."""
    directory = tmp_path / "new" / "clone"
    made = await result(service, "clone", repository=origin, directory=directory)
    head = git(origin, "rev-parse", "HEAD")
    assert made == {"directory": str(directory), "branch": "main", "commit": head}
    assert git(directory, "rev-parse", "HEAD") == head
    assert git(directory, "remote", "get-url", "origin") == str(origin)
    assert os.listdir(directory.parent) == ["clone"]


async def test_a_clone_may_be_shallow_and_of_a_branch(service: Service, origin: Path, tmp_path: Path) -> None:
    """`depth` counts for a path on this machine too."""
    git(origin, "branch", "other", "main~1")
    made = await result(service, "clone", repository=origin, directory=tmp_path / "clone", branch="other", depth=1)
    assert made["branch"] == "other"
    assert git(tmp_path / "clone", "rev-list", "--count", "HEAD") == "1"


async def test_the_progress_of_git_is_progress(service: Service, origin: Path) -> None:
    """Its progress lines are no entries of their own; without a directory the task's own is used."""
    task = await run(service, "clone", repository=origin)
    entries = await read_all(service, task.id)
    assert {"Receiving objects", "remote: Counting objects"} <= progress_labels(entries)
    assert not [text for text in messages(entries) if "%" in text]
    assert (service.settings.data_dir / "tasks" / task.id / "origin" / "file").read_text() == "2\n"


async def test_a_failed_clone_leaves_nothing_and_says_what_to_do(service: Service, tmp_path: Path) -> None:
    """Git's reason, and advice."""
    task = await run(service, "clone", repository=tmp_path / "nowhere", directory=tmp_path / "in" / "clone")
    assert f"repository '{tmp_path}/nowhere' does not exist. Check the repository." in (task.error or "")
    assert os.listdir(tmp_path / "in") == []


async def test_a_clone_does_not_write_over_what_is_there(service: Service, origin: Path, checkout: Path) -> None:
    """Only a new or an empty directory is filled."""
    task = await run(service, "clone", repository=origin, directory=checkout)
    assert "is not empty. Give a new or an empty one, or pull instead." in (task.error or "")


async def test_commit_push_and_pull_move_one_commit(
    service: Service, origin: Path, checkout: Path, tmp_path: Path
) -> None:
    """Every result names the commit, and both sides have it then."""
    git(tmp_path, "clone", "--quiet", str(origin), "second")
    (checkout / "new").write_text("new")
    made = await result(service, "commit", directory=checkout, message="add: new\n\nbecause", branch="main")
    assert made == {"branch": "main", "commit": git(checkout, "rev-parse", "HEAD"), "changed": True}
    assert git(checkout, "log", "-1", "--format=%an %s") == "Ada add: new"
    pushed = await result(service, "push", directory=checkout)
    assert pushed == {"remote": "origin", "branch": "main", "commit": made["commit"]}
    assert git(origin, "rev-parse", "main") == made["commit"]
    pulled = await result(service, "pull", directory=tmp_path / "second")
    assert (pulled["updated"], pulled["commit"]) == (True, made["commit"])
    assert (tmp_path / "second" / "new").read_text() == "new"


async def test_a_commit_without_a_configured_name_is_taskds(
    service: Service, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the log says so."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    (checkout / "new").touch()
    task = await run(service, "commit", directory=checkout, message="one")
    assert git(checkout, "log", "-1", "--format=%an <%ae> %cn") == "taskd <taskd@localhost> taskd"
    assert any("committing as taskd" in text for text in messages(await read_all(service, task.id)))


async def test_nothing_to_commit_is_told_and_no_failure(service: Service, checkout: Path) -> None:
    """The commit that is there is the result."""
    made = await result(service, "commit", directory=checkout, message="nothing")
    assert made == {"branch": "main", "commit": git(checkout, "rev-parse", "HEAD"), "changed": False}


async def test_a_commit_on_another_branch_than_asked_for_is_refused(service: Service, checkout: Path) -> None:
    """Nothing is checked out behind one's back."""
    task = await run(service, "commit", directory=checkout, message="x", branch="release")
    assert "has main checked out, not release: nothing was committed" in (task.error or "")


async def test_conflicts_are_not_committed(service: Service, checkout: Path) -> None:
    """Their marks would be committed as if they were text."""
    git(checkout, "checkout", "--quiet", "-b", "other", "HEAD~1")
    (checkout / "file").write_text("other\n")
    git(checkout, "commit", "--quiet", "-am", "other")
    subprocess.run(["git", "merge", "--quiet", "main"], cwd=checkout, stdout=subprocess.DEVNULL, check=False)
    task = await run(service, "commit", directory=checkout, message="merge")
    assert "has conflicts that are not resolved, in file: nothing was committed" in (task.error or "")
    assert git(checkout, "log", "-1", "--format=%s") == "other"


@pytest.mark.parametrize(("action", "advice"), [("push", "pull first"), ("pull", "merge or rebase by hand")])
async def test_two_sides_with_new_commits_are_explained(
    service: Service, origin: Path, checkout: Path, tmp_path: Path, action: str, advice: str
) -> None:
    """Neither is a commit of the other overwritten, nor a merge made."""
    work = tmp_path / "work"
    for repository in (work, checkout):
        (repository / repository.name).touch()
        git(repository, "add", ".")
        git(repository, "commit", "--quiet", "-m", repository.name)
    git(work, "push", "--quiet", str(origin), "main")
    before = git(origin, "rev-parse", "main")
    task = await run(service, action, directory=checkout)
    assert advice in (task.error or "")
    assert git(origin, "rev-parse", "main") == before


async def test_files_that_both_sides_have_changed_are_named(
    service: Service, origin: Path, checkout: Path, tmp_path: Path
) -> None:
    """A conflict is seen before it is made; nothing of the working tree is touched."""
    work = tmp_path / "work"
    for repository in (work, checkout):
        (repository / "file").write_text(f"{repository.name}\n")
        git(repository, "commit", "--quiet", "-am", repository.name)
    git(work, "push", "--quiet", str(origin), "main")
    task = await run(service, "pull", directory=checkout)
    assert "1 here and 1 at the remote (1 file is changed on both sides" in (task.error or "")
    assert "changed on both sides: file" in messages(await read_all(service, task.id))
    assert (git(checkout, "status", "--porcelain"), (checkout / "file").read_text()) == ("", "checkout\n")


async def test_a_local_change_in_the_way_of_a_pull_is_kept_and_told(
    service: Service, origin: Path, checkout: Path, tmp_path: Path
) -> None:
    """Whether git knows the file or not; after it, the same pull works when the change is gone."""
    work = tmp_path / "work"
    for name in ("file", "new"):
        (work / name).write_text("theirs\n")
    git(work, "add", ".")
    git(work, "commit", "--quiet", "-m", "3")
    git(work, "push", "--quiet", str(origin), "main")
    for name in ("file", "new"):
        (checkout / name).write_text("ours\n")
        task = await run(service, "pull", directory=checkout)
        assert "would be overwritten" in (task.error or "")
        assert "Commit or remove them first" in (task.error or "")
        assert (checkout / name).read_text() == "ours\n"
        git(checkout, "clean", "--quiet", "-f") if name == "new" else git(checkout, "checkout", "--quiet", name)
    assert (await result(service, "pull", directory=checkout))["updated"]


async def test_a_branch_that_follows_none_is_told_what_to_give(service: Service, checkout: Path) -> None:
    """Nothing is guessed."""
    git(checkout, "checkout", "--quiet", "-b", "mine")
    task = await run(service, "pull", directory=checkout)
    assert "does not say which branch of origin its own follows" in (task.error or "")
    assert not (await result(service, "pull", directory=checkout, branch="main"))["updated"]


async def test_two_commits_at_once_wait_for_each_other(service: Service, checkout: Path) -> None:
    """Neither finds the other's lock in its way."""
    for number in range(4):
        (checkout / f"new {number}").touch()
    tasks = await asyncio.gather(*(run(service, "commit", directory=checkout, message="all") for _ in range(4)))
    assert [task.status for task in tasks] == ["succeeded"] * 4
    assert sorted(bool((task.result or {})["changed"]) for task in tasks) == [False, False, False, True]


# A daemon, as a remote that is elsewhere


async def test_a_daemon_is_cloned_pulled_from_and_pushed_to(service: Service, origin: Path, tmp_path: Path) -> None:
    """Over the git protocol as over a path; a clone of it may be shallow."""
    with git_daemon(tmp_path, "--enable=receive-pack") as url:
        for name in ("one", "two"):
            await result(service, "clone", repository=f"{url}/origin.git", directory=tmp_path / name, depth=1)
        (tmp_path / "one" / "new").write_text("new")
        made = await result(service, "commit", directory=tmp_path / "one", message="new")
        await result(service, "push", directory=tmp_path / "one")
        assert git(origin, "rev-parse", "main") == made["commit"]
        pulled = await result(service, "pull", directory=tmp_path / "two")
    assert (pulled["commit"], (tmp_path / "two" / "new").read_text()) == (made["commit"], "new")


async def test_a_push_that_the_remote_refuses_is_told_in_its_words(
    service: Service, origin: Path, checkout: Path, tmp_path: Path
) -> None:
    """By a rule of its own, or because it takes none at all."""
    hook = origin / "hooks/pre-receive"
    hook.write_text("#!/bin/sh\necho 'no pushes on Fridays' >&2\nexit 1\n")
    hook.chmod(0o755)
    git(checkout, "commit", "--quiet", "--allow-empty", "-m", "3")
    with git_daemon(tmp_path, "--enable=receive-pack") as url:
        task = await run(service, "push", directory=checkout, repository=f"{url}/origin.git")
    assert "pre-receive hook declined), and the remote says: no pushes on Fridays" in (task.error or "")
    assert "The remote's own rules refused it" in (task.error or "")
    with git_daemon(tmp_path) as url:
        task = await run(service, "push", directory=checkout, repository=f"{url}/origin.git")
    assert "access denied or repository not exported" in (task.error or "")


async def test_a_daemon_that_is_not_there_is_told(service: Service, checkout: Path, tmp_path: Path) -> None:
    """With what to check."""
    with git_daemon(tmp_path) as url:
        task = await run(service, "clone", repository=f"{url}/nowhere.git")
        assert "access denied or repository not exported" in (task.error or "")
    # Bound and not listening: no other test has a server there.
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", urlsplit(url).port or 0))
        task = await run(service, "pull", directory=checkout, repository=f"{url}/origin.git")
    assert "Check the address and the network" in (task.error or "")


async def test_a_clone_that_was_killed_leaves_nothing_for_ever(service: Service, origin: Path, tmp_path: Path) -> None:
    """The next clone into that directory removes what nobody works on any more, and nothing else."""
    for name in (".new.0123456789ab.cloning", ".other.0123456789ab.cloning", ".new.mine.cloning"):
        (tmp_path / "in" / name / "objects").mkdir(parents=True)
    await result(service, "clone", repository=origin, directory=tmp_path / "in" / "new")
    assert sorted(os.listdir(tmp_path / "in")) == [".new.mine.cloning", ".other.0123456789ab.cloning", "new"]


@pytest.fixture
def killed(origin: Path, checkout: Path, tmp_path: Path) -> str:
    """
    A pull into `checkout` that was killed while it wrote its files: one is new, one is cut short,
    one is still there that should be gone, and git's lock is left; the commit that was pulled.
    """
    work = tmp_path / "work"
    for name in ("second", "gone", "mine"):
        (work / name).write_text("old\n")
    git(work, "add", ".")
    git(work, "commit", "--quiet", "-m", "before")
    git(work, "push", "--quiet", str(origin), "main")
    git(checkout, "pull", "--quiet")
    before = git(checkout, "rev-parse", "HEAD")
    for name in ("file", "second", "-new", ":(odd) n\u00e4me"):
        (work / name).write_text("new\n")
    (work / "gone").unlink()
    git(work, "add", ".")
    git(work, "commit", "--quiet", "-m", "after")
    after = git(work, "rev-parse", "HEAD")
    git(work, "push", "--quiet", str(origin), "main")
    git(checkout, "fetch", "--quiet")
    intent = own_file(tmp_path / "data", checkout, "intent")
    intent.write_text(json.dumps({"before": before, "after": after}))
    intent.with_suffix(".gits").touch()
    (checkout / ".git/index.lock").write_text("half")
    (checkout / "file").write_text("new\n")
    (checkout / "-new").write_text("n")
    (checkout / "second").unlink()
    return after


@pytest.mark.parametrize("action", ["pull", "commit", "push"])
async def test_a_pull_that_was_killed_is_finished_by_whoever_comes_next(
    service: Service, checkout: Path, killed: str, action: str
) -> None:
    """Its files are written to the end, what was found is kept, and local changes elsewhere stay."""
    (checkout / "mine").write_text("changed here\n")
    params = {"message": "mine"} if action == "commit" else {}
    task = await run(service, action, directory=checkout, **params)
    assert task.status == "succeeded", task.error
    assert git(checkout, "rev-parse", "HEAD~1" if action == "commit" else "HEAD") == killed
    assert git(checkout, "diff", "--name-only", killed) == "mine"
    assert git(checkout, "ls-files", "--others") == ""
    told = messages(await read_all(service, task.id))
    [kept] = [text.split()[-1] for text in told if text.startswith("finishing a pull that was killed")]
    assert git(checkout, "show", f"{kept}:mine") == "changed here"
    assert [text for text in told if text.endswith("index.lock, which a git that was killed had left")]
    assert os.listdir(service.settings.data_dir / "git") == []


async def test_a_lock_of_somebody_elses_git_is_left_alone(service: Service, checkout: Path) -> None:
    """Nobody of ours was killed here: who removes it has to know."""
    (checkout / ".git/index.lock").touch()
    (checkout / "new").touch()
    task = await run(service, "commit", directory=checkout, message="x")
    assert "Another git works here" in (task.error or "")
    assert (checkout / ".git/index.lock").exists()


async def test_the_first_commit_can_be_pulled(service: Service, origin: Path, tmp_path: Path) -> None:
    """Into the clone of a repository that had none."""
    git(tmp_path, "init", "--quiet", "--bare", "empty.git")
    made = await result(service, "clone", repository=tmp_path / "empty.git", directory=tmp_path / "clone")
    assert made == {"directory": str(tmp_path / "clone"), "branch": "main", "commit": None}
    git(origin, "push", "--quiet", str(tmp_path / "empty.git"), "main")
    pulled = await result(service, "pull", directory=tmp_path / "clone")
    assert (pulled["before"], pulled["commit"]) == (None, git(origin, "rev-parse", "main"))
    assert (tmp_path / "clone" / "file").read_text() == "2\n"


async def test_a_pull_that_is_cancelled_while_it_writes_files_writes_them_to_the_end(
    service: Service, checkout: Path, killed: str
) -> None:
    """Between two commits is no place to stop."""
    git(checkout, "clean", "--quiet", "-fd")
    (checkout / ".git/index.lock").unlink()
    git(checkout, "reset", "--quiet", "--hard", f"{killed}~1")
    intent = own_file(service.settings.data_dir, checkout, "intent")
    intent.unlink()
    task = await service.manager.submit("git", {"action": "pull", "directory": str(checkout)})
    while not (intent.exists() and "after" in intent.read_text()):
        await asyncio.sleep(0.001)
    await service.manager.cancel(task.id)
    assert (await service.manager.wait(task.id)).status == "cancelled"
    assert (git(checkout, "rev-parse", "HEAD"), git(checkout, "status", "--porcelain")) == (killed, "")
    assert not intent.exists()


async def test_the_git_that_writes_files_says_nothing_while_it_does(
    service: Service, checkout: Path, killed: str
) -> None:
    """Progress (git shows it after two seconds) that a killed service does not read would end it in the middle."""
    (checkout / ".git/info/attributes").write_text("* filter=slow\n")
    git(checkout, "config", "--global", "filter.slow.smudge", "sleep 0.8; cat")
    git(checkout, "clean", "--quiet", "-fd")
    (checkout / ".git/index.lock").unlink()
    own_file(service.settings.data_dir, checkout, "intent").unlink()
    git(checkout, "-c", "filter.slow.smudge=cat", "reset", "--quiet", "--hard", f"{killed}~1")
    task = await run(service, "pull", directory=checkout)
    assert (task.result or {})["updated"]
    assert "Updating files" not in progress_labels(await read_all(service, task.id))


async def test_status_tells_branch_and_changes(service: Service, checkout: Path) -> None:
    """What `git status` knows, as data."""
    (checkout / "file").write_text("changed\n")
    (checkout / "new file").touch()
    about = await result(service, "status", directory=checkout)
    assert about["changes"] == [{"status": ".M", "path": "file"}, {"status": "??", "path": "new file"}]
    assert (about["branch"], about["upstream"], about["clean"]) == ("main", "origin/main", False)
    assert about["commit"] == git(checkout, "rev-parse", "HEAD")


async def test_log_lists_the_newest_commits(service: Service, origin: Path) -> None:
    """Also of a bare repository; `depth` says how many, `branch` of which."""
    listed = await result(service, "log", repository=origin, depth=1)
    [newest] = listed["commits"]
    assert newest["commit"] == git(origin, "rev-parse", "HEAD")
    assert (newest["subject"], newest["author"]) == ("commit 2", "Ada")
    listed = await result(service, "log", directory=origin, branch="main")
    assert [commit["subject"] for commit in listed["commits"]] == ["commit 2", "commit 1"]


async def test_a_repository_around_the_directory_is_not_taken_for_it(service: Service, checkout: Path) -> None:
    """A commit must not land in whatever repository lies above."""
    (checkout / "sub").mkdir()
    task = await run(service, "commit", directory=checkout / "sub", message="x")
    assert "not a git repository" in (task.error or "")


async def test_hooks_do_not_run(service: Service, checkout: Path, tmp_path: Path) -> None:
    """A repository's own programs are not ours."""
    hook = checkout / ".git/hooks/pre-commit"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/pwned\nexit 1\n")
    hook.chmod(0o755)
    (checkout / "new").touch()
    await result(service, "commit", directory=checkout, message="x")
    assert not (tmp_path / "pwned").exists()


PARAMETERS = ("repository", "directory", "branch", "message")
ACTIONS = ("clone", "pull", "commit", "push", "status", "log")


@pytest.mark.parametrize("parameter", PARAMETERS)
@pytest.mark.parametrize("value", ["--upload-pack=touch pwned", "-oProxyCommand=touch pwned", "-u"])
async def test_nothing_that_looks_like_an_option_is_accepted(service: Service, parameter: str, value: str) -> None:
    """In no parameter of any action, before there is a task, and with the reason."""
    for action in ACTIONS:
        params = {"action": action, "repository": "/r", "directory": "/d", parameter: value}
        with pytest.raises(ParamsInvalid, match="begins with '-'") as refused:
            await service.manager.submit("git", params)
        assert [fault["path"] for fault in refused.value.faults] == [f"params.{parameter}"]


@pytest.mark.parametrize("action", ACTIONS)
async def test_a_url_that_runs_or_reads_is_refused_in_every_parameter(
    service: Service, checkout: Path, tmp_path: Path, action: str
) -> None:
    """By the params; only a file URL where a repository may stand needs the task, which knows the roots."""
    params = {"action": action, "directory": str(checkout), "message": "m"}
    for parameter in ("repository", "directory", "branch"):
        for value in ("ext::sh -c touch% pwned", "ext::sh", "file:///etc"):
            if (parameter, value) != ("repository", "file:///etc"):
                with pytest.raises(ParamsInvalid) as refused:
                    await service.manager.submit("git", {**params, parameter: value})
                assert [fault["path"] for fault in refused.value.faults] == [f"params.{parameter}"]
    (checkout / "new").touch()
    task = await run(service, **params, repository="file:///etc")
    assert "file:///etc is refused: it is not below one of git_file_roots (none)" in (task.error or "")
    assert not list(tmp_path.rglob("pwned*"))


async def test_a_pull_without_the_signature_that_is_asked_for_changes_nothing(
    service: Service, origin: Path, checkout: Path, tmp_path: Path
) -> None:
    """Nor does what a killed task would be given: the recovery."""
    work = tmp_path / "work"
    git(work, "commit", "--quiet", "--allow-empty", "-m", "3")
    git(work, "push", "--quiet", str(origin), "main")
    before = git(checkout, "rev-parse", "HEAD")
    git(checkout, "config", "merge.verifySignatures", "true")
    task = await run(service, "pull", directory=checkout)
    assert "has no good signature, and merge.verifySignatures asks for one" in (task.error or "")
    assert git(checkout, "rev-parse", "HEAD") == before


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (" ext::sh -c touch% pwned", "begins or ends with a space"),
        ("\u00a0--upload-pack=touch pwned", "begins or ends with a space"),
        ("\next::sh -c touch% pwned", "control characters"),
        ("ssh://[-oProxyCommand=touch]/r", "begins with '-'|IPv6"),
        ("[-oProxyCommand=touch]:r", "begins with '-'"),
        ("ext::sh -c touch% pwned", "'ext::' would run a program"),
        ("fd::17", "'fd::' would run a program"),
        ("http://example.org/r", "protocol http is not spoken"),
        ("ftp://example.org/r", "protocol ftp is not spoken"),
        ("ssh://-oProxyCommand=touch/r", "begins with '-'"),
        ("ssh://%2doProxyCommand=touch/r", "begins with '-'"),
        ("ssh://me@-oProxyCommand=touch/r", "begins with '-'"),
        ("me@-oProxyCommand=touch:r", "begins with '-'"),
        ("example.org:-r", "begins with '-'"),
        ("file://example.org/r", "names a file of this machine"),
        ("https://example.org/\nr", "control characters"),
        ("git://example.org/%0ar", "control characters"),
    ],
)
async def test_urls_that_could_do_more_than_fetch_are_refused(service: Service, url: str, why: str) -> None:
    """With the reason, before there is a task."""
    with pytest.raises(ParamsInvalid) as refused:
        await service.manager.submit("git", {"action": "clone", "repository": url})
    assert re.search(why, str(refused.value))


async def test_a_remote_configured_in_the_repository_is_looked_at_too(
    service: Service, checkout: Path, tmp_path: Path
) -> None:
    """Its URL is no better than one that is given."""
    for url, why in {f"ext::touch% {tmp_path}/pwned": "would run a program", "file:///etc": "not below"}.items():
        git(checkout, "remote", "set-url", "origin", url)
        for action in ("pull", "push"):
            assert why in ((await run(service, action, directory=checkout)).error or "")
    assert not (tmp_path / "pwned").exists()


async def test_file_urls_are_confined_to_the_roots(tmp_path: Path, origin: Path) -> None:
    """Below a root they work; outside, and by a link or '..' that leads out, they are refused."""
    (tmp_path / "roots").mkdir()
    origin.rename(tmp_path / "roots" / "in.git")
    (tmp_path / "roots" / "out.git").symlink_to(tmp_path / "work")
    async with running_service(tmp_path, git_file_roots=[tmp_path / "roots"]) as service:
        await result(service, "clone", repository=f"file://{tmp_path}/roots/in.git")
        for path in ("work", "roots/../work", "roots/%2e%2e/work", "roots/out.git"):
            task = await run(service, "clone", repository=f"file://{tmp_path}/{path}")
            assert "not below one of git_file_roots" in (task.error or "")


async def test_file_urls_are_refused_where_no_root_is_set(service: Service, origin: Path) -> None:
    """The default; a plain path is allowed."""
    task = await run(service, "clone", repository=f"file://{origin}")
    assert "not below one of git_file_roots (none)" in (task.error or "")


async def test_credentials_are_in_no_entry_and_no_error(service: Service) -> None:
    """Nor does git keep them: they travel in the environment alone."""
    url = "https://lovelace:s3cret-p%40ss@127.0.0.1:1/r.git"
    task = await run(service, "clone", repository=url)
    said = [entry.encoded.decode() for entry in await read_all(service, task.id)] + [task.error or ""]
    assert task.status == "failed"
    assert "127.0.0.1:1" in "".join(said)
    assert not [text for text in said if "s3cret" in text or "lovelace" in text]


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"action": "clone"}, "params.repository: action clone needs it"),
        ({"action": "commit", "directory": "/"}, "params.message: action commit needs it"),
        ({"action": "status"}, "params.directory: action status needs it, the path of a repository"),
        ({"action": "pull", "repository": "https://example.org/r"}, "params.directory: action pull needs it"),
        ({"action": "push", "repository": "git@example.org:r"}, "params.directory: action push needs it"),
    ],
)
async def test_what_an_action_needs_is_known_before_there_is_a_task(
    service: Service, params: dict[str, Any], told: str
) -> None:
    """The fault names the parameter that is missing."""
    with pytest.raises(ParamsInvalid) as refused:
        await run(service, **params)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"action": "status", "directory": "/nowhere"}, "There is no directory /nowhere"),
        ({"action": "status", "directory": "/"}, "/ is not a git repository. Give the directory"),
    ],
)
async def test_a_directory_that_is_no_repository_is_told(service: Service, params: dict[str, Any], told: str) -> None:
    """The error says what to give."""
    task = await run(service, **params)
    assert told in (task.error or "")
