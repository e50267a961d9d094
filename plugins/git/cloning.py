"""A clone: under a hidden name until it is complete."""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from taskd import PluginError, TaskContext, TaskLogger

from .params import GitParams
from .remotes import check_clone
from .repository import branch_of, head_of, look, report_submodules
from .runner import Runner, own_directory
from .work import holding


async def clone(git: Runner, params: GitParams) -> dict[str, object]:
    """A new repository in a directory that did not exist, or was empty."""
    in_thread = git.context.run_in_thread
    directory = await in_thread(_new_directory, params, git.context)
    url = git.remote(params.repository or "")
    options = [f"--branch={params.branch}"] if params.branch else []
    options += [f"--depth={params.depth}"] if params.depth else []
    await in_thread(_remove_leftovers, directory, git.log)
    git.log.info(f"cloning {url} into {directory}")
    async with _staging(git.context, directory) as staging:
        # Not there, nor beside it: a repository around it could rewrite the URL.
        elsewhere = own_directory(git.context)
        await check_clone(git, url, elsewhere)
        # Not "local": that would link the other's object files, and does not know a depth.
        await git.run(
            *("clone", "--progress", "--upload-pack=git-upload-pack", "--no-local", "--no-recurse-submodules"),
            *("--template=", *options, "--", url, str(staging)),
            cwd=elsewhere,
            before=holding(staging),
        )
        await in_thread(_take_name, staging, directory)
    place = await look(git, directory)
    await report_submodules(git, place)
    commit = await head_of(git, place.directory)
    return {"directory": str(directory), "branch": await branch_of(git, place.directory), "commit": commit}


def _new_directory(params: GitParams, context: TaskContext) -> Path:
    name = Path((params.repository or "").rstrip("/")).name.rpartition(":")[2].removesuffix(".git")
    given = params.directory or context.data_dir / (name or "repository")
    directory = Path(os.path.abspath(given))
    if os.path.lexists(directory) and (not directory.is_dir() or any(directory.iterdir())):
        raise PluginError(f"The directory {directory} is not empty. Give a new or an empty one, or pull instead.")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PluginError(f"The directory {directory} cannot be made: {error.strerror}.") from error
    return directory


def _take_name(staging: Path, directory: Path) -> None:
    try:
        os.rename(staging, directory)
    except OSError as error:
        raise PluginError(f"The clone cannot take the name {directory}: {error.strerror}.") from error


@contextlib.asynccontextmanager
async def _staging(context: TaskContext, directory: Path) -> AsyncIterator[Path]:
    """
    A new hidden directory beside the one that it will become, and gone at the end under that name.
    We hold a lock on it, and so does git, so that leftovers can be told apart.
    """
    path, fd = await context.run_in_thread(_new_locked, directory)
    try:
        yield path
    finally:
        await context.run_in_thread(partial(shutil.rmtree, path, ignore_errors=True))
        os.close(fd)


def _new_locked(directory: Path) -> tuple[Path, int]:
    while True:
        path = directory.with_name(f".{_short(directory)}.{secrets.token_hex(6)}.cloning")
        try:
            path.mkdir()
        except OSError as error:
            raise PluginError(
                f"{directory.parent} cannot be written to: {error.strerror}. Give another one."
            ) from error
        # Another task that looks for leftovers may come between the making and the lock.
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_SH)
            if path.exists():
                return path, fd
            os.close(fd)


def _short(directory: Path) -> str:
    return os.fsdecode(os.fsencode(directory.name)[:60])  # a name has at most 255 bytes


def _remove_leftovers(directory: Path, log: TaskLogger) -> None:
    """Remove what killed clones into this directory have left: neither their task nor their git lives."""
    pattern = re.compile(rf"\.{re.escape(_short(directory))}\.[0-9a-f]{{12}}\.cloning")
    for path in [path for path in directory.parent.iterdir() if pattern.fullmatch(path.name)]:
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
                log.info(f"removed {path.name}, which a clone that was killed had left behind")
            finally:
                os.close(fd)
