"""Real repositories and git tasks, for the tests of the git plugin."""

import subprocess
from pathlib import Path
from typing import Any

from plugins.git.work import _key
from taskd.service import Service
from taskd.tasks import Task


def git(directory: Path, *words: str) -> str:
    """Run git itself, and return what it prints."""
    done = subprocess.run(["git", *words], cwd=directory, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


async def run(service: Service, action: str, **params: Any) -> Task:
    """Run a git task to its end."""
    params = {name: str(value) if isinstance(value, Path) else value for name, value in params.items()}
    task = await service.manager.submit("git", {"action": action, **params})
    return await service.manager.wait(task.id)


async def result(service: Service, action: str, **params: Any) -> dict[str, Any]:
    """Return the result of a git task, which succeeds."""
    task = await run(service, action, **params)
    assert task.status == "succeeded", task.error
    assert isinstance(task.result, dict)
    return task.result


def own_file(data_dir: Path, checkout: Path, name: str) -> Path:
    """Return the path of one of the plugin's own files about a repository."""
    (data_dir / "git").mkdir(parents=True, exist_ok=True)
    return data_dir / "git" / f"{_key(checkout / '.git')}.{name}"
