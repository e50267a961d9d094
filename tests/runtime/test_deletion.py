"""Deletions: the files of deleted tasks, whatever is in them, and that one deletion never ends the others."""

import asyncio
import errno
import os
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from taskd.errors import StoreUnavailable
from taskd.runtime.context import tasks_dir
from taskd.runtime.deletion import RETRY_S, Deletions, deleting
from taskd.service import Service
from taskd.settings import Settings
from taskd.stores import open_persistence
from tests.conftest import running_service
from tests.helpers.deep_trees import dig


async def ended(service: Service, tmp_path: Path) -> tuple[str, Path]:
    """A task that has ended, and the directory for its files."""
    task = await service.manager.submit("backup", {"source": "/nowhere", "destination": str(tmp_path / "archives")})
    await service.manager.wait(task.id)
    directory = tasks_dir(service.settings)
    directory.mkdir(parents=True, exist_ok=True)
    return task.id, directory / task.id


async def test_the_files_of_a_deleted_task_go_however_deep_they_are(service: Service, tmp_path: Path) -> None:
    """With the answer to the deletion, and other deletions go on."""
    for levels in (3_000, 1):
        task_id, directory = await ended(service, tmp_path)
        dig(directory, levels)
        await service.manager.delete(task_id)
        assert not directory.exists()
        await service.deletions.settled()
        assert await service.store.hidden_tasks() == []
    assert service.health().problems == []


async def test_a_deletion_of_a_deep_directory_goes_on_after_a_crash(tmp_path: Path) -> None:
    """The next start finds the task hidden, and removes its files and its row."""
    async with running_service(tmp_path) as service:
        task_id, directory = await ended(service, tmp_path)
        dig(directory, 3_000)
    async with open_persistence(Settings(data_dir=tmp_path / "data")) as store:
        await store.hide_tasks([task_id])
    async with running_service(tmp_path) as service:
        await service.deletions.settled()
        other, _ = await ended(service, tmp_path)
        await service.manager.delete(other)
        await service.deletions.settled()
        assert (await service.store.hidden_tasks(), directory.exists()) == ([], False)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
async def test_files_that_cannot_be_removed_are_reported(
    service: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """On stderr, and in health as long as the service runs; the log of the task goes all the same."""
    task_id, directory = await ended(service, tmp_path)
    (directory / "mounted").mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "none", directory / "mounted"], check=False).returncode:
        pytest.skip("this system lets nobody mount")
    try:
        await service.manager.delete(task_id)
        await service.deletions.settled()
    finally:
        subprocess.run(["umount", directory / "mounted"], check=True)
    why = f"files are left: '{task_id}/mounted' (it is a mount point)"
    assert caplog.messages.count(f"task {task_id} is deleted, but {why}") == 1
    assert f"1 deleted task is not wholly gone: {task_id}: {why}" in service.health().problems[0]
    assert await service.store.hidden_tasks() == []


async def test_files_that_can_be_removed_a_little_later_are_not_reported(service: Service, tmp_path: Path) -> None:
    """Another process held them at the first look; the second, before the row goes, finds them removable."""
    task_id, directory = await ended(service, tmp_path)
    deletions = Deletions(service.store, tasks_dir(service.settings))
    deletions._note(task_id, "files are left: 'file' (Device or resource busy)")
    directory.mkdir()
    await deletions.delete([task_id])
    assert (directory.exists(), deletions.notices) == (False, [])


@pytest.mark.parametrize("function", ["os.open", "os.dup", "os.scandir"])
async def test_a_deletion_waits_until_there_are_descriptors(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    """At the limit of open files the files stay, and so does the row: both go later."""
    task_id, directory = await ended(service, tmp_path)
    (directory / "inner").mkdir(parents=True)
    deletions = Deletions(service.store, tasks_dir(service.settings))
    refused = threading.Event()

    def refuse(*arguments: Any, **options: Any) -> int:
        refused.set()
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(function, refuse)
        await deletions.delete([task_id])
        assert (refused.is_set(), await service.store.hidden_tasks()) == (True, [task_id])
        refused.clear()
        running = asyncio.create_task(deletions.run())
        while not refused.is_set():
            await asyncio.sleep(0.01)
    await deletions.settled()
    assert (directory.exists(), await service.store.hidden_tasks(), deletions.notices) == (False, [], [])
    running.cancel()
    await asyncio.wait([running])


async def test_a_store_that_fails_once_delays_a_deletion_by_less_than_the_longest_pause(tmp_path: Path) -> None:
    """As when it is locked for a moment at the start after a crash."""
    failures = [StoreUnavailable("locked"), StoreUnavailable("locked")]

    class Locked:
        async def hidden_tasks(self) -> list[str]:
            if failures:
                raise failures.pop()
            return []

    deletions = Deletions(cast(Any, Locked()), tmp_path)
    await asyncio.wait_for(deletions._resume(), RETRY_S)


class Faulty:
    """A store that cannot delete one of the tasks."""

    def __init__(self, store: Any, task_id: str) -> None:
        self._store = store
        self._task_id = task_id

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def purge(self, task_ids: Sequence[str]) -> None:
        if self._task_id in task_ids:
            raise ValueError("a fault of one row")
        await self._store.purge(task_ids)


async def test_a_deletion_that_fails_does_not_end_the_others(service: Service, tmp_path: Path) -> None:
    """Whatever it raises; the failing one is left hidden, for the next start."""
    ids = [(await ended(service, tmp_path))[0] for _ in range(3)]
    async with deleting(Faulty(service.store, ids[1]), tasks_dir(service.settings), service.supervisor) as deletions:
        await deletions.delete(ids)
        await deletions.settled()
        assert await service.store.hidden_tasks() == [ids[1]]
        assert "a fault of one row" in deletions.notices[0]


async def test_a_deletion_is_finished_when_its_caller_goes_away(service: Service, tmp_path: Path) -> None:
    """A cancelled request stops its thread soon; the files go all the same."""
    task_id, directory = await ended(service, tmp_path)
    dig(directory, 20_000)
    deleting = asyncio.create_task(service.deletions.delete([task_id]))
    while not await service.store.hidden_tasks():
        await asyncio.sleep(0)
    deleting.cancel()
    await asyncio.wait([deleting])
    await service.deletions.settled()
    assert (directory.exists(), await service.store.hidden_tasks()) == (False, [])


async def test_a_deletion_waits_until_a_thread_can_be_started(
    tmp_path: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the limit of processes the files stay, and so does the row."""
    task_id, directory = await ended(service, tmp_path)
    directory.mkdir()
    refused = threading.Event()

    def refuse(thread: threading.Thread) -> None:
        refused.set()
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("taskd.runtime.deletion.RETRY_S", 0.01)
    deletions = Deletions(service.store, tasks_dir(service.settings))
    with monkeypatch.context() as patched:
        patched.setattr("threading.Thread.start", refuse)
        await deletions.delete([task_id])
        running = asyncio.create_task(deletions.run())
        refused.clear()
        while not refused.is_set():
            await asyncio.sleep(0.01)
        assert (directory.exists(), await service.store.hidden_tasks()) == (True, [task_id])
    await deletions.settled()
    assert (directory.exists(), await service.store.hidden_tasks()) == (False, [])
    running.cancel()
    await asyncio.wait([running])
