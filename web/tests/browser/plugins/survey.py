"""
`survey`: a real piece of work with something to see in its log, for the pictures in the README.

It reads every Python file of a checkout, folder by folder, and tells what it finds; `pace_s` after
each, so that a picture can show a task that is running.
"""

import ast
import asyncio
import hashlib
import os
from pathlib import Path

from pydantic import BaseModel

from taskd import Plugin, TaskContext, TaskLogger

WIDTH_MAX = 119
LINES_MAX = 400


class Survey(Plugin):
    """Reads a checkout, folder by folder, and says what it uses and what is long or wide."""

    name = "survey"
    title = "Survey of a checkout"

    class Params(BaseModel):
        checkout: Path
        pace_s: float = 0.0

    async def execute(self, params: Params, context: TaskContext) -> dict[str, int]:
        folders = self._folders(params.checkout)
        files = sum(map(len, folders.values()))
        context.logger.info(f"{files} files in {len(folders)} folders of {params.checkout.name}", folders=list(folders))
        with context.logger.progress("reading", total=files, unit="files") as progress:
            for folder, paths in folders.items():
                with context.logger.group(folder):
                    await context.run_process(
                        ["git", "log", "--no-merges", "--format=%h %s", "-2", "--", folder], cwd=params.checkout
                    )
                    for path in paths:
                        self._read(params.checkout, path, context.logger)
                        progress.advance()
                        await asyncio.sleep(params.pace_s)
        return {"files": files, "folders": len(folders)}

    def _folders(self, checkout: Path) -> dict[str, list[Path]]:
        folders: dict[str, list[Path]] = {}
        for folder, below, files in os.walk(checkout):
            # Not gone into: what is installed there are thousands, and the loop waits.
            below[:] = sorted(name for name in below if name not in {".git", ".venv", "node_modules"})
            name = Path(folder).relative_to(checkout).as_posix()
            if name != "." and (paths := sorted(Path(folder, file) for file in files if file.endswith(".py"))):
                folders[name] = paths
        return folders

    def _read(self, checkout: Path, path: Path, log: TaskLogger) -> None:
        name = path.relative_to(checkout).as_posix()
        content = path.read_bytes()
        lines = content.decode().splitlines()
        sha256 = hashlib.sha256(content).hexdigest()
        log.with_source("files").info(f"{name}: {len(lines):,} lines", bytes=len(content), sha256=sha256)
        if used := self._imports(content):
            log.with_source("imports").debug(f"{name} uses {', '.join(used)}")
        if len(lines) > LINES_MAX:
            log.with_source("style").warning(f"{name} is long: {len(lines):,} lines", lines_max=LINES_MAX)
        for number, line in enumerate(lines, 1):
            if len(line) > WIDTH_MAX:
                log.with_source("style").error(f"{name}:{number} is {len(line)} wide", width_max=WIDTH_MAX)

    def _imports(self, content: bytes) -> list[str]:
        froms = [node for node in ast.walk(ast.parse(content)) if isinstance(node, ast.ImportFrom)]
        return sorted({node.module for node in froms if node.module})
