"""Removing a tree: of any depth, without following a link, and with a report of what is left."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from taskd.system.trees import NAMED_MAX, OPEN_MAX, Descent, Left, Moved, remove_tree
from tests.helpers.deep_trees import dig

ROOT = os.geteuid() == 0


def remove(path: Path, stop: Callable[[], bool] = lambda: False) -> Left:
    parent = os.open(path.parent, os.O_RDONLY)
    try:
        return remove_tree(path.name, dir_fd=parent, stop=stop)
    finally:
        os.close(parent)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("levels", [1, OPEN_MAX, OPEN_MAX + 1, 3_000, 20_000])
def test_any_depth_is_removed(deep: Path, levels: int) -> None:
    """Also a path longer than PATH_MAX, with files at every hundredth level."""
    dig(deep / "tree", levels, file_every=100)
    before = descriptors()
    assert str(remove(deep / "tree")) == ""
    assert (list(deep.iterdir()), descriptors()) == ([], before)


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    """To directories and files, at the top and below."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "tree" / "file").symlink_to(tmp_path / "kept" / "file")
    (tmp_path / "top").symlink_to(tmp_path / "kept")
    os.mkfifo(tmp_path / "tree" / "pipe")
    assert not remove(tmp_path / "tree").count
    assert not remove(tmp_path / "top").count
    assert [path.name for path in tmp_path.rglob("*")] == ["kept", "file"]


def test_what_is_not_there_counts_as_removed(tmp_path: Path) -> None:
    """So a removal can be repeated."""
    assert remove(tmp_path / "nothing") == Left()


AS_NOBODY = """
import os, sys
from taskd.system.trees import remove_tree
os.setgroups([]), os.setgid(65534), os.setuid(65534)
print(remove_tree("tree", dir_fd=os.open(sys.argv[1], os.O_RDONLY)))
"""


def as_nobody(parent: Path) -> str:
    """Remove `tree` as a user who is not root; return what is left."""
    root = Path(__file__).parent.parent.parent
    command = [sys.executable, "-c", AS_NOBODY, str(parent)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=root).stdout.strip()


@pytest.fixture
def of_nobody(tmp_path: Path) -> Path:
    """A directory of another user, and `tree/sub/deep/file` in it."""
    if not ROOT:
        pytest.skip("only root can become another user")
    (tmp_path / "tree" / "sub" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / "deep" / "file").touch()
    for parent in (*tmp_path.parents[:-2], tmp_path):
        parent.chmod(parent.stat().st_mode | 0o055)
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, 65534, 65534)
    return tmp_path


@pytest.mark.parametrize("mode", [0o555, 0o000, 0o300, 0o600])
def test_directories_without_permissions_are_removed_by_their_owner(of_nobody: Path, mode: int) -> None:
    """A checkout with read-only objects, or a directory that its owner cannot even open."""
    for name in ("tree/sub/deep", "tree/sub", "tree"):
        (of_nobody / name).chmod(mode)
    assert (as_nobody(of_nobody), list(of_nobody.iterdir())) == ("", [])


def test_what_cannot_be_removed_is_named_and_the_rest_goes(of_nobody: Path) -> None:
    """One line for each entry, not for the directories that have to stay because of it."""
    os.chown(of_nobody / "tree" / "sub" / "deep", 0, 0)
    (of_nobody / "tree" / "other").mkdir()
    os.chown(of_nobody / "tree" / "other", 65534, 65534)
    assert as_nobody(of_nobody) == "'tree/sub/deep/file' (Permission denied)"
    assert [path.name for path in (of_nobody / "tree").iterdir()] == ["sub"]


def test_the_report_is_bounded() -> None:
    """However much is left, and however long its path is."""
    left = Left()
    for _ in range(1_000):
        left.add("d/" * 10_000, PermissionError(errno.EPERM, "Operation not permitted"))
    assert str(left).endswith(f"and {1_000 - NAMED_MAX:,} more")
    assert len(str(left)) < 2_000


@pytest.mark.skipif(not ROOT or not shutil.which("mount"), reason="only root can mount")
def test_a_mount_is_not_entered(tmp_path: Path) -> None:
    """Not even a bind mount of the same file system: its files belong to another place."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "tree" / "mounted").mkdir(parents=True)
    if subprocess.run(["mount", "--bind", tmp_path / "kept", tmp_path / "tree" / "mounted"], check=False).returncode:
        pytest.skip("this system lets nobody mount")
    try:
        assert str(remove(tmp_path / "tree")) == "'tree/mounted' (it is a mount point)"
    finally:
        subprocess.run(["umount", tmp_path / "tree" / "mounted"], check=True)
    assert (tmp_path / "kept" / "file").exists()
    assert not remove(tmp_path / "tree").count


def test_a_removal_ends_early_when_it_is_stopped(deep: Path) -> None:
    """And leaves the rest to the next one."""
    dig(deep / "tree", 50)
    assert not remove(deep / "tree", stop=lambda: True).count
    assert (deep / "tree").exists()
    assert not remove(deep / "tree").count


def test_a_directory_that_is_moved_during_a_descent_is_noticed(deep: Path) -> None:
    """The way back up would lead to a place outside of the tree."""
    dig(deep / "tree", OPEN_MAX + 2)
    (deep / "outside").mkdir()
    descent = Descent(os.open(deep / "tree", os.O_RDONLY))
    for _ in range(OPEN_MAX + 1):
        descent.enter(os.open("d", os.O_RDONLY, dir_fd=descent.fd))
    (deep / "tree" / "d" / "d").rename(deep / "outside" / "d")
    for _ in range(OPEN_MAX - 1):
        descent.leave()
    with pytest.raises(Moved):
        descent.leave()
    descent.close()
