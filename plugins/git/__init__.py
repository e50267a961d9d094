"""
Git: clone, pull, commit, push, status and log, with the `git` of this machine.

Git is given a list of words, never a line for a shell, and it is not trusted with more than it
needs: no parameter may look like an option, only https, ssh, git and (below `git_file_roots`)
file are spoken, hooks, submodules, prompts, lazy fetches and the system's configuration are off, and
a remote's output is text in the log and nothing else. Credentials of an http(s) URL travel in the
environment, so that neither the log, the list of processes nor `.git/config` has them.

A repository is data, not configuration. Before git works in one, `places.py` refuses links, FIFOs
and pointers in it that lead elsewhere, and `configuration.py` every key that is not known to be
harmless. The configuration of taskd's user is that user's to decide, but for `core.sshCommand`: set
`GIT_SSH_COMMAND` for the service instead. A push to a repository on this machine has git work in that
one too: it is looked at in the same way, and refused if it has hooks. The look comes before each
command that changes files, and cannot be one with it: who may write to a repository while a task
works in it is trusted.

A clone is made under a hidden name beside its directory and renamed when it is complete. A pull
only ever goes forward: where both sides have new commits, a person has to decide. Work that was
killed, service and git and all, is finished or swept away by the next task in the same place.

Results name commits by their full hash: `git` confirms them.
"""

from collections.abc import Awaitable, Callable

from taskd import Plugin, TaskContext

from .actions import commit, log, pull, push, status
from .cloning import clone
from .params import GitParams
from .runner import Runner

ACTIONS: dict[str, Callable[[Runner, GitParams], Awaitable[dict[str, object]]]] = {
    "clone": clone,
    "pull": pull,
    "commit": commit,
    "push": push,
    "status": status,
    "log": log,
}


class Git(Plugin):
    """Clones, pulls, commits, pushes and lists, with the git of this machine."""

    name = "git"
    title = "Git"
    Params = GitParams

    async def execute(self, params: GitParams, context: TaskContext) -> object:
        runner = Runner(context)
        if params.repository:
            runner.refuse_file_url(params.repository)
        return await ACTIONS[params.action](runner, params)
