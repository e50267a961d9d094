"""The `git` of this machine, with no more than it needs."""

import base64
import os
import re
import secrets
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from taskd import PluginError, TaskContext

from .failures import failed
from .params import PROTOCOLS, SCHEME, file_path, is_file_url, is_ssh
from .progress import Bars

LAST_WORDS = 20
# A remote may send lines of any length, and looking for a reason in one takes the square of it.
LAST_CHARACTERS_MAX = 1_000
# What a command prints goes to the file $0, of at most 64 MiB (in blocks of 512 bytes).
TO_FILE = 'ulimit -f 131072; exec "$@" >"$0"'

# Over the configuration of taskd's user, and a second layer under `configuration.py`: a repository may
# be changed between the look at its configuration and a command. None of these runs programs, enters
# submodules, or leaves a process that outlives the command.
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
    "color.ui": "false",
    "diff.submodule": "short",
    "status.submoduleSummary": "false",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
    "push.recurseSubmodules": "no",
    "protocol.ext.allow": "never",
    "transfer.bundleURI": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "advice.detachedHead": "false",
}

# A diff that runs nothing and enters no submodule.
QUIET_DIFF = ("--no-ext-diff", "--no-textconv", "--no-color", "--submodule=short")

# Of git's own variables only these are the user's to decide; GIT_DIR and its like would mislead.
KEPT_VARIABLES = re.compile(r"(?!GIT_|SSH_ASKPASS|DISPLAY$|TASKD_TOKEN$)|GIT_(AUTHOR|COMMITTER|SSL|SSH|CONFIG_GLOBAL)")


class Runner:
    """Runs git: its words become entries, its progress progress, its failures reasons."""

    def __init__(self, context: TaskContext) -> None:
        self.log = context.logger
        self.context = context
        self.env = _environment()

    async def run(self, *words: str, cwd: Path | None = None, before: Sequence[str] = ()) -> None:
        """Run a command whose output is for the log, by way of the command `before`. Raises `PluginError`."""
        last_words: list[str] = []
        with Bars(self.log) as bars:

            def on_line(stream: str, line: str) -> bool:
                if bars.take(line):
                    return True
                last_words.append(line[:LAST_CHARACTERS_MAX])
                del last_words[:-LAST_WORDS]
                return False

            code = await self._process(words, cwd, on_line, before)
        if code:
            raise failed(_command(words), code, last_words, cwd)

    async def output(self, *words: str, cwd: Path, check: bool = True) -> bytes:
        """
        Return what a command prints, byte for byte; nothing if it fails and `check` is False. Raises `PluginError`.

        It goes through a file of ours: as lines of a log, names of files would lose their odd bytes.
        """
        path = own_directory(self.context) / f"output.{secrets.token_hex(8)}"
        last_words: list[str] = []

        def on_line(stream: str, line: str) -> bool:
            last_words.append(line[:LAST_CHARACTERS_MAX])
            del last_words[:-LAST_WORDS]
            return True

        try:
            code = await self._process(words, cwd, on_line, ("sh", "-c", TO_FILE, str(path)))
            if code == -signal.SIGXFSZ and check:
                raise PluginError(
                    f"git {_command(words)} printed more than 64 MiB, which is refused: nothing was changed."
                )
            if code and check:
                raise failed(_command(words), code, last_words, cwd)
            return b"" if code else await self.context.run_in_thread(path.read_bytes)
        finally:
            path.unlink(missing_ok=True)

    async def read(self, *words: str, cwd: Path, check: bool = True) -> list[str]:
        """Return the lines that a command prints; none if it fails and `check` is False. Raises `PluginError`."""
        output = await self.output(*words, cwd=cwd, check=check)
        # Not splitlines(): U+2028 and its like may be in the name of a branch.
        return output.decode(errors="backslashreplace").removesuffix("\n").split("\n") if output else []

    async def works(self, *words: str, cwd: Path) -> bool:
        """Run a command that answers by its exit code, and return whether that is 0."""
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
            # Git looks for a repository in `cwd` and in no directory around it.
            env=self.env | ({"GIT_CEILING_DIRECTORIES": str(cwd.parent)} if cwd else {}),
            check=False,
            on_line=on_line,
        )
        return result.returncode

    def refuse_file_url(self, repository: str) -> None:
        """Raise `PluginError` if it is a file URL outside of `git_file_roots`, even if it is not used."""
        if is_file_url(repository):
            self._file_url(file_path(repository))

    def remote(self, repository: str) -> str:
        """
        Return the repository as git is given it: a path made absolute, a file URL checked against
        `git_file_roots`, credentials taken out of an http(s) URL.
        """
        if is_ssh(repository):
            return repository
        if is_file_url(repository):
            return self._file_url(file_path(repository))
        parts = urlsplit(repository)
        if parts.scheme == "https" and "@" in parts.netloc:
            return self._without_credentials(repository)
        return repository if SCHEME.match(repository) else os.path.abspath(repository)

    def _file_url(self, path: Path) -> str:
        real = path.resolve()
        roots = [root.resolve() for root in file_roots(self.context)]
        if not any(real.is_relative_to(root) for root in roots):
            shown = ", ".join(map(str, roots)) or "none"
            raise PluginError(
                f"file://{path} is refused: it is not below one of git_file_roots ({shown}). "
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
            "GIT_CONFIG_COUNT": "2",
            "GIT_CONFIG_KEY_0": f"http.https://{host}/.extraHeader",
            "GIT_CONFIG_VALUE_0": f"Authorization: Basic {header}",
            # After a redirect git would send the header to the other host too.
            "GIT_CONFIG_KEY_1": f"http.https://{host}/.followRedirects",
            "GIT_CONFIG_VALUE_1": "false",
        }
        return clean


def file_roots(context: TaskContext) -> list[Path]:
    """Return the directories below which file:// URLs are accepted: the option `file_roots`, separated by ':'."""
    return [Path(root) for root in context.options.get("file_roots", "").split(":") if root]


def own_directory(context: TaskContext) -> Path:
    """Return the directory of this plugin, in the service's own data: nothing of ours lies in a repository."""
    path = (context.settings.data_dir / "git").resolve()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


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
        "GIT_ATTR_NOSYSTEM": "1",
        # An object that is missing is an error: fetching it would have git run what the repository names.
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        # Its words in English, for the advice; its file names in UTF-8.
        "LC_ALL": "C.UTF-8",
        "LANGUAGE": "",
    }
