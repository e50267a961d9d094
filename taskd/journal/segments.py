"""
The journal's files: what is in them, and how they are read when the process that wrote them is gone.

    segment   magic, serial, then records          a greater serial is newer
    record    length, checksum, task, payload      the payload is an entry, or a task's end

The checksum of a record begins with the serial and the task, so neither what an earlier use of a
segment left behind nor a torn last record is taken for a record. Where something in the middle is
damaged, the search goes on behind it: payloads are JSON, in which no record can be hidden, and
each record that is whole is found. What the damage took is missing in the tasks' seqs, and
recovery says so in their logs.

A serial that is damaged would hide every record of its segment, so it is searched for: one that
makes the checksum of a whole record right is the one (`_serial_by_search`).

Reading is bounded, however large a file is. Nothing is deleted but what is ours and read:
another program's file is left alone, as is a segment with whole entries in it that cannot be
read, and a segment of a newer taskd stops the start, for it may hold entries that only that one
can read.
"""

import logging
import os
import re
import stat
import struct
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import orjson

from taskd.entries import LEVELS, LogEntry
from taskd.errors import JournalNewer, JournalUnreadable
from taskd.tasks import TaskEnd, TaskStatus

MAGIC = b"taskd 01"
HEADER = struct.Struct("<8sQ")
RECORD = struct.Struct("<II16s")
SUFFIX = ".journal"
# More than the largest entry that settings allow: a length above it is damage.
RECORD_BYTES_MAX = 128 * 1_024 * 1_024
WINDOW_BYTES = 1_024 * 1_024
BITE_BYTES = 4 * 1_024 * 1_024
# How far a serial that is damaged is searched for: so many segments of 8 MiB are more than a terabyte, and
# so many bytes take about a second.
SERIALS_TRIED = 200_000
BYTES_TRIED = 1_000_000_000
MARKS_TRIED = 100
# The first are of the newest use: what an earlier one left comes after them.
RECORDS_TRIED = 3
# Tasks whose deletion was begun, one id a line: what the segments still have of them is not to come back.
DELETED = "deleted"

OUR_NAME = re.compile(rf"\d+\{SUFFIX}")
ANY_MAGIC = re.compile(rb"taskd \d\d")
# How payloads begin.
MARK = re.compile(rb'\{"(?:seq|end)":')
MARK_BYTES = 7

# Whose it is, and the payload.
Record = tuple[bytes, bytes]

checksum_of = zlib.crc32
_log = logging.getLogger("taskd.journal")


class Recovered:
    """What a task has in the journal of a process that is gone: entries in `seq` order, and perhaps its end."""

    __slots__ = ("end", "entries", "last_seq", "task_id")

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self.entries: list[LogEntry] = []
        self.end: TaskEnd | None = None
        self.last_seq = 0  # that the log had at its end

    def add(self, payload: bytes) -> None:
        """Take one record more. Raises `ValueError`, `KeyError` or `TypeError` for what this taskd does not know."""
        told = orjson.loads(payload)
        if "end" in told:
            status, finished_at, result_json, error = told["end"]
            self.end = TaskEnd(TaskStatus(status), finished_at, result_json, error)
            self.last_seq = told.get("last_seq", 0)
        else:
            level = LEVELS[told["level"]]
            entry = LogEntry(told["seq"], told["timestamp"], level, told["source"], told["message"], payload)
            self.entries.append(entry)


@dataclass(frozen=True, slots=True, order=True)
class File:
    """
    A file of the journal's directory, and what it is.

    `serial`: 0 for a segment that was allocated and not begun, None for what cannot be read. `damaged`: it
    has whole entries, and its head is not as it was written.
    """

    serial: int | None
    path: Path
    damaged: bool


def recover(directory: Path, notices: list[str] | None = None) -> Iterator[list[Recovered]]:
    """
    What the journal of a process that is gone still holds, in bites, oldest first.

    The same task may come in several of them. Call `clear` when all of it is stored. `notices` gets
    a sentence for each file that the operator should look at. Raises `JournalNewer` and
    `JournalUnreadable`.
    """
    files = [_file(path) for path in _files(directory)]
    for file in files:
        if file.damaged and notices is not None:
            notices.append(_about_damage(file))
        elif file.serial is None:
            _log.warning("%s is not of taskd's journal and is left alone", file.path)
    for serial, path in sorted((file.serial or 0, file.path) for file in files):
        if serial:
            yield from _bites(path, serial)


