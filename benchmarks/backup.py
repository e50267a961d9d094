"""
backup: the shipped plugin beside `tar --zstd`, and its memory on 2 GB.

- Time: 400 MB in files of 64 KiB to 1 MiB, half of it random and half words, by a task with
  `verify=false` (from its start to its end, as the task says) and by `tar --zstd` of the system, one
  after the other in each round. The ratio is the median of the rounds' ratios. The task's archive is
  on disk at its end and has a checksum; tar leaves its own to the page cache.
- Memory: by how much the highest resident size (`VmHWM`) of the service grows from a backup of 64 MB,
  verified, to one of 2 GB, verified too: sparse files of 64 MiB, which are read whole. Linux only.
"""

import random
import shutil
import subprocess
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.plan import Plan, ended
from benchmarks.proc import memory_of
from benchmarks.table import Result, Skipped, result
from tests.helpers.served import Served

BAR_RATIO = 1.5
BAR_GROWN_MB = 32
FILE_BYTES = (65_536, 131_072, 262_144, 1_048_576)
SPARSE_BYTES = 64 * 1_024**2


def run(plan: Plan) -> list[Result | Skipped]:
    """Both, on servers of their own."""
    return [*_time(plan), *_memory(plan)]


def _time(plan: Plan) -> list[Result | Skipped]:
    if not (shutil.which("tar") and shutil.which("zstd")):
        return [Skipped("backup", "the time beside tar --zstd", "this system has no tar, or no zstd")]
    size = plan.scaled(400_000_000, 20_000_000)
    tree = _tree(plan.fresh("tree"), size, random.Random(plan.seed))
    ours, theirs = [], []
    with plan.served("backup") as served:
        for number in range(rounds := plan.scaled(5, 1)):
            plan.tell("backup", f"time, round {number + 1} of {rounds}")
            destination = plan.fresh("archives")
            ours.append(_lasted(_backup(served, tree, destination, verify=False)))
            theirs.append(_tar(tree, destination / "tar.zst"))
            shutil.rmtree(destination)
    ratio = sorted(our / their for our, their in zip(ours, theirs, strict=True))[len(ours) // 2]
    return [
        result("backup", f"{size / 1e6:,.0f} MB, verify=false", "s", ours, ratio=ratio,
               yardstick=f"tar --zstd {sorted(theirs)[len(theirs) // 2]:.2f} s",
               bar=f"≤ {BAR_RATIO} × tar", holds=ratio <= BAR_RATIO),
        result("backup", "tar --zstd", "s", theirs),
    ]  # fmt: skip


def _memory(plan: Plan) -> list[Result | Skipped]:
    if not memory_of():
        return [Skipped("backup", "memory", "this system has no /proc/self/status")]
    files = plan.scaled(32, 4)
    peaks = []
    with plan.served("backup-memory") as served:
        for count in (1, files):
            plan.tell("backup", f"memory, {count * SPARSE_BYTES / 1e9:.2f} GB")
            tree = plan.fresh("sparse")
            for number in range(count):
                with (tree / f"{number}").open("wb") as file:
                    file.truncate(SPARSE_BYTES)
            _backup(served, tree, plan.fresh("archives"), verify=True)
            peaks.append(memory_of(served.process.pid)["VmHWM"])
    grown_mb = (peaks[1] - peaks[0]) / 1e6
    return [
        result("backup", f"memory grown for {files * SPARSE_BYTES / 1e9:.1f} GB", "MB", [grown_mb],
               yardstick=f"peak {peaks[1] / 1e6:.0f} MB", bar=f"≤ {BAR_GROWN_MB} MB", holds=grown_mb <= BAR_GROWN_MB)
    ]  # fmt: skip


def _tree(root: Path, size: int, rng: random.Random) -> Path:
    words = [rng.randbytes(8).hex().encode() for _ in range(2_000)]
    number = 0
    while size > 0:
        length = rng.choice(FILE_BYTES)
        directory = root / f"{number % 20}"
        directory.mkdir(exist_ok=True)
        text = number % 2 and b" ".join(rng.choices(words, k=length // 17 + 1))[:length]
        (directory / f"{number}").write_bytes(text or rng.randbytes(length))
        size -= length
        number += 1
    return root


def _backup(served: Served, tree: Path, destination: Path, verify: bool) -> dict[str, Any]:
    return ended(served, served.submit("backup", source=str(tree), destination=str(destination), verify=verify))


def _lasted(task: dict[str, Any]) -> float:
    started, finished = (datetime.fromisoformat(task[name]) for name in ("started_at", "finished_at"))
    return (finished - started).total_seconds()


def _tar(tree: Path, archive: Path) -> float:
    started = time.monotonic()
    subprocess.run(["tar", "--zstd", "-cf", str(archive), "-C", str(tree), "."], check=True)
    return time.monotonic() - started
