"""
What an attacker may make of a `.git` directory: each leads to `bait`, outside, or never lets git go on.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.helpers.repositories import git

Mutation = Callable[[Path, Path], None]


def links(name: str) -> Mutation:
    def make(dot_git: Path, bait: Path) -> None:
        path = dot_git / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(bait / name.replace("/", "-"))

    return make


def fifo(name: str) -> Mutation:
    def make(dot_git: Path, bait: Path) -> None:
        (dot_git / name).parent.mkdir(parents=True, exist_ok=True)
        (dot_git / name).unlink(missing_ok=True)
        os.mkfifo(dot_git / name)

    return make


def hard_link(dot_git: Path, bait: Path) -> None:
    (dot_git / "FETCH_HEAD").unlink(missing_ok=True)
    os.link(bait / "file", dot_git / "FETCH_HEAD")


def linked_dot_git(dot_git: Path, bait: Path) -> None:
    dot_git.rename(bait / "git")
    dot_git.symlink_to(bait / "git")


def anothers_repository(dot_git: Path, bait: Path) -> None:
    shutil.copytree(dot_git, bait / "another/.git")
    shutil.rmtree(dot_git)
    dot_git.write_text(f"gitdir: {bait}/another/.git\n")


def anothers_common_directory(dot_git: Path, bait: Path) -> None:
    shutil.copytree(dot_git, bait / "another/.git")
    (dot_git / "commondir").write_text(f"{bait}/another/.git\n")


def anothers_objects(dot_git: Path, bait: Path) -> None:
    shutil.copytree(dot_git / "objects", bait / "objects")
    (dot_git / "objects/info/alternates").write_text(f"{bait}/objects\n")


def anothers_files(dot_git: Path, bait: Path) -> None:
    git(dot_git.parent, "config", "core.worktree", str(bait))


def great_configuration(dot_git: Path, bait: Path) -> None:
    with (dot_git / "config").open("ab") as file:
        file.write(b"#\n" * 1_000_000)


HOSTILE: tuple[Mutation, ...] = (
    *map(links, ("index", "HEAD", "FETCH_HEAD", "COMMIT_EDITMSG", "logs", "logs/HEAD", "objects", "refs/heads")),
    *map(links, ("packed-refs", "objects/pack", "taskd/names", "config", "info/exclude", "commondir")),
    *map(fifo, ("HEAD", "config", "index", "commondir", "objects/info/alternates", "taskd/intent", "refs/x")),
    hard_link, linked_dot_git, anothers_repository, anothers_common_directory, anothers_objects, anothers_files,
    great_configuration,
)  # fmt: skip


def snapshot(root: Path) -> dict[Path, tuple[int, int, object]]:
    """Return all that can be seen of the files below a directory."""
    return {path: _seen(path) for path in [root, *root.rglob("*")]}


def _seen(path: Path) -> tuple[int, int, object]:
    status = path.lstat()
    content = os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes()
    return status.st_mode, status.st_mtime_ns, content
