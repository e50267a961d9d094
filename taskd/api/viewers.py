"""
Viewers of a log, shared by `websocket`, `ndjson` and `export`: seats, pace, and clients that leave.

Each viewer has a `follow` of its own. A slow viewer does not delay others, because `follow` never waits
for its reader but sends it back to the store. This module bounds the number of viewers and how often each
is served. Live entries are gathered for a moment, because a frame of many costs little more than a frame
of one; with a frame for each entry, fan-out collapses. `taskd.server.limits` bounds how long a client may
take to read.
"""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import NoReturn, TypeVar

from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.types import Receive

from taskd.api.operations import Refused, parameters_of, service_of, task_id_of
from taskd.query.parameters import FOLLOW, LogQuery, parse_query
from taskd.reading.follow import CaughtUp, Entries, Event
from taskd.reading.pages import check_after
from taskd.tasks import Task

T = TypeVar("T")

# A rest that ends more than LATE_S late shows an overloaded event loop. The next rest is then longer: by
# RELIEF times the lateness beyond LATE_S, at most RELIEF_MAX_S. So fan-out leaves the loop time for other work.
LATE_S = 0.02
RELIEF = 4
RELIEF_MAX_S = 0.25


class Viewers:
    """The seats: at most `viewers_max` readers follow at once."""

    def __init__(self, viewers_max: int) -> None:
        self._viewers_max = viewers_max
        self.count = 0

    @contextmanager
    def seat(self) -> Iterator[None]:
        """Hold a seat inside the `with` block. Raises `Refused` (503) if none is free."""
        if self.count >= self._viewers_max:
            detail = f"{self.count:,} readers follow logs, which is the limit (viewers_max); try again later."
            raise Refused(503, detail, headers={"Retry-After": "5"})
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1


class Pace:
    """
    The pace at which a viewer asks `follow` for its next event.

    A viewer asks at once while `follow` delivers stored entries, and while more entries are at hand.
    Otherwise it asks `interval_s` after the last entries. Entries logged meanwhile arrive together, and an
    entry after a silence does not wait at all. If many viewers overload the event loop, each is served
    less often, with more entries at once.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._relief_s = 0.0
        self._live = False

    async def rest(self, event: Event) -> None:
        """Rest between sending `event` and asking for the next event."""
        if isinstance(event, CaughtUp):
            self._live = True
        elif self._live and isinstance(event, Entries) and not event.more:
            loop = asyncio.get_running_loop()
            until = loop.time() + self._interval_s + self._relief_s
            await asyncio.sleep(until - loop.time())
            self._relief_s = min(RELIEF_MAX_S, RELIEF * max(0.0, loop.time() - until - LATE_S))


def viewers_of(connection: HTTPConnection) -> Viewers:
    """Return the seats of this application."""
    viewers: Viewers = connection.app.state.viewers
    return viewers


async def asked(connection: HTTPConnection) -> tuple[Task, LogQuery]:
    """
    Return the task to follow and the query, both valid.

    All errors of the request are found here, before the answer begins. Raises `ParameterInvalid` and
    `TaskNotFound`.
    """
    query = parse_query(parameters_of(connection), FOLLOW)
    task = await service_of(connection).manager.task(task_id_of(connection))
    check_after(query.after, task.last_seq)
    return task, query


async def until_gone(receive: Receive) -> None:
    """Return when the client of an HTTP request has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def while_there(request: Request, work: Coroutine[object, object, T]) -> T:
    """
    Return the result of `work`. Raises `ClientDisconnect` if the client leaves first.

    `work` is then cancelled, and with it its query in the store.
    """

    async def watch() -> NoReturn:
        await until_gone(request.receive)
        raise ClientDisconnect

    return await first_of(watch(), work, request.scope["path"])


async def first_of(watch: Coroutine[object, object, T], work: Coroutine[object, object, T], name: str) -> T:
    """
    Run both until one ends; return its result, and cancel and await the other.

    If both end at once, `watch` counts: the client has left. Cancelling this call cancels both.
    """
    tasks = [
        asyncio.create_task(watch, name=f"watch {name}"),
        asyncio.create_task(work, name=f"serve {name}"),
    ]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        done = next(task for task in tasks if task.done())
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return done.result()
