"""What can be done in a repository on this machine."""

from pathlib import Path

from .failures import Failed
from .params import GitParams
from .repository import branch_of, head_of, identify, remote_of, worktree
from .runner import Runner
from .work import working

COMMITS = 20
CHANGES_MAX = 1_000
CONFLICTS_TOLD = 5


async def pull(git: Runner, params: GitParams) -> dict[str, object]:
    """Bring the checked-out branch forward to the remote's."""
    directory = await worktree(git, params)
    async with working(git, directory) as work:
        before = await head_of(git, directory)
        after = await _fetch(git, params, directory)
        if before == after or (before and await _has(git, directory, before, after)):
            git.log.info("already up to date")
            after = before or after
        else:
            if before and not await _has(git, directory, after, before):
                raise Failed(await _parted(git, directory, before, after))
            await _verify(git, directory, after)
            await work.forward(before, after)
            git.log.info(f"pulled {before} to {after}")
            if before:
                await git.run("diff", "--no-ext-diff", "--stat", before, after, cwd=directory)
    return {"branch": await branch_of(git, directory), "before": before, "commit": after, "updated": before != after}


async def _fetch(git: Runner, params: GitParams, directory: Path) -> str:
    """The commit to pull, fetched."""
    remote = await remote_of(git, params, directory)
    named = params.branch or (params.directory and params.repository)
    what = ["--", remote, *([params.branch] if params.branch else [])] if named else []
    options = [f"--depth={params.depth}"] if params.depth else []
    await git.run(
        *("fetch", "--progress", "--no-recurse-submodules", "--upload-pack=git-upload-pack"),
        *(*options, *what),
        cwd=directory,
    )
    [path] = await git.read("rev-parse", "--git-path", "FETCH_HEAD", cwd=directory)
    fetched = [line.split("\t") for line in (directory / path).read_text(errors="replace").splitlines()]
    wanted = [fields[0] for fields in fetched if len(fields) > 1 and fields[1] != "not-for-merge"]
    if len(wanted) != 1:
        raise Failed(
            f"{directory} does not say which branch of {remote} its own follows ({len(wanted)} may be): give `branch`."
        )
    return wanted[0]


async def _verify(git: Runner, directory: Path, commit: str) -> None:
    """A signature is asked for where the configuration asks for it of a merge."""
    asked = await git.read("config", "--type=bool", "merge.verifySignatures", cwd=directory, check=False)
    if asked == ["true"] and not await git.works("verify-commit", commit, cwd=directory):
        raise Failed(
            f"{commit} has no good signature, and merge.verifySignatures asks for one: nothing was changed. "
            f"`git verify-commit {commit[:12]}` says more."
        )


async def _has(git: Runner, directory: Path, commit: str, ancestor: str) -> bool:
    return await git.works("merge-base", "--is-ancestor", ancestor, commit, cwd=directory)


async def _parted(git: Runner, directory: Path, ours: str, theirs: str) -> str:
    """What is told where both sides have new commits."""
    [counts] = await git.read("rev-list", "--left-right", "--count", f"{ours}...{theirs}", cwd=directory)
    here, there = (int(count) for count in counts.split())
    both = await _changed(git, directory, ours, theirs) & await _changed(git, directory, theirs, ours)
    for path in sorted(both)[:CHANGES_MAX]:
        git.log.warning(f"changed on both sides: {path}", path=path)
    files = "1 file is" if len(both) == 1 else f"{len(both):,} files are"
    conflicts = f"{files} changed on both sides; the log names them" if both else "no file is in both"
    return (
        f"Both sides have new commits, {here:,} here and {there:,} at the remote ({conflicts}): nothing was changed. "
        f"A pull only goes forward: merge or rebase by hand (git merge {theirs[:12]}), then push."
    )


async def _changed(git: Runner, directory: Path, here: str, there: str) -> set[str]:
    """The files that `here` has changed since it parted from `there`."""
    return {*await git.read("diff", "--no-ext-diff", "--name-only", f"{there}...{here}", cwd=directory, check=False)}


async def commit(git: Runner, params: GitParams) -> dict[str, object]:
    """Commit all that has changed in the working tree."""
    directory = await worktree(git, params)
    async with working(git, directory) as work:
        branch = await branch_of(git, directory)
        if params.branch and params.branch != branch:
            raise Failed(
                f"{directory} has {branch or 'no branch'} checked out, not {params.branch}: nothing was committed."
            )
        await _refuse_conflicts(git, directory)
        await work.run("add", "--all")
        changed = not await git.works("diff", "--cached", "--quiet", cwd=directory)
        if changed:
            await identify(git, directory)
            await work.run("commit", f"--message={params.message}")
        else:
            git.log.warning("there is nothing to commit: no file has changed")
        return {"branch": branch, "commit": await head_of(git, directory), "changed": changed}


async def _refuse_conflicts(git: Runner, directory: Path) -> None:
    """Their marks would be committed as if they were text."""
    files = sorted({line.partition("\t")[2] for line in await git.read("ls-files", "--unmerged", cwd=directory)})
    if files:
        told = ", ".join(files[:CONFLICTS_TOLD]) + (" …" if len(files) > CONFLICTS_TOLD else "")
        raise Failed(
            f"{directory} has conflicts that are not resolved, in {told}: nothing was committed. "
            "Edit them, `git add` each, then commit again; or undo with `git merge --abort`."
        )


async def push(git: Runner, params: GitParams) -> dict[str, object]:
    """Push one branch to the branch of the same name; never by force."""
    directory = await worktree(git, params)
    branch = params.branch or await branch_of(git, directory)
    if branch is None:
        raise Failed(f"{directory} has no branch checked out: give `branch`.")
    remote = await remote_of(git, params, directory)
    ref = f"refs/heads/{branch}"
    async with working(git, directory):
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
    directory = await worktree(git, params)
    lines = await git.read("status", "--porcelain=v2", "--branch", "--untracked-files=all", cwd=directory)
    about = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# "))
    changes = [_change(line) for line in lines if not line.startswith("# ")]
    for change in changes[:CHANGES_MAX]:
        git.log.info(f"{change['status']} {change['path']}")
    ahead, behind = about.get("branch.ab", "+0 -0").split()
    branch, head = about.get("branch.head"), about.get("branch.oid")
    told = f"{len(changes):,} change{'s' * (len(changes) > 1)}" if changes else "clean"
    git.log.info(f"on {branch} at {head}: {told}")
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
    directory = await worktree(git, params)
    branch = params.branch or await branch_of(git, directory)
    if params.branch is None and await head_of(git, directory) is None:
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
