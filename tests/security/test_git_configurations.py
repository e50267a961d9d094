"""
Random configurations and hostile `.git` directories, in every action of the git plugin (R20).

The keys are those of `git help --config` of the git that is installed and of 2.39, 2.47 and 2.55
(`git-keys.txt`), spelt at random, with values that are programs, URLs, paths and odd bytes. A third of
the configurations have only keys that the plugin takes for harmless, a third those that are known to
run programs. Whatever the plugin makes of it, no program runs, nothing outside of the repository
changes, and the service's loop goes on.

`TASKD_TEST_SEED` repeats a run.
"""

import asyncio
import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from plugins.git.configuration import HARMLESS
from taskd.service import Service
from tests.conftest import running_service
from tests.helpers.bars import TORTURE, Record, scaled
from tests.helpers.hostile_git import HOSTILE, snapshot
from tests.helpers.repositories import git

REPOSITORIES = scaled(30, 1_000)
AT_ONCE = 4
# A git that waits for a FIFO is cancelled after this; nothing is asserted of it.
WAIT_S = 10.0
LOOP_LAG_MAX_S = 0.5
SEED = int(os.environ.get("TASKD_TEST_SEED", "0")) or random.randrange(1, 2**32)
ODD = (b"\xff", b"x", b"origin", b"main", b"sub", b"https://example.org", b"a.b", b" ", b"\xc3\xa9", b"*", b"..", b"X")
PROGRAMS = (
    *(b"filter.*.clean", b"filter.*.smudge", b"filter.*.process", b"diff.*.textconv", b"merge.*.driver"),
    *(b"core.fsmonitor", b"core.hooksPath", b"core.sshCommand", b"core.alternateRefsCommand", b"hook.*.command"),
    *(b"remote.*.uploadpack", b"remote.*.receivepack", b"remote.*.url", b"credential.helper", b"diff.external"),
)
# Subsections that a remote, the branch or the attributes name.
NAMED = (b"x", b"X", b"\xff", b"main", b"origin")
ATTRIBUTES = (
    b"* filter=x diff=x merge=x\n*.t filter=\xff diff=\xff\n*.u filter=X\n"
    b"*.v filter=main working-tree-encoding=UTF-16\n"
)


def known_keys() -> list[bytes]:
    """Return the keys of this machine's git and of three versions of it."""
    here = subprocess.run(["git", "help", "--config"], check=True, stdout=subprocess.PIPE).stdout.splitlines()
    there = (Path(__file__).parent / "git-keys.txt").read_bytes().splitlines()
    return sorted({key for key in [*here, *there] if b"." in key and b" " not in key.partition(b"<")[0]})


