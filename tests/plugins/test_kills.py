"""
`kill -9` while all of the core plugins work at once: what they write is as before or as after.

Every round starts a backup, a database's backup, a restore, a migration, a clone, a pull, a commit
and a push, kills the service at a random moment (every other time with all that it has started,
which a power cut does too), looks at what is there, starts the service again and runs all of them
once more: they succeed without help. `TASKD_TEST_KILLS=50` does it fifty times.
"""

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import tarfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.helpers.daemon import git_daemon
from tests.helpers.served import Served, wait_until

KILLS = int(os.environ.get("TASKD_TEST_KILLS", "2"))
FILES = 300
MIGRATIONS = 12
ROWS = 4_000
SERVED = ("--bare", "--config=receive.autogc=false")


def git(directory: Path, *words: str) -> str:
    """What git itself says, with nobody's own configuration."""
    environment = os.environ | {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "init.defaultBranch=main")
    # A newer git cleans up in the background after a command, and a clone made meanwhile has a link to its lock.
    words = ("-c", "maintenance.auto=false", *words)
    done = subprocess.run(
        ["git", *identity, *words], cwd=directory, check=True, stdout=subprocess.PIPE, text=True, env=environment
    )
    return done.stdout.strip()


def family(pid: int) -> set[int]:
    """A process and all that it has started, and what these have."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents[int(stat.parent.name)] = int(fields[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def state(pid: int) -> str:
    """The kernel's letter for what the process does: Z where it has ended and is not yet waited for, or is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def stop(pid: int) -> None:
    """Stop the process: it has no more children after this."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: state(pid) in "TZ")


def kill(served: Served, everything: bool) -> None:
    """End the service at once, or the service and all that it has started; returns when all are gone."""
    stop(served.process.pid)
    others = family(served.process.pid) - {served.process.pid}
    if everything:
        for pid in others:
            stop(pid)
        others |= family(served.process.pid) - {served.process.pid}
        for pid in others:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    served.stop(signal.SIGKILL)
    wait_until(lambda: all(state(pid) == "Z" for pid in others))


class World:
    """What the plugins work on, and whether it is as before or as after."""

    def __init__(self, root: Path, remote: str, rng: random.Random) -> None:
        self.root = root
        self.remote = remote
        self.round = 0
        self._make_tree(rng)
        self._make_migrations()
        self._make_repositories(rng)

    def _make_tree(self, rng: random.Random) -> None:
        (self.root / "tree").mkdir()
        for number in range(60):
            (self.root / "tree" / f"{number}").write_bytes(rng.randbytes(200_000))
        with closing(sqlite3.connect(self.root / "app.db")) as database:
            database.execute("CREATE TABLE t AS SELECT randomblob(20000000) AS x")
            database.commit()

    def _make_migrations(self) -> None:
        (self.root / "migrations").mkdir()
        fill = f"WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < {ROWS}) SELECT x, x FROM n"
        for number in range(1, MIGRATIONS + 1):
            table = f"CREATE TABLE t{number} (x, y);\nINSERT INTO t{number} {fill};"
            sql = f"{table}\nCREATE INDEX i{number} ON t{number}(y);\n"
            (self.root / "migrations" / f"{number:04}_t.sql").write_text(sql)

    def _make_repositories(self, rng: random.Random) -> None:
        work = self.root / "work"
        work.mkdir()
        git(work, "init", "--quiet")
        for number in range(FILES):
            (work / f"{number}").write_bytes(rng.randbytes(4_000))
        git(work, "add", ".")
        git(work, "commit", "--quiet", "-m", "before")
        self.before = git(work, "rev-parse", "HEAD")
        git(self.root, "clone", "--quiet", *SERVED, "work", "served/pulled.git")
        git(self.root, "clone", "--quiet", *SERVED, "work", "served/pushed.git")
        for number in range(FILES):
            (work / f"{number}").write_bytes(rng.randbytes(4_000)) if number % 3 else (work / f"{number}").unlink()
            (work / f"new-{number}").write_bytes(rng.randbytes(4_000))
        git(work, "add", ".")
        git(work, "commit", "--quiet", "-m", "after")
        self.after = git(work, "rev-parse", "HEAD")
        git(work, "push", "--quiet", str(self.root / "served/pulled.git"), "main")
        for name in ("puller", "committer", "pusher"):
            git(self.root, "clone", "--quiet", f"served/{'pushed' if name == 'pusher' else 'pulled'}.git", name)
            git(self.root / name, "remote", "set-url", "origin", f"{self.remote}/pulled.git")
        git(self.root / "pusher", "fetch", "--quiet", str(work), "main")
        git(self.root / "pusher", "merge", "--quiet", "FETCH_HEAD")
        git(self.root / "pusher", "remote", "set-url", "origin", f"{self.remote}/pushed.git")

    def reset(self) -> None:
        """A new round: everything is as before."""
        self.round += 1
        git(self.root / "puller", "reset", "--quiet", "--hard", self.before)
        git(self.root / "puller", "clean", "--quiet", "-fd")
        git(self.root / "committer", "reset", "--quiet", "--hard", self.before)
        for number in range(FILES):
            (self.root / "committer" / f"{number}").write_text(f"{self.round} {number}\n" * 500)
        git(self.root / "served/pushed.git", "update-ref", "refs/heads/main", self.before)
        git(self.root / "pusher", "update-ref", "refs/remotes/origin/main", self.before)

    @property
    def database(self) -> Path:
        return self.root / f"{self.round}.db"

    @property
    def restored(self) -> Path:
        return self.root / "restored" / f"{self.round}"

    @property
    def cloned(self) -> Path:
        return self.root / "cloned" / f"{self.round}"

    def tasks(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """All that is to be done in a round, and has not been."""
        archives = str(self.root / "archives")
        yield "backup", {"source": str(self.root / "tree"), "destination": archives, "keep": 2}
        yield "backup", {"source": f"sqlite:///{self.root / 'app.db'}", "destination": archives, "keep": 2}
        if not self.restored.exists():
            archive = str(next((self.root / "first").glob("tree-*")))
            yield "backup", {"action": "restore", "archive": archive, "destination": str(self.restored)}
        yield "migration", {"database": f"sqlite:///{self.database}", "directory": str(self.root / "migrations")}
        if not self.cloned.exists():
            yield "git", {"action": "clone", "repository": f"{self.remote}/pulled.git", "directory": str(self.cloned)}
        yield "git", {"action": "pull", "directory": str(self.root / "puller")}
        yield "git", {"action": "commit", "directory": str(self.root / "committer"), "message": "all"}
        yield "git", {"action": "push", "directory": str(self.root / "pusher")}

    def check(self, served_by_itself: bool) -> set[str]:
        """Nothing is between, whoever looks; what was found to be after."""
        after = {"migration"} if self._check_database() == MIGRATIONS else set()
        for archive in (self.root / "archives").glob("*.tar.zst"):
            self._check_archive(archive)
        if self.restored.exists():
            assert _content(self.restored) == _content(self.root / "tree")
            after.add("restore")
        if self.cloned.exists():
            assert _state(self.cloned) == (self.after, "")
            after.add("clone")
        assert git(self.root / "served/pushed.git", "rev-parse", "main") in (self.before, self.after)
        if git(self.root / "committer", "rev-parse", "HEAD") != self.before:
            self._check_commit()
            after.add("commit")
        if git(self.root / "puller", "rev-parse", "HEAD") == self.after:
            after.add("pull")
        # Where git was killed too, its next task has to finish what it was writing.
        if served_by_itself:
            assert _state(self.root / "puller") in ((self.before, ""), (self.after, ""))
        return after

    def check_done(self) -> None:
        """All is as after, and no leftover is anywhere."""
        assert self.check(True) == {"migration", "restore", "clone", "commit", "pull"}
        assert git(self.root / "served/pushed.git", "rev-parse", "main") == self.after
        for place in ("archives", "restored", "cloned"):
            assert [path.name for path in (self.root / place).iterdir() if path.name.startswith(".")] == []
        for name in ("puller", "committer", "pusher"):
            assert list((self.root / name / ".git").rglob("*.lock")) == []
        shutil.rmtree(self.restored)
        shutil.rmtree(self.cloned)
        self.database.unlink()

    def _check_database(self) -> int:
        """The version; its tables are those of its migrations, each with all of its rows."""
        if not self.database.exists():
            return 0
        with closing(sqlite3.connect(self.database)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            version = 0
            if tables:
                [(version,)] = database.execute("SELECT count(*) FROM taskd_migrations")
            assert tables - {"taskd_migrations"} == {f"t{number}" for number in range(1, version + 1)}
            for number in range(1, version + 1):
                assert database.execute(f"SELECT count(y) FROM t{number}").fetchone() == (ROWS,)
        return int(version)

    def _check_archive(self, archive: Path) -> None:
        with (
            archive.open("rb") as file,
            zstandard.ZstdDecompressor().stream_reader(file) as content,
            tarfile.open(fileobj=content, mode="r|") as tar,
        ):
            sizes = {member.name: member.size for member in tar if member.isreg()}
        if archive.name.startswith("tree-"):
            assert sizes == {f"{number}": 200_000 for number in range(60)}
        else:
            assert sizes == {"app.db": (self.root / "app.db").stat().st_size}

    def _check_commit(self) -> None:
        committer = self.root / "committer"
        assert _state(committer)[1] == ""
        assert git(committer, "rev-list", "--count", f"{self.before}..HEAD") == "1"


def _content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def _state(directory: Path) -> tuple[str, str]:
    """The commit that is checked out, and what of the files is not as in it."""
    return git(directory, "rev-parse", "HEAD"), git(directory, "status", "--porcelain", "--untracked-files=all")


def run_to_end(served: Served, wanted: Iterable[tuple[str, dict[str, Any]]]) -> None:
    """Tasks, all at once, to their ends: they succeed."""
    for task_id in [served.submit(plugin, **params) for plugin, params in wanted]:
        wait_until(lambda: served.get(f"/api/tasks/{task_id}")["finished_at"])  # noqa: B023 (it is called here)
        task = served.get(f"/api/tasks/{task_id}")
        assert task["status"] == "succeeded", (task["plugin"], task["params"], task["error"])


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="who is whose child is read from /proc")
@pytest.mark.timeout(30 + 30 * KILLS)
def test_a_kill_leaves_nothing_between_and_the_next_run_needs_no_help(tmp_path: Path) -> None:
    """Whatever each of the plugins was doing."""
    rng = random.Random(KILLS)
    root = tmp_path / "world"
    (root / "served").mkdir(parents=True)
    served = Served(tmp_path, PYTHONPATH=str(Path(__file__).parent.parent.parent), GIT_CONFIG_GLOBAL="/dev/null")
    with git_daemon(root / "served", "--enable=receive-pack") as remote:
        world = World(root, remote, rng)
        with served:
            run_to_end(served, [("backup", {"source": str(root / "tree"), "destination": str(root / "first")})])
            world.reset()
            started = time.monotonic()
            run_to_end(served, world.tasks())
            whole_s = time.monotonic() - started
            world.check_done()
            found = Counter[str]()
            for number in range(KILLS):
                world.reset()
                for plugin, params in world.tasks():
                    served.submit(plugin, **params)
                time.sleep(rng.uniform(0, whole_s))  # the moment of the kill is what is random here
                kill(served, everything=number % 2 == 1)
                found.update(world.check(served_by_itself=number % 2 == 0))
                served.start()
                run_to_end(served, world.tasks())
                found["told"] += sum("killed" in text or "left behind" in text for text in said(served))
                world.check_done()
    print(f"{KILLS} kills within {whole_s:.1f} s; found as after: {dict(found)}")


def said(served: Served) -> list[str]:
    """What the newest tasks have told of those that were killed."""
    tasks = served.get("/api/tasks?limit=8")["tasks"]
    return [entry["message"] for task in tasks for entry in served.entries(task["id"])]
