"""
The running service: one process, one listening socket, one event loop.

`taskd serve` calls `run`. The socket is bound before anything else is opened, so a port in use leaves no
trace. The line with "ready" is printed once connections are accepted, and not before.

The stop loses nothing and answers every request. First the service stops: no new tasks, running tasks
ended, every entry stored, viewers informed. Only then the HTTP server stops, which answers until that
moment. Each step has its time limit. A second signal cuts the waiting short; all entries logged so far
are stored all the same.
"""

import asyncio
import contextlib
import gc
import logging
import os
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import uvicorn

from taskd import shipped
from taskd.api import site
from taskd.api.app import create_app
from taskd.concurrency import first
from taskd.errors import TaskdError
from taskd.runtime.isolation import every_task, keep_own_tasks
from taskd.runtime.loop import Loop
from taskd.runtime.plugins import BrokenPlugin
from taskd.server.limits import cut, watch_clients
from taskd.server.protocols import EdgeConfig
from taskd.service import Service
from taskd.settings import Settings
from taskd.system.fork import keep_port_from_children
from taskd.system.malloc import give_back
from taskd.system.operator_log import log_to_stderr
from taskd.system.rlimits import fitted
from taskd.system.signals import StopSignals
from taskd.system.stdio import keep_writing, patient_streams
from taskd.system.supervision import Supervisor
from taskd.text.escape import shown
from taskd.version import __version__

# How long the HTTP server waits, twice, for answers under way when the service has stopped.
CLOSE_WAIT_S = 1
# How long threads and coroutines that ignore their cancellation may delay the exit.
LEAVE_WAIT_S = 0.5
BACKLOG = 2_048
# A flooding plugin holds the interpreter's lock in turns of this length. At Python's 5 ms the store's thread
# gets so few turns that commits stall for seconds.
SWITCH_INTERVAL_S = 0.0002
UNBUILT = "taskd: the page for the browser is not built; open / to read how to build it"

_log = logging.getLogger("taskd.server")

T = TypeVar("T")


def run(settings: Settings, signals: StopSignals) -> None:
    """
    Serve until SIGINT, SIGTERM or SIGHUP, and return when everything is stored and closed.

    Raises `TaskdError` if the service cannot start. If a plugin's thread or coroutine does not end, the
    process exits with code 0 and `run` does not return.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    # Pending entries are many, live for seconds and are in no cycle. At Python's thresholds the collector
    # would traverse all of them again and again, on the event loop, while tasks emit more.
    gc.set_threshold(50_000, 20, 100)
    # The settings hold the token. In the environment, every process that a task starts would inherit it.
    os.environ.pop("TASKD_TOKEN", None)
    with patient_streams() as drain:
        log_to_stderr()
        settings = fitted(settings.rooted())
        with listening(settings) as listener, asyncio.Runner(loop_factory=Loop) as runner:
            keep_own_tasks(runner.get_loop())
            run_through(runner.get_loop(), serve(settings, listener, signals, drain), signals)
            if not run_through(runner.get_loop(), _nothing_left(), signals):
                # A thread, coroutine or command would keep the process alive for ever; everything is stored by now.
                drain()
                os._exit(0)


def run_through(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T], signals: StopSignals) -> T:
    """
    Run `coroutine` to its end, also if an exception leaves the loop meanwhile. Raises its exception.

    An exception of a plugin ends its task (`taskd.runtime.execution`). But asyncio also lets SystemExit and
    KeyboardInterrupt of a child task or a callback through the loop, and `loop.stop()` stops the loop for
    all. Nothing on the loop is lost: the child task keeps its exception, and scheduled callbacks stay
    scheduled. If a plugin has replaced taskd's signal handlers, the exception may stand for a signal: then
    it counts as a request to stop.
    """
    task = loop.create_task(coroutine)
    while not task.done():
        try:
            loop.run_until_complete(task)
        except (SystemExit, KeyboardInterrupt) as error:
            if task.done():
                raise
            if signals.taken():
                signals.ask()
            else:
                _log.warning("%s would have ended taskd, which goes on", _raised_in(error))
        except RuntimeError:
            if task.done():
                raise
            _log.warning("A plugin's loop.stop() would have ended taskd, which goes on")
    return task.result()


def _raised_in(error: BaseException) -> str:
    """Return the type and place of an exception, without its message, which may hold a secret."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {last.filename}:{last.lineno}"


