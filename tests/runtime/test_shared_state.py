"""What a process has only once: a plugin takes nothing of it from the service or from other tasks."""

import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.helpers.served import Served, wait_until

PLUGINS = '''
import asyncio, builtins, ctypes, faulthandler, gc, locale, logging, logging.config, os, resource
import signal, socket, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from taskd import Plugin

CHANGES = {
    "directory": lambda: os.chdir("/"),
    "umask": lambda: os.umask(0),
    "recursion": lambda: sys.setrecursionlimit(5_000),
    "switch interval": lambda: sys.setswitchinterval(0.5),
    "collector": lambda: (gc.disable(), gc.set_threshold(7), gc.set_debug(gc.DEBUG_UNCOLLECTABLE)),
    "trace": lambda: (sys.settrace(lambda *_: None), sys.setprofile(lambda *_: None)),
    "hooks": lambda: (setattr(sys, "unraisablehook", print), setattr(threading, "excepthook", print)),
    "socket": lambda: (socket.setdefaulttimeout(0.001), setattr(socket, "socket", Proxied)),
    "locale": lambda: locale.setlocale(locale.LC_ALL, "C"),
    "limits": lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1])),
    "print": lambda: setattr(builtins, "print", None),
    "time": lambda: (setattr(time, "time", lambda: 0.0), setattr(time, "monotonic", lambda: 0.0)),
    "alarm": lambda: (signal.signal(signal.SIGALRM, lambda *_: 1 / 0), signal.alarm(3_600)),
    "timers": lambda: [signal.setitimer(timer, 3_600) for timer in (signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)],
    "handler": lambda: (signal.signal(signal.SIGUSR1, signal.SIG_IGN), setattr(sys, "excepthook", print)),
    "stack size": lambda: threading.stack_size(1 << 20),
    "digits": lambda: sys.set_int_max_str_digits(640),
    "processors": lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
    "signals": lambda: [signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)],
    "C signals": lambda: ctypes.CDLL(None).signal(signal.SIGTERM, ctypes.c_void_p(1)),
    "mask": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()),
    "broken pipe": lambda: signal.signal(signal.SIGPIPE, signal.SIG_DFL),
    "root level": lambda: logging.getLogger().setLevel(logging.DEBUG),
    "force": lambda: logging.basicConfig(level=logging.DEBUG, force=True, stream=sys.stderr),
    "handlers": lambda: (logging.getLogger().handlers.clear(), logging.getLogger("taskd").handlers.clear()),
    "dictConfig": lambda: logging.config.dictConfig({"version": 1, "root": {"level": "INFO"}}),
    "disable": lambda: logging.disable(logging.CRITICAL),
    "factories": lambda: (logging.setLogRecordFactory(recorded), logging.setLoggerClass(Loud)),
    "last resort": lambda: (setattr(logging, "lastResort", None), setattr(logging, "raiseExceptions", False)),
    "shutdown": logging.shutdown,
    "filters": lambda: [each.addFilter(lambda _: False) for each in (logging.root, *logging.root.handlers)],
    "taskd's loggers": lambda: [quiet(each) for each in logging.root.manager.loggerDict.values()],
    "streams": lambda: (sys.stderr.close(), setattr(sys, "stderr", None)),
}


def recorded(*args, **options):
    return logging.LogRecord(*args, **options)


class Loud(logging.Logger):
    pass


class Proxied(socket.socket):
    pass


def quiet(logger):
    if isinstance(logger, logging.Logger) and logger.name.partition(".")[0] not in ("taskd", "uvicorn"):
        logger.disabled = True
    elif isinstance(logger, logging.Logger):
        logger.disabled, logger.propagate = True, False
        logger.setLevel(logging.CRITICAL)
        logger.addFilter(lambda _: False)
        logger.handlers.clear()


class Taker(Plugin):
    """Changes one thing and leaves it so; then has the service log a warning, and waits for `gate`."""
    name = "taker"
    async def execute(self, params, context):
        CHANGES[params["what"]]()
        context.logger.info("taken")
        if params.get("warned"):
            asyncio.get_running_loop().stop()
        while "gate" in params and not os.path.exists(params["gate"]):
            await asyncio.sleep(0.01)


class Later(Plugin):
    """Asks for the process's end in two seconds, or looks on until then."""
    name = "later"
    def execute(self, params):
        if "look_on_s" in params:
            time.sleep(params["look_on_s"])
        else:
            faulthandler.dump_traceback_later(2, exit=True)


class Look(Plugin):
    """How the process is, as far as it can be seen."""
    name = "look"
    async def execute(self, params, context):
        mask = os.umask(0o022); os.umask(mask)
        root = logging.getLogger()
        return {
            "directory": os.getcwd(), "umask": mask, "recursion": sys.getrecursionlimit(),
            "switch": sys.getswitchinterval(), "gc": [gc.isenabled(), gc.get_threshold(), gc.get_debug()],
            "trace": [str(sys.gettrace()), str(sys.getprofile())],
            "hooks": [sys.excepthook.__name__, sys.unraisablehook.__name__, threading.excepthook.__name__],
            "socket": [socket.getdefaulttimeout(), str(socket.socket)], "locale": locale.setlocale(locale.LC_ALL),
            "limits": resource.getrlimit(resource.RLIMIT_CORE), "print": str(print),
            "time": [str(time.time), str(time.monotonic)], "timers": [signal.getitimer(each) for each in (0, 1, 2)],
            "threads": [threading.stack_size(), sys.get_int_max_str_digits(), len(os.sched_getaffinity(0))],
            "signals": [str(signal.getsignal(each)) for each in (2, 15, 1, 13, 17, 10)],
            "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
            "root": [root.level, [str(each) for each in root.handlers], len(root.filters), root.manager.disable],
            "handlers": [len(each.filters) for each in root.handlers],
            "factories": [str(logging.getLoggerClass()), str(logging.getLogRecordFactory())],
            "last": [logging.lastResort is None, logging.raiseExceptions],
            "disabled": [name for name in root.manager.loggerDict if logging.getLogger(name).disabled],
        }


class Innocent(Plugin):
    """Logs as libraries do."""
    name = "innocent"
    def execute(self, params):
        logging.getLogger("report").info("customer 4711")
        logging.getLogger("report").warning("customer 4711 again")


class Alarmed(Plugin):
    """Has a signal raise, in the loop and in its own code."""
    name = "alarmed"
    async def execute(self, params, context):
        def ring(number, frame):
            raise TimeoutError("too long")
        signal.signal(signal.SIGALRM, ring)
        signal.signal(signal.SIGUSR1, ring)
        asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGUSR1)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        await asyncio.sleep(0.5)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        try:
            time.sleep(5)
        except TimeoutError:
            return "interrupted"


class Closer(Plugin):
    """Closes the three standard descriptors, as `open(sys.stderr.fileno(), "w")` does when it is collected."""
    name = "closer"
    async def execute(self, params, context):
        before = [os.readlink(f"/proc/self/fd/{number}") for number in range(3)]
        for number in range(3) if params.get("close") else ():
            open(number, "rb" if number == 0 else "wb").close()
        return before


class Executor(Plugin):
    """Takes the default executor, as examples on the web do."""
    name = "executor"
    async def execute(self, params, context):
        loop = asyncio.get_running_loop()
        if params["how"] == "closed":
            await loop.shutdown_default_executor()
            await loop.shutdown_asyncgens()
            try:
                await asyncio.to_thread(sum, [1])
            except RuntimeError:
                return "harmed alone"
        with ThreadPoolExecutor(4, "mine") as pool:
            loop.set_default_executor(pool)
            return await asyncio.to_thread(lambda: threading.current_thread().name.partition("_")[0])


class Threaded(Plugin):
    name = "threaded"
    async def execute(self, params, context):
        return await asyncio.to_thread(lambda: threading.current_thread().name.partition("_")[0])


class Settings(Plugin):
    """Sets everything that a loop has for itself."""
    name = "loop"
    async def execute(self, params, context):
        loop, heard, made = asyncio.get_running_loop(), [], []
        def factory(loop, coroutine, **options):
            made.append(coroutine)
            return asyncio.Task(coroutine, loop=loop, **options)
        before = loop.get_task_factory(), loop.get_exception_handler()
        loop.set_task_factory(factory)
        loop.set_exception_handler(lambda loop, told: heard.append(str(told["exception"])))
        loop.set_debug(True)
        await asyncio.create_task(asyncio.sleep(0))
        loop.call_soon(lambda: 1 / 0)
        await asyncio.sleep(0.01)
        mine = loop.get_task_factory() is factory
        if not params.get("kept"):
            loop.set_task_factory(None)
            loop.set_exception_handler(None)
        back = (loop.get_task_factory(), loop.get_exception_handler()) == before
        return {"heard": heard, "made": len(made), "mine": mine, "back": back, "debug": loop.get_debug()}


class Reaper(Plugin):
    """Cancels every asyncio task that is there, by the collector."""
    name = "reaper"
    async def execute(self, params, context):
        found = [each for each in gc.get_objects() if isinstance(each, asyncio.Task) and not each.done()]
        for task in set(found) - {asyncio.current_task()}:
            task.cancel()
        return sorted({each.get_name() for each in found})


class Killer(Plugin):
    """Ends the threads of that name, as code does that wants to stop all that it started."""
    name = "killer"
    def execute(self, params):
        for thread in threading.enumerate():
            if thread.name.startswith(params["thread"]):
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
'''
CHANGES = [line.split('"')[1] for line in PLUGINS.split("CHANGES = {")[1].split("\n}\n")[0].splitlines() if '"' in line]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service that all tests of a kind share, for each leaves it as it was."""
    with served(tmp_path_factory.mktemp("shared")) as running:
        yield running
        assert running.stop() == 0


def served(directory: Path, *options: str) -> Served:
    (directory / "plugins").mkdir()
    (directory / "plugins" / "takers.py").write_text(PLUGINS)
    return Served(directory, "--restart-delay-s", "0.05", *options)


def warned(served: Served, after: int = 0) -> bool:
    """Whether the service has logged that warning, behind so many lines."""
    return any("loop.stop() would have ended taskd" in line for line in served.said[after:])


def answered(ask: Callable[[], Any]) -> Any:
    """The answer; False if a thread that was just ended was asked for it."""
    with contextlib.suppress(httpx.HTTPStatusError):
        return ask()
    return False


def delete(served: Served, task_id: str) -> None:
    """Delete a task; its files are gone then."""
    httpx.delete(f"{served.url}/api/tasks/{task_id}", trust_env=False).raise_for_status()


def run(served: Served, plugin: str, **params: Any) -> Any:
    """The result of a task that succeeds."""
    task = served.wait_end(served.submit(plugin, **params))
    assert task["status"] == "succeeded", task["error"]
    return task["result"]


@pytest.mark.parametrize("what", CHANGES)
def test_what_a_plugin_changes_of_the_process_is_taken_back_at_its_end(shared: Served, what: str) -> None:
    """The next task finds everything as it was, and its words are in its log alone."""
    before = run(shared, "look")
    run(shared, "taker", what=what)
    assert run(shared, "look") == before
    task = shared.wait_end(shared.submit("innocent"))
    said = [entry["message"] for entry in shared.entries(task["id"])]
    assert [word for word in said if "customer" in word] == ["customer 4711", "customer 4711 again"]
    assert [line for line in shared.said if "customer" in line] == []


def test_an_end_of_the_process_that_a_task_asked_for_does_not_outlive_the_task(shared: Served) -> None:
    """`faulthandler` would end it from a thread that no handler sees."""
    run(shared, "later")
    run(shared, "later", look_on_s=2.5)


@pytest.mark.parametrize("what", CHANGES)
def test_the_operator_hears_the_service_while_a_plugin_holds_what_it_changed(
    shared: Served, what: str, tmp_path: Path
) -> None:
    """A warning of the service is on stderr, and nothing that other tasks log is."""
    before, gate = len(shared.said), tmp_path / "gate"
    task_id = shared.submit("taker", what=what, warned=True, gate=str(gate))
    shared.wait_for(task_id, "taken")
    run_beside = shared.wait_end(shared.submit("innocent"))
    assert run_beside["status"] == "succeeded"
    gate.touch()
    shared.wait_end(task_id)
    wait_until(lambda: warned(shared, before))
    assert [line for line in shared.said if "customer" in line] == []


@pytest.mark.parametrize("what", ["signals", "C signals", "mask"])
def test_a_stop_is_heard_while_a_plugin_holds_the_signals(tmp_path: Path, what: str) -> None:
    """At the latest after the second in which they are taken back."""
    with served(tmp_path) as running:
        gate = tmp_path / "gate"
        task_id = running.submit("taker", what=what, gate=str(gate))
        running.wait_for(task_id, "taken")
        status = Path(f"/proc/{running.process.pid}/status")
        # The handlers are Python's then, which the system shows as caught.
        wait_until(lambda: int(status.read_text().split("SigCgt:")[1].split()[0], 16) >> (signal.SIGTERM - 1) & 1)
        assert running.stop() == 0


def test_a_signal_that_a_plugin_has_raise_interrupts_its_own_code_alone(shared: Served) -> None:
    """Raised in a callback of the loop it would close the listening socket, and nobody would be answered any more."""
    task = shared.wait_end(shared.submit("alarmed"))
    assert task["result"] == "interrupted", task["error"]
    told = [entry["message"].partition("\n")[0] for entry in shared.entries(task["id"]) if entry["level"] == "ERROR"]
    assert "exception in the handler of SIGALRM, which interrupted other code" in told


def test_standard_descriptors_that_a_plugin_closes_are_opened_again(shared: Served) -> None:
    """Else the next client's connection gets the number 2, and is told what the service logs."""
    before = run(shared, "closer", close=True)
    assert run(shared, "closer") == before
    said = len(shared.said)
    run(shared, "taker", what="directory", warned=True)
    wait_until(lambda: warned(shared, said))


