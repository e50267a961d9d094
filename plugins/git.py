"""
Git: clone, pull, commit, push, status and log, with the `git` of this machine.

Git is given a list of words, never a line for a shell, and it is not trusted with more than it
needs: no parameter may look like an option, only https, ssh, git and (below `git_file_roots`)
file are spoken, hooks, submodules, prompts and the system's configuration are off, and what a
remote says is text in the log and nothing else. Credentials of an http(s) URL travel in the
environment, so that neither the log, the list of processes nor `.git/config` has them.

One thing is trusted: content filters (`filter.*.clean` and the like) that a repository's own
configuration names are run by git, for without them the files would not be what they should. A
clone brings no configuration with it; work only in directories whose configuration you trust.

A clone is made under a hidden name beside its directory and renamed when it is complete. A pull
only ever goes forward: where both sides have new commits, a person has to decide.

Results name commits by their full hash: `git` confirms them.
"""

import asyncio
import base64
import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Annotated, Literal, Self
from urllib.parse import quote, unquote, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from taskd import Plugin, TaskContext, TaskLogger

PROTOCOLS = ("https", "ssh", "git", "file")
IDENTITY = ("taskd", "taskd@localhost")
COMMITS = 20
CHANGES_MAX = 1_000
LAST_WORDS = 20

# What a repository or a user may have configured to run programs, or to reach further.
SAFE = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.pager": "cat",
    "core.sshCommand": "ssh",
    "commit.gpgSign": "false",
    "core.quotePath": "false",
    "log.showSignature": "false",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
    "push.recurseSubmodules": "no",
    "protocol.ext.allow": "never",
    # A clean-up that goes on behind our back would outlive the task.
    "gc.auto": "0",
    "maintenance.auto": "false",
    "advice.detachedHead": "false",
}

# Of git's own variables only these are the user's to decide; GIT_DIR and its like would mislead.
KEPT_VARIABLES = re.compile(r"(?!GIT_|SSH_ASKPASS|DISPLAY$|TASKD_TOKEN$)|GIT_(AUTHOR|COMMITTER|SSL|SSH|CONFIG_GLOBAL)")

_PROGRESS = re.compile(r"(?P<label>(?:remote: )?[A-Z][\w ]*): +\d+% \((?P<current>\d+)/(?P<total>\d+)\)(?P<rest>.*)")
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9+.-]*::")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_BAD_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/$|\.$|\.lock(/|$)|(^|/)\.")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

# What git says, and what to do about it.
ADVICE = (
    (r"\[rejected\].*(fetch first|non-fast-forward)", "The remote has commits that are not here: pull first."),
    (r"\[remote rejected\]", "The remote's own rules refused it; its words are in the log."),
    (r"Not possible to fast-forward|divergent branches", "Both sides have new commits: merge or rebase by hand."),
    (r"local changes.* would be overwritten|untracked .* would be overwritten", "Commit or remove them first."),
    (r"could not read Username|Authentication failed|terminal prompts disabled", "Give the right credentials."),
    (
        r"Permission denied \(publickey|Host key verification failed",
        "Set up the ssh key and known_hosts of taskd's user.",
    ),
    (r"does not appear to be a git repository|[Rr]epository .*not found|does not exist", "Check the repository."),
    (r"Remote branch .* not found|couldn't find remote ref|src refspec .* does not match", "Check the branch."),
    (r"dubious ownership", "Its files belong to another user: change the owner, or run taskd as that user."),
    (r"index\.lock", "Another git works here; if none does, remove the lock file that git names."),
    (r"not a git repository", "Give the directory of a repository."),
    (
        r"Could not resolve|[Ff]ailed to connect|unable to connect|Connection (refused|timed out)",
        "Check the address and the network.",
    ),
)


class Failed(Exception):
    """What was asked cannot be done; the text says why and what to do."""


def _no_option(value: str) -> str:
    if value.startswith("-"):
        raise ValueError("it begins with '-', which git could take for an option: that is refused")
    if "\0" in value:
        raise ValueError("it has a NUL character in it: that is refused")
    return value


def _plain(value: str) -> str:
    if _CONTROL.search(value):
        raise ValueError("it has control characters in it: that is refused")
    return _no_option(value)


def _path(value: str) -> str:
    if _SCHEME.match(value) or _HELPER.match(value):
        raise ValueError("expected the path of a directory, not a URL")
    return value


def _ref(value: str) -> str:
    if _BAD_REF.search(value):
        raise ValueError("this cannot be the name of a branch")
    return value


