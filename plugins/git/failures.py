"""Why git could not do it, in words that say what to do."""

import re
from pathlib import Path

from taskd import PluginError

REMOTE_WORDS_MAX = 300
NO_REPOSITORY = "not a git repository"

# What git says, and what to do about it.
ADVICE = (
    (r"\[rejected\].*(fetch first|non-fast-forward)", "The remote has commits that are not here: pull first."),
    (r"\[remote rejected\]", "The remote's own rules refused it."),
    (r"Not possible to fast-forward|divergent branches", "Both sides have new commits: merge or rebase by hand."),
    (r"local changes.* would be overwritten|[Uu]ntracked .* would be overwritten", "Commit or remove them first."),
    (r"could not read Username|Authentication failed|terminal prompts disabled", "Give the right credentials."),
    (
        r"Permission denied \(publickey|Host key verification failed",
        "Set up the ssh key and known_hosts of taskd's user.",
    ),
    (r"does not appear to be a git repository|[Rr]epository .*not found|does not exist", "Check the repository."),
    (r"Remote branch .* not found|couldn't find remote ref|src refspec .* does not match", "Check the branch."),
    (r"dubious ownership", "Its files belong to another user: change the owner, or run taskd as that user."),
    (r"index\.lock", "Another git works here; if none does, remove the lock file that git names."),
    (r"must be run in a work tree", "It is a bare repository, without files: give a clone of it."),
    (
        r"returned error: 30\d",
        "Credentials follow no redirect: give the URL that it leads to (often the same with .git at its end).",
    ),
    (NO_REPOSITORY, "Give the directory of a repository."),
    (
        r"Could not resolve|[Ff]ailed to connect|unable to connect|Connection (refused|timed out)",
        "Check the address and the network.",
    ),
)


class Killed(PluginError):
    """Git was killed; what it has left behind is removed by the next task in its repository."""


def failed(command: str, code: int, words: list[str], where: Path | None) -> PluginError:
    """The error for a git that ended with `code` in the directory `where`, having said `words` last."""
    return (Killed if code < 0 else PluginError)(why(command, code, words, where))


def why(command: str, code: int, words: list[str], where: Path | None) -> str:
    said = [line.removeprefix("fatal: ").removeprefix("error: ") for line in words if line.strip()]
    told = next((line for line in words if line.startswith(("fatal: ", "error: ", " ! "))), "")
    told = told.removeprefix("fatal: ").removeprefix("error: ").strip() or (said[-1] if said else "")
    if told.startswith(NO_REPOSITORY) and where is not None:
        told = f"{where} is {told.partition(' (or any of')[0]}"  # git names no directory
    if told.endswith(":"):  # the reason is on the line after
        told = " ".join([told, *said[-1:]])
    text = "\n".join(words)
    advice = next((advice for pattern, advice in ADVICE if re.search(pattern, text)), "Its words in the log say more.")
    if code < 0:
        return f"git {command} was killed by signal {-code}. Run again: what it left behind is removed then."
    if refusal := [line.removeprefix("remote: ").strip() for line in words if line.startswith("remote: ")]:
        told += f", and the remote says: {' '.join(refusal)[:REMOTE_WORDS_MAX]}"
    return f"git {command} failed with exit code {code}: {told.rstrip('.')}. {advice}"
