"""
A log over a WebSocket, in frames: stored matches, then live ones, to the end.

Refusals come before the upgrade, as problems. Afterwards one coroutine sends and one watches
the client, so that a viewer who leaves is released at once and one who talks is cut off.
Whoever comes back with `after` = the last seq seen misses nothing and repeats nothing, so
every way this can break off is harmless: the close code only says whether to come back.
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
# An empty message costs us something too, so it must count for something.
_MESSAGE_BYTES = 2


class Gone(Exception):
    """The client left, or took nothing for so long that its connection was cut (see `taskd.server.limits`)."""


async def live(websocket: WebSocket) -> None:
    """Serve one viewer."""
    with viewers_of(websocket).seat():
        task, query = await asked(websocket)
        await websocket.accept(subprotocol_of(websocket.scope))
        await View(websocket, task, query).run()


async def ask_upgrade(request: Request) -> Response:
    """Plain HTTP came to where a WebSocket is."""
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
        """Send and watch until one of the two ends; then close. May be cancelled."""
        code = await first_of(self._watch(), self._serve(), f"live {self._task.id}")
        if code is not None:
            await self._close(code)

    async def _serve(self) -> int | None:
        """Send the log; the code to close with, or None where nobody is there to hear it."""
        try:
            return await self._send_log()
        except Gone:
            return None
        except TaskNotFound:  # deleted while its log was read
            return POLICY
        except Exception as error:
            # The store closes under those who are not done when the service stops.
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
        """Read what the client was asked not to send, until it leaves or has said too much."""
        said = 0
        while said <= self._settings.websocket_input_bytes_max:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return None
            said += _MESSAGE_BYTES + len(message.get("bytes") or (message.get("text") or "").encode())
        return POLICY

    async def _send(self, frame: str) -> None:
        try:
            await self._websocket.send_text(frame)
        except WebSocketDisconnect as error:
            raise Gone from error

    async def _close(self, code: int) -> None:
        # Who says too much may be found out by the sending too, in the same turn.
        if self._websocket.application_state is WebSocketState.DISCONNECTED:
            return
        try:
            await self._websocket.close(code)
        except WebSocketDisconnect:
            return  # It left before it was told.


def frames_of(event: Event, settings: Settings) -> Iterator[str]:
    """The frames that tell a viewer of `event`."""
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
    """`matches` in as few frames as the two limits allow; an entry larger than a frame has its own."""
    room = bytes_max - len(_HEAD) - len(_TAIL)
    count = sum([len(one.entries) for one in matches])
    # Nearly always all fit: then nothing is done for each entry, which a hundred viewers feel.
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


def _frame(told: dict[str, Any]) -> str:
    return encode(told).decode()


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
                "1011 a fault. Nothing is to be sent by the client."
            )
        },
        parameters=tuple(PARAMETERS[name] for name in FOLLOW),
        refusals=(404, 426),
    ),
)