def _repository(value: str) -> str:
    """A URL whose protocol may be spoken, `host:path` for ssh, or a path on this machine."""
    if helper := _HELPER.match(value):
        raise ValueError(f"'{helper[0]}' would run a program of that name: use https, ssh, git or a path")
    if scheme := _SCHEME.match(value):
        _check_url(value, scheme[1].lower())
    elif is_ssh(value):
        host, _, path = value.partition(":")
        _check_host(host, path)
    return value


def _check_url(url: str, scheme: str) -> None:
    if scheme not in PROTOCOLS:
        raise ValueError(f"the protocol {scheme} is not spoken: use {', '.join(PROTOCOLS)} or a path")
    parts = urlsplit(url)
    _check_host(unquote(parts.netloc), unquote(parts.path).lstrip("/"))
    if scheme == "file" and parts.netloc not in ("", "localhost"):
        raise ValueError("file:// names a file of this machine: expected file:///absolute/path")


def _check_host(host: str, path: str) -> None:
    if any(part.startswith("-") for part in (host, host.rpartition("@")[2], path)):
        raise ValueError("its user, host or path begins with '-', which ssh could take for an option: that is refused")
    if _CONTROL.search(host + path):
        raise ValueError("it has control characters in it: that is refused")


def is_ssh(repository: str) -> bool:
    """True for `host:path`, as git decides it: a colon with no slash before."""
    return ":" in repository.partition("/")[0] and not _SCHEME.match(repository)


Text = Annotated[str, Field(min_length=1, max_length=65_536), AfterValidator(_no_option)]
Word = Annotated[str, Field(min_length=1, max_length=4_096), AfterValidator(_plain)]


class GitParams(BaseModel):
    """What git should do, and where."""

    model_config = ConfigDict(extra="forbid")

    action: Literal["clone", "pull", "commit", "push", "status", "log"] = Field(description="What to do.")
    repository: Annotated[Word, AfterValidator(_repository)] | None = Field(
        None,
        description="Clone: what to clone, a URL (https, ssh, git, file), host:path or a path. Pull, push: the "
        "remote, by name or URL, if not the branch's own. Without `directory`: the repository to work in.",
    )
    directory: Annotated[Word, AfterValidator(_path)] | None = Field(
        None,
        description="The repository to work in. Clone: the new or empty directory for it; by default below the "
        "task's own directory.",
    )
    branch: Annotated[Word, AfterValidator(_ref)] | None = Field(
        None, description="The branch to clone, pull, push or list; commit: the branch that must be checked out."
    )
    message: Text | None = Field(None, description="Commit: the message.")
    depth: int | None = Field(
        None, ge=1, le=2_147_483_647, description="Clone, pull: how many commits to fetch. Log: how many to list (20)."
    )


class Git(Plugin):
    """Clones, pulls, commits, pushes and lists, with the git of this machine."""

    name = "git"
    title = "Git"
    Params = GitParams

    async def execute(self, params: GitParams, context: TaskContext) -> object:
        runner = Runner(context)
        return await ACTIONS[params.action](runner, params)


