"""`checksum` knows nothing of taskd: that it works proves that old plugins do."""

import hashlib
from pathlib import Path

import pytest

from taskd.service import Service
from tests.conftest import messages, read_all, running_service


async def test_an_old_plugin_runs_and_its_result_is_right(service: Service, tmp_path: Path) -> None:
    """A synchronous `execute(self, params)` without a context gives the digest that hashlib gives."""
    path = tmp_path / "file"
    path.write_bytes(b"taskd" * 500_000)
    task = await service.manager.submit("checksum", {"path": str(path)})
    task = await service.manager.wait(task.id)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert task.result == {"path": str(path), "algorithm": "sha256", "digest": digest, "bytes": 2_500_000}


async def test_what_an_old_plugin_logs_and_prints_is_in_its_log(tmp_path: Path) -> None:
    """Stdlib logging arrives as the logger's name, a print as stdout."""
    path = tmp_path / "file"
    path.write_bytes(b"")
    # Within the test: pytest gives each part of one a stdout of its own.
    async with running_service(tmp_path) as service:
        task = await service.manager.submit("checksum", {"path": str(path), "algorithm": "md5"})
        entries = await read_all(service, task.id)
    assert messages(entries, "checksum") == [f"reading {path} (0 bytes) for its md5"]
    assert messages(entries, "stdout") == [f"{hashlib.md5().hexdigest()}  {path}"]


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({}, "expected the path of a file"),
        ({"path": "/nowhere"}, "/nowhere is not a file"),
        ({"path": __file__, "algorithm": "rot13"}, "algorithm is 'rot13': expected one of"),
        ({"path": __file__, "size": 3}, "unknown params size"),
    ],
)
async def test_bad_params_fail_the_task_and_say_why(service: Service, params: dict[str, object], told: str) -> None:
    """An old plugin checks its params itself, when it runs."""
    task = await service.manager.submit("checksum", params)
    task = await service.manager.wait(task.id)
    assert task.status == "failed"
    assert told in (task.error or "")
