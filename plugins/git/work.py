"""
Work that changes a repository, and the repair of work that was killed.

Git itself is never between two states but for two things that a kill leaves: its lock
files, which make the next git refuse to work, and files of the working tree that a pull had begun
to write. So for each repository, in a directory of taskd's own,

- `KEY.task` is locked by the task that works in this repository: there is one at a time;
- `KEY.intent` exists while it works, and describes what it is about to do to the files;
- `KEY.gits` is locked by every git that changes files, for it may outlive a killed service.

A task that gets the first lock and finds an intent knows that another was killed. It waits for the
last git to end, removes the lock files that are left, and writes the files of the pull to its end.
All three files are removed when nothing is left to repair. KEY is of the path and the inode of the
git directory: a new repository in the same place has nothing to do with the old one's intent.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

from taskd import PluginError

from .failures import Killed
from .places import Place
from .repository import look, report_hooks, submodules_in
from .runner import QUIET_DIFF, Runner, own_directory
from .texts import fields_of, readable, text_of

WAIT_S = 30.0
LOOK_AGAIN_S = 0.1
# A lock file that is younger may be of a git that is about to end.
LOCK_AGE_S = 1.0
# A cancelled pull writes its files to the end, but not for ever: git may wait for a FIFO of the working tree.
MOVE_WAIT_S = 30.0
NEVER_S = "1000000"
LOCK_FILES = (
    "index.lock", "HEAD.lock", "ORIG_HEAD.lock", "config.lock", "packed-refs.lock", "shallow.lock",
    "reftable/tables.list.lock", "MERGE_RR.lock", "objects/info/commit-graph.lock",
    "objects/info/commit-graphs/commit-graph-chain.lock",
    # No lock by its name, but git does not write over it either.
    "packed-refs.new",
)  # fmt: skip

IDENTITY = ("-c", "user.name=taskd", "-c", "user.email=taskd@localhost")

# Runs a command that holds a lock for as long as it lives, and what it starts lives.
HOLD = (
    "import fcntl, os, sys; fd = os.open(sys.argv[1], os.O_RDONLY); fcntl.flock(fd, fcntl.LOCK_SH); "
    "os.set_inheritable(fd, True); os.execvp(sys.argv[2], sys.argv[2:])"
)


def holding(lock: Path) -> list[str]:
    """Return the words to put before a command that holds `lock`, which exists."""
    return [sys.executable, "-I", "-S", "-c", HOLD, str(lock)]


class Work:
    """One task's work in one repository; made by `working`."""

    def __init__(self, git: Runner, place: Place) -> None:
        self._git = git
        self._place = place
        self._directory = place.directory
        self._own = own_directory(git.context)
        self._key = _key(place.git_dir)
        self._writing = False
        self._stuck = False

    async def run(self, *words: str) -> None:
        """
        Run a git that changes files: no task takes it for dead while it lives. Raises `PluginError`.

        It shows no progress of its files: if the service is killed nothing reads that any more,
        and it would be killed by SIGPIPE in the middle of them.
        """
        # A fetch may have lasted for hours since the last look.
        await look(self._git, self._directory)
        self._git.env["GIT_PROGRESS_DELAY"] = NEVER_S
        await self._git.run(*words, cwd=self._directory, before=holding(self._file("gits")))

    async def add_all(self, nested: list[bytes]) -> None:
        """Stage all changes, but not the repositories at the paths `nested`, which git would enter."""
        await self._add("--all", nested)

    async def _add(self, what: str, nested: list[bytes]) -> None:
        names = self._file("names")
        names.write_bytes(b"\0".join([b":(top)", *(b":(top,exclude,literal)" + path for path in nested)]))
        await self.run("add", what, f"--pathspec-from-file={names}", "--pathspec-file-nul")
        names.unlink()

    async def forward(self, before: str | None, after: str) -> None:
        """
        Bring the checked-out branch and its files from `before` (None: there is no commit yet) to
        `after`, which has it as an ancestor. Raises `PluginError` if a local change is in the way.
        """
        if before:
            await self._refuse_replaced_submodules(before, after)
        words: tuple[str, ...] = ("merge", "--ff-only", "--no-autostash", "--quiet", after)
        if before and await self._is_free(before, after):
            await self._intend({"before": before, "after": after})
            self._writing = True
            # Not a merge: what a configuration sets for merges must not stop it, now that nothing else can.
            words = ("reset", "--keep", "--quiet", after, "--")
        move = asyncio.ensure_future(self.run(*words))
        try:
            await asyncio.shield(move)
        except asyncio.CancelledError:
            # The files are being written: between the two commits is no place to stop.
            await asyncio.wait([move], timeout=MOVE_WAIT_S)
            self._stuck = not move.done() and move.cancel()
            await asyncio.wait([move])
            self._writing = move.cancelled() or move.exception() is not None
            raise
        self._writing = False

    async def _refuse_replaced_submodules(self, before: str, after: str) -> None:
        """Raise `PluginError` if a file takes the place of a submodule: git would remove all that is there, unseen."""
        words = ("diff", *QUIET_DIFF, "--raw", "--no-renames", "--ignore-submodules=none", "--diff-filter=T", "-z")
        fields = iter(fields_of(await self._git.output(*words, before, after, cwd=self._directory)))
        for about, path in zip(fields, fields, strict=True):
            directory = self._directory / os.fsdecode(path)
            if about.startswith(b":160000 ") and directory.is_dir() and any(directory.iterdir()):
                raise PluginError(
                    f"The pull has a file in the place of the submodule {readable(text_of(path))}, whose directory is "
                    "not empty: nothing was changed. Move or empty that directory, then pull again."
                )

    async def _is_free(self, before: str, after: str) -> bool:
        """Return whether no local change is in the way of writing over the files."""
        await self._git.works("update-index", "-q", "--refresh", "--ignore-submodules", cwd=self._directory)
        return await self._git.works("read-tree", "-n", "-m", "-u", before, after, cwd=self._directory)

    @contextlib.asynccontextmanager
    async def begun(self) -> AsyncIterator[None]:
        """Hold the repository. If the task before died in the middle, finish its work first."""
        task = await self._acquire()
        try:
            # Even an empty file may wait for a busy disk, and the loop with it.
            await self._git.context.run_in_thread(self._file("gits").touch, 0o600)
            await self._recover()
            await self._intend({})
            try:
                yield
            except BaseException as error:
                await self._clean_up(error)
                raise
            await self._git.context.run_in_thread(self._done)
        finally:
            os.close(task)

    async def _clean_up(self, error: BaseException) -> None:
        if self._stuck:
            return  # a git that waits for ever would do so again
        if isinstance(error, PluginError) and not isinstance(error, Killed) and not self._writing:
            # What git refuses it leaves as it was.
            self._done()
            return
        # Our gits are gone: what they have left can go too, at once if possible.
        with contextlib.suppress(PluginError):
            await self._recover()
            self._done()

    async def _acquire(self) -> int:
        """Lock `task`, and return its descriptor."""
        deadline = time.monotonic() + WAIT_S
        while True:
            fd = os.open(self._file("task"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                await self._lock(fd, "Another task works in", deadline)
                if os.fstat(fd).st_nlink:
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # removed by the task that had it

    def _done(self) -> None:
        """Remove our files: nothing is left to repair. The lock goes last."""
        for name in ("names", "intent", "gits", "task"):
            self._file(name).unlink(missing_ok=True)

    async def _lock(self, fd: int, owner: str, deadline: float) -> None:
        while True:
            with contextlib.suppress(BlockingIOError):
                return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.monotonic() > deadline:
                raise PluginError(
                    f"{owner} {self._directory}, for more than {WAIT_S:.0f} s already. Run again when it has ended."
                )
            await asyncio.sleep(LOOK_AGAIN_S)

    def _file(self, name: str) -> Path:
        return self._own / f"{self._key}.{name}"

    async def _intend(self, intent: dict[str, str]) -> None:
        await self._git.context.run_in_thread(_write_durably, self._file("intent"), json.dumps(intent))

    # The repair after a kill

    async def _recover(self) -> None:
        path = self._file("intent")
        if not path.exists():
            return
        intent = json.loads(path.read_text())
        await self._wait_for_gits()
        await self._remove_locks(path.stat().st_mtime)
        if intent and await self._head() == intent["before"] and await self._is_there(intent["after"]):
            await self._finish_pull(intent["before"], intent["after"])
        path.unlink()

    async def _wait_for_gits(self) -> None:
        fd = os.open(self._file("gits"), os.O_RDWR | os.O_CLOEXEC)
        try:
            await self._lock(fd, "A git of a task that was killed still works in", time.monotonic() + WAIT_S)
        finally:
            os.close(fd)

    async def _is_there(self, commit: str) -> bool:
        return await self._git.works("cat-file", "-e", f"{commit}^{{commit}}", cwd=self._directory)

    async def _head(self) -> str:
        return "".join(await self._git.read("rev-parse", "--verify", "HEAD", cwd=self._directory))

    async def _remove_locks(self, begun_at: float) -> None:
        """Remove the lock files that were made since the work began, by gits that are dead now."""
        in_thread = self._git.context.run_in_thread
        for lock, made_at in await in_thread(_locks_since, self._place, begun_at - 1):
            await asyncio.sleep(min(LOCK_AGE_S, max(0.0, made_at + LOCK_AGE_S - time.time())))
            if (lock, made_at) in await in_thread(_locks_since, self._place, begun_at - 1):
                lock.unlink(missing_ok=True)
                self._git.log.warning(f"removed {lock}, which a git that was killed had left")

    async def _finish_pull(self, before: str, after: str) -> None:
        """
        Give every file that differs between the two the content of `after`. None of them had a
        local change when the intent was written; what they are now is kept as a commit all the same.
        """
        if commit := await self._kept():
            await self._git.read("update-ref", f"refs/taskd/kept/{commit[:12]}", commit, cwd=self._directory)
            self._git.log.warning(f"finishing a pull that was killed; its files as they were found are commit {commit}")
        for kind, command, option in (
            # The files of a submodule stay, as they do in a pull.
            ("D", ("rm", "--quiet", "--force", "--ignore-unmatch"), "--ignore-submodules=all"),
            ("D", ("rm", "--quiet", "--cached", "--force", "--ignore-unmatch"), "--ignore-submodules=none"),
            ("d", ("restore", f"--source={after}", "--staged", "--worktree", "--quiet"), "--ignore-submodules=none"),
        ):
            await self._give_paths(kind, option, command, before, after)
        await self._git.read("update-ref", "-m", "pull: finished by taskd", "HEAD", after, before, cwd=self._directory)
        self._git.log.warning(f"finished a pull that was killed: {before} to {after}")

    async def _kept(self) -> str | None:
        """
        Return a commit of the files as they are; None if they are as in HEAD. It is made by an index of
        ours and not by `git stash`, which runs git in submodules, by their own configuration.
        """
        index, env = self._file("index"), self._git.env
        index.with_name(f"{index.name}.lock").unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            await self._git.context.run_in_thread(shutil.copyfile, self._place.git_dir / "index", index)
        self._git.env = env | {"GIT_INDEX_FILE": str(index)}
        try:
            if not index.exists():
                await self._git.read("read-tree", "HEAD", cwd=self._directory)
            submodules = await submodules_in(self._git, self._place)
            # Newer versions of git refuse a pathspec that matches no file, which without one is no error.
            await (self._add("--update", submodules) if submodules else self.run("add", "--update"))
            [tree] = await self._git.read("write-tree", cwd=self._directory)
            if [tree] == await self._git.read("rev-parse", "HEAD^{tree}", cwd=self._directory):
                return None
            words = ("commit-tree", tree, "-p", "HEAD", "-m", "kept by taskd")
            return "".join(await self._git.read(*IDENTITY, *words, cwd=self._directory))
        finally:
            self._git.env = env
            index.unlink(missing_ok=True)

    async def _give_paths(self, kind: str, option: str, command: tuple[str, ...], before: str, after: str) -> None:
        """Run `command` for the files that a pull deletes (`kind` D) or has (d)."""
        names = self._file("names")
        await self._git.read(
            *("diff", *QUIET_DIFF, "--no-renames", option, "--name-only", "-z", f"--diff-filter={kind}"),
            *(f"--output={names}", before, after),
            cwd=self._directory,
        )
        if names.stat().st_size:
            await self.run("--literal-pathspecs", *command, f"--pathspec-from-file={names}", "--pathspec-file-nul")
        names.unlink()


@contextlib.asynccontextmanager
async def working(git: Runner, place: Place) -> AsyncIterator[Work]:
    """
    The right to change the repository, one task at a time. Raises `PluginError` if another task, or
    a git that outlived its task, does not end within `WAIT_S`.
    """
    work = Work(git, place)
    await report_hooks(git, place)
    async with work.begun():
        yield work


def _key(git_dir: Path) -> str:
    status = git_dir.stat()
    return hashlib.sha256(os.fsencode(f"{git_dir}\0{status.st_dev}\0{status.st_ino}")).hexdigest()[:32]


def _write_durably(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, path)


def _locks_since(place: Place, moment: float) -> list[tuple[Path, float]]:
    """Return git's lock files that were made after `moment`, and when."""
    paths = {top / name for top in (place.git_dir, place.common_dir) for name in LOCK_FILES}
    refs = (Path(folder, name) for folder, _, names in os.walk(place.common_dir / "refs") for name in names)
    paths |= {path for path in refs if path.suffix == ".lock"}
    found = []
    for path in sorted(paths):
        with contextlib.suppress(FileNotFoundError):
            if (made_at := os.lstat(path).st_mtime) >= moment:
                found.append((path, made_at))
    return found