class Runner:
    """Runs git: its words become entries, its progress progress, its failures reasons."""

    def __init__(self, context: TaskContext) -> None:
        self.log = context.logger
        self.context = context
        self.env = _environment()

    async def run(self, *words: str, cwd: Path | None = None) -> None:
        """Run a command whose output is for the log. Raises `Failed`."""
        last_words: list[str] = []
        with Bars(self.log) as bars:

            def on_line(stream: str, line: str) -> bool:
                if bars.take(line):
                    return True
                last_words.append(line)
                del last_words[:-LAST_WORDS]
                return False

            code = await self._process(words, cwd, on_line)
        if code:
            raise Failed(_why(words[0], code, last_words))

    async def read(self, *words: str, cwd: Path, check: bool = True) -> list[str]:
        """The lines that a command prints, for us and not for the log; none where it fails and need not work."""
        lines: list[str] = []
        said: list[str] = []

        def on_line(stream: str, line: str) -> bool:
            (lines if stream == "stdout" else said).append(line)
            return True

        code = await self._process(words, cwd, on_line)
        if code and check:
            raise Failed(_why(words[0], code, said))
        return [] if code else lines

    async def works(self, *words: str, cwd: Path) -> bool:
        """Whether a command that asks something says yes."""
        return await self._process(words, cwd, lambda stream, line: True) == 0

    async def _process(self, words: tuple[str, ...], cwd: Path | None, on_line: Callable[[str, str], bool]) -> int:
        safe = [word for key, value in SAFE.items() for word in ("-c", f"{key}={value}")]
        result = await self.context.run_process(
            ["git", *safe, *words], cwd=cwd, env=self.env, check=False, on_line=on_line
        )
        return result.returncode

    def remote(self, repository: str) -> str:
        """
        The repository as git is given it: a path made absolute, a file URL checked against
        `git_file_roots`, credentials taken out of an http(s) URL.
        """
        if is_ssh(repository):
            return repository
        parts = urlsplit(repository)
        if parts.scheme == "file":
            return self._file_url(Path(unquote(parts.path)))
        if parts.scheme == "https" and "@" in parts.netloc:
            return self._without_credentials(repository)
        return repository if _SCHEME.match(repository) else os.path.abspath(repository)

    def _file_url(self, path: Path) -> str:
        real = path.resolve()
        roots = [root.resolve() for root in self.context.settings.git_file_roots]
        if not any(real.is_relative_to(root) for root in roots):
            told = ", ".join(map(str, roots)) or "none"
            raise Failed(
                f"file://{path} is refused: it is not below one of git_file_roots ({told}). "
                "Give a plain path, or let the operator add the directory to the setting."
            )
        return f"file://{quote(str(real))}"

    def _without_credentials(self, url: str) -> str:
        """The URL alone; user and password go into a header that git sends only there."""
        userinfo, _, host = urlsplit(url).netloc.rpartition("@")
        user, _, password = userinfo.partition(":")
        header = base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
        for secret in (password or user, unquote(password or user), header):
            self.context.add_secret(secret)
        clean = url.replace(f"{userinfo}@{host}", host, 1)
        self.env |= {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"http.https://{host}/.extraHeader",
            "GIT_CONFIG_VALUE_0": f"Authorization: Basic {header}",
        }
        return clean


def _environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if KEPT_VARIABLES.match(key)}
    return {
        **kept,
        "GIT_ALLOW_PROTOCOL": ":".join(PROTOCOLS),
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        # Its words in English, for the advice; its file names in UTF-8.
        "LC_ALL": "C.UTF-8",
        "LANGUAGE": "",
    }


def _why(command: str, code: int, words: list[str]) -> str:
    said = [line.removeprefix("fatal: ").removeprefix("error: ") for line in words if line.strip()]
    told = next((line for line in words if line.startswith(("fatal: ", "error: ", " ! "))), "")
    told = told.removeprefix("fatal: ").removeprefix("error: ").strip() or (said[-1] if said else "")
    text = "\n".join(words)
    advice = next((advice for pattern, advice in ADVICE if re.search(pattern, text)), "Its words in the log say more.")
    return f"git {command} failed with exit code {code}: {told.rstrip('.')}. {advice}"


class Bars:
    """Git's progress lines (`Receiving objects:  45% (45/100), …`) as progress."""

    def __init__(self, log: TaskLogger) -> None:
        self._log = log
        self._open: dict[str, tuple[contextlib.ExitStack, Callable[[float, str | None], None]]] = {}

    def take(self, line: str) -> bool:
        """True where the line is progress, which is shown then."""
        match = _PROGRESS.match(line)
        if match is None:
            return False
        label, rest = match["label"], match["rest"].strip(" ,")
        if label not in self._open:
            stack = contextlib.ExitStack()
            bar = stack.enter_context(self._log.progress(label, total=int(match["total"])))
            self._open[label] = stack, bar.update
        stack, update = self._open[label]
        update(int(match["current"]), rest or None)
        if rest.endswith("done."):
            del self._open[label]
            stack.close()
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stack, _ in self._open.values():
            stack.__exit__(kind, error, trace)


# The actions


async def clone(git: Runner, params: GitParams) -> dict[str, object]:
    """A new repository in a directory that did not exist, or was empty."""
    if params.repository is None:
        raise Failed("clone needs to know what to clone: give `repository`.")
    directory = _new_directory(params, git.context)
    url = git.remote(params.repository)
    options = [f"--branch={params.branch}"] if params.branch else []
    options += [f"--depth={params.depth}"] if params.depth else []
    staging = directory.with_name(f".{directory.name[:100]}.{secrets.token_hex(6)}.cloning")
    git.log.info(f"cloning {url} into {directory}")
    try:
        # Not "local": that would link the other's object files, and does not know a depth.
        await git.run(
            *(
                "clone",
                "--progress",
                "--upload-pack=git-upload-pack",
                "--no-local",
                "--no-recurse-submodules",
                "--template=",
            ),
            *(*options, "--", url, str(staging)),
        )
        await asyncio.to_thread(_take_name, staging, directory)
    except BaseException:
        await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)
        raise
    commit = await _head(git, directory)
    return {"directory": str(directory), "branch": await _branch(git, directory), "commit": commit}


