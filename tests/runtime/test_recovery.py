"""
Dying at any moment, and coming back: the random schedules of `test_follow`, with the journal.

A death is everything of the process let go at once, in the middle of whatever it does: no
flush, no end, no close of the journal. (`tests/crash` kills real processes; here the moments
are many and the readers come back.)
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest

from taskd.entries import Level, LogEntry
from taskd.errors import StoreError, StoreUnavailable
from taskd.journal.journal import Journal
from taskd.journal.segments import segments_in
from taskd.persistence.base import LogPersistenceService
from taskd.runtime.deletion import deleting
from taskd.runtime.recovery import Patience, interrupt_orphans, recover_journal
from taskd.runtime.strays import KEPT_MAX
from taskd.settings import Settings
from taskd.stores import open_persistence
from taskd.system.supervision import Supervisor
from taskd.tasks import TaskEnd, TaskStatus
from tests.helpers.live_log import END, FILTERS, LiveLog, UnevenStore, emit, read
from tests.helpers.stores import stored

SEGMENT = 16_384
# What happens to the head of a segment.
HEAD_DAMAGES: list[Callable[[bytearray], None]] = [
    lambda data: data.__setitem__(slice(0, 16), bytes(16)),
    lambda data: data.__setitem__(slice(0, 2_048), bytes(2_048)),
    lambda data: data.__setitem__(9, data[9] ^ 1),
    lambda data: data.__setitem__(2, data[2] ^ 0xFF),
]


def begun(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal", segment_bytes=SEGMENT, bytes_max=1_000 * SEGMENT)


async def let_go(*tasks: asyncio.Task[Any]) -> None:
    """End asyncio tasks as a death would: whatever they were doing."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def live_and_die(store: LogPersistenceService, tmp_path: Path, rng: random.Random) -> tuple[LiveLog, list[Any]]:
    """A log that dies somewhere between its first entry and its end stored; and what its readers had seen."""
    settings = Settings(data_dir=tmp_path, flush_interval_s=0.003, batch_max=rng.randrange(1, 40))
    log = LiveLog(UnevenStore(store, rng), settings, begun(tmp_path))
    await log.create()
    seen: list[list[LogEntry]] = [[] for _ in FILTERS]
    running = asyncio.create_task(log.run())
    pairs = zip(FILTERS, seen, strict=True)
    readers = [asyncio.create_task(read(log, rng, one, slow=False, seen=had)) for one, had in pairs]
    emitting = asyncio.create_task(emit(log, rng, 200))
    await asyncio.wait([emitting], timeout=rng.random() * 0.15)
    if emitting.done() and rng.random() < 0.7:
        log.end()
        await asyncio.wait([running], timeout=rng.random() * 0.02)
    await let_go(emitting, running, *readers, *log.left_over())
    return log, seen


@pytest.mark.parametrize("seed", range(30))
async def test_what_was_accepted_is_there_after_a_death_at_any_moment(tmp_path: Path, seed: int) -> None:
    """Each entry once and in order, the end where it was reached, and readers come back to exactly the rest."""
    rng = random.Random(seed)
    settings = Settings(data_dir=tmp_path)
    async with open_persistence(settings) as store:
        log, seen = await live_and_die(store, tmp_path, rng)
    accepted, ended = log.queue.last_seq, log.queue.closed
    async with open_persistence(settings) as store:
        for _ in range(rng.randrange(2)):
            await die_while_recovering(store, tmp_path, rng)
        await recover_journal(tmp_path / "journal", store)
        whole = await stored(store, log.task_id)
        assert [entry.seq for entry in whole] == [*range(1, accepted + 1)]
        await interrupt_orphans(store)
        task = await store.task(log.task_id)
        assert task.status is (TaskStatus.SUCCEEDED if ended else TaskStatus.INTERRUPTED)
        whole = await stored(store, log.task_id)
    assert segments_in(tmp_path / "journal") == []
    for log_filter, had in zip(FILTERS, seen, strict=True):
        after = had[-1].seq if had else 0
        rest = [entry for entry in whole if entry.seq > after and log_filter.matches(entry)]
        assert had + rest == [entry for entry in whole if log_filter.matches(entry)]