async def serve(
    settings: Settings, listener: socket.socket, signals: StopSignals, drain: Callable[[], None] = lambda: None
) -> None:
    """
    Serve on `listener` until a signal asks for the stop. Do not cancel it: send the signal.

    If the process ends while a plugin is being imported, `drain` is called first. If the database proves
    to be damaged, the service starts again with another one, and new connections wait meanwhile.
    """
    supervisor = Supervisor(settings)
    async with (
        supervisor.running("console", keep_writing),
        supervisor.running("memory", give_back),
        supervisor.running("signals", signals.keep),
    ):
        await _serve_and_again(settings, listener, signals, supervisor, drain)


async def _serve_and_again(
    settings: Settings,
    listener: socket.socket,
    signals: StopSignals,
    supervisor: Supervisor,
    drain: Callable[[], None],
) -> None:
    stop = asyncio.Event()
    notices: dict[str, float] = {}
    again, announced = True, False
    while again:
        service = Service(settings, notices, supervisor, signals)
        _on_signals(signals, stop, service, drain)
        if not await _started(service, stop):
            return
        try:
            await _serve(service, listener, stop, announced)
        finally:
            await service.stop()
        announced = True
        again = service.store.corrupt.is_set() and not stop.is_set()
        notices = service.notices
        service.threads.shutdown(wait=False)


async def _serve(service: Service, listener: socket.socket, stop: asyncio.Event, announced: bool) -> None:
    """Serve until a signal asks for the stop, or the service has to start again."""
    config = EdgeConfig(create_app(service), service.settings, close_wait_s=2 * CLOSE_WAIT_S)
    server = HttpServer(config, service.supervisor)
    # A duplicate: uvicorn closes the sockets that it gets.
    serving = asyncio.create_task(server.serve([listener.dup()]), name="http")
    if await server.started_or(serving):
        if not announced:
            _report_ready(service, url(listener))
        await _until(serving, stop, service.store.corrupt)
    if service.store.corrupt.is_set():
        service.hurry()  # entries emitted from now on cannot be stored
    try:
        await service.stop()
    finally:
        # Also if the service cannot start again: every request is answered before the process ends.
        await server.answered(CLOSE_WAIT_S)
        server.end()
        await serving


async def _until(serving: asyncio.Task[None], stop: asyncio.Event, corrupt: asyncio.Event) -> None:
    """Wait for the first of the three. A cancellation changes nothing: only signals ask for the stop."""
    while not (serving.done() or stop.is_set() or corrupt.is_set()):
        with contextlib.suppress(asyncio.CancelledError):
            await first(serving, stop.wait(), corrupt.wait())


async def _started(service: Service, stop: asyncio.Event) -> bool:
    """Start the service; return False if the stop was asked for first, with everything closed that had been opened."""
    starting = asyncio.create_task(service.__aenter__(), name="start")
    await first(starting, stop.wait())
    if not starting.done():
        # The start may be interrupted anywhere, as by a kill: the next start repeats it.
        starting.cancel()
        await asyncio.wait([starting])
        if starting.cancelled() or starting.exception() is not None:
            return False
    await starting
    return True