def _new_directory(params: GitParams, context: TaskContext) -> Path:
    name = Path((params.repository or "").rstrip("/")).name.rpartition(":")[2].removesuffix(".git")
    given = params.directory or context.data_dir / (name or "repository")
    directory = Path(os.path.abspath(given))
    if os.path.lexists(directory) and (not directory.is_dir() or any(directory.iterdir())):
        raise Failed(f"The directory {directory} is not empty. Give a new or an empty one, or pull instead.")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Failed(f"The directory {directory} cannot be made: {error.strerror}.") from error
    return directory


def _take_name(staging: Path, directory: Path) -> None:
    try:
        os.rename(staging, directory)
    except OSError as error:
        raise Failed(f"The clone cannot take the name {directory}: {error.strerror}.") from error


async def pull(git: Runner, params: GitParams) -> dict[str, object]:
    """Bring the checked-out branch forward to the remote's."""
    directory = await _worktree(git, params)
    before = await _head(git, directory)
    options = [f"--depth={params.depth}"] if params.depth else []
    what: list[str] = []
    if params.branch or (params.directory and params.repository):
        what = ["--", await _remote(git, params, directory), *([params.branch] if params.branch else [])]
    else:
        await _remote(git, params, directory)
    await git.run(
        *("pull", "--progress", "--ff-only", "--no-recurse-submodules", "--upload-pack=git-upload-pack"),
        *(*options, *what),
        cwd=directory,
    )
    after = await _head(git, directory)
    git.log.info("already up to date" if before == after else f"pulled {before} to {after}")
    return {"branch": await _branch(git, directory), "before": before, "commit": after, "updated": before != after}


async def commit(git: Runner, params: GitParams) -> dict[str, object]:
    """Commit all that has changed in the working tree."""
    if params.message is None:
        raise Failed("commit needs a message: give `message`.")
    directory = await _worktree(git, params)
    branch = await _branch(git, directory)
    if params.branch and params.branch != branch:
        raise Failed(
            f"{directory} has {branch or 'no branch'} checked out, not {params.branch}: nothing was committed."
        )
    if await git.read("ls-files", "--unmerged", cwd=directory):
        raise Failed(f"{directory} has conflicts that are not resolved. Resolve them before committing.")
    await git.run("add", "--all", cwd=directory)
    changed = not await git.works("diff", "--cached", "--quiet", cwd=directory)
    if changed:
        await _identify(git, directory)
        await git.run("commit", f"--message={params.message}", cwd=directory)
    else:
        git.log.warning("there is nothing to commit: no file has changed")
    return {"branch": branch, "commit": await _head(git, directory), "changed": changed}


async def push(git: Runner, params: GitParams) -> dict[str, object]:
    """Push one branch to the branch of the same name; never by force."""
    directory = await _worktree(git, params)
    branch = params.branch or await _branch(git, directory)
    if branch is None:
        raise Failed(f"{directory} has no branch checked out: give `branch`.")
    remote = await _remote(git, params, directory)
    ref = f"refs/heads/{branch}"
    await git.run(
        *("push", "--progress", "--no-recurse-submodules", "--receive-pack=git-receive-pack"),
        *("--", remote, f"{ref}:{ref}"),
        cwd=directory,
    )
    [pushed] = await git.read("rev-parse", "--verify", ref, cwd=directory)
    git.log.info(f"pushed {branch} ({pushed}) to {remote}")
    return {"remote": remote, "branch": branch, "commit": pushed}


async def status(git: Runner, params: GitParams) -> dict[str, object]:
    """What is checked out and what has changed."""
    directory = await _worktree(git, params)
    lines = await git.read("status", "--porcelain=v2", "--branch", "--untracked-files=all", cwd=directory)
    about = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# "))
    changes = [_change(line) for line in lines if not line.startswith("# ")]
    for change in changes[:CHANGES_MAX]:
        git.log.info(f"{change['status']} {change['path']}")
    ahead, behind = about.get("branch.ab", "+0 -0").split()
    branch, head = about.get("branch.head"), about.get("branch.oid")
    git.log.info(f"on {branch} at {head}: {len(changes):,} changes" if changes else f"on {branch} at {head}: clean")
    return {
        "branch": None if branch == "(detached)" else branch,
        "commit": None if head == "(initial)" else head,
        "upstream": about.get("branch.upstream"),
        "ahead": int(ahead),
        "behind": -int(behind),
        "clean": not changes,
        "changed": len(changes),
        "changes": changes[:CHANGES_MAX],
    }


