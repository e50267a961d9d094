"""The journal: what was appended is found again, and nothing else is taken for a record."""

import errno
import os
import random
import shutil
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskd.entries import Level, LogEntry
from taskd.errors import JournalNewer, JournalUnreadable
from taskd.journal.journal import Journal, TaskJournal
from taskd.journal.segments import HEADER, MAGIC, RECORD, Recovered, clear, recover, segments_in
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
    parts[1].append_end(END, 0)
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
    assert seqs(tmp_path, task_id) == [2]


def test_what_is_behind_a_damaged_record_is_found_and_the_damage_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the same segment too: one flipped bit does not take a thousand entries."""
    journal = begun(tmp_path)
    task_id = new_task_id()
    append(journal.task(task_id), range(1, 11))
    path = segments_in(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[data.index(b'"seq":5,')] ^= 1
    path.write_bytes(data)
    assert seqs(tmp_path, task_id) == [1, 2, 3, 4, 6, 7, 8, 9, 10]
    assert f"{path} is damaged" in caplog.text


def test_what_a_task_says_is_never_taken_for_a_record(tmp_path: Path) -> None:
    """A copy of a record's bytes as a message, with the record in front of it damaged, so that it is looked for."""
    journal = begun(tmp_path)
    task_id = new_task_id()
    part = journal.task(task_id)
    append(part, range(1, 2))
    path = segments_in(tmp_path)[0]
    record = path.read_bytes()[HEADER.size :].rstrip(b"\0").decode("latin-1")
    append(part, range(2, 4), message=record)
    data = bytearray(path.read_bytes())
    for seq in (1, 2):
        data[data.index(b'"seq":%d,' % seq)] ^= 1
    path.write_bytes(data)
    assert seqs(tmp_path, task_id) == [3]


FOREIGN = {
    "000001.journal": b"something else" * 100,
    "000003.journal": b"taskd 0",
    "notes.journal": b"",
    "000001.journal~": b"taskd 01" + bytes(100),
}