class HttpServer(uvicorn.Server):
    """uvicorn's server, without signal handlers of its own, and with an event for when it accepts connections."""

    def __init__(self, config: EdgeConfig, supervisor: Supervisor) -> None:
        super().__init__(config)
        self._supervisor = supervisor
        self._accepting = asyncio.Event()
        self._ending = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave the signals alone: `serve` decides what they mean."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._accepting.set()

    async def main_loop(self) -> None:
        """Keep uvicorn's clock (the date in answers) going until `end`. A cancellation changes nothing."""
        async with self._supervisor.running("HTTP server", super().main_loop):
            while not self._ending.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await self._ending.wait()
        self.should_exit = True

    def end(self) -> None:
        """Close the listening socket, then the connections."""
        self._ending.set()

    async def started_or(self, serving: asyncio.Task[None]) -> bool:
        """Wait until connections are accepted or `serving` has ended; return whether they are accepted."""
        await first(serving, self._accepting.wait())
        return self._accepting.is_set()

    async def answered(self, within_s: float) -> None:
        """Wait until all requests under way are answered and all followers disconnected, at most `within_s`."""
        # uvicorn's own shutdown would cut off a reader (1012) before the end of the log reaches it.
        if under_way := set(self.server_state.tasks):
            await asyncio.wait(under_way, timeout=within_s)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # A client that does not read the end of its answer is cut off before uvicorn complains about it.
        asyncio.get_running_loop().call_later(CLOSE_WAIT_S, self._cut)
        await super().shutdown(sockets)

    def _cut(self) -> None:
        for connection in self.server_state.connections:
            cut(connection.transport)


def _report_ready(service: Service, address: str) -> None:
    _report_broken(service.plugins.broken)
    print(f"taskd {__version__} ready on {address}", file=sys.stderr, flush=True)
    tell_unbuilt(shipped.PAGE)


def _report_broken(broken: Iterable[BrokenPlugin]) -> None:
    for plugin in broken:
        # The name of a file alone, because `taskd plugins` shows its path; the error in one line.
        name = Path(plugin.name).name if plugin.name.endswith(".py") else plugin.name
        error = " ".join(plugin.error.split())
        print(f"taskd: plugin {shown(name)} cannot be loaded: {shown(error)}", file=sys.stderr)


def tell_unbuilt(folder: Path) -> None:
    """Print a line to stderr if the page is not in `folder`. Everything else works without it."""
    if not site.is_built(folder):
        print(UNBUILT, file=sys.stderr, flush=True)


@contextlib.contextmanager
def listening(settings: Settings) -> Iterator[socket.socket]:
    """Listen on the address of the settings inside the `with` block. Raises `TaskdError` if that is impossible."""
    try:
        listener = _listen(settings.host, settings.port)
    except OSError as error:
        raise TaskdError(
            f"Cannot listen on {settings.host} port {settings.port}: {error.strerror or error}. "
            "Is another taskd running there? Stop it, or choose another --port."
        ) from error
    with listener:
        watch_clients(listener, settings.send_timeout_s)
        keep_port_from_children(listener)
        yield listener


def _listen(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def url(listener: socket.socket) -> str:
    """Return the address of `listener` as a URL."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _on_signals(signals: StopSignals, stop: asyncio.Event, service: Service, drain: Callable[[], None]) -> None:
    def asked() -> None:
        if stop.is_set():
            service.hurry()
        stop.set()

    def leave() -> None:
        # This runs in a signal handler, which may have interrupted a write.
        with contextlib.suppress(Exception):
            drain()
        os._exit(0)

    signals.tell(asked)
    signals.leave_while(lambda: service.plugins.loading is not None, leave)
    service.plugins.on_loading = signals.leave_if_asked


async def _nothing_left() -> bool:
    """Cancel the remaining coroutines, wait briefly, and return whether all coroutines and threads have ended."""
    loop = asyncio.get_running_loop()
    left = every_task() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    left.add(asyncio.create_task(loop.shutdown_default_executor(), name="executor"))
    _, stubborn = await asyncio.wait(left, timeout=LEAVE_WAIT_S)
    return not stubborn and not any(
        not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()
    )
