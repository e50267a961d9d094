"""
`Retention`: which ended tasks are deleted without anybody asking, and when.

By age: those that ended more than `retention_days` ago. By size: the oldest, one by one, while the
database has more than `retention_bytes_max` in use. Both oldest first, by id. A task that has not
ended is never deleted; `taskd.runtime.deletion` says how the others are, and what their readers see.

A clock that is wrong must not empty the store before somebody has noticed. So

- a pass deletes at most `retention_share_max` (a tenth) of all tasks, or one. The next comes
  `retention_interval_s` later, and so does the first: also of a service that is started again
  and again. Time between passes is counted by the clock that nobody can set;
- when the wall clock has jumped against that one by more than `JUMP_S`, either way, nothing is
  deleted by its age for `retention_suspend_s`, and that is said;
- the same when, at the start, all that is stored would be too old: the service was off for
  very long, or the clock is wrong;
- a task from the future, which a clock set back leaves, is kept; by size it is the last to go.

What is due in earnest goes all the same: half of it within 7 passes, nine tenths within 22, so
in 22 minutes with the defaults. A restart forgets a suspension; the other rules remain.
"""

import asyncio
import logging
import time

from taskd.entries import timestamp_of
from taskd.errors import StoreError
from taskd.persistence.base import LogPersistenceService
from taskd.runtime.deletion import Deletions
from taskd.settings import Settings

# Clocks that are put right bit by bit, or by a leap second, do not jump.
JUMP_S = 300.0
DAY_US = 86_400_000_000
# Tasks of a pass that are deleted together, by age.
GROUP_MAX = 100

_log = logging.getLogger("taskd.retention")


class Retention:
    """The passes of one service, `passes` of them so far. `run` until it is cancelled."""

    def __init__(
        self, settings: Settings, store: LogPersistenceService, deletions: Deletions, newest: str | None
    ) -> None:
        """`newest` is the greatest timestamp of what was stored before the start."""
        self.passes = 0
        self._settings = settings
        self._store = store
        self._deletions = deletions
        self._offset_s = _offset_s()
        self._suspended_until = 0.0
        self._why = ""
        self._too_large: str | None = None
        if settings.retention_days and newest is not None and newest < self._ended_before():
            self._suspend(f"all that is stored is older than {settings.retention_days:g} days")

    @property
    def notices(self) -> list[str]:
        """What an operator should know, in words."""
        suspended = self._why if self.suspended else None
        return [notice for notice in (suspended, self._too_large) if notice]

    @property
    def suspended(self) -> bool:
        """Whether nothing is deleted by its age now."""
        return time.monotonic() < self._suspended_until

    async def run(self) -> None:
        """One pass after the other, for ever. May be cancelled at any point."""
        while True:
            began = time.monotonic()
            await asyncio.sleep(self._settings.retention_interval_s)
            try:
                await self.make_pass()
            except StoreError as error:
                # The store fails or is locked, and who writes entries says so.
                _log.debug("a pass was broken off: %s", error)
            _log.debug("pass %d took %.1f s", self.passes, time.monotonic() - began)

    async def make_pass(self) -> int:
        """Delete what is due now, as far as one pass may; how many tasks that were. Raises `StoreError`."""
        self._check_clock()
        self.passes += 1
        room = max(1, int(await self._store.count_tasks() * self._settings.retention_share_max))
        deleted = 0
        if self._settings.retention_days and not self.suspended:
            deleted += await self._delete_by_age(room)
        if self._settings.retention_bytes_max:
            deleted += await self._delete_by_size(room - deleted)
        return deleted

    async def _delete_by_age(self, room: int) -> int:
        deleted = 0
        while deleted < room:
            due = await self._store.oldest_ended(min(room - deleted, GROUP_MAX), self._ended_before())
            if not due:
                break
            deleted += await self._delete(due)
        return deleted

    async def _delete_by_size(self, room: int) -> int:
        deleted = 0
        self._too_large = None
        while await self._store.used_bytes() > self._settings.retention_bytes_max:
            oldest = await self._store.oldest_ended(1)
            if not oldest:
                self._too_large = (
                    "The database has more than retention_bytes_max in use, and no ended task is left to delete."
                )
                break
            if deleted == room:
                break
            # One at a time, and wholly: only then is it known whether the next has to go.
            deleted += await self._delete(oldest)
        return deleted

    async def _delete(self, task_ids: list[str]) -> int:
        deleted = await self._deletions.delete(task_ids)
        await self._deletions.settled()
        return deleted

    def _ended_before(self) -> str:
        """When a task must have ended to be deleted by its age."""
        before_us = time.time_ns() // 1_000 - int(self._settings.retention_days * DAY_US)
        return timestamp_of(max(0, before_us))

    def _check_clock(self) -> None:
        offset_s = _offset_s()
        jump_s, self._offset_s = offset_s - self._offset_s, offset_s
        if abs(jump_s) > JUMP_S and self._settings.retention_days:
            self._suspend(f"the clock was set {'forward' if jump_s > 0 else 'back'} by {abs(jump_s):,.0f} s")

    def _suspend(self, why: str) -> None:
        self._suspended_until = time.monotonic() + self._settings.retention_suspend_s
        self._why = (
            f"No task is deleted by its age for {self._settings.retention_suspend_s:,.0f} s (retention_suspend_s), "
            f"because {why}. Check the clock."
        )
        _log.warning("%s", self._why)


def _offset_s() -> float:
    """How far the wall clock is from the one that nobody can set, and that goes on while the machine sleeps."""
    return time.time() - time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
