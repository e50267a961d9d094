"""What can be done in a repository on this machine."""

import asyncio
import itertools
from pathlib import Path

from taskd import PluginError

from .params import GitParams
from .places import Place, read_regular
from .remotes import fetched_from, pushed_to
from .repository import BRANCHES, branch_of, head_of, identify, opened, report_submodules, submodules_in
from .runner import QUIET_DIFF, Runner
from .texts import fields_of, readable, text_of
from .work import working

COMMITS = 20
CHANGES_MAX = 1_000
NAMES_SHOWN = 5
FETCH_HEAD_BYTES_MAX = 67_108_864
# How a shallow repository is deepened, step by step, until the two sides meet.
DEEPEN = ("--deepen=50", "--deepen=500", "--deepen=5000", "--unshallow")


async def pull(git: Runner, params: GitParams) -> dict[str, object]:
    """Bring the checked-out branch forward to the remote's."""
    place = await opened(git, params)
    directory = place.directory
    async with working(git, place) as work:
        before = await head_of(git, directory)
        after = await _fetch(git, params, place, before)
        if before == after or (before and await _has(git, directory, before, after)):
            git.log.info("already up to date")
            after = before or after
        else:
            if before and not await _has(git, directory, after, before):
                raise PluginError(await _parted(git, directory, before, after))
            await _verify(git, directory, after)
            await work.forward(before, after)
            git.log.info(f"pulled {before} to {after}")
            if before:
                await git.run("diff", *QUIET_DIFF, "--stat", before, after, cwd=directory)
            await report_submodules(git, place)
    return {"branch": await branch_of(git, directory), "before": before, "commit": after, "updated": before != after}


async def _fetch(git: Runner, params: GitParams, place: Place, before: str | None) -> str:
    """
    Fetch, and return the commit to pull.

    What is missing between `before` and the remote's commit is needed whole, and is all that git
    fetches: a depth counts only if there is no commit yet. A shallow repository whose commit was
    fetched without those between is deepened until they are there.
    """
    remote = await fetched_from(git, params, place)
    words = ["--", remote.name, *([f"{BRANCHES}{params.branch}"] if params.branch else [])]
    depth = [f"--depth={params.depth}"] if params.depth and before is None else []
    await _fetch_once(git, place, *depth, *words)
    after = await _fetched(git, place, remote.name)
    for option in DEEPEN if before else ():
        if not await _is_shallow(git, place.directory) or await _are_joined(git, place.directory, before, after):
            break
        git.log.info("the commits between are not here: fetching more of the history")
        await _fetch_once(git, place, option, *words)
    return after


async def _fetch_once(git: Runner, place: Place, *words: str) -> None:
    options = ("--progress", "--no-recurse-submodules", "--upload-pack=git-upload-pack")
    await git.run("fetch", *options, *words, cwd=place.directory)


async def _fetched(git: Runner, place: Place, remote: str) -> str:
    """Return the one commit that is to be merged, as the fetch wrote it down."""
    content = await git.context.run_in_thread(read_regular, place.git_dir / "FETCH_HEAD", FETCH_HEAD_BYTES_MAX)
    fetched = [line.split("\t") for line in content.decode(errors="replace").splitlines()]
    wanted = [fields[0] for fields in fetched if len(fields) > 1 and fields[1] != "not-for-merge"]
    if len(wanted) != 1:
        raise PluginError(
            f"{place.directory} does not say which branch of {remote} its own follows ({len(wanted)} may be): "
            "give `branch`."
        )
    return wanted[0]


async def _is_shallow(git: Runner, directory: Path) -> bool:
    return await git.read("rev-parse", "--is-shallow-repository", cwd=directory) == ["true"]


async def _are_joined(git: Runner, directory: Path, ours: str | None, theirs: str) -> bool:
    return ours is None or await git.works("merge-base", ours, theirs, cwd=directory)


async def _verify(git: Runner, directory: Path, commit: str) -> None:
    """Raise `PluginError` if the configuration asks for signatures in a merge, and the commit has no good one."""
    asked = await git.read("config", "--type=bool", "merge.verifySignatures", cwd=directory, check=False)
    if asked == ["true"] and not await git.works("verify-commit", commit, cwd=directory):
        raise PluginError(
            f"{commit} has no good signature, and merge.verifySignatures asks for one: nothing was changed. "
            f"`git verify-commit {commit[:12]}` says more."
        )


