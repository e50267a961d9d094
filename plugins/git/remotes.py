"""
The remote to fetch from or push to: the URLs that git will use in the end, and whether they are allowed.

A configured URL is no better than a given one. The repository itself cannot rewrite URLs
(`configuration.py`), but the configuration of taskd's user can (`insteadOf`, `pushInsteadOf`).
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from taskd import PluginError

from .params import SCHEME, GitParams, file_path, is_file_url, is_ssh, plain, repository_of
from .places import Place, hooks_in
from .repository import branch_of, look
from .runner import Runner

# For a repository on this machine: its side of a push runs no hooks and leaves no process.
RECEIVE_HERE = "git -c core.hooksPath=/dev/null -c gc.auto=0 -c maintenance.auto=false receive-pack"


@dataclass(frozen=True, slots=True)
class Remote:
    """What git is given: a name of the configuration, or a URL; and what git runs on the other side of a push."""

    name: str
    is_url: bool
    receive_pack: str = "git-receive-pack"


async def check_clone(git: Runner, url: str, directory: Path) -> None:
    """Raise `PluginError` if git, run in `directory`, would clone from a URL that is refused."""
    _check(git, Remote(url, True), directory, await _fetch_url(git, url, directory))


async def fetched_from(git: Runner, params: GitParams, place: Place) -> Remote:
    """Return the remote to fetch from. Raises `PluginError` if a URL of it is refused."""
    remote = await _remote(git, params, place, "branch.{}.remote")
    if remote.is_url:
        urls = await _fetch_url(git, remote.name, place.directory)
    else:
        urls = await _configured(git, remote.name, place)
    _check(git, remote, place.directory, urls)
    return remote


async def pushed_to(git: Runner, params: GitParams, place: Place) -> Remote:
    """Return the remote to push to. Raises `PluginError` if a URL of it, or a repository it leads to, is refused."""
    remote = await _remote(git, params, place, "branch.{}.pushRemote", "remote.pushDefault", "branch.{}.remote")
    if remote.is_url:
        urls = await _push_url(git, remote.name, place)
    else:
        urls = await _configured(git, remote.name, place, "--push")
    _check(git, remote, place.directory, urls)
    here = [path for url in urls if (path := _local_path(url, place)) is not None]
    for path in here:
        await _look_at_target(git, path)
    return replace(remote, receive_pack=RECEIVE_HERE) if len(here) == len(urls) else remote


async def _remote(git: Runner, params: GitParams, place: Place, *settings: str) -> Remote:
    """The remote that is given, or that the first of `settings` names for the branch."""
    given = params.repository if params.directory else None
    if given:
        return await _given(git, given, place)
    branch = params.branch or await branch_of(git, place.directory)
    for setting in settings:
        lines = await git.read("config", "--get", setting.format(branch), cwd=place.directory, check=False)
        if lines:
            return Remote(lines[0], False)
    return Remote("origin", False)


async def _given(git: Runner, given: str, place: Place) -> Remote:
    """Return a remote by name or URL. A repository may have a remote whose name is a URL: git pushes to its URLs."""
    is_url = "/" in given or ":" in given
    url = git.remote(given) if is_url else given
    for name in dict.fromkeys((given, url)):
        if await git.works("remote", "get-url", "--", name, cwd=place.directory):
            return Remote(name, False)
    return Remote(url, is_url)


async def _configured(git: Runner, name: str, place: Place, *push: str) -> list[bytes]:
    output = await git.output("remote", "get-url", *push, "--all", "--", name, cwd=place.directory, check=False)
    if not output:
        raise PluginError(f"{place.directory} has no remote {name!r}. Give its URL as `repository`, or add the remote.")
    return output.splitlines()


async def _fetch_url(git: Runner, url: str, directory: Path) -> list[bytes]:
    return [(await git.output("ls-remote", "--get-url", "--", url, cwd=directory)).removesuffix(b"\n")]


async def _push_url(git: Runner, url: str, place: Place) -> list[bytes]:
    """Git rewrites a URL by the longest `pushInsteadOf` that it begins with, if any, else as for a fetch."""
    bases: dict[bytes, bytes] = {}
    for setting in (await git.output("config", "--list", "-z", cwd=place.directory)).split(b"\0"):
        key, _, prefix = setting.partition(b"\n")
        if key.startswith(b"url.") and key.endswith(b".pushinsteadof") and os.fsencode(url).startswith(prefix):
            bases[prefix] = key[len(b"url.") : -len(b".pushinsteadof")]
    if not bases:
        return await _fetch_url(git, url, place.directory)
    longest = max(bases, key=len)
    return [bases[longest] + os.fsencode(url)[len(longest) :]]


def _check(git: Runner, remote: Remote, directory: Path, urls: list[bytes]) -> None:
    """Refuse URLs that would be refused as a parameter, and allow git only the protocols of the others."""
    protocols = set()
    for url in urls:
        try:
            text = repository_of(plain(url.decode()))
        except ValueError as error:
            raise PluginError(f"The remote {remote.name!r} of {directory} is refused: {error}.") from error
        git.refuse_file_url(text)
        scheme = SCHEME.match(text)
        protocols.add(scheme[1].lower() if scheme else "ssh" if is_ssh(text) else "file")
    git.env["GIT_ALLOW_PROTOCOL"] = ":".join(sorted(protocols))


def _local_path(url: bytes, place: Place) -> Path | None:
    text = url.decode()
    if is_file_url(text):
        return file_path(text)
    return None if SCHEME.match(text) or is_ssh(text) else place.directory / os.path.expanduser(text)


async def _look_at_target(git: Runner, path: Path) -> None:
    """A push to this machine has git work in that repository too, which is looked at as the first one is."""
    directory = path if await git.context.run_in_thread(path.is_dir) else Path(f"{path}.git")
    target = await look(git, directory)
    if hooks := await git.context.run_in_thread(hooks_in, target):
        raise PluginError(
            f"A push to {target.directory} would have taskd's user run its hooks ({', '.join(hooks[:5])}): that is "
            "refused. Push to it over ssh, or remove them."
        )
