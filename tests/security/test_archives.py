"""
A hostile archive, asked for over HTTP: nothing is written outside of the place that was named.

CVE-2007-4559, CVE-2025-4517 (Python's tarfile). `tests/plugins/test_backup.py` has every kind, and
hundreds thrown together.
"""

import io
import tarfile
from pathlib import Path

import pytest
import zstandard

from tests.security.conftest import Target

LINK, HARD = tarfile.SYMTYPE, tarfile.LNKTYPE


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, link, size
    return made


def archive_of(path: Path, *members: tarfile.TarInfo) -> Path:
    """Of these, each as large as it says."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for each in members:
            tar.addfile(each, io.BytesIO(bytes(each.size)))
    path.write_bytes(zstandard.ZstdCompressor().compress(raw.getvalue()))
    return path


@pytest.mark.parametrize(
    "members",
    [
        [member("/tmp/taskd-pwned")], [member("../pwned")], [member("a/../../pwned")],
        [member("out", LINK, "/etc"), member("out/x")], [member("up", LINK, ".."), member("up/pwned")],
        [member("hard", HARD, "/etc/passwd")],
        [member("hard", HARD, "../kept")], [member("device", tarfile.BLKTYPE)], [member("pipe", tarfile.FIFOTYPE)],
        [member("twice"), member("twice", LINK, "../kept")], [member("a/" * 5_000 + "b" * 256)],
    ],
)  # fmt: skip
def test_nothing_is_written_outside_and_nothing_at_all(
    here: Target, tmp_path: Path, members: list[tarfile.TarInfo]
) -> None:
    """An absolute name, `..`, an entry below a link, a device: the whole archive is refused, and says why."""
    (tmp_path / "kept").write_text("kept")
    archive = archive_of(tmp_path / "bad.tar.zst", member("harmless"), *members)
    params = {"action": "restore", "archive": str(archive), "destination": str(tmp_path / "in" / "back")}
    task = here.run_task("backup", **params)
    assert task["status"] == "failed"
    assert task["error"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.tar.zst", "kept"]
    assert (tmp_path / "kept").read_text() == "kept"
    assert not Path("/tmp/taskd-pwned").exists()


def test_a_bomb_is_refused(here: Target, tmp_path: Path) -> None:
    """Few bytes that say they are very many."""
    zeros = bytes(1_048_576)
    bomb = tmp_path / "bomb.tar.zst"
    with bomb.open("wb") as file, zstandard.ZstdCompressor().stream_writer(file) as packed:
        packed.write(member("bomb", size=5 * 1_024**3).tobuf())
        for _ in range(1_024):
            packed.write(zeros)
    task = here.run_task("backup", action="restore", archive=str(bomb), destination=str(tmp_path / "back"))
    assert task["status"] == "failed"
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    "database", ["sqlite:///relative.db", "sqlite://", "postgresql://x/y", "/tmp/x.db", "file:///x"]
)
def test_a_migration_is_of_an_absolute_database_alone(here: Target, tmp_path: Path, database: str) -> None:
    """Where it is written is what was asked for, and not where the service was started."""
    asked = {"plugin": "migration", "params": {"database": database, "directory": str(tmp_path)}}
    assert here.http("POST", "/api/tasks", json=asked).status_code == 422
