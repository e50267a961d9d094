"""What the tests of `backup` share: running its tasks, and comparing trees."""

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import zstandard

from taskd.entries import Level
from taskd.service import Service
from taskd.tasks import Task
from tests.conftest import read_all

LINK, HARD, DIRECTORY = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE


async def run(service: Service, **params: Any) -> Task:
    """A backup task, ended."""
    task = await service.manager.submit("backup", {name: _plain(value) for name, value in params.items()})
    return await service.manager.wait(task.id)


async def result(service: Service, **params: Any) -> dict[str, Any]:
    """The result of a backup task that succeeded."""
    task = await run(service, **params)
    assert task.status == "succeeded", task.error
    assert isinstance(task.result, dict)
    return task.result


async def warnings(service: Service, task: Task) -> list[str]:
    """The warnings of a task's log."""
    entries = await read_all(service, task.id)
    return [entry.message for entry in entries if entry.level is Level.WARNING]


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def tree_of(root: Path) -> dict[str, tuple[str, int, bytes]]:
    """A tree by path: kind, mode and content of each entry."""
    return {str(path.relative_to(root)): _entry(path) for path in sorted(root.rglob("*"))}


def _entry(path: Path) -> tuple[str, int, bytes]:
    if path.is_symlink():
        return "link", 0, os.fsencode(os.readlink(path))
    if path.is_dir():
        return "directory", path.stat().st_mode, b""
    return "file", path.stat().st_mode, path.read_bytes()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    """One entry of an archive made to do harm."""
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, link, size
    made.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    return made


def hostile(path: Path, *members: tarfile.TarInfo) -> Path:
    """An archive of these entries, each as large as it states, of zeros."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for entry in members:
            tar.addfile(entry, io.BytesIO(bytes(entry.size)))
    path.write_bytes(zstandard.ZstdCompressor(write_checksum=True).compress(raw.getvalue()))
    return path
