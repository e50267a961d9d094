"""A task's status follows the picture, and ids sort by creation."""

import time
import uuid

import pytest

from taskd.entries import Level
from taskd.tasks import Task, TaskIds, TaskStatus, new_task_id

DAY_MS = 86_400_000
ENDS = {TaskStatus.SUCCEEDED, TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.INTERRUPTED}


def reachable(status: TaskStatus) -> set[TaskStatus]:
    return {other for other in TaskStatus if status.may_become(other)}


def test_a_queued_task_runs_or_is_stopped() -> None:
    """What has not run cannot succeed or fail."""
    assert reachable(TaskStatus.QUEUED) == {TaskStatus.RUNNING, TaskStatus.CANCELLED, TaskStatus.INTERRUPTED}


def test_a_running_task_ends_in_one_of_four_ways() -> None:
    """It never goes back to waiting, nor to running again."""
    assert reachable(TaskStatus.RUNNING) == ENDS


@pytest.mark.parametrize("status", sorted(ENDS))
def test_an_ended_task_stays_as_it_is(status: TaskStatus) -> None:
    """No status follows an end."""
    assert status.ended
    assert reachable(status) == set()


def test_waiting_and_running_are_no_ends() -> None:
    """Only the four ends are ends."""
    assert {status for status in TaskStatus if status.ended} == ENDS


def test_an_id_is_a_uuid_of_version_7_of_this_moment() -> None:
    """The first 48 bits are the milliseconds since 1970, as RFC 9562 has it."""
    before_ms = time.time_ns() // 1_000_000
    made = uuid.UUID(new_task_id())
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    # The ids of one process may borrow from the next moments to keep their order.
    assert before_ms <= made.int >> 80 <= before_ms + 2_000


@pytest.mark.parametrize("back_ms", [500, DAY_MS, 3_650 * DAY_MS])
def test_a_clock_that_is_set_back_does_not_change_the_order(monkeypatch: pytest.MonkeyPatch, back_ms: int) -> None:
    """However far: ids count on from the newest until the clock is there again."""
    new_id = TaskIds()
    ids = [new_id()]
    back_ns = time.time_ns() - back_ms * 1_000_000
    monkeypatch.setattr(time, "time_ns", lambda: back_ns)
    ids += [new_id() for _ in range(100)]
    assert ids == sorted(set(ids))
    assert {uuid.UUID(one).version for one in ids} == {7}


@pytest.mark.parametrize(
    "newest",
    [
        "ffe00000-0000-7000-8000-000000000000",
        "f0000000-ffff-ffff-ffff-ffffffffffff",
        "0192aaaa-0000-7000-8000-000000000000",
    ],
)
def test_a_new_id_sorts_after_the_newest_that_is_stored(newest: str) -> None:
    """Whatever the clock said when that one was made."""
    assert TaskIds(newest)() > newest


@pytest.mark.parametrize(
    "newest", ["", "a-task", "ffffffff-ffff-ffff-ffff-ffffffffffff", "FFE00000-0000-7000-8000-" + "0" * 12]
)
def test_what_no_clock_made_does_not_count(newest: str) -> None:
    """An id by another hand neither stops the start nor moves the ids to the end of time."""
    assert uuid.UUID(TaskIds(newest)()).int >> 80 <= time.time_ns() // 1_000_000


def test_a_task_is_shown_with_the_fields_of_the_contract() -> None:
    """Every field is there from the beginning, and every level is counted."""
    shown = Task("0192-abcdefgh", "git", {"a": 1}, TaskStatus.QUEUED, "t", counts={Level.ERROR: 2}).to_json()
    assert list(shown) == [
        "id", "plugin", "params", "status", "created_at", "started_at", "finished_at", "result", "error", "retry_of",
        "last_seq", "progress", "counts",
    ]  # fmt: skip
    assert shown["status"] == "queued"
    assert shown["counts"] == {"DEBUG": 0, "INFO": 0, "WARNING": 0, "ERROR": 2}


def test_ids_made_in_one_burst_sort_by_creation() -> None:
    """Ten thousand submissions at once are listed in the order in which they came."""
    ids = [new_task_id() for _ in range(10_000)]
    assert ids == sorted(set(ids))