def _change(line: str) -> dict[str, str]:
    """One line of `git status --porcelain=v2`, which has its path after a number of fields."""
    if line.startswith("? "):
        return {"status": "??", "path": line[2:]}
    fields = {"1": 8, "2": 9, "u": 10}[line[0]]
    parts = line.split(" ", fields)
    return {"status": parts[1], "path": parts[fields].partition("\t")[0]}


async def log(git: Runner, params: GitParams) -> dict[str, object]:
    """The newest commits of a branch."""
    directory = await _worktree(git, params)
    branch = params.branch or await _branch(git, directory)
    if params.branch is None and await _head(git, directory) is None:
        return {"branch": branch, "commits": []}
    count = f"--max-count={params.depth or COMMITS}"
    fields = "--format=%H%x1f%an%x1f%aI%x1f%s"
    lines = await git.read("log", count, fields, "--end-of-options", params.branch or "HEAD", "--", cwd=directory)
    commits = []
    for line in lines:
        found, author, date, subject = (*line.split("\x1f", 3), "", "", "")[:4]
        git.log.info(f"{found[:12]} {subject}", commit=found, author=author, date=date)
        commits.append({"commit": found, "author": author, "date": date, "subject": subject})
    return {"branch": branch, "commits": commits}


ACTIONS: dict[str, Callable[[Runner, GitParams], Awaitable[dict[str, object]]]] = {
    "clone": clone,
    "pull": pull,
    "commit": commit,
    "push": push,
    "status": status,
    "log": log,
}


async def _worktree(git: Runner, params: GitParams) -> Path:
    """The repository to work in, and not one that happens to lie around it."""
    given = params.directory or params.repository
    if given is None or _SCHEME.match(given) or is_ssh(given):
        raise Failed(f"{params.action} works in a repository on this machine: give its path as `directory`.")
    directory = _existing(given)
    git.env["GIT_CEILING_DIRECTORIES"] = str(directory.parent)
    await git.read("rev-parse", "--git-dir", cwd=directory)
    return directory


def _existing(path: str) -> Path:
    directory = Path(path).resolve()
    if not directory.is_dir():
        raise Failed(f"There is no directory {directory}. Give that of a repository, or clone one first.")
    return directory


async def _head(git: Runner, directory: Path) -> str | None:
    """The full hash of the commit that is checked out; None before the first."""
    lines = await git.read("rev-parse", "--verify", "--quiet", "HEAD", cwd=directory, check=False)
    return lines[0] if lines else None


async def _branch(git: Runner, directory: Path) -> str | None:
    """The branch that is checked out; None where a commit is, without one."""
    lines = await git.read("symbolic-ref", "--quiet", "--short", "HEAD", cwd=directory, check=False)
    return lines[0] if lines else None


async def _remote(git: Runner, params: GitParams, directory: Path) -> str:
    """The remote to talk to, after a look at where it leads."""
    given = params.repository if params.directory else None
    if given and ("/" in given or ":" in given):
        return git.remote(given)
    name = given or await _usual_remote(git, directory)
    urls = await git.read("remote", "get-url", "--all", "--", name, cwd=directory, check=False)
    urls += await git.read("remote", "get-url", "--push", "--all", "--", name, cwd=directory, check=False)
    if not urls:
        raise Failed(f"{directory} has no remote {name!r}. Give its URL as `repository`, or add the remote.")
    for url in urls:
        try:
            _repository(_plain(url))
        except ValueError as error:
            raise Failed(f"The remote {name!r} of {directory} is refused: {error}.") from error
        if url.startswith("file:"):
            git.remote(url)
    return name


async def _usual_remote(git: Runner, directory: Path) -> str:
    branch = await _branch(git, directory)
    lines = await git.read("config", "--get", f"branch.{branch}.remote", cwd=directory, check=False)
    return lines[0] if lines else "origin"


async def _identify(git: Runner, directory: Path) -> None:
    """A commit needs a name: git's configuration has one, or it is taskd's."""
    known = [
        await git.works("-c", "user.useConfigOnly=true", "var", f"GIT_{role}_IDENT", cwd=directory)
        for role in ("AUTHOR", "COMMITTER")
    ]
    if all(known):
        return
    name, email = IDENTITY
    git.log.info(f"git knows no name to commit as here: committing as {name} <{email}>")
    for role in ("AUTHOR", "COMMITTER"):
        git.env |= {f"GIT_{role}_NAME": name, f"GIT_{role}_EMAIL": email}