async def _has(git: Runner, directory: Path, commit: str, ancestor: str) -> bool:
    return await git.works("merge-base", "--is-ancestor", ancestor, commit, cwd=directory)


async def _parted(git: Runner, directory: Path, ours: str, theirs: str) -> str:
    """Return the message for new commits on both sides, after naming the files in the log."""
    [counts] = await git.read("rev-list", "--left-right", "--count", f"{ours}...{theirs}", cwd=directory)
    here, there = (int(count) for count in counts.split())
    both = await _changed(git, directory, ours, theirs) & await _changed(git, directory, theirs, ours)
    for path in sorted(map(text_of, both))[:CHANGES_MAX]:
        git.log.warning(f"changed on both sides: {readable(path)}", path=path)
    files = "1 file is" if len(both) == 1 else f"{len(both):,} files are"
    conflicts = f"{files} changed on both sides; the log names them" if both else "no file is in both"
    return (
        f"Both sides have new commits, {here:,} here and {there:,} at the remote ({conflicts}): nothing was changed. "
        f"A pull only goes forward: merge or rebase by hand (git merge {theirs[:12]}), then push."
    )


async def _changed(git: Runner, directory: Path, here: str, there: str) -> set[bytes]:
    """Return the files that `here` has changed since it parted from `there`."""
    words = ("diff", *QUIET_DIFF, "--name-only", "-z", f"{there}...{here}")
    return {*fields_of(await git.output(*words, cwd=directory, check=False))}


async def commit(git: Runner, params: GitParams) -> dict[str, object]:
    """Commit all that has changed in the working tree, but not in its submodules."""
    place = await opened(git, params)
    directory = place.directory
    async with working(git, place) as work:
        branch = await branch_of(git, directory)
        if params.branch and params.branch != branch:
            raise PluginError(
                f"{directory} has {branch or 'no branch'} checked out, not {params.branch}: nothing was committed."
            )
        await _refuse_conflicts(git, directory)
        await report_submodules(git, place)
        await work.add_all(await _nested(git, place))
        changed = not await git.works("diff", *QUIET_DIFF, "--cached", "--quiet", cwd=directory)
        if changed:
            await identify(git, directory)
            await work.run("commit", f"--message={params.message}")
        else:
            git.log.warning("there is nothing to commit: no file has changed")
        return {"branch": branch, "commit": await head_of(git, directory), "changed": changed}


async def _nested(git: Runner, place: Place) -> list[bytes]:
    """Return the paths of all repositories in the working tree: submodules, and those that git does not know."""
    words = ("ls-files", "--others", "--exclude-standard", "-z")
    others = fields_of(await git.output(*words, cwd=place.directory))
    # Of all that is not in the index, git ends only a directory that it does not enter with a slash.
    unknown = [path.rstrip(b"/") for path in others if path.endswith(b"/")]
    for path in unknown:
        git.log.warning(f"{readable(text_of(path))} is a repository of its own: it is not committed")
    return [*await submodules_in(git, place), *unknown]


async def _refuse_conflicts(git: Runner, directory: Path) -> None:
    """Raise `PluginError` if files have conflicts: their marks would be committed as if they were text."""
    entries = fields_of(await git.output("ls-files", "--unmerged", "-z", cwd=directory))
    files = sorted({text_of(entry.partition(b"\t")[2]) for entry in entries})
    if files:
        shown = ", ".join(map(readable, files[:NAMES_SHOWN])) + (" …" if len(files) > NAMES_SHOWN else "")
        raise PluginError(
            f"{directory} has conflicts that are not resolved, in {shown}: nothing was committed. "
            "Edit them, `git add` each, then commit again; or undo with `git merge --abort`."
        )