def _about_damage(file: File) -> str:
    if file.serial is None:
        told = "it has entries that cannot be read, and is left alone. Move it away to be rid of this notice."
    else:
        told = "its entries were found all the same; what the damage took is missing in the logs, and they say so."
    return f"The head of the journal's {file.path} is damaged: {told}"


def clear(directory: Path) -> None:
    """Remove the segments: all that they hold is stored. Raises `JournalUnreadable`."""
    for path in [*segments_in(directory), directory / DELETED]:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise JournalUnreadable(
                f"The journal's {path} is stored and cannot be removed ({error.strerror}); make {directory} writable."
            ) from error


def deleted_in(directory: Path) -> set[str]:
    """The tasks that the process which is gone had deleted. Raises `JournalUnreadable`."""
    try:
        return set((directory / DELETED).read_text(errors="replace").split())
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise _unreadable(directory / DELETED, error) from error


def set_aside(directory: Path, kept: Path) -> bool:
    """Rename a journal that has segments to `kept`; whether it had."""
    if not any(OUR_NAME.fullmatch(path.name) for path in _files(directory)):
        return False
    directory.rename(kept)
    return True


def segments_in(directory: Path) -> list[Path]:
    """The files of a journal: those that are taskd's. Raises `JournalNewer` and `JournalUnreadable`."""
    return [path for path in _files(directory) if _file(path).serial is not None]


def seed_of(serial: int) -> int:
    """Where the checksums of a segment begin."""
    return checksum_of(serial.to_bytes(8, "little"))


def _files(directory: Path) -> list[Path]:
    try:
        return sorted(directory / name for name in os.listdir(directory) if name.endswith(SUFFIX))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(directory, error) from error


def _file(path: Path) -> File:
    if not OUR_NAME.fullmatch(path.name):
        return File(None, path, damaged=False)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # to open a pipe would wait for its other end
            return File(None, path, damaged=False)
        with path.open("rb") as file:
            serial, damaged = _serial_in(_Window(file.fileno()), path)
    except OSError as error:
        raise _unreadable(path, error) from error
    return File(serial, path, damaged)


def _serial_in(window: "_Window", path: Path) -> tuple[int | None, bool]:
    """The serial of a segment, as `File` has it, and whether its head is damaged."""
    head = window.at(0, HEADER.size)
    if ANY_MAGIC.match(head) and not head.startswith(MAGIC):
        raise JournalNewer(f"The journal's {path} was written by a newer taskd; run that one. Nothing was changed.")
    magic, serial = HEADER.unpack(head) if len(head) == HEADER.size else (b"", 0)
    if magic == MAGIC and any(_records(window, seed_of(serial))):
        return int(serial), False
    whole = [*islice(_whole(window), RECORDS_TRIED)]
    if whole:
        return max(map(_serial_by_search, whole)) or None, True
    if magic == MAGIC:
        return int(serial), False
    return (None if head.strip(b"\0") else 0), False


def _whole(window: "_Window") -> Iterator[tuple[int, bytes, bytes]]:
    """The first records that are whole but for their seed: checksum, task and payload."""
    after = RECORD.size
    for _ in range(MARKS_TRIED):
        mark = window.find(MARK, after)
        if mark is None:
            return
        length, checksum, task = RECORD.unpack(window.at(mark - RECORD.size, RECORD.size))
        if 0 < length <= min(window.size - mark, RECORD_BYTES_MAX) and _is_json(payload := window.at(mark, length)):
            yield checksum, task, payload
        after = mark + 1


def _is_json(payload: bytes) -> bool:
    try:
        return isinstance(orjson.loads(payload), dict)
    except orjson.JSONDecodeError:
        return False


