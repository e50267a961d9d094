"""The `git` of this machine, with no more than it needs."""

import base64
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from taskd import TaskContext

from .failures import Failed, failed
from .params import PROTOCOLS, SCHEME, is_ssh
from .progress import Bars

LAST_WORDS = 20

# What a repository or a user may have configured to run programs, or to reach further.
SAFE = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.pager": "cat",
    "core.sshCommand": "ssh",
    "core.alternateRefsCommand": "true",
    "commit.gpgSign": "false",
    "push.gpgSign": "false",
    "gpg.program": "gpg",
    "gpg.openpgp.program": "gpg",
    "gpg.x509.program": "gpgsm",
    "gpg.ssh.program": "ssh-keygen",
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


class Runner:
    """Runs git: its words become entries, its progress progress, its failures reasons."""

    def __init__(self, context: TaskContext) -> None:
        self.log = context.logger
        self.context = context
        self.env = _environment()

    async def run(self, *words: str, cwd: Path | None = None, before: Sequence[str] = ()) -> None:
        """Run a command whose output is for the log, by way of the command `before`. Raises `Failed`."""
        last_words: list[str] = []
        with Bars(self.log) as bars:

            def on_line(stream: str, line: str) -> bool:
                if bars.take(line):
                    return True
                last_words.append(line)
                del last_words[:-LAST_WORDS]
                return False

            code = await self._process(words, cwd, on_line, before)
        if code:
            raise failed(_command(words), code, last_words, cwd)

    async def read(self, *words: str, cwd: Path, check: bool = True) -> list[str]:
        """The lines that a command prints, for us and not for the log; none where it fails and need not work."""
        lines: list[str] = []
        said: list[str] = []

        def on_line(stream: str, line: str) -> bool:
            (lines if stream == "stdout" else said).append(line)
            return True

        code = await self._process(words, cwd, on_line)
        if code and check:
            raise failed(_command(words), code, said, cwd)
        return [] if code else lines

    async def works(self, *words: str, cwd: Path) -> bool:
        """Whether a command that asks something says yes."""
        return await self._process(words, cwd, lambda stream, line: True) == 0

    async def _process(
        self,
        words: tuple[str, ...],
        cwd: Path | None,
        on_line: Callable[[str, str], bool],
        before: Sequence[str] = (),
    ) -> int:
        safe = [word for key, value in SAFE.items() for word in ("-c", f"{key}={value}")]
        result = await self.context.run_process(
            [*before, "git", *safe, *words],
            source="git",
            cwd=cwd,
            env=self.env,
            check=False,
            on_line=on_line,
        )
        return result.returncode

    def refuse_file_url(self, repository: str) -> None:
        """Raise `Failed` where it is a file URL outside of `git_file_roots`, also where it is not needed."""
        parts = urlsplit(repository)
        if parts.scheme == "file":
            self._file_url(Path(unquote(parts.path)))

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
        return repository if SCHEME.match(repository) else os.path.abspath(repository)

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


def _command(words: tuple[str, ...]) -> str:
    """What git was asked to do: its first word that is not an option."""
    return next((word for word in words if not word.startswith("-")), words[0])


def _environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if KEPT_VARIABLES.match(key)}
    return {
        **kept,
        "GIT_ALLOW_PROTOCOL": ":".join(PROTOCOLS),
        "GIT_TERMINAL_PROMPT": "0",
        # Empty, these are asked before the configuration, which is then not.
        "GIT_ASKPASS": "",
        "GIT_PROXY_COMMAND": "",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        # Its words in English, for the advice; its file names in UTF-8.
        "LC_ALL": "C.UTF-8",
        "LANGUAGE": "",
    }