async def die_while_recovering(store: LogPersistenceService, tmp_path: Path, rng: random.Random) -> None:
    recovering = asyncio.create_task(recover_journal(tmp_path / "journal", UnevenStore(store, rng)))
    await asyncio.wait([recovering], timeout=rng.random() * 0.01)
    with suppress(StoreError):
        await let_go(recovering)


@pytest.mark.parametrize("purged", [False, True])
async def test_the_journal_of_a_deleted_task_is_let_go(tmp_path: Path, purged: bool) -> None:
    """A death between the last commit and the journal's hearing of it, and the task deleted since."""
    settings = Settings(data_dir=tmp_path)
    journal = begun(tmp_path)
    async with (
        open_persistence(settings) as store,
        deleting(store, tmp_path / "tasks", Supervisor(settings), journal.forget) as deletions,
    ):
        log = LiveLog(store, settings, journal)
        await log.create()
        log.logger.info("said")
        await store.append(log.task_id, [], end=END)
        if purged:
            await deletions.delete([log.task_id])
            await deletions.settled()
        else:
            await store.hide_tasks([log.task_id])
        assert await recover_journal(tmp_path / "journal", store) == []
    assert [path.name for path in tmp_path.glob("journal*")] == ["journal"]
    assert [*(tmp_path / "journal").iterdir()] == []


async def test_the_journal_of_a_task_that_the_store_does_not_know_is_kept_beside_it(tmp_path: Path) -> None:
    """The database was removed or is an older copy: nothing of what was accepted is gone."""
    settings = Settings(data_dir=tmp_path)
    journal = begun(tmp_path)
    async with open_persistence(settings) as store:
        known, unknown = LiveLog(store, settings, journal), LiveLog(store, settings, journal)
        await known.create()
        for number in range(500):
            known.logger.info(f"known {number}")
            unknown.logger.info(f"said {number}")
        part = journal.task(unknown.task_id)
        part.append_end(END, 500)
        [notice] = await recover_journal(tmp_path / "journal", store)
        assert len(await stored(store, known.task_id)) == 500
    [kept] = tmp_path.glob("journal.unknown*")
    lines = [orjson.loads(line) for line in kept.read_bytes().splitlines()]
    assert {line["task_id"] for line in lines} == {unknown.task_id}
    assert [line["message"] for line in lines if "message" in line] == [f"said {number}" for number in range(500)]
    assert lines[-1]["end"] == "succeeded"
    assert "500 entries of 1 tasks that the database does not know" in notice
    assert str(kept) in notice
    assert segments_in(tmp_path / "journal") == []


async def test_what_is_kept_beside_the_journal_is_bounded(tmp_path: Path) -> None:
    """The oldest goes when there are too many."""
    for number in range(KEPT_MAX):
        (tmp_path / f"journal.unknown-2000010{number:02}T000000Z.ndjson").touch()
    settings = Settings(data_dir=tmp_path)
    async with open_persistence(settings) as store:
        LiveLog(store, settings, begun(tmp_path)).logger.info("said")
        await recover_journal(tmp_path / "journal", store)
    kept = sorted(path.name for path in tmp_path.glob("journal.unknown*"))
    assert (len(kept), kept[0]) == (KEPT_MAX, "journal.unknown-200001001T000000Z.ndjson")


async def test_a_journal_whose_heads_are_damaged_is_read_and_reported(tmp_path: Path) -> None:
    """Zeros over the first pages, and a bit of the serial: each whole entry is stored, at its place."""
    settings = Settings(data_dir=tmp_path)
    async with open_persistence(settings) as store:
        log = LiveLog(store, settings, begun(tmp_path))
        await log.create()
        for number in range(500):
            log.logger.info(f"said {number}")
        for path, damage in zip(segments_in(tmp_path / "journal"), HEAD_DAMAGES, strict=False):
            data = bytearray(path.read_bytes())
            damage(data)
            path.write_bytes(data)
        notices = await recover_journal(tmp_path / "journal", store)
        entries = await stored(store, log.task_id)
    assert len(notices) == len(HEAD_DAMAGES)
    assert all("is damaged: its entries were found" in notice for notice in notices)
    assert [entry.seq for entry in entries] == [*range(1, 501)]
    said = {entry.seq: entry.message for entry in entries if entry.source != "system"}
    assert len(said) > 480
    assert all(message == f"said {seq - 1}" for seq, message in said.items())


