"""
`Strays`: entries in the journal of a dead process whose tasks the database does not know.

A database that was removed, or put back from an older copy, leaves them behind. They are kept in
a file beside the journal, as NDJSON, and counted on stderr and in health. Tasks whose deletion
was begun are none of them: their entries are let go.

The file has its name when it is complete and synced, before the journal is removed. After a death
in between the next start writes it again.
"""

import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import orjson

from taskd.errors import JournalUnreadable
from taskd.journal.segments import Recovered

# Each is as large as the journal at most; the oldest are removed beyond that.
KEPT_MAX = 20


class Strays:
    """Where entries without a task go while a journal is recovered. Used in one thread at a time."""

    def __init__(self, directory: Path, deleted: set[str]) -> None:
        self.tasks: set[str] = set()
        self.entries = 0
        self._directory = directory
        self._deleted = deleted
        self._partial = directory / "journal.unknown.partial"
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, task: Recovered) -> None:
        """Keep what the journal has of a task, unless it was deleted. Raises `JournalUnreadable`."""
        if task.task_id in self._deleted:
            return
        self.tasks.add(task.task_id)
        self.entries += len(task.entries)
        head = b'{"task_id":"%s",' % task.task_id.encode()
        try:
            if self._file is None:
                self._file = self._partial.open("wb")
            self._file.writelines(head + entry.encoded[1:] + b"\n" for entry in task.entries)
            if task.end is not None:
                end = {"end": task.end.status, "finished_at": task.end.finished_at, "error": task.end.error}
                self._file.write(head + orjson.dumps(end)[1:] + b"\n")
        except OSError as error:
            raise self._failed(error) from error

    def keep(self, stamp: str) -> str | None:
        """Complete the file; the sentence about it, or None if there is none. Raises `JournalUnreadable`."""
        if self._file is None:
            return None
        kept = self._directory / f"journal.unknown-{stamp}.ndjson"
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._partial.rename(kept)
            for old in sorted(self._directory.glob("journal.unknown-*.ndjson"))[:-KEPT_MAX]:
                old.unlink()
        except OSError as error:
            raise self._failed(error) from error
        return (
            f"The journal had {self.entries:,} entries of {len(self.tasks):,} tasks that the database does not know, "
            f"as after it was removed or replaced by an older copy. They are kept in {kept}."
        )

    def _failed(self, error: OSError) -> JournalUnreadable:
        return JournalUnreadable(
            f"The journal has entries of tasks that the database does not know, and they cannot be kept in "
            f"{self._directory} ({error.strerror}). Make room there, and let taskd write to it."
        )
