"""
The oracle: what a task has said, as told by somebody else than taskd.

A plugin logs, and after the call has returned writes task, number and checksum with one `os.write`
to a file opened for appending. Whatever happens to the server in between, its API must afterwards
have each of them, once and in order.
"""

import zlib
from collections import defaultdict
from pathlib import Path
from typing import Any, Protocol

from tests.helpers.served import Served

TELLER = '''
import asyncio, os, zlib
from pathlib import Path

from taskd import Plugin


class Teller(Plugin):
    """Says `burst` numbers every `pause_s` for ever, or until `gate` is there, and notes each that it has said."""

    name = "teller"

    async def execute(self, params, context):
        oracle = os.open(params["oracle"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        number = 0
        while "gate" not in params or not Path(params["gate"]).exists():
            for _ in range(params["burst"]):
                number += 1
                message = f"number {number}" + params.get("filling", "")
                context.logger.info(message, n=number)
                os.write(oracle, f"{context.task_id} {number} {zlib.crc32(message.encode())}\\n".encode())
            await asyncio.sleep(params.get("pause_s", 0.02))
        os.close(oracle)
        return {"numbers": number}
'''


def with_tellers(directory: Path, *options: str, **named: Any) -> Served:
    """A server, not started yet, that has the plugin `teller`; its data is in `directory`."""
    plugins = directory / "tellers"
    plugins.mkdir(exist_ok=True)
    (plugins / "teller.py").write_text(TELLER)
    return Served(directory, "--plugins", str(plugins), *options, **named)


def noted(oracle: Path) -> dict[str, dict[int, int]]:
    """For each task the numbers whose calls had returned, with the checksums of their messages."""
    far: dict[str, dict[int, int]] = defaultdict(dict)
    # The last line may be half there: the kernel shows what crosses a page in two steps.
    for line in oracle.read_text().split("\n")[:-1]:
        task_id, number, checksum = line.split()
        far[task_id][int(number)] = int(checksum)
    return far


class Answering(Protocol):
    """What is asked for a log: a server, or what one has left."""

    def get(self, path: str, /) -> Any: ...


def whole_log(served: Answering, task_id: str) -> list[dict[str, Any]]:
    """All entries of a log, by pages."""
    entries: list[dict[str, Any]] = []
    more = True
    while more:
        page = served.get(f"/api/tasks/{task_id}/logs?limit=5000&after={entries[-1]['seq'] if entries else 0}")
        entries += page["entries"]
        more = page["more"]
    return entries


def assert_told(entries: list[dict[str, Any]], expected: dict[int, int]) -> None:
    """Nothing lost, nothing twice, nothing out of order, no hole, each with its words."""
    assert [entry["seq"] for entry in entries] == [*range(1, len(entries) + 1)]
    told = [entry for entry in entries if entry["source"] == "teller"]
    assert [entry["metadata"]["n"] for entry in told] == [*range(1, len(told) + 1)]
    assert len(told) >= max(expected, default=0)
    assert {n: zlib.crc32(told[n - 1]["message"].encode()) for n in expected} == expected