class World:
    """A place for hostile repositories, and all around it that must stay as it is."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pwned = root / "pwned"
        self.keys = known_keys()
        self.harmless = sorted(HARMLESS)
        self.canary = root / "canary"
        self.canary.write_text(f'#!/bin/sh\necho "$0 $@" >>{self.pwned}\ncat\n')
        self.canary.chmod(0o755)
        (root / "home").mkdir()
        self._make_origin()
        self._make_template()
        (root / "bait").mkdir()
        (root / "bait/file").write_text("precious\n")
        git(root, "clone", "--quiet", "--bare", "origin.git", "bait/repository.git")
        (root / "bait/repository.git/hooks/pre-receive").symlink_to(self.canary)

    def _make_origin(self) -> None:
        work = self.root / "work"
        git(self.root, "init", "--quiet", "work")
        for name in ("file", "a.t", "b.u", "c.v"):
            (work / name).write_text("1\n")
        git(work, "add", ".")
        git(work, "commit", "--quiet", "-m", "1")
        git(self.root, "clone", "--quiet", "--bare", "work", "origin.git")

    def _make_template(self) -> None:
        template = self.root / "template"
        git(self.root, "clone", "--quiet", "origin.git", "template")
        git(self.root, "clone", "--quiet", "origin.git", "good")
        git(template, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(self.root / "work"), "sub")
        git(template, "commit", "--quiet", "-m", "2")
        (template / ".git/info/attributes").write_bytes(ATTRIBUTES)
        for hook in ("pre-commit", "post-commit", "post-merge", "pre-push", "reference-transaction", "post-receive"):
            (template / ".git/hooks").mkdir(exist_ok=True)
            (template / ".git/hooks" / hook).symlink_to(self.canary)
        git(template / "sub", "config", "core.fsmonitor", str(self.canary))
        git(template / "sub", "config", "filter.x.clean", str(self.canary))
        (template / ".git/modules/sub/info/attributes").write_bytes(ATTRIBUTES)

    def outside(self) -> list[object]:
        return [snapshot(self.root / name) for name in ("bait", "home")]

    # A hostile repository

    def make(self, number: int, rng: random.Random) -> Path:
        directory = self.root / "hostile" / f"{number}"
        shutil.copytree(self.root / "template", directory, symlinks=True)
        for name in ("file", "a.t", "b.u", "c.v", "new"):
            (directory / name).write_text(f"{number}\n")
        bait = self.root / "baits" / f"{number}"
        bait.mkdir(parents=True)
        (bait / "file").write_text("precious\n")
        if rng.random() < 0.3:
            rng.choice(HOSTILE)(directory / ".git", bait)
        elif rng.random() < 0.1:
            (directory / ".git/hooks").rename(directory / ".git/info/hooks")
        self._configure(directory, rng)
        return directory

    def _configure(self, directory: Path, rng: random.Random) -> None:
        keys = rng.choice([self.keys, self.harmless, PROGRAMS])
        text = b"".join(self._setting(rng.choice(keys), keys is PROGRAMS, rng) for _ in range(rng.randint(1, 6)))
        config = directory / ".git/config"
        if not config.is_file():  # it is a FIFO, or not there any more
            return
        name = rng.choice(["config", "config", "config", "config.worktree", "included"])
        if name == "config.worktree":
            text, more = b"[extensions]\n\tworktreeConfig = true\n", text
            (directory / ".git/config.worktree").write_bytes(more)
        elif name == "included":
            (directory / "included").write_bytes(text)
            kind = rng.choice([b"[include]", b'[includeIf "gitdir:**"]', b'[INCLUDEIF "onbranch:*"]'])
            text = kind + b"\n\tpath = ../included\n"
        with config.open("ab") as file:
            file.write(text)

    def _setting(self, key: bytes, runs: bool, rng: random.Random) -> bytes:
        section, _, rest = key.partition(b".")
        subsection, _, name = rest.rpartition(b".")
        if b"<" in subsection or b"*" in subsection:
            subsection = rng.choice(NAMED if runs else ODD)
        name = b"".join(part for part in (name.replace(b"*", b"x").replace(b"<", b"").replace(b">", b""),)) or b"x"
        if rng.random() < 0.3:
            section, name = section.upper(), name.swapcase()
        head = b'[%s "%s"]' % (section, subsection) if subsection else b"[%s]" % section
        value = os.fsencode(self.canary) if runs and rng.random() < 0.7 else self._value(rng)
        return b"%s\n\t%s%s\n" % (head, name, b" = " + value if rng.random() < 0.9 else b"")

    def _value(self, rng: random.Random) -> bytes:
        canary, bait = os.fsencode(self.canary), os.fsencode(self.root / "bait")
        return rng.choice(
            [
                b'"%s %%O %%A %%B"' % canary, b"!" + canary, b"ext::" + canary, b"file://" + bait + b"/repository.git",
                bait + b"/repository.git", bait, bait + b"/made", bait + b"/file", b'"%s; %%s"' % canary, b"|" + canary,
                b"true", b"false", b"1", b"0", b"-1", b"99999999999999999999", b"\xff\xfe", b'"a\\nb"', b"../../..",
                b"/dev/zero", b"refs/heads/main", b"+refs/heads/*:refs/heads/*", b"x", b"always", b"pre-commit",
                b"reftable://" + bait, b"sha256", b"git://127.0.0.1:1/r", b"--upload-pack=" + canary, b"~/made",
            ]
        )  # fmt: skip


async def attack(service: Service, world: World, directory: Path) -> list[str]:
    """Run every action in a hostile repository, and against it from a good one; return how the tasks ended."""
    good, copy = str(world.root / "good"), directory.with_name(f"{directory.name}.clone")
    there = str(directory)
    ends = list[str]()
    for params in (
        *({"action": action, "directory": there, "message": "m"} for action in ("status", "log", "pull", "commit")),
        {"action": "push", "directory": there},
        {"action": "push", "directory": there, "repository": "https://example.org/x"},
        {"action": "pull", "directory": there, "repository": str(world.root / "origin.git"), "branch": "main"},
        {"action": "clone", "repository": there, "directory": str(copy)},
        {"action": "push", "directory": good, "repository": there},
        {"action": "pull", "directory": good, "repository": there, "branch": "main"},
    ):
        task = await service.manager.submit("git", params)
        end = asyncio.create_task(service.manager.wait(task.id))
        if not (await asyncio.wait([end], timeout=WAIT_S))[0]:
            await service.manager.cancel(task.id)
        ends.append((await end).status.value)
    await asyncio.to_thread(shutil.rmtree, copy, ignore_errors=True)
    return ends


class Heart:
    """Counts the turns of the loop, and how late the latest of them was."""

    def __init__(self) -> None:
        self.turns = 0
        self.late_s = 0.0

    async def beat(self) -> None:
        while True:
            due = time.monotonic() + 0.01
            await asyncio.sleep(0.01)
            self.turns += 1
            self.late_s = max(self.late_s, time.monotonic() - due)


@pytest.mark.bar("R20")
@pytest.mark.timeout(scaled(300, 7_200))
@pytest.mark.skipif(not TORTURE, reason="a minute even in its short form: `make torture` runs it")
async def test_no_repository_has_anything_run_or_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Record
) -> None:
    """Whatever it is, and whatever is done in it."""
    print(f"TASKD_TEST_SEED={SEED}")
    (tmp_path / "gitconfig").write_text(
        "[user]\n\tname = Ada\n\temail = ada@example.org\n[init]\n\tdefaultBranch = main\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    world = await asyncio.to_thread(World, tmp_path)
    before, heart, ends = world.outside(), Heart(), list[str]()
    numbers = iter(range(REPOSITORIES))

    async def work(service: Service) -> None:
        for number in numbers:
            directory = await asyncio.to_thread(world.make, number, random.Random(f"{SEED} {number}"))
            bait = tmp_path / "baits" / f"{number}"
            around = await asyncio.to_thread(snapshot, bait)
            ends.extend(await attack(service, world, directory))
            assert not world.pwned.exists(), (number, world.pwned.read_text(), (directory / ".git/config").read_bytes())
            assert await asyncio.to_thread(snapshot, bait) == around, (number, list(bait.rglob("*")))
            await asyncio.to_thread(shutil.rmtree, directory)

    async with running_service(tmp_path) as service:
        beating = asyncio.create_task(heart.beat())
        await asyncio.gather(*(work(service) for _ in range(AT_ONCE)))
        beating.cancel()
    assert world.outside() == before
    assert heart.turns > REPOSITORIES
    assert {"failed", "succeeded"} <= set(ends)
    if TORTURE:
        assert heart.late_s <= LOOP_LAG_MAX_S
    record_property("repositories", REPOSITORIES)
    record_property("tasks", {status: ends.count(status) for status in sorted(set(ends))})
    record_property("loop lag max ms", round(heart.late_s * 1_000, 1))
    record_property("seed", SEED)