async def push(git: Runner, params: GitParams) -> dict[str, object]:
    """Push one branch to the branch of the same name; never by force."""
    place = await opened(git, params)
    branch = params.branch or await branch_of(git, place.directory)
    if branch is None:
        raise PluginError(f"{place.directory} has no branch checked out: give `branch`.")
    ref = f"{BRANCHES}{branch}"
    async with working(git, place):
        remote = await pushed_to(git, params, place)
        await git.run(
            *("push", "--progress", "--no-recurse-submodules", f"--receive-pack={remote.receive_pack}"),
            *("--", remote.name, f"{ref}:{ref}"),
            cwd=place.directory,
        )
    [pushed] = await git.read("rev-parse", "--verify", ref, cwd=place.directory)
    git.log.info(f"pushed {branch} ({pushed}) to {remote.name}")
    return {"remote": remote.name, "branch": branch, "commit": pushed}


async def status(git: Runner, params: GitParams) -> dict[str, object]:
    """What is checked out and what has changed, but for submodules."""
    place = await opened(git, params)
    words = ("--porcelain=v2", "--branch", "-z", "--ahead-behind", "--untracked-files=all", "--ignore-submodules=all")
    output = await git.output("status", *words, cwd=place.directory)
    about, changes = await git.context.run_in_thread(_read_status, output)
    for change in changes[:CHANGES_MAX]:
        git.log.info(f"{change['status']} {readable(change['path'])}")
    ahead, behind = about.get("branch.ab", "+0 -0").split()
    branch, head = about.get("branch.head"), about.get("branch.oid")
    summary = f"{len(changes):,} change{'s' * (len(changes) > 1)}" if changes else "clean"
    git.log.info(f"on {branch} at {head}: {summary}")
    await report_submodules(git, place)
    return {
        "branch": await branch_of(git, place.directory),
        "commit": None if head == "(initial)" else head,
        "upstream": about.get("branch.upstream"),
        "ahead": int(ahead),
        "behind": -int(behind),
        "clean": not changes,
        "changed": len(changes),
        "changes": changes[:CHANGES_MAX],
    }


def _read_status(output: bytes) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Return what `git status` prints as headers and as changes. There may be hundreds of thousands."""
    fields = fields_of(output)
    # The headers are first: further on, `# ` may begin the path that a file had before it was renamed.
    headers = list(itertools.takewhile(lambda field: field.startswith(b"# "), fields))
    return dict(text_of(header)[2:].split(" ", 1) for header in headers), _changes(fields[len(headers) :])


def _changes(fields: list[bytes]) -> list[dict[str, str]]:
    """Read the entries of `git status --porcelain=v2 -z`: a path comes after a number of words."""
    changes = []
    entries = iter(fields)
    for entry in entries:
        words = {b"1": 8, b"2": 9, b"u": 10, b"?": 1}[entry[:1]]
        parts = entry.split(b" ", words)
        if entry[:1] == b"2":
            next(entries)  # the path before it was renamed
        changes.append({"status": "??" if words == 1 else text_of(parts[1]), "path": text_of(parts[words])})
    return changes


async def log(git: Runner, params: GitParams) -> dict[str, object]:
    """The newest commits of a branch."""
    place = await opened(git, params)
    branch = params.branch or await branch_of(git, place.directory)
    if params.branch is None and await head_of(git, place.directory) is None:
        return {"branch": branch, "commits": []}
    options = ("--no-show-signature", "--no-notes", "--no-mailmap", "--no-color", "-z")
    start = await _start(git, params, place.directory)
    output = await git.output(
        *("log", *options, f"--max-count={params.depth or COMMITS}"),
        *("--encoding=UTF-8", "--format=%H%x00%an%x00%aI%x00%s", "--end-of-options", start, "--"),
        cwd=place.directory,
    )
    commits = []
    fields = map(text_of, fields_of(output))
    for found, author, date, subject in zip(fields, fields, fields, fields, strict=True):
        git.log.info(f"{found[:12]} {subject}", commit=found, author=author, date=date)
        commits.append({"commit": found, "author": author, "date": date, "subject": subject})
        if len(commits) % COMMITS == 0:
            await asyncio.sleep(0)  # a depth may be any: the service's loop goes on
    return {"branch": branch, "commits": commits}


async def _start(git: Runner, params: GitParams, directory: Path) -> str:
    """Return where the log starts: the branch, although a tag may have its name."""
    if params.branch is None:
        return "HEAD"
    ref = f"{BRANCHES}{params.branch}"
    return ref if await git.works("rev-parse", "--verify", "--quiet", ref, cwd=directory) else params.branch
