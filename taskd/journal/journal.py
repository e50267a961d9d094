"""
The journal: each accepted entry on disk before the call that said it returns, until its commit.

Covered: the death of the process, however it comes (`kill -9`, the OOM killer, a fault in a
library). The bytes are written into files mapped into memory; their pages belong to the
kernel, which keeps them whatever becomes of us. Not covered, unless `journal_sync_ms` is set:
the machine losing power before the kernel has written those pages. Then what is not committed
yet, with SQLite's own fsync, may be lost.

A journal is a directory of segments of one size; what is in them is told in `taskd.journal.segments`,
which reads them after a death. They are allocated on disk before they are mapped: on a full disk,
a write into a hole of a sparse mapping is a SIGBUS, which kills. A segment whose records are all
committed is used again, under a new serial.

The disk it takes is bounded by `journal_bytes_max`. Where no segment can be had (the bound, a
full disk, a directory that cannot be written), entries are accepted all the same and wait for
their commit in memory alone: `fault` says so, and health shows it. Then `kill -9` loses those.
"""

import contextlib
import errno
import mmap
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from taskd.entries import timestamp_now
from taskd.journal.segments import DELETED, HEADER, MAGIC, RECORD, RECORD_BYTES_MAX, SUFFIX, checksum_of, seed_of
from taskd.tasks import TaskEnd, first_id_of

ALLOCATE_AGAIN_S = 0.5
FULL = (errno.ENOSPC, errno.EDQUOT)

# Looked up once: an append is a microsecond.
_RECORD_BYTES = RECORD.size
_pack = RECORD.pack
_checksum = checksum_of


class Segment:
    """
    One mapped file. `room` is what is left of it; `tasks` counts those that have records in it
    which are not known to be committed.
    """

    __slots__ = ("_place", "map", "path", "room", "seed", "tasks")

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.room = 0
        self.tasks = 0
        self.seed = 0
        # Never over a file that is there: it is somebody else's.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            self._place = _place_of(os.fstat(descriptor))
            os.posix_fallocate(descriptor, 0, size)
            self.map = mmap.mmap(descriptor, size)
        except OSError:
            _remove(path)
            raise
        finally:
            os.close(descriptor)

    def begin(self, serial: int) -> None:
        """Use it from its start, under a serial that no segment had before."""
        self.map.seek(0)
        self.map.write(HEADER.pack(MAGIC, serial))
        self.seed = seed_of(serial)
        self.room = len(self.map) - HEADER.size

    @property
    def is_there(self) -> bool:
        """Whether its file can still be found by its name: somebody may have removed it."""
        try:
            return _place_of(self.path.stat()) == self._place
        except OSError:
            return False

    def close(self) -> None:
        """Unmap it and remove its file: nothing in it is needed."""
        self.map.close()
        _remove(self.path)


