"""The journal: what was appended is found again, and nothing else is taken for a record."""

import errno
import os
import random
from pathlib import Path

import pytest

from taskd.entries import Level, LogEntry
from taskd.journal import HEADER, RECORD, Journal, Recovered, TaskJournal, clear, recover, segments_in
from taskd.tasks import TaskEnd, TaskStatus, new_task_id

SEGMENT = 4_096
END = TaskEnd(TaskStatus.SUCCEEDED, "2026-11-23T14:00:00.000000Z", '{"n":1}')


def entry(seq: int, message: str = "said") -> LogEntry:
    return LogEntry.make(seq, "2026-11-23T14:00:00.000000Z", Level.INFO, "mine", message, b'{"n":1}')


def begun(tmp_path: Path, segments: int = 100) -> Journal:
    return Journal(tmp_path, segment_bytes=SEGMENT, bytes_max=segments * SEGMENT)


def append(journal: TaskJournal, seqs: range, message: str = "said") -> None:
    for seq in seqs:
        journal.append(entry(seq, message).encoded)


def recovered(tmp_path: Path) -> dict[str, Recovered]:
    """All that a journal holds, by task."""
    tasks: dict[str, Recovered] = {}
    for part in recover(tmp_path):
        for one in part:
            known = tasks.setdefault(one.task_id, Recovered(one.task_id))
            known.entries += one.entries
            known.end = one.end or known.end
    return tasks


def seqs(tmp_path: Path, task_id: str) -> list[int]:
    return [one.seq for one in recovered(tmp_path)[task_id].entries]


def test_what_was_appended_is_found_in_order(tmp_path: Path) -> None:
    """Of several tasks, over several segments, byte for byte, with their ends."""
    journal = begun(tmp_path)
    ids = [new_task_id() for _ in range(3)]
    parts = [journal.task(task_id) for task_id in ids]
    for seq in range(1, 101):
        for part in parts:
            append(part, range(seq, seq + 1), message=f"ü {seq}")
    parts[1].append_end(END)
    assert len(segments_in(tmp_path)) > 3
    found = recovered(tmp_path)
    for task_id in ids:
        assert found[task_id].entries == [entry(seq, f"ü {seq}") for seq in range(1, 101)]
    assert [found[task_id].end for task_id in ids] == [None, END, None]


def test_a_segment_is_used_again_when_all_in_it_is_committed(tmp_path: Path) -> None:
    """So the journal takes no more disk than what is not committed, and one task keeps no other's."""
    journal = begun(tmp_path, segments=3)
    part = journal.task(new_task_id())
    for start in range(1, 2_000, 10):
        append(part, range(start, start + 10))
        part.committed(10)
    assert journal.fault is None
    assert len(segments_in(tmp_path)) <= 3


def test_what_an_earlier_use_of_a_segment_left_is_not_a_record(tmp_path: Path) -> None:
    """The checksum begins with the segment's serial."""
    journal = begun(tmp_path, segments=2)
    part, other = journal.task(new_task_id()), new_task_id()
    for start in range(1, 500, 10):
        append(part, range(start, start + 10))
        part.committed(10)
    last = journal.task(other)
    append(last, range(1, 2))
    assert seqs(tmp_path, other) == [1]
    newest = max(recovered(tmp_path).values(), key=lambda one: len(one.entries))
    assert len(newest.entries) < 2 * SEGMENT / RECORD.size


def test_without_room_an_entry_is_let_go_and_that_is_said(tmp_path: Path) -> None:
    """And with room again the journal goes on."""
    journal = begun(tmp_path, segments=2)
    task_id = new_task_id()
    part = journal.task(task_id)
    append(part, range(1, 201))
    assert journal.fault is not None
    assert "journal_bytes_max" in journal.fault
    kept = len(seqs(tmp_path, task_id))
    assert seqs(tmp_path, task_id) == [*range(1, kept + 1)]
    part.committed(200)
    append(part, range(201, 203))
    assert journal.fault is None
    assert seqs(tmp_path, task_id)[-2:] == [201, 202]


def test_a_disk_without_room_is_not_asked_at_each_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To ask takes milliseconds, and there may be a hundred thousand entries a second; after a while it is asked."""
    journal = begun(tmp_path)
    asked = []

    def refuse(*_: int) -> None:
        asked.append(1)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "posix_fallocate", refuse)
        append(journal.task(new_task_id()), range(1, 501))
        assert (len(asked), "No space left" in (journal.fault or "")) == (1, True)
    monkeypatch.setattr(journal, "_again_at", 0.0)
    append(journal.task(new_task_id()), range(1, 3))
    assert journal.fault is None


def test_an_entry_larger_than_a_segment_is_let_go_and_that_is_said(tmp_path: Path) -> None:
    """Settings see to it that there is none."""
    journal = begun(tmp_path)
    journal.task(new_task_id()).append(b"x" * SEGMENT)
    assert journal.fault is not None


@pytest.mark.parametrize("seed", range(20))
def test_a_torn_journal_gives_what_was_whole_before(tmp_path: Path, seed: int) -> None:
    """Cut or overwritten anywhere, it never gives a wrong entry, and raises nothing."""
    rng = random.Random(seed)
    journal = begun(tmp_path)
    task_id = new_task_id()
    append(journal.task(task_id), range(1, 100))
    path = rng.choice(segments_in(tmp_path))
    data = bytearray(path.read_bytes())
    place = rng.randrange(len(data))
    if rng.random() < 0.5:
        del data[place:]
    else:
        data[place] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    for one in recovered(tmp_path).get(task_id, Recovered(task_id)).entries:
        assert one == entry(one.seq)


def test_a_length_that_lies_is_no_record(tmp_path: Path) -> None:
    """However large: it is checked against what there is."""
    journal = begun(tmp_path)
    task_id = new_task_id()
    append(journal.task(task_id), range(1, 3))
    path = segments_in(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[HEADER.size : HEADER.size + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert recovered(tmp_path) == {}


def test_a_foreign_file_is_left_out(tmp_path: Path) -> None:
    """And so is one that was allocated and never begun."""
    (tmp_path / "000001.journal").write_bytes(b"something else" * 100)
    (tmp_path / "000002.journal").write_bytes(bytes(SEGMENT))
    (tmp_path / "000003.journal").write_bytes(b"")
    assert recovered(tmp_path) == {}
    clear(tmp_path)
    assert segments_in(tmp_path) == []


def test_a_close_keeps_what_is_not_committed_and_only_that(tmp_path: Path) -> None:
    """At a stop whose store did not take it all, the next start finds it."""
    journal = begun(tmp_path)
    kept, done = new_task_id(), journal.task(new_task_id())
    append(done, range(1, 50))
    append(journal.task(kept), range(1, 3))
    done.committed_all()
    journal.close()
    assert seqs(tmp_path, kept) == [1, 2]
    assert len(segments_in(tmp_path)) == 1


def test_a_close_of_an_idle_journal_leaves_nothing(tmp_path: Path) -> None:
    """A clean stop."""
    journal = begun(tmp_path)
    part = journal.task(new_task_id())
    append(part, range(1, 300))
    part.append_end(END)
    part.committed_all()
    journal.sync()
    journal.close()
    assert segments_in(tmp_path) == []