def test_a_foreign_file_is_left_alone_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither read, nor removed, nor written over; what was allocated and never begun is ours."""
    for name, content in FOREIGN.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "000002.journal").write_bytes(bytes(SEGMENT))
    (tmp_path / "000004.journal").mkdir()
    (tmp_path / "000005.journal").write_bytes(b"")
    assert recovered(tmp_path) == {}
    assert "000001.journal is not of taskd's journal" in caplog.text
    clear(tmp_path)
    assert segments_in(tmp_path) == []
    journal = begun(tmp_path)
    append(journal.task(new_task_id()), range(1, 200))
    assert len(segments_in(tmp_path)) > 5
    assert {name: (tmp_path / name).read_bytes() for name in FOREIGN} == FOREIGN


@pytest.mark.parametrize("head", [bytes(HEADER.size), HEADER.pack(MAGIC, 5), b"\xff" * HEADER.size])
def test_whole_entries_that_cannot_be_read_are_left_alone_and_reported(tmp_path: Path, head: bytes) -> None:
    """No serial makes their checksums right."""
    append(begun(tmp_path).task(new_task_id()), range(1, 9))
    path = segments_in(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[: HEADER.size] = head
    for seq in range(1, 9):
        data[data.index(b'"seq":%d,' % seq) - 1 - 16] ^= 1  # in the record's task
    path.write_bytes(data)
    notices: list[str] = []
    assert [*recover(tmp_path, notices)] == []
    assert [notice for notice in notices if f"{path} is damaged" in notice and "left alone" in notice] == notices != []
    clear(tmp_path)
    assert path.read_bytes() == data


def test_a_torn_first_record_is_no_damage(tmp_path: Path) -> None:
    """The call that wrote it had not returned."""
    append(begun(tmp_path).task(new_task_id()), range(1, 2))
    path = segments_in(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[data.index(b'"message"') :] = bytes(len(data) - data.index(b'"message"'))
    path.write_bytes(data)
    notices: list[str] = []
    assert [task for bite in recover(tmp_path, notices) for task in bite] == []
    clear(tmp_path)
    assert (notices, segments_in(tmp_path), path.exists()) == ([], [], False)


def test_a_pipe_among_the_segments_is_not_opened(tmp_path: Path) -> None:
    """To open it would wait for its other end."""
    os.mkfifo(tmp_path / "000001.journal")
    assert recovered(tmp_path) == {}
    clear(tmp_path)
    assert (tmp_path / "000001.journal").exists()


def test_a_segment_of_a_newer_taskd_stops_and_stays(tmp_path: Path) -> None:
    """It may hold entries that only that one can read; nor is anything else removed."""
    append(begun(tmp_path).task(new_task_id()), range(1, 3))
    (tmp_path / "000009.journal").write_bytes(b"taskd 02" + bytes(SEGMENT))
    for attempt in (recovered, clear):
        with pytest.raises(JournalNewer, match=r"000009\.journal.*newer taskd"):
            attempt(tmp_path)
    assert len([*tmp_path.iterdir()]) == 2


@pytest.mark.parametrize(
    "payload", [b'{"kind":"new"}', b'{"end":["postponed","",null,null]}', b"\x93new", b'{"seq":1}']
)
def test_a_record_that_is_not_known_stops(tmp_path: Path, payload: bytes) -> None:
    """Its checksum says that somebody meant it."""
    journal = begun(tmp_path).task(new_task_id())
    journal.append(payload)
    with pytest.raises(JournalNewer, match="does not know"):
        recovered(tmp_path)


def test_what_cannot_be_read_stops(tmp_path: Path) -> None:
    """A segment, or the directory. (To root no permission is denied: a link to itself cannot be opened either.)"""
    (tmp_path / "000001.journal").symlink_to(tmp_path / "000001.journal")
    (tmp_path / "file").write_text("")
    for directory in (tmp_path, tmp_path / "file"):
        with pytest.raises(JournalUnreadable, match="cannot be read"):
            recovered(directory)


def test_a_segment_far_larger_than_settings_say_is_read_in_bounded_memory(tmp_path: Path) -> None:
    """It was written under other settings, or is nonsense with a hole of a gigabyte."""
    task_id = new_task_id()
    journal = Journal(tmp_path, segment_bytes=24 * 1_024 * 1_024, bytes_max=1_024 * 1_024 * 1_024)
    append(journal.task(task_id), range(1, 201), message="x" * 100_000)
    os.truncate(segments_in(tmp_path)[0], 300 * 1_024 * 1_024)
    tracemalloc.start()
    found = [one.entries[-1].seq for part in recover(tmp_path) for one in part]
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(found) > 3, found[-1]) == (True, 200)
    assert most < 40 * 1_024 * 1_024


def test_a_directory_that_cannot_be_written_any_more_is_said(tmp_path: Path) -> None:
    """What there was room for goes on, and so does everything when it can be written again."""
    journal = begun(tmp_path / "journal")
    part = journal.task(new_task_id())
    shutil.rmtree(tmp_path / "journal")
    (tmp_path / "journal").write_text("in the way")
    append(part, range(1, 101))
    assert "cannot be written" in (journal.fault or "")
    (tmp_path / "journal").unlink()
    journal._again_at = 0.0
    append(part, range(101, 103))
    assert journal.fault is None
    journal.close()


def test_a_sync_that_fails_is_said_until_one_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = begun(tmp_path)
    append(journal.task(new_task_id()), range(1, 3))

    class Failing:
        def flush(self) -> None:
            raise OSError(errno.EIO, "Input/output error")

    assert journal.current is not None
    with monkeypatch.context() as failing:
        failing.setattr(journal.current, "map", Failing())
        journal.sync()
        assert "cannot be synced: Input/output error" in (journal.sync_fault or "")
    journal.sync()
    assert journal.sync_fault is None


@st.composite
def damages(draw: st.DrawFn) -> list[tuple[int, int, bytes]]:
    """Of some segments where, over how many bytes, and what stands there then."""
    damage = st.tuples(st.integers(0, 3), st.integers(0, SEGMENT), st.binary(max_size=40))
    return draw(st.lists(damage, min_size=1, max_size=4))


@given(damages(), st.integers(0, SEGMENT))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_of_any_kind_takes_only_what_it_touches(
    tmp_path: Path, done: list[tuple[int, int, bytes]], cut: int
) -> None:
    """Nothing but our own errors, no entry that was not said, in order, and each record that the damage left whole."""
    directory = Path(tempfile.mkdtemp(dir=tmp_path))
    task_id = new_task_id()
    append(begun(directory).task(task_id), range(1, 61), message="ü" * 40)
    paths = segments_in(directory)
    before = [path.read_bytes() for path in paths]
    for segment, place, content in done:
        data = bytearray(paths[segment % len(paths)].read_bytes())
        data[place : place + len(content)] = content
        paths[segment % len(paths)].write_bytes(data)
    os.truncate(paths[0], cut)
    try:
        found = recovered(directory).get(task_id, Recovered(task_id)).entries
    except (JournalNewer, JournalUnreadable):
        return
    assert [one.seq for one in found] == sorted({one.seq for one in found})
    assert all(one == entry(one.seq, "ü" * 40) for one in found)
    whole = {seq for path, old in zip(paths, before, strict=True) for seq in untouched(old, path.read_bytes())}
    assert whole <= {one.seq for one in found}


def untouched(old: bytes, new: bytes) -> Iterator[int]:
    """The seqs of the records of a segment that are as they were; none where its head is not."""
    if new[: HEADER.size] != old[: HEADER.size]:
        return
    position = HEADER.size
    while length := RECORD.unpack_from(old, position)[0] if position + RECORD.size <= len(old) else 0:
        until = position + RECORD.size + length
        if new[position:until] == old[position:until]:
            yield int(orjson.loads(old[position + RECORD.size : until])["seq"])
        position = until


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
    part.append_end(END, 0)
    part.committed_all()
    journal.sync()
    journal.close()
    assert segments_in(tmp_path) == []


def test_where_its_files_are_removed_it_goes_on_in_others(tmp_path: Path) -> None:
    """In no file that was removed: not in the one in use, and not in one that was to be used again."""
    journal = begun(tmp_path)
    task_id = new_task_id()
    task = journal.task(task_id)
    assert not journal.replace_lost()
    append(task, range(1, 101))
    assert len(segments_in(tmp_path)) > 2
    task.committed(100)
    shutil.rmtree(tmp_path)
    assert journal.replace_lost()
    assert not journal.replace_lost()
    append(task, range(101, 201))
    assert seqs(tmp_path, task_id) == [*range(101, 201)]
    assert journal.bytes_used == len(segments_in(tmp_path)) * SEGMENT
    assert journal.fault is None