def test_a_client_that_leaves_does_not_end_a_service_whose_plugin_wants_sigpipe(tmp_path: Path) -> None:
    """`signal(SIGPIPE, SIG_DFL)` stands in many scripts; it means that a broken connection ends the process."""
    with served(tmp_path) as running:
        gate = tmp_path / "gate"
        task_id = running.submit("taker", what="broken pipe", gate=str(gate))
        running.wait_for(task_id, "taken")
        talk = running.submit("talk", count=20_000, word="x" * 1_000)
        with socket.create_connection(("127.0.0.1", running.port)) as reader:
            reader.sendall(f"GET /api/tasks/{talk}/logs/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            assert reader.recv(1_000).startswith(b"HTTP/1.1 200")
        running.wait_end(talk)
        gate.touch()
        assert running.wait_end(task_id)["status"] == "succeeded"
        assert running.stop(signal.SIGINT) == 0


@pytest.mark.parametrize(("how", "result"), [("pooled", "mine"), ("closed", "harmed alone")])
def test_a_default_executor_that_a_plugin_sets_or_closes_is_its_own(shared: Served, how: str, result: str) -> None:
    """Other tasks have theirs, and what taskd does beside the loop goes on."""
    assert run(shared, "executor", how=how) == result
    assert run(shared, "threaded") == "taskd"
    task = shared.wait_end(shared.submit("talk"))
    delete(shared, task["id"])
    assert shared.get("/api/health")["problems"] == []


@pytest.mark.parametrize("kept", [True, False])
def test_what_a_plugin_sets_on_the_loop_is_its_own(shared: Served, kept: bool) -> None:
    """Its task factory and exception handler serve it, and nobody else; debugging stays off."""
    for _ in range(2):
        told = run(shared, "loop", kept=kept)
        assert told == {
            "heard": ["division by zero"], "made": 1, "mine": True, "back": not kept, "debug": False
        }  # fmt: skip
    assert run(shared, "threaded") == "taskd"


@pytest.mark.bar("R23")
def test_a_service_all_of_whose_asyncio_tasks_are_cancelled_goes_on(tmp_path: Path) -> None:
    """Health and stderr name what died; another task is run, stored and deleted; the stop is in order."""
    with served(tmp_path, "--journal-sync-ms", "50", "--retention-days", "1") as running:
        task_id = running.submit("reaper")
        # Without a view of its log, which is cancelled too.
        wait_until(lambda: running.get(f"/api/tasks/{task_id}")["status"] == "succeeded")
        found = running.get(f"/api/tasks/{task_id}")["result"]
        parts = ["HTTP server", "checkpointer", "console", "deletions", "indexer", "journal sync", "journal watch",
                 "memory", "retention", "signals", "watchdog"]  # fmt: skip
        assert set(found) >= set(parts)
        problems = " ".join(running.get("/api/health")["problems"])
        assert [part for part in parts if f"taskd's {part} died" not in problems] == []
        task = running.wait_end(running.submit("talk"))
        assert (task["status"], task["last_seq"]) == ("succeeded", len(running.entries(task["id"])))
        delete(running, task["id"])
        assert running.stop() == 0
    assert [part for part in parts if not any(f"taskd's {part} died" in line for line in running.said)] == []


@pytest.mark.parametrize("thread", ["console 2", "watchdog", "Thread-"])
def test_a_thread_of_the_service_that_is_ended_is_started_again(tmp_path: Path, thread: str) -> None:
    """The one that writes stderr, the watchdog's, those of the database."""
    with served(tmp_path) as running:
        killer = running.submit("killer", thread=thread)
        # Without a view of its log, which may be read in that thread.
        wait_until(lambda: answered(lambda: running.get(f"/api/tasks/{killer}")["status"] == "succeeded"))
        wait_until(lambda: answered(lambda: running.submit("talk")))
        assert running.wait_end(running.submit("talk"))["status"] == "succeeded"
        assert running.get("/api/tasks")["tasks"][0]["plugin"] == "talk"
        run(running, "taker", what="directory", warned=True)
        wait_until(lambda: warned(running))
        assert running.stop() == 0
