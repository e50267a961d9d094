"""
A log over a WebSocket, in frames: stored matches, then live ones, to the end.

Refusals come before the upgrade, as problems. Afterwards one coroutine sends the log and one watches the
client, so a viewer that leaves is released at once and one that sends too much is cut off. A client that
reconnects with `after` = the last seq that it saw misses nothing and repeats nothing. So every way in
which the connection can break is harmless: the close code only tells the client whether to reconnect.
"""

import logging
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from taskd.api.auth import subprotocol_of
from taskd.api.bodies import encode
from taskd.api.operations import Answer, Operation, Refused, service_of
from taskd.api.viewers import Pace, asked, first_of, viewers_of
from taskd.errors import TaskdError, TaskNotFound
from taskd.log.hub import Matches
from taskd.query.parameters import FOLLOW, PARAMETERS, LogQuery
from taskd.reading.follow import CaughtUp, End, Entries, Event, Idle, ProgressChanged, TaskChanged, follow
from taskd.settings import Settings
from taskd.tasks import Task

logger = logging.getLogger(__name__)

ENDED = 1000
STOPPING = 1001
POLICY = 1008
FAULT = 1011

_HEAD = '{"type":"entries","entries":['
_TAIL = "]}"
# What each message counts for besides its content: an empty message costs the service time too.
_MESSAGE_BYTES = 2


class Gone(Exception):
    """The client left, or read nothing for so long that its connection was cut (see `taskd.server.limits`)."""


async def live(websocket: WebSocket) -> None:
    """Serve one viewer."""
    with viewers_of(websocket).seat():
        task, query = await asked(websocket)
        await websocket.accept(subprotocol_of(websocket.scope))
        await View(websocket, task, query).run()


async def ask_upgrade(request: Request) -> Response:
    """Refuse a plain HTTP request to the path of the WebSocket (426)."""
    raise Refused(426, "This is a WebSocket: connect with ws:// or wss://.", headers={"Upgrade": "websocket"})


class View:
    """One viewer of one log, from the accepted connection to its close."""

    def __init__(self, websocket: WebSocket, task: Task, query: LogQuery) -> None:
        self._websocket = websocket
        self._task = task
        self._query = query
        service = service_of(websocket)
        self._manager = service.manager
        self._stopping = service.stopping
        self._settings: Settings = service.settings

    async def run(self) -> None:
        """Send and watch until one of the two ends, then close. May be cancelled."""
        code = await first_of(self._watch(), self._serve(), f"live {self._task.id}")
        if code is not None:
            await self._close(code)

    async def _serve(self) -> int | None:
        """Send the log; return the code to close with, or None if the client has left."""
        try:
            return await self._send_log()
        except Gone:
            return None
        except TaskNotFound:  # deleted while its log was read
            return POLICY
        except Exception as error:
            # When the service stops, the store closes while views may still read from it.
            if self._stopping.is_set():
                return STOPPING
            expected = isinstance(error, TaskdError)
            logger.error("a live view of task %s broke off: %s", self._task.id, error, exc_info=not expected)
            return FAULT

    async def _send_log(self) -> int:
        settings, query = self._settings, self._query
        await self._send(_frame({"type": "hello", "task": self._task.to_json(), "last_seq": self._task.last_seq}))
        pace = Pace(settings.frame_interval_s)
        events = follow(
            self._manager,
            self._task.id,
            query.filter,
            after=query.after,
            tail=query.tail,
            page_entries=settings.frame_entries_max,
            idle_s=settings.ping_interval_s,
        )
        async with aclosing(events):
            async for event in events:
                for frame in frames_of(event, settings):
                    await self._send(frame)
                if isinstance(event, End):
                    return ENDED
                await pace.rest(event)
        return STOPPING

    async def _watch(self) -> int | None:
        """Read and discard messages until the client leaves (None) or has sent too much (`POLICY`)."""
        received = 0
        while received <= self._settings.websocket_input_bytes_max:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return None
            received += _MESSAGE_BYTES + len(message.get("bytes") or (message.get("text") or "").encode())
        return POLICY

    async def _send(self, frame: str) -> None:
        try:
            await self._websocket.send_text(frame)
        except WebSocketDisconnect as error:
            raise Gone from error

    async def _close(self, code: int) -> None:
        # A client that sent too much: the sender may have found it disconnected in the same turn of the loop.
        if self._websocket.application_state is WebSocketState.DISCONNECTED:
            return
        try:
            await self._websocket.close(code)
        except WebSocketDisconnect:
            return  # the client left before the close


def frames_of(event: Event, settings: Settings) -> Iterator[str]:
    """Yield the frames that report `event` to a viewer."""
    match event:
        case Entries():
            yield from entries_frames(event.matches, settings.frame_entries_max, settings.frame_bytes_max)
        case CaughtUp():
            yield _frame({"type": "caught_up", "last_seq": event.last_seq})
        case ProgressChanged():
            yield _frame({"type": "progress", "source": event.source, "progress": event.progress})
        case TaskChanged():
            yield _frame({"type": "task", "task": event.task.to_json()})
        case Idle():
            yield _frame({"type": "ping", "last_seq": event.last_seq})
        case End():
            yield _frame({"type": "end", "task": event.task.to_json(), "last_seq": event.last_seq})


def entries_frames(matches: list[Matches], entries_max: int, bytes_max: int) -> Iterator[str]:
    """Yield `matches` in as few frames as the two limits allow; an entry larger than a frame has its own."""
    room = bytes_max - len(_HEAD) - len(_TAIL)
    count = sum([len(one.entries) for one in matches])
    # Nearly always all fit. Then there is no work for each entry, which matters with a hundred viewers.
    if count <= entries_max and sum([one.size for one in matches]) + count <= room:
        yield f"{_HEAD}{','.join([one.text for one in matches])}{_TAIL}"
        return
    for frame in _cut([entry.encoded for one in matches for entry in one.entries], entries_max, room):
        yield f"{_HEAD}{b','.join(frame).decode()}{_TAIL}"


def _cut(encoded: list[bytes], entries_max: int, room: int) -> Iterator[list[bytes]]:
    frame: list[bytes] = []
    size = 0
    for one in encoded:
        added = len(one) + 1  # with its comma
        if frame and (len(frame) == entries_max or size + added > room):
            yield frame
            frame, size = [], 0
        frame.append(one)
        size += added
    if frame:
        yield frame


def _frame(members: dict[str, Any]) -> str:
    return encode(members).decode()


PATH = "/api/tasks/{task_id}/logs/live"

OPERATIONS = (
    Operation(
        "GET",
        PATH,
        ask_upgrade,
        "live",
        "Follow a task's log over a WebSocket",
        {
            101: Answer(
                "Switched to a WebSocket. Text frames, each one JSON object of the schema Frame, until end; "
                "then close 1000. Other closes: 1001 the service stops (reconnect with after), 1008 policy, "
                "1011 a fault. The client sends nothing."
            )
        },
        parameters=tuple(PARAMETERS[name] for name in FOLLOW),
        refusals=(404, 426),
    ),
)