async def test_a_hole_in_the_journal_is_filled_with_what_says_so(tmp_path: Path) -> None:
    """The journal was full for a while: what it has behind that keeps its seqs."""
    settings = Settings(data_dir=tmp_path)
    journal = begun(tmp_path)
    async with open_persistence(settings) as store:
        log = LiveLog(store, settings)
        await log.create()
        part = journal.task(log.task_id)
        for seq in (1, 2, 5):
            part.append(LogEntry.make(seq, END.finished_at, Level.INFO, "mine", "said", None).encoded)
        part.append_end(TaskEnd(TaskStatus.FAILED, END.finished_at, None, "it says"), 5)
        await recover_journal(tmp_path / "journal", store)
        entries = await stored(store, log.task_id)
        task = await store.task(log.task_id)
    assert [entry.source for entry in entries] == ["mine", "mine", "system", "system", "mine"]
    assert entries[2].message.startswith("lost")
    assert (task.status, task.error, task.last_seq) == ("failed", "it says", 5)


async def test_an_end_whose_entries_are_missing_does_not_hide_it(tmp_path: Path) -> None:
    """Whoever sees `succeeded` can read the whole log, or what says that a part is lost."""
    settings = Settings(data_dir=tmp_path)
    journal = begun(tmp_path)
    async with open_persistence(settings) as store:
        log = LiveLog(store, settings)
        await log.create()
        part = journal.task(log.task_id)
        part.append(LogEntry.make(1, END.finished_at, Level.INFO, "mine", "said", None).encoded)
        part.append_end(END, 4)
        await recover_journal(tmp_path / "journal", store)
        entries = await stored(store, log.task_id)
        task = await store.task(log.task_id)
    assert [entry.source for entry in entries] == ["mine", "system", "system", "system"]
    assert (task.status, task.last_seq) == ("succeeded", 4)


class Failing:
    """A store that cannot do anything for the first so many calls."""

    def __init__(self, store: LogPersistenceService, times: int) -> None:
        self._store, self._times = store, times

    def __getattr__(self, name: str) -> Any:
        if self._times and name in ("append", "task"):
            self._times -= 1
            raise StoreUnavailable("The database cannot do this now: database is locked.")
        return getattr(self._store, name)


async def test_a_store_that_is_locked_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And that is said once."""
    settings = Settings(data_dir=tmp_path)
    async with open_persistence(settings) as store:
        log = LiveLog(store, settings, begun(tmp_path))
        await log.create()
        log.logger.info("said")
        failing: Any = Failing(store, 3)
        await recover_journal(tmp_path / "journal", failing, Patience(20))
        assert [entry.message for entry in await stored(store, log.task_id)] == ["said"]
    assert caplog.text.count("waits for the database") == 1


async def test_a_store_that_stays_locked_ends_the_start_and_not_the_journal(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    async with open_persistence(settings) as store:
        log = LiveLog(store, settings, begun(tmp_path))
        await log.create()
        log.logger.info("said")
        failing: Any = Failing(store, 1_000)
        with pytest.raises(StoreUnavailable, match=r"locked.*given up after 0\.1 s; the journal keeps"):
            await recover_journal(tmp_path / "journal", failing, Patience(0.1))
        await recover_journal(tmp_path / "journal", store)
        assert [entry.message for entry in await stored(store, log.task_id)] == ["said"]


@pytest.mark.parametrize("seed", range(5))
async def test_a_death_while_the_journal_is_removed_does_no_harm(tmp_path: Path, seed: int) -> None:
    """Whichever segments are left are read again, and change nothing."""
    rng = random.Random(seed)
    settings = Settings(data_dir=tmp_path)
    async with open_persistence(settings) as store:
        log = LiveLog(store, settings, begun(tmp_path))
        await log.create()
        for number in range(500):
            log.logger.info(f"said {number}")
        directory = tmp_path / "journal"
        kept = {path: path.read_bytes() for path in segments_in(directory)}
        assert len(kept) > 3
        await recover_journal(directory, store)
        await interrupt_orphans(store)
        whole = await stored(store, log.task_id)
        for path in rng.sample(sorted(kept), rng.randrange(1, len(kept))):
            path.write_bytes(kept[path])
        await recover_journal(directory, store)
        await interrupt_orphans(store)
        assert await stored(store, log.task_id) == whole
        assert segments_in(directory) == []
