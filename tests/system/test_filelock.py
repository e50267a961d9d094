"""Who holds a file is named; a file system that cannot lock is told from that."""

import os
from pathlib import Path

import pytest

from taskd.errors import DataDirHeld, StoreError
from taskd.system.filelock import hold


def opened(path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def test_a_file_is_held_until_it_is_closed_and_the_holder_is_named(tmp_path: Path) -> None:
    one, other = opened(tmp_path / "lock"), opened(tmp_path / "lock")
    hold(one, "The thing", "--thing")
    with pytest.raises(DataDirHeld, match=rf"The thing is in use .*process {os.getpid()}\); .* another --thing"):
        hold(other, "The thing", "--thing")
    os.close(one)
    hold(other, "The thing", "--thing")
    os.close(other)


def test_what_cannot_be_locked_is_in_nobodys_use(tmp_path: Path) -> None:
    """As on some network file systems; here a descriptor that only names its file."""
    os.close(opened(tmp_path / "lock"))
    named = opened(tmp_path / "lock", os.O_PATH)
    with pytest.raises(StoreError, match="cannot be locked"):
        hold(named, "The thing", "--thing")
    os.close(named)
