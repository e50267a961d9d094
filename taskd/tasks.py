"""
`Task`: one execution of a plugin, with an id, a status and a log.

    queued ──► running ──► succeeded | failed | cancelled | interrupted
       └─────────────────► cancelled | interrupted

The ids are UUIDs of version 7 (RFC 9562, section 5.7): the time comes first, so that they sort
by creation, and the random end is what a person types.
"""

import re
import secrets
import time
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from taskd.entries import Level

# Characters of an id's end that name a task to a person.
SHORT_ID = 8
ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# No id made by a clock is as great; after it there would be no room for more.
LAST_CONTINUED = "fff00000"


class TaskStatus(StrEnum):
    """Where a task is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"

    @property
    def ended(self) -> bool:
        """True where no other status can follow."""
        return self not in (TaskStatus.QUEUED, TaskStatus.RUNNING)

    def may_become(self, other: "TaskStatus") -> bool:
        """True where the picture above has an arrow to `other`."""
        return other in _ARROWS[self]


_ENDS = frozenset(status for status in TaskStatus if status.ended)
_ARROWS: dict[TaskStatus, frozenset[TaskStatus]] = {
    **dict.fromkeys(_ENDS, frozenset()),
    TaskStatus.QUEUED: frozenset({TaskStatus.RUNNING, TaskStatus.CANCELLED, TaskStatus.INTERRUPTED}),
    TaskStatus.RUNNING: _ENDS,
}


@dataclass(slots=True)
class Task:
    """One execution of a plugin, as the API shows it (secret params are `"***"`)."""

    id: str
    plugin: str
    params: dict[str, Any]
    status: TaskStatus
    created_at: str
    started_at: str | None = None
    finished_at: str | None = None
    result: Any = None
    error: str | None = None
    retry_of: str | None = None
    last_seq: int = 0
    progress: dict[str, Any] | None = None
    counts: dict[Level, int] = field(default_factory=lambda: dict.fromkeys(Level, 0))

    def to_json(self) -> dict[str, Any]:
        """The task as the API shows it."""
        return {
            "id": self.id,
            "plugin": self.plugin,
            "params": self.params,
            "status": self.status.value,
            "created_at": self.created_at,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "result": self.result,
            "error": self.error,
            "retry_of": self.retry_of,
            "last_seq": self.last_seq,
            "progress": self.progress,
            "counts": {level.value: self.counts.get(level, 0) for level in Level},
        }


@dataclass(frozen=True, slots=True)
class TaskEnd:
    """How a task ended: what becomes known only after all that it said is stored."""

    status: TaskStatus
    finished_at: str
    result_json: str | None = None
    error: str | None = None


class TaskIds:
    """
    Makes ids, each a UUIDv7 that sorts after every one made before it, and after `newest`.

    Two tasks of one moment would sort by chance, and a clock may be set back: then the ids count
    on from the newest, a 4,096th of a millisecond at a time, until the clock is there again.
    """

    def __init__(self, newest: str | None = None) -> None:
        self._last = 0  # of the newest id, in 4,096ths of a millisecond since 1970
        if newest is not None and ID.fullmatch(newest) and newest < LAST_CONTINUED:
            self._last = (int(newest[:8] + newest[9:13], 16) + 1) << 12

    def __call__(self) -> str:
        """Make the next id."""
        self._last = max(time.time_ns() * 4_096 // 1_000_000, self._last + 1)
        value = (self._last >> 12) << 80 | 0x7 << 76 | (self._last & 4_095) << 64 | 0b10 << 62 | secrets.randbits(62)
        digits = f"{value:032x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


new_task_id = TaskIds()


def first_id_of(timestamp: str) -> str:
    """What sorts before the id of every task created from `timestamp` on, and after those of all before it."""
    digits = f"{int(datetime.fromisoformat(timestamp).timestamp() * 1_000):012x}"
    return f"{digits[:8]}-{digits[8:]}"
