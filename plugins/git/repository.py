"""The repository to work in: where it is, what is checked out, whom it talks to."""

from pathlib import Path

from .failures import Failed
from .params import GitParams, plain, repository_of
from .runner import Runner

IDENTITY = ("taskd", "taskd@localhost")
NAMES_CHARACTERS_MAX = 300

# Names in a configuration whose values are run, whatever else is said; as git matches them.
PROGRAMS = r"^(filter\..*\.(clean|smudge|process)|remote\..*\.(uploadpack|receivepack|vcs))$"
HELPERS = r"^credential\.(.*\.)?helper$"
NOT_OF_GIT = "!^[a-z-]*$"


async def worktree(git: Runner, params: GitParams) -> Path:
    """The repository to work in, and not one that happens to lie around it."""
    directory = _existing(params.directory or params.repository or "")
    git.env["GIT_CEILING_DIRECTORIES"] = str(directory.parent)
    await _refuse_elsewhere(git, directory)
    await _refuse_configured(git, directory, PROGRAMS)
    return directory


def _existing(path: str) -> Path:
    directory = Path(path).resolve()
    if not directory.is_dir():
        raise Failed(f"There is no directory {directory}. Give that of a repository, or clone one first.")
    return directory


async def _refuse_elsewhere(git: Runner, directory: Path) -> None:
    """Its files are in it: the configuration (`core.worktree`) may say that they are those of another directory."""
    about = await git.read("rev-parse", "--is-bare-repository", "--is-inside-work-tree", "--show-prefix", cwd=directory)
    if about[0] == "false" and (about[1] == "false" or any(about[2:])):
        raise Failed(
            f"{directory} is not the working tree of its repository, whose files are elsewhere (core.worktree): "
            "that is refused. Give the directory that the files are in."
        )


async def _refuse_configured(git: Runner, directory: Path, names: str, *values: str) -> None:
    """
    Refuse what the repository's own configuration would have git run, and no option of ours keeps it
    from. What the user's configuration says is the user's to decide.
    """
    lines = await git.read(
        *("config", "--show-scope", "--name-only", "--get-regexp", names, *values), cwd=directory, check=False
    )
    found = sorted({line.partition("\t")[2] for line in lines if line.startswith(("local\t", "worktree\t"))})
    if found:
        raise Failed(
            f"The configuration of {directory} has git run programs ({', '.join(found)[:NAMES_CHARACTERS_MAX]}): that "
            "is refused. If you trust them, move them to the configuration of taskd's user (git config --global)."
        )


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
    await _refuse_configured(git, directory, HELPERS, NOT_OF_GIT)
    given = params.repository if params.directory else None
    if given and ("/" in given or ":" in given):
        url = git.remote(given)
        # The repository's own configuration may lead it elsewhere (`insteadOf`).
        _check_urls(git, url, directory, await git.read("ls-remote", "--get-url", "--", url, cwd=directory))
        return url
    name = given or await _usual_remote(git, directory)
    urls = await git.read("remote", "get-url", "--all", "--", name, cwd=directory, check=False)
    urls += await git.read("remote", "get-url", "--push", "--all", "--", name, cwd=directory, check=False)
    if not urls:
        raise Failed(f"{directory} has no remote {name!r}. Give its URL as `repository`, or add the remote.")
    _check_urls(git, name, directory, urls)
    return name


def _check_urls(git: Runner, name: str, directory: Path, urls: list[str]) -> None:
    """What a configuration says is no better than what is given."""
    for url in urls:
        try:
            repository_of(plain(url))
        except ValueError as error:
            raise Failed(f"The remote {name!r} of {directory} is refused: {error}.") from error
        git.refuse_file_url(url)


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
