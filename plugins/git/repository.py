"""The repository to work in: that git may be let near it, and what is checked out."""

import os
from pathlib import Path

from taskd import PluginError

from .configuration import check_configuration
from .params import GitParams
from .places import Place, configuration_files, find_place, hooks_in
from .runner import Runner, file_roots, own_directory
from .texts import fields_of, readable, text_of

NAMES_SHOWN = 5
WHERE = ("--path-format=absolute", "--git-dir", "--git-common-dir")
# Files that a configuration includes are not read: `include.path` itself is refused.
LISTING = ("--list", "--no-includes", "-z")
IDENTITY = ("taskd", "taskd@localhost")
BRANCHES = "refs/heads/"


async def opened(git: Runner, params: GitParams) -> Place:
    """Return the repository to work in, after a look at it. Raises `PluginError` if it is refused."""
    place = await look(git, params.directory or params.repository or "")
    older = place.git_dir / "taskd"
    if await git.context.run_in_thread(os.path.lexists, older):
        git.log.info(f"{older} is of an older taskd and is ignored: it can be removed")
    return place


async def look(git: Runner, path: str | Path) -> Place:
    """Return the repository in the directory `path`. Raises `PluginError` if it, or its configuration, is refused."""
    context = git.context
    roots = file_roots(context)
    place = await context.run_in_thread(find_place, str(path), roots, lambda: context.cancelled)
    check_configuration(place, [(path, await _listed(git, path)) for path in configuration_files(place)])
    found = await git.output("rev-parse", *WHERE, cwd=place.directory)
    if found != os.fsencode(f"{place.git_dir}\n{place.common_dir}\n"):
        raise PluginError(
            f"git takes {os.fsdecode(found).splitlines()[0]} for the repository of {place.directory}, and not "
            f"{place.git_dir}: that is refused. Give the directory of a repository."
        )
    return place


async def _listed(git: Runner, path: Path) -> bytes:
    """Return the settings in a file, read as a file: in its repository git would follow them to read them."""
    return await git.output("config", f"--file={path}", *LISTING, cwd=own_directory(git.context))


async def report_hooks(git: Runner, place: Place) -> None:
    if names := await git.context.run_in_thread(hooks_in, place):
        git.log.info(f"the hooks of {place.directory} are not run: {', '.join(map(readable, names[:NAMES_SHOWN]))}")


async def submodules_in(git: Runner, place: Place) -> list[bytes]:
    """Return the paths of the submodules in the index."""
    entries = fields_of(await git.output("ls-files", "--stage", "-z", cwd=place.directory))
    return [entry.partition(b"\t")[2] for entry in entries if entry.startswith(b"160000 ")]


async def report_submodules(git: Runner, place: Place) -> None:
    if paths := await submodules_in(git, place):
        shown = ", ".join(readable(text_of(path)) for path in paths[:NAMES_SHOWN])
        git.log.info(f"submodules are left as they are: {shown}{' …' if len(paths) > NAMES_SHOWN else ''}")


async def head_of(git: Runner, directory: Path) -> str | None:
    """Return the full hash of the commit that is checked out; None before the first."""
    lines = await git.read("rev-parse", "--verify", "--quiet", "HEAD", cwd=directory, check=False)
    return lines[0] if lines else None


async def branch_of(git: Runner, directory: Path) -> str | None:
    """Return the branch that is checked out; None if a commit is, without one."""
    # Not --short: that is `heads/main` if there is a tag `main`.
    lines = await git.read("symbolic-ref", "--quiet", "HEAD", cwd=directory, check=False)
    return lines[0].removeprefix(BRANCHES) if lines else None


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
