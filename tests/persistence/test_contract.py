"""What every store must do, backend by backend: see `taskd.persistence.base`."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from taskd.entries import Level, LogEntry, timestamp_of
from taskd.errors import StoreError, TaskNotFound
from taskd.persistence.base import LogPersistenceService, Span, TaskFilter
from taskd.query.counts import LogCounts
from taskd.query.filters import LogFilter
from taskd.settings import MIB, Settings
from taskd.stores import open_persistence
from taskd.tasks import Task, TaskEnd, TaskStatus, new_task_id
from tests.helpers.stores import ALL, ENDED, START_US, created, entries, entry, new_task, stored


@pytest.fixture(params=["sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LogPersistenceService]:
    """An empty store of each backend."""
    async with open_persistence(Settings(data_dir=tmp_path)) as opened:
        yield opened


async def test_a_task_is_read_as_it_was_stored(store: LogPersistenceService) -> None:
    """Params, the start, the end and the counts come back whole."""
    task = new_task()
    await store.create_task(task, ["a.0"])
    assert await store.task(task.id) == task
    await store.start_task(task.id, timestamp_of(START_US + 1))
    await store.append(task.id, entries(range(1, 4)), progress={"id": "p"}, end=ENDED)
    ended = await store.task(task.id)
    assert (ended.status, ended.result, ended.last_seq, ended.progress) == ("succeeded", {"n": 1}, 3, {"id": "p"})
    assert (ended.started_at, ended.counts[Level.INFO]) == (timestamp_of(START_US + 1), 3)
    assert await store.secret_paths(task.id) == ["a.0"]


async def test_an_entry_is_read_as_it_was_stored(store: LogPersistenceService) -> None:
    """Byte for byte: a reader cannot tell a stored entry from a live one."""
    task_id = await created(store)
    written = [
        entry(1, "ä\n\t\"'\\ 😀 \x7f"),
        entry(2, ""),
        LogEntry.make(3, timestamp_of(1), Level.DEBUG, "s", "x", None),
    ]
    await store.append(task_id, written)
    assert await stored(store, task_id) == written


async def test_appending_twice_is_harmless(store: LogPersistenceService) -> None:
    """A batch whose commit was not heard of is appended again: entries and counts stay right."""
    task_id = await created(store)
    await store.append(task_id, entries(range(1, 6)))
    await store.append(task_id, entries(range(1, 6)))
    await store.append(task_id, entries(range(4, 9)), end=ENDED)
    await store.append(task_id, entries(range(1, 9)), end=ENDED)
    assert [one.seq for one in await stored(store, task_id)] == [*range(1, 9)]
    assert (await store.task(task_id)).counts[Level.INFO] == 8


async def test_a_hole_in_the_seqs_is_refused_and_nothing_of_it_is_stored(store: LogPersistenceService) -> None:
    """`seq` has no holes, in the store as elsewhere."""
    task_id = await created(store)
    await store.append(task_id, entries([1]))
    for holey in ([3], [2, 4], [2, 2]):
        with pytest.raises(ValueError, match="hole"):
            await store.append(task_id, entries(holey), end=ENDED)
    assert [one.seq for one in await stored(store, task_id)] == [1]
    assert not (await store.task(task_id)).status.ended


async def test_one_append_that_fails_does_not_touch_its_neighbours(store: LogPersistenceService) -> None:
    """Batches that share a transaction stand or fall alone."""
    task_ids = [await created(store) for _ in range(20)]
    appends = [store.append(task_id, entries([1 + place % 2])) for place, task_id in enumerate(task_ids)]
    outcomes = await asyncio.gather(*appends, store.append("no such task", entries([1])), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), ValueError] * 10 + [TaskNotFound]
    assert [len(await stored(store, task_id)) for task_id in task_ids] == [1, 0] * 10


async def test_what_the_database_refuses_does_not_take_its_neighbours_with_it(store: LogPersistenceService) -> None:
    """Though they share its statements: a source that is too long breaks a rule of the table."""
    task_ids = [await created(store) for _ in range(9)]
    sources = ["s" * 65 if place == 4 else "mine" for place in range(9)]
    appends = [
        store.append(task_id, [entry(1), entry(2, source=source)])
        for task_id, source in zip(task_ids, sources, strict=True)
    ]
    outcomes = await asyncio.gather(*appends, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [*[type(None)] * 4, StoreError, *[type(None)] * 4]
    assert [len(await stored(store, task_id)) for task_id in task_ids] == [2, 2, 2, 2, 0, 2, 2, 2, 2]
    assert [(await store.task(task_id)).last_seq for task_id in task_ids] == [2, 2, 2, 2, 0, 2, 2, 2, 2]


@pytest.mark.parametrize("count", [1, 159, 160, 161, 479, 480, 481, 1_121])
async def test_a_batch_of_any_size_is_stored_whole(store: LogPersistenceService, count: int) -> None:
    """However many statements it takes."""
    task_id = await created(store)
    await store.append(task_id, entries(range(1, count + 1)))
    assert [one.seq for one in await stored(store, task_id)] == list(range(1, count + 1))


async def test_many_tasks_append_at_once(store: LogPersistenceService) -> None:
    """Each log is whole and its own, whatever shared its transactions."""
    task_ids = [await created(store) for _ in range(30)]

    async def emit(task_id: str) -> None:
        for start in range(1, 400, 40):
            await store.append(task_id, [entry(seq, task_id) for seq in range(start, start + 40)])

    await asyncio.gather(*map(emit, task_ids))
    for task_id in task_ids:
        log = await stored(store, task_id)
        assert [(one.seq, one.message) for one in log] == [(seq, task_id) for seq in range(1, 401)]


async def test_a_cancelled_append_is_stored_or_not_but_never_in_part(store: LogPersistenceService) -> None:
    """And it leaves no transaction open: the next append works."""
    task_id = await created(store)
    appending = asyncio.ensure_future(store.append(task_id, entries(range(1, 5_001)), end=ENDED))
    await asyncio.sleep(0)
    appending.cancel()
    await asyncio.wait([appending])
    await store.append(task_id, entries(range(1, 5_001)), end=ENDED)
    assert len(await stored(store, task_id)) == 5_000


async def test_the_kept_counts_equal_a_scan(store: LogPersistenceService) -> None:
    """Stats by level and source are answered from the counts, so they must never drift."""
    task_id, rng = await created(store), random.Random(7)
    log = [entry(seq, level=rng.choice(list(Level)), source=rng.choice("abc")) for seq in range(1, 500)]
    for start in range(0, 499, 83):
        await store.append(task_id, log[start : start + 100])
    counts = await store.counts(task_id)
    for log_filter in (ALL, LogFilter(levels=frozenset({Level.ERROR})), LogFilter(sources=("a", "b"))):
        scanned = await store.stats(task_id, log_filter, Span())
        assert counts.stats(log_filter) == scanned
        assert scanned == LogCounts.of(one for one in log if log_filter.matches(one)).stats(ALL)


async def test_pages_have_every_match_once_in_both_orders(store: LogPersistenceService) -> None:
    """Walking by `after` (or `before`), whatever the size of a page in entries or bytes."""
    task_id = await created(store)
    log = [entry(seq, f"said {seq}", source="odd" if seq % 2 else "even") for seq in range(1, 200)]
    await store.append(task_id, log)
    wanted = [one for one in log if one.source == "odd"]
    for limit, bytes_max in ((7, 1_000_000), (1_000, 500), (1, 1)):
        ascending, after, more = [], 0, True
        while more:
            page, more = await store.page(
                task_id,
                LogFilter(sources=("odd",)),
                Span(after),
                order="asc",
                offset=0,
                limit=limit,
                bytes_max=bytes_max,
            )
            ascending += page
            after = page[-1].seq
        assert ascending == wanted
    page, more = await store.page(task_id, ALL, Span(10, 20), order="desc", offset=2, limit=3, bytes_max=1_000_000)
    assert ([one.seq for one in page], more) == ([17, 16, 15], True)


async def test_the_nth_last_match(store: LogPersistenceService) -> None:
    """Where `tail` begins: the n-th match from the end, the first where there are fewer, None for none."""
    task_id = await created(store)
    await store.append(task_id, entries(range(1, 11)))
    assert await store.nth_last(task_id, ALL, 3, before=11) == 8
    assert await store.nth_last(task_id, ALL, 3, before=6) == 3
    assert await store.nth_last(task_id, ALL, 99, before=11) == 1
    assert await store.nth_last(task_id, LogFilter(search=("nobody said",)), 3, before=11) is None


async def test_tasks_are_listed_newest_first_and_by_what_is_asked(store: LogPersistenceService) -> None:
    """By status, plugin and the ending of the id, below `before`."""
    ids = [await created(store, plugin="ab"[place % 2]) for place in range(6)]
    await store.append(ids[0], [], end=ENDED)

    async def ids_of(task_filter: TaskFilter, limit: int) -> list[str]:
        return [task.id for task in (await store.tasks(task_filter, limit, MIB))[0]]

    listed = await ids_of(TaskFilter(), 100)
    assert listed == ids[::-1]
    assert await ids_of(TaskFilter(plugin="b", before=ids[5]), 1) == [ids[3]]
    assert await ids_of(TaskFilter(status=TaskStatus.SUCCEEDED), 9) == [ids[0]]
    assert await ids_of(TaskFilter(ending=ids[2][-8:]), 9) == [ids[2]]
    assert await ids_of(TaskFilter(ending="%"), 9) == []
    assert [task.id for task in await store.unended_tasks()] == ids[1:]


async def test_a_list_of_tasks_is_bounded_in_bytes(store: LogPersistenceService) -> None:
    """It ends behind the task that fills it, and says that there are more; params and results both count."""
    result = TaskEnd(TaskStatus.SUCCEEDED, timestamp_of(0), orjson.dumps("r" * 1_000).decode())
    tasks = [Task(new_task_id(), "p", {"text": "x" * 1_000}, TaskStatus.RUNNING, timestamp_of(n)) for n in range(4)]
    for task in tasks:
        await store.create_task(task, [])
    await store.append(tasks[2].id, [], end=result)
    listed, more = await store.tasks(TaskFilter(), 9, 3_000)
    assert ([task.id for task in listed], more) == ([tasks[3].id, tasks[2].id], True)
    listed, more = await store.tasks(TaskFilter(before=tasks[2].id), 9, 3_000)
    assert ([task.id for task in listed], more) == ([tasks[1].id, tasks[0].id], False)
    listed, more = await store.tasks(TaskFilter(), 9, 1)
    assert ([task.id for task in listed], more) == ([tasks[3].id], True)


async def test_only_an_ended_task_is_deleted_and_then_wholly(store: LogPersistenceService) -> None:
    """Hidden it is not there any more; purged, its log and its counts are gone. Others stay."""
    gone, kept = await created(store), await created(store)
    await store.append(gone, entries(range(1, 3_001)))
    await store.append(kept, entries([1]))
    assert await store.hide_tasks([gone, kept]) == []
    await store.append(gone, [], end=ENDED)
    assert await store.hide_tasks([gone, kept]) == [gone]
    assert await store.hide_tasks([gone, kept]) == []
    assert (await store.hidden_tasks(), await store.count_tasks()) == ([gone], 1)
    assert await store.newest_task_id() == max(gone, kept)
    for asked in (stored(store, gone), store.task(gone), store.append(gone, entries([3_001]))):
        with pytest.raises(TaskNotFound):
            await asked
    await store.purge([gone])
    await store.purge([gone, kept])
    assert (await store.hidden_tasks(), await stored(store, kept)) == ([], entries([1]))
    assert list(await store.counts(gone)) == []


async def test_the_oldest_ended_tasks_are_those_that_were_created_first(store: LogPersistenceService) -> None:
    """With a time, those created and ended before it; what has not ended, or is from the future, is none of them."""
    first, running, second = [await created(store) for _ in range(3)]
    for task_id in (second, first):
        await store.append(task_id, [], end=ENDED)
    assert await store.oldest_ended(9) == [first, second]
    assert await store.oldest_ended(1) == [first]
    assert await store.oldest_ended(9, ended_before="9999-01-01T00:00:00.000000Z") == [first, second]
    assert await store.oldest_ended(9, ended_before=ENDED.finished_at) == []
    assert running not in await store.oldest_ended(9)


async def test_an_end_is_final(store: LogPersistenceService) -> None:
    """A second end, as a recovery may bring, changes nothing."""
    task_id = await created(store)
    await store.append(task_id, [], end=ENDED)
    await store.append(task_id, [], end=TaskEnd(TaskStatus.INTERRUPTED, ENDED.finished_at))
    assert (await store.task(task_id)).status is TaskStatus.SUCCEEDED


async def test_a_cancelled_reader_leaves_its_connection_usable(store: LogPersistenceService) -> None:
    """However many readers go away in the middle of a query."""
    task_id = await created(store)
    await store.append(task_id, [entry(seq, "ä" * 200) for seq in range(1, 20_001)])
    slow = LogFilter(search=("nobody said ä",))
    for _ in range(12):
        counting = asyncio.ensure_future(store.count(task_id, slow, Span()))
        await asyncio.wait([counting], timeout=0.005)
        counting.cancel()
        await asyncio.wait([counting])
    assert await store.count(task_id, slow, Span()) == 0
