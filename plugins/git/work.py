"""
Work that changes a repository, and what is done about work that was killed.

Git itself is never between two states but for two things that a kill leaves behind: its lock
files, which make the next git refuse to work, and files of the working tree that a pull had begun
to write. So in `taskd/` of the git directory

- `task` is locked by the task that works in this repository: there is one at a time;
- `intent` is there while it works, and says what it is about to do to the files;
- `gits` is locked by every git that changes files, for it may outlive a killed service.

Who gets the first lock and finds an intent knows that somebody died. It waits for the last git to
end, removes the lock files that are left, and writes the files of the pull to its end.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from .failures import Failed, Killed
from .runner import Runner

WAIT_S = 30.0
LOOK_AGAIN_S = 0.1
# A lock file that is younger may be of a git that is about to end.
LOCK_AGE_S = 1.0
NEVER_S = "1000000"
LOCK_FILES = ("index.lock", "HEAD.lock", "ORIG_HEAD.lock", "config.lock", "packed-refs.lock", "shallow.lock")

IDENTITY = ("-c", "user.name=taskd", "-c", "user.email=taskd@localhost")

# Runs a command that holds a lock for as long as it lives, and what it starts lives.
HOLD = (
    "import fcntl, os, sys; fd = os.open(sys.argv[1], os.O_RDONLY); fcntl.flock(fd, fcntl.LOCK_SH); "
    "os.set_inheritable(fd, True); os.execvp(sys.argv[2], sys.argv[2:])"
)


def holding(lock: Path) -> list[str]:
    """The words to put before a command that is to hold `lock`, which exists."""
    return [sys.executable, "-I", "-S", "-c", HOLD, str(lock)]


class Work:
    """One task's work in one repository; made by `working`."""

    def __init__(self, git: Runner, directory: Path, git_dir: Path, common_dir: Path) -> None:
        self._git = git
        self._directory = directory
        self._git_dir = git_dir
        self._common_dir = common_dir
        self._place = git_dir / "taskd"
        self._writing = False

    async def run(self, *words: str) -> None:
        """
        Run a git that changes files: nobody takes it for dead while it lives. Raises `Failed`.

        It shows no progress of its files: where the service is killed nobody reads that any more,
        and it would be killed by SIGPIPE in the middle of them.
        """
        self._git.env["GIT_PROGRESS_DELAY"] = NEVER_S
        await self._git.run(*words, cwd=self._directory, before=holding(self._place / "gits"))

    async def forward(self, before: str | None, after: str) -> None:
        """
        Bring the checked-out branch and its files from `before` (None: there is no commit yet) to
        `after`, which has it as an ancestor. Raises `Failed` where a local change is in the way.
        """
        words: tuple[str, ...] = ("merge", "--ff-only", "--no-autostash", "--quiet", after)
        if before and await self._is_free(before, after):
            self._intend({"before": before, "after": after})
            self._writing = True
            # Not a merge: what a configuration says of merges must not stop it, now that nothing else can.
            words = ("reset", "--keep", "--quiet", after, "--")
        move = asyncio.ensure_future(self.run(*words))
        try:
            await asyncio.shield(move)
        except asyncio.CancelledError:
            # The files are being written: between the two commits is no place to stop.
            await asyncio.wait([move])
            self._writing = move.exception() is not None
            raise
        self._writing = False

    async def _is_free(self, before: str, after: str) -> bool:
        """Whether no local change is in the way; who has been told so may write over the files."""
        await self._git.works("update-index", "-q", "--refresh", cwd=self._directory)
        return await self._git.works("read-tree", "-n", "-m", "-u", before, after, cwd=self._directory)

    def _intend(self, intent: dict[str, str]) -> None:
        with _told(self._directory):
            text = self._place / f"intent.{secrets.token_hex(4)}"
            with text.open("w") as file:
                json.dump(intent, file)
                file.flush()
                os.fsync(file.fileno())
            os.rename(text, self._place / "intent")

    @contextlib.asynccontextmanager
    async def begun(self) -> AsyncIterator[None]:
        """Hold the repository; where the one before died in the middle, finish its work first."""
        with _told(self._directory):
            self._place.mkdir(exist_ok=True)
        with _opened(self._place / "task", self._directory) as task, _opened(self._place / "gits", self._directory):
            await self._lock(task, "Another task works in")
            await self._recover()
            self._intend({})
            try:
                yield
            except BaseException as error:
                # What git refuses it leaves as it was; but not what it was writing when it failed. Our
                # gits are gone: what they have left behind can go too, at once where we may.
                if isinstance(error, Failed) and not isinstance(error, Killed) and not self._writing:
                    self._done()
                else:
                    with contextlib.suppress(Failed):
                        await self._recover()
                raise
            self._done()

    def _done(self) -> None:
        (self._place / "intent").unlink(missing_ok=True)

    async def _lock(self, fd: int, who: str) -> None:
        deadline = time.monotonic() + WAIT_S
        while True:
            with contextlib.suppress(BlockingIOError):
                return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.monotonic() > deadline:
                raise Failed(
                    f"{who} {self._directory}, for more than {WAIT_S:.0f} s already. Run again when it has ended."
                )
            await asyncio.sleep(LOOK_AGAIN_S)

    # What the one before has left

    async def _recover(self) -> None:
        try:
            text = (self._place / "intent").read_text()
        except FileNotFoundError:
            return
        with _opened(self._place / "gits", self._directory) as gits:
            await self._lock(gits, "A git of a task that was killed still works in")
        await self._remove_locks((self._place / "intent").stat().st_mtime)
        intent = json.loads(text)
        if intent and await self._head() == intent["before"] and await self._is_there(intent["after"]):
            await self._finish_pull(intent["before"], intent["after"])
        for text_left in self._place.glob("intent.*"):
            text_left.unlink(missing_ok=True)
        self._done()

    async def _is_there(self, commit: str) -> bool:
        return await self._git.works("cat-file", "-e", f"{commit}^{{commit}}", cwd=self._directory)

    async def _head(self) -> str:
        return "".join(await self._git.read("rev-parse", "--verify", "HEAD", cwd=self._directory))

    async def _remove_locks(self, begun_at: float) -> None:
        """Remove the lock files that were made since the work began, by whoever is dead now."""
        places = {self._git_dir, self._common_dir}
        for lock in {place / name for place in places for name in LOCK_FILES} | {
            *self._common_dir.glob("refs/**/*.lock")
        }:
            with contextlib.suppress(FileNotFoundError):
                made_at = lock.stat().st_mtime
                await asyncio.sleep(min(LOCK_AGE_S, max(0.0, made_at + LOCK_AGE_S - time.time())))
                if made_at >= begun_at - 1:
                    lock.unlink()
                    self._git.log.warning(f"removed {lock}, which a git that was killed had left behind")

    async def _finish_pull(self, before: str, after: str) -> None:
        """
        Give every file that differs between the two the content of `after`. None of them had a
        local change when the intent was written; what they are now is kept as a commit all the same.
        """
        kept = await self._git.read(*IDENTITY, "stash", "create", "kept by taskd", cwd=self._directory, check=False)
        for commit in kept:
            await self._git.read("update-ref", f"refs/taskd/kept/{commit[:12]}", commit, cwd=self._directory)
            self._git.log.warning(f"finishing a pull that was killed; its files as they were found are commit {commit}")
        literal = ("--literal-pathspecs",)
        # Names of files go from git to git: they may be any bytes, which our pipes are not made for.
        for kind, command in (
            ("D", ("rm", "--quiet", "--force", "--ignore-unmatch")),
            ("d", ("restore", f"--source={after}", "--staged", "--worktree", "--quiet")),
        ):
            names = self._place / "names"
            await self._git.read(
                *("diff", "--no-ext-diff", "--no-renames", "--name-only", "-z", f"--diff-filter={kind}"),
                *(f"--output={names}", before, after),
                cwd=self._directory,
            )
            if names.stat().st_size:
                await self.run(*literal, *command, f"--pathspec-from-file={names}", "--pathspec-file-nul")
            names.unlink()
        await self._git.read("update-ref", "-m", "pull: finished by taskd", "HEAD", after, before, cwd=self._directory)
        self._git.log.warning(f"finished a pull that was killed: {before} to {after}")


@contextlib.asynccontextmanager
async def working(git: Runner, directory: Path) -> AsyncIterator[Work]:
    """
    The right to change the repository, one task at a time. Raises `Failed` where another task or
    a git that was left alone does not end within `WAIT_S`.
    """
    lines = await git.read("rev-parse", "--absolute-git-dir", "--git-common-dir", cwd=directory)
    work = Work(git, directory, Path(lines[0]), (directory / lines[1]).resolve())
    async with work.begun():
        yield work


@contextlib.contextmanager
def _opened(path: Path, directory: Path) -> Iterator[int]:
    with _told(directory):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _told(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Failed(f"The repository {directory} cannot be written to: {error.strerror}.") from error
