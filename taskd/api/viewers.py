"""
What `live`, `stream` and `export` have in common: a seat, a pace, and noticing that the client left.

Each viewer is one `follow` of its own: slow ones do not hold up others, since `follow` never
waits for its reader but sends it back to the store. What is bounded here is how many there
are and how often one is served: live entries are gathered for a moment, because a frame of
many costs little more than a frame of one (a frame an entry is what makes fan-out collapse).
How long one may leave what it is sent is in `taskd.server.limits`.
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

# A rest that ends later than this shows a loop that is full; then rests are longer by so many times
# what it was late beyond it, within the last. So fan-out leaves room for what else is on the loop.
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
        """A seat for as long as it is held; raises `Refused` (503) where none is free."""
        if self.count >= self._viewers_max:
            told = f"{self.count:,} readers follow logs, which is the limit (viewers_max); try again later."
            raise Refused(503, told, headers={"Retry-After": "5"})
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1


class Pace:
    """
    When to ask `follow` for its next event.

    At once while it hands over what is stored, and while it has more at hand. Otherwise
    `interval_s` after the last entries: what is said meanwhile comes in one piece, and what
    comes after a silence does not wait at all. Where viewers are so many that the loop is full,
    each is served less often, with more at once.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._relief_s = 0.0
        self._live = False

    async def rest(self, event: Event) -> None:
        """To be awaited between having sent `event` and asking for the next."""
        if isinstance(event, CaughtUp):
            self._live = True
        elif self._live and isinstance(event, Entries) and not event.more:
            loop = asyncio.get_running_loop()
            until = loop.time() + self._interval_s + self._relief_s
            await asyncio.sleep(until - loop.time())
            self._relief_s = min(RELIEF_MAX_S, RELIEF * max(0.0, loop.time() - until - LATE_S))


def viewers_of(connection: HTTPConnection) -> Viewers:
    """The seats of this application."""
    viewers: Viewers = connection.app.state.viewers
    return viewers


async def asked(connection: HTTPConnection) -> tuple[Task, LogQuery]:
    """
    The task to follow and the query, both in order.

    Everything that can be wrong is found here, while an answer can still say so. Raises
    `ParameterInvalid` and `TaskNotFound`.
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
    `work`, for as long as the client waits for it; raises `ClientDisconnect` when it has left.

    What nobody waits for any more is cancelled, and with it what the store does for it.
    """

    async def watch() -> NoReturn:
        await until_gone(request.receive)
        raise ClientDisconnect

    return await first_of(watch(), work, request.scope["path"])


async def first_of(watch: Coroutine[object, object, T], work: Coroutine[object, object, T], name: str) -> T:
    """
    Run both until one ends; its result counts, and the other is cancelled and awaited.

    Where both end at once `watch` counts: it knows that nobody is there any more. Cancelling
    this cancels both.
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