class Journal:
    """
    The journal of one process, for the tasks in it. From any thread.

    Made on a directory without segments: `recover` deals with those of an earlier process.
    """

    def __init__(self, directory: Path, *, segment_bytes: int, bytes_max: int) -> None:
        self.fault: str | None = None
        self.sync_fault: str | None = None
        # Reentrant: a signal handler or a destructor that logs may interrupt an append.
        self.lock = threading.RLock()
        self.current: Segment | None = None
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._segments_max = max(2, bytes_max // segment_bytes)
        self._segments = 0
        self._files = 0
        self._serial = 0
        self._again_at = 0.0
        self._first_id = first_id_of(timestamp_now())
        self._free: list[Segment] = []
        self._full: set[Segment] = set()
        with self.lock:
            self.turn()

    @property
    def bytes_used(self) -> int:
        """How much disk it takes."""
        return self._segments * self._segment_bytes

    def task(self, task_id: str) -> "TaskJournal":
        """The part of one task that has not ended."""
        return TaskJournal(self, task_id)

    def turn(self, size: int = 0) -> Segment | None:
        """
        Go on in an empty segment, under the lock, for a record of `size` bytes.

        None where none can be had or none is large enough; `fault` then says why.
        """
        if HEADER.size + size > self._segment_bytes or size > RECORD_BYTES_MAX:
            self.fault = f"An entry of {size:,} bytes is larger than a journal segment ({self._segment_bytes:,})."
            return None
        if not self._free and time.monotonic() < self._again_at:
            return None
        try:
            segment = self._reused() or self._new()
        except OSError as error:
            # To try takes milliseconds on a disk that is nearly full, and what is left of it meanwhile.
            self._again_at = time.monotonic() + ALLOCATE_AGAIN_S
            wrong = "is full" if error.errno in FULL else "cannot be written"
            self.fault = f"The journal {wrong}: {error.strerror}. A crash now loses what is not committed."
            return None
        if self.current is not None:
            (self._full.add if self.current.tasks else self._free.append)(self.current)
        self.fault = None
        self._serial += 1
        segment.begin(self._serial)
        self.current = segment
        return segment

    def left(self, segment: Segment) -> None:
        """A task needs nothing in the segment any more; without any that does, it is used again."""
        with self.lock:
            segment.tasks -= 1
            if not segment.tasks and segment in self._full:
                self._full.remove(segment)
                self._free.append(segment)

    def replace_lost(self) -> bool:
        """
        Go on in another segment where somebody has removed the file of this one; whether that was so.

        What was written there is lost with a crash until it is committed.
        """
        with self.lock:
            if self.current is None or self.current.is_there:
                return False
            self.turn()
            return True

    def sync(self) -> None:
        """Have the kernel write what it has: what was appended so far then survives a power cut."""
        with self.lock:
            segments = [*self._full, *([self.current] if self.current else [])]
        try:
            for segment in segments:
                with contextlib.suppress(ValueError):  # closed meanwhile: it was not needed any more
                    segment.map.flush()
        except OSError as error:
            self.sync_fault = f"The journal cannot be synced: {error.strerror}. A power cut may lose more."
        else:
            self.sync_fault = None

    def forget(self, task_ids: Sequence[str]) -> None:
        """Note that tasks are deleted, so that recovery lets go of what segments still have of them."""
        # What an earlier process wrote is not in the journal any more.
        noted = "".join(f"{task_id}\n" for task_id in task_ids if task_id >= self._first_id)
        # If it cannot be noted, recovery keeps their entries in a file: too much, and nothing is lost.
        with contextlib.suppress(OSError):
            if noted:
                with (self._directory / DELETED).open("a") as file:
                    file.write(noted)

    def close(self) -> None:
        """Remove what is not needed any more. What is not committed stays, for `recover`."""
        with self.lock:
            for segment in (*self._free, *([self.current] if self.current else [])):
                if not segment.tasks:
                    segment.close()
            self._free, self.current = [], None

    def _reused(self) -> Segment | None:
        while self._free:
            segment = self._free.pop()
            if segment.is_there:
                return segment
            segment.map.close()
            self._segments -= 1
        return None

    def _new(self) -> Segment:
        if self._segments >= self._segments_max:
            raise OSError(errno.EDQUOT, f"it has its {self.bytes_used:,} bytes (journal_bytes_max)")
        self._directory.mkdir(parents=True, exist_ok=True)
        segment = None
        while segment is None:
            self._files += 1
            with contextlib.suppress(FileExistsError):
                segment = Segment(self._directory / f"{self._files:06}{SUFFIX}", self._segment_bytes)
        self._segments += 1
        return segment


def _place_of(told: os.stat_result) -> tuple[int, int]:
    return told.st_dev, told.st_ino


@dataclass(slots=True)
class Run:
    """So many records, one after the other, of one task in one segment, or in none for want of room."""

    segment: Segment | None
    records: int = 0


class TaskJournal:
    """
    What one task has in the journal, in order. Called under the `lock`, which is the journal's.

    Records are counted, segment by segment, so that a commit of the first n of them is enough
    to know which segments still hold something of this task.
    """

    __slots__ = ("_journal", "_run", "_runs", "_seed", "_task", "lock")

    def __init__(self, journal: Journal, task_id: str) -> None:
        self.lock = journal.lock
        self._journal = journal
        self._task = uuid.UUID(task_id).bytes
        self._seed = 0
        self._run = Run(None)
        self._runs: deque[Run] = deque()

    def append(self, entry: bytes) -> None:
        """Put an entry, encoded, on disk before this returns; or in no segment, where there is no room."""
        length = len(entry)
        size = _RECORD_BYTES + length
        run = self._run
        segment = run.segment
        if segment is None or segment is not self._journal.current or segment.room < size:
            run = self._begin_run(size)
            segment = run.segment
        run.records += 1
        if segment is not None:
            # Taken before it is written, so that an append that interrupts this one finds less.
            # And written under the lock: a record behind one that is missing would not be found.
            segment.room -= size
            segment.map.write(_pack(length, _checksum(entry, self._seed), self._task) + entry)

    def append_end(self, end: TaskEnd, last_seq: int) -> None:
        """
        Put the task's end on disk: after a crash it has ended as it did, not as `interrupted`.

        With the last entry's seq: where that one is missing, recovery must know it.
        """
        told = [end.status.value, end.finished_at, end.result_json, end.error]
        self.append(orjson.dumps({"end": told, "last_seq": last_seq}))

    def committed(self, count: int) -> None:
        """The first `count` records are committed and not needed any more."""
        runs = self._runs
        while count:
            run = runs[0]
            freed = min(count, run.records)
            run.records -= freed
            count -= freed
            if not run.records:
                self._end_run(runs.popleft())

    def committed_all(self) -> None:
        """Nothing of this task is needed any more."""
        self.committed(sum(run.records for run in self._runs))

    def _begin_run(self, size: int) -> Run:
        journal = self._journal
        segment = journal.current
        if segment is None or segment.room < size:
            segment = journal.turn(size)
        if segment is not None:
            segment.tasks += 1
            self._seed = _checksum(self._task, segment.seed)
        elif self._runs and self._run.segment is None:
            return self._run
        self._run = Run(segment)
        self._runs.append(self._run)
        return self._run

    def _end_run(self, run: Run) -> None:
        if run is self._run:
            self._run = Run(None)
        if run.segment is not None:
            self._journal.left(run.segment)


def _remove(path: Path) -> None:
    # Where it cannot be removed it does no harm: what is in it is stored, or nothing.
    with contextlib.suppress(OSError):
        path.unlink()
