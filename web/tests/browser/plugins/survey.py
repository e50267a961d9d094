"""
`survey`: a real piece of work with something to see in its log, for the pictures in the README.

It reads every file that git knows in a checkout, folder by folder, and tells what it finds. At
its gate it waits, so that a picture can show a task that is running.
"""

import asyncio
import hashlib
from collections import defaultdict
from pathlib import Path

from pydantic import BaseModel

from taskd import Plugin, TaskContext, TaskLogger
from web.tests.browser.plugins.spoken import opened

LINE_MAX = 120
LINES_MAX = 400


class Survey(Plugin):
    """Reads a checkout, folder by folder, and says what is long, large or empty."""

    name = "survey"
    title = "Survey of a checkout"

    class Params(BaseModel):
        checkout: Path
        gate: str | None = None
        gate_after: int = 0

    async def execute(self, params: Params, context: TaskContext) -> dict[str, int]:
        await context.run_process(["git", "log", "--oneline", "-8"], cwd=params.checkout)
        folders = self._folders(params.checkout)
        files = sum(map(len, folders.values()))
        context.logger.info(f"{files} files in {len(folders)} folders", checkout=str(params.checkout.name))
        read = 0
        with context.logger.progress("reading", total=files, unit="files") as progress:
            for folder, paths in folders.items():
                with context.logger.group(folder):
                    for path in paths:
                        read += 1
                        if read == params.gate_after:
                            await opened(params.gate)
                        self._read(params.checkout, path, context.logger)
                        progress.advance()
                        await asyncio.sleep(0)
        return {"files": files, "folders": len(folders)}

    def _folders(self, checkout: Path) -> dict[str, list[Path]]:
        folders = defaultdict(list)
        for path in sorted(checkout.glob("*/**/*.py")):
            if not {".venv", "node_modules"} & set(path.parts):
                folders[path.relative_to(checkout).parent.as_posix()].append(path)
        return dict(folders)

    def _read(self, checkout: Path, path: Path, log: TaskLogger) -> None:
        name = path.relative_to(checkout).as_posix()
        content = path.read_bytes()
        lines = content.decode().splitlines()
        sha256 = hashlib.sha256(content).hexdigest()
        log.with_source("files").info(f"{name}: {len(lines):,} lines", bytes=len(content), sha256=sha256)
        log.with_source("files").debug(f"{name}: {sum(not line.strip() for line in lines)} of them empty")
        if len(lines) > LINES_MAX:
            log.with_source("style").warning(f"{name} is long: {len(lines):,} lines", lines_max=LINES_MAX)
        for number, line in enumerate(lines, 1):
            if len(line) > LINE_MAX:
                log.with_source("style").error(f"{name}:{number} is {len(line)} wide", width_max=LINE_MAX)
