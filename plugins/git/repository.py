"""The repository to work in: where it is, what is checked out, whom it talks to."""

from pathlib import Path

from .failures import Failed
from .params import SCHEME, GitParams, is_ssh, plain, repository_of
from .runner import Runner

IDENTITY = ("taskd", "taskd@localhost")


async def worktree(git: Runner, params: GitParams) -> Path:
    """The repository to work in, and not one that happens to lie around it."""
    given = params.directory or params.repository
    if given is None or SCHEME.match(given) or is_ssh(given):
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


async def head_of(git: Runner, directory: Path) -> str | None:
    """The full hash of the commit that is checked out; None before the first."""
    lines = await git.read("rev-parse", "--verify", "--quiet", "HEAD", cwd=directory, check=False)
    return lines[0] if lines else None


async def branch_of(git: Runner, directory: Path) -> str | None:
    """The branch that is checked out; None where a commit is, without one."""
    lines = await git.read("symbolic-ref", "--quiet", "--short", "HEAD", cwd=directory, check=False)
    return lines[0] if lines else None


async def remote_of(git: Runner, params: GitParams, directory: Path) -> str:
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
            repository_of(plain(url))
        except ValueError as error:
            raise Failed(f"The remote {name!r} of {directory} is refused: {error}.") from error
        if url.startswith("file:"):
            git.remote(url)
    return name


async def _usual_remote(git: Runner, directory: Path) -> str:
    branch = await branch_of(git, directory)
    lines = await git.read("config", "--get", f"branch.{branch}.remote", cwd=directory, check=False)
    return lines[0] if lines else "origin"


async def identify(git: Runner, directory: Path) -> None:
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