def _serial_by_search(record: tuple[int, bytes, bytes]) -> int:
    """The serial that makes a record right; 0 if it is not found."""
    checksum, task, payload = record
    tries = min(SERIALS_TRIED, BYTES_TRIED // (len(payload) + 1_000))
    found = (n for n in range(1, tries + 1) if checksum_of(payload, checksum_of(task, seed_of(n))) == checksum)
    return next(found, 0)


def _unreadable(path: Path, error: OSError) -> JournalUnreadable:
    return JournalUnreadable(
        f"The journal's {path} cannot be read ({error.strerror}), and it may hold entries that are nowhere else: "
        "make it readable, or move it away to start without them."
    )


def _bites(path: Path, serial: int) -> Iterator[list[Recovered]]:
    """What one segment holds, some megabytes at a time."""
    tasks: dict[bytes, Recovered] = {}
    size = 0
    try:
        with path.open("rb") as file:
            for skipped, records in _records(_Window(file.fileno()), seed_of(serial)):
                if skipped:
                    _log.warning("%s is damaged: %d bytes of it are no record and were passed over", path, skipped)
                _add(tasks, records, path)
                size += sum([len(payload) for _, payload in records])
                if size >= BITE_BYTES:
                    yield list(tasks.values())
                    tasks, size = {}, 0
    except OSError as error:
        raise _unreadable(path, error) from error
    yield list(tasks.values())


def _add(tasks: dict[bytes, Recovered], records: list[Record], path: Path) -> None:
    """Give each record to its task."""
    try:
        for task, payload in records:
            one = tasks.get(task) or tasks.setdefault(task, Recovered(str(uuid.UUID(bytes=task))))
            one.add(payload)
    except (ValueError, KeyError, TypeError) as error:
        # Its checksum is right, so it is what somebody meant to write.
        raise JournalNewer(
            f"The journal's {path} has a record that this taskd does not know; run the newer one that wrote it. "
            "Nothing was removed."
        ) from error


def _records(window: "_Window", seed: int) -> Iterator[tuple[int, list[Record]]]:
    """The whole records, many at a time, each time with how many bytes were passed over before them."""
    position: int | None = HEADER.size
    read_until = HEADER.size
    while position is not None:
        record = _record_at(window, position, seed)
        if record is None:
            # A torn last record, or damage: behind that there may be more.
            mark = window.find(MARK, position + 1 + RECORD.size)
            position = None if mark is None else mark - RECORD.size
        else:
            skipped = position - read_until
            records, read_until = _records_after(window, position + RECORD.size + len(record[1]), seed)
            position = read_until
            yield skipped, [record, *records]


def _record_at(window: "_Window", position: int, seed: int) -> Record | None:
    """Task and payload of the record that is there, or None."""
    head = window.at(position, RECORD.size)
    if len(head) < RECORD.size:
        return None
    length, checksum, task = RECORD.unpack(head)
    start = position + RECORD.size
    if not 0 < length <= min(window.size - start, RECORD_BYTES_MAX):
        return None
    payload = window.at(start, length)
    return (task, payload) if checksum_of(payload, checksum_of(task, seed)) == checksum else None


def _records_after(window: "_Window", position: int, seed: int) -> tuple[list[Record], int]:
    """
    The records that lie whole one after another in the piece that is in memory, and where they end.

    As `_record_at` for each, in a third of the time: a start with a million takes seconds.
    """
    data, start = window.piece(position)
    offset, size = start, len(data)
    records: list[Record] = []
    seeds: dict[bytes, int] = {}
    while offset + RECORD.size < size:
        length, checksum, task = RECORD.unpack_from(data, offset)
        begin = offset + RECORD.size
        end = begin + length
        if not begin < end <= size:
            break
        payload = data[begin:end]
        task_seed = seeds.get(task) or seeds.setdefault(task, checksum_of(task, seed))
        if checksum_of(payload, task_seed) != checksum:
            break
        records.append((task, payload))
        offset = end
    return records, position + offset - start


class _Window:
    """
    A file, of which a piece is in memory.

    Not mapped: a disk that fails would then be a SIGBUS, which kills, and not an `OSError`.
    """

    def __init__(self, descriptor: int) -> None:
        self.size = os.fstat(descriptor).st_size
        self._descriptor = descriptor
        self._start = 0
        self._data = b""

    def at(self, position: int, length: int) -> bytes:
        """`length` bytes from `position` on; fewer where the file ends before."""
        start = position - self._start
        if start < 0 or start + length > len(self._data):
            self._data = os.pread(self._descriptor, max(length, WINDOW_BYTES), position)
            self._start, start = position, 0
        return self._data[start : start + length]

    def piece(self, position: int) -> tuple[bytes, int]:
        """What is in memory, and where in it `position` is, behind what `at` gave last."""
        return self._data, position - self._start

    def find(self, pattern: re.Pattern[bytes], position: int) -> int | None:
        """Where the pattern, of `MARK_BYTES`, comes next."""
        while self.at(position, MARK_BYTES):
            found = pattern.search(self._data, position - self._start)
            if found:
                return self._start + found.start()
            position = max(position + 1, self._start + len(self._data) - MARK_BYTES + 1)
        return None
