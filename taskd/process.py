"""
`run_process`: a command whose output is in the task's log while it runs.

What is true of it:

- The command is a list of words, never a line for a shell, and it reads nothing from us.
- It leads a process group of its own. However `run_process` ends, nothing of that group
  lives on: what ignores a polite TERM is killed.
- Its output is read in small pieces, each followed by a turn for the rest of the loop, and no
  more of it is held than one line's bound. A command that says more than the store can take
  is slowed down by its own full pipe; its lines are not dropped.
- Bytes that are not UTF-8 survive as `\\xff`. A line that redraws itself with carriage returns
  (a progress bar) is a progress (`taskd.speech`).
"""

import asyncio
import codecs
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from taskd.entries import Level
from taskd.errors import ProcessFailed
from taskd.logger import TaskLogger
from taskd.speech import Speech

StrPath = str | os.PathLike[str]
Stream = Literal["stdout", "stderr"]
LineHandler = Callable[[Stream, str], bool]

# Below `shutdown_deadline_s` (4 s), so that a stop of the service still sees the group killed.
TERM_WAIT_S = 3.0
READ_BYTES = 4_096
LINES_UNSTORED_MAX = 5_000
BYTES_UNSTORED_MAX = 4_194_304
STORE_WAIT_S = 5.0
# An exit code that no command can have.
UNKNOWN = 256
# How often it is looked whether a command is still there, of which the end is not told.
LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class ProcessResult:
    """How a command ended: `returncode` is negative, and `signal` set, where a signal killed it."""

    returncode: int
    signal: int | None


async def run_process(
    logger: TaskLogger,
    argv: Sequence[StrPath],
    *,
    source: str | None = None,
    cwd: StrPath | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = True,
    on_line: LineHandler | None = None,
    term_wait_s: float = TERM_WAIT_S,
) -> ProcessResult:
    """
    Run a command to its end; each line that it prints becomes an entry at INFO.

    The entries' source is `source`, by default the name of `argv[0]`; their metadata says which
    `stream` it was. `on_line(stream, line)` sees every line first, redrawn ones too, and keeps
    it out of the log by returning True. `env=None` inherits ours, without the service's token.

    Raises `ProcessFailed` where the command cannot be started and, with `check`, where it fails.
    When cancelled, it ends the group (TERM, then KILL after `term_wait_s`, or at once when
    cancelled again) and lets the cancellation go on when the command is gone.
    """
    words = _words(argv)
    name = source or os.path.basename(words[0])
    async with _outputs() as outputs:
        process = await _start(words, cwd, _environment(env), outputs)
        output = _Output(logger.with_source(name), on_line)
        code = await _Child(process, outputs, output, term_wait_s).finish()
    result = ProcessResult(code, -min(code, 0) or None)
    if check and result.returncode:
        raise ProcessFailed(explain(name, result), returncode=result.returncode, signal=result.signal)
    if result.signal:
        logger.warning(explain(name, result))
    return result


def _words(argv: Sequence[StrPath]) -> list[str]:
    words = [] if isinstance(argv, str) else [os.fspath(word) for word in argv]
    if not words:
        raise ValueError(f"run_process expects a list of words, such as ['git', 'status'], and was given {argv!r}")
    return words


def explain(name: str, result: ProcessResult) -> str:
    """How the command ended, as a sentence."""
    code = result.returncode
    if code == UNKNOWN:
        return f"{name} ended, and how is not known: something in taskd's process took its exit code (os.waitpid)."
    if result.signal:
        return f"{name} was killed by {_signal_told(result.signal)}."
    if 128 < code < 128 + signal.NSIG:
        return f"{name} ended with exit code {code}: what it ran was killed by {_signal_told(code - 128)}."
    return f"{name} ended with exit code {code}; its last lines in the log say why."


def _signal_told(number: int) -> str:
    name = {known.value: known.name for known in signal.Signals}.get(number, "unknown")
    cause = {
        "SIGKILL": ", likely out of memory",
        "SIGSEGV": ", a fault in the program",
        "SIGABRT": ", it gave up by itself",
        "SIGPIPE": ", it wrote where nobody read any more",
    }.get(name, "")
    return f"signal {number}{cause} ({name})"


@contextlib.asynccontextmanager
async def _outputs() -> AsyncIterator[dict[Stream, "_Pipe"]]:
    """
    The pipes for a child's output. Ours and not the subprocess module's: with those, `wait()`
    returns only when whatever else holds the output open has gone too.
    """
    pipes: dict[Stream, _Pipe] = {}
    try:
        pipes["stdout"] = await _Pipe.open()
        pipes["stderr"] = await _Pipe.open()
        yield pipes
    finally:
        for pipe in pipes.values():
            pipe.close()


class _Pipe:
    """One pipe: `write_fd` goes to the child, `reader` is ours."""

    def __init__(self, reader: asyncio.StreamReader, transport: asyncio.ReadTransport, write_fd: int) -> None:
        self.reader = reader
        self.write_fd = write_fd
        self._transport = transport
        self._given = False

    @classmethod
    async def open(cls) -> "_Pipe":
        read_fd, write_fd = os.pipe()
        loop = asyncio.get_running_loop()
        # asyncio's transport closes the file; uvloop's closes the descriptor and then the file too.
        # Between the two another thread may have opened that number, and would lose its file.
        file = os.fdopen(read_fd, "rb", 0, closefd=isinstance(loop, asyncio.BaseEventLoop))
        try:
            reader = asyncio.StreamReader(limit=READ_BYTES)
            transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
        except BaseException:
            os.close(write_fd)
            raise
        return cls(reader, transport, write_fd)

    def give(self) -> None:
        """The child has its end: ours would keep the pipe from ever ending."""
        if not self._given:
            self._given = True
            os.close(self.write_fd)

    def close(self) -> None:
        self.give()
        self._transport.close()


async def _start(
    words: list[str], cwd: StrPath | None, env: dict[str, str], outputs: dict[Stream, _Pipe]
) -> asyncio.subprocess.Process:
    starting = asyncio.create_task(_exec(words, cwd, env, outputs), name=f"start of {words[0]}")
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        # It may run already, and have started others: a start that is broken off leaves those behind.
        await _end_started(starting)
        raise
    except (OSError, ValueError) as error:
        # 127 and 126 are what a shell says for these.
        code = 127 if isinstance(error, FileNotFoundError) else 126
        raise ProcessFailed(_not_started(words[0], cwd, error), returncode=code, signal=None) from error
    finally:
        for pipe in outputs.values():
            pipe.give()


async def _exec(
    words: list[str], cwd: StrPath | None, env: dict[str, str], outputs: dict[Stream, _Pipe]
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=outputs["stdout"].write_fd,
        stderr=outputs["stderr"].write_fd,
        cwd=cwd,
        env=env,
        start_new_session=True,
    )


async def _end_started(starting: asyncio.Task[asyncio.subprocess.Process]) -> None:
    """Wait until the start is over, cancelled again or not (it takes no longer than a fork), and kill the group."""
    while not starting.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([starting])
    if starting.cancelled() or starting.exception() is not None:
        return
    _signal_group(starting.result().pid, signal.SIGKILL)
    await asyncio.shield(_exit_of(starting.result()))


async def _exit_of(process: asyncio.subprocess.Process) -> int:
    """
    The exit code, when the command has ended; `UNKNOWN` where somebody else has taken it.

    What calls `os.waitpid(-1)` anywhere in this process takes it, and then nobody is told of the end.
    """
    waiting = asyncio.create_task(process.wait(), name=f"wait for process {process.pid}")
    try:
        # It may be told while it is looked for, so it is looked for twice.
        missed = 0
        while missed < 2:
            await asyncio.wait([waiting], timeout=LOOK_S)
            if waiting.done():
                return waiting.result()
            missed = missed + 1 if _is_gone(process.pid) else 0
        _lost.append(process.pid)
        return UNKNOWN
    finally:
        waiting.cancel()


_lost: list[int] = []


def any_lost() -> bool:
    """Whether there was a command of which the loop does not know the end: closing the loop would wait for it."""
    return bool(_lost)


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def _signal_group(pid: int, number: signal.Signals) -> None:
    # The group's number stays taken while anything of the group lives; when nothing does,
    # there is nobody to signal.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _not_started(program: str, cwd: StrPath | None, error: OSError | ValueError) -> str:
    if cwd is not None and not Path(cwd).is_dir():
        return f"{program} could not be started in {os.fspath(cwd)!r}: there is no such directory."
    if isinstance(error, FileNotFoundError):
        return f"{program} could not be started: there is no such program in PATH. Install it or give its path."
    why = error.strerror if isinstance(error, OSError) else str(error)
    return f"{program} could not be started: {why}."


def _environment(env: Mapping[str, str] | None) -> dict[str, str]:
    if env is not None:
        return dict(env)
    # A command that prints its environment must not print the token into a log. A Python child
    # would keep its lines to itself until it ends.
    inherited = {key: value for key, value in os.environ.items() if key != "TASKD_TOKEN"}
    return {"PYTHONUNBUFFERED": "1", **inherited}


class _Child:
    """A running command and its group, until it is gone."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        outputs: dict[Stream, _Pipe],
        output: "_Output",
        term_wait_s: float,
    ) -> None:
        self._pid = process.pid
        self._outputs = outputs
        self._output = output
        self._term_wait_s = term_wait_s
        self._exit = asyncio.create_task(_exit_of(process), name=f"exit of process {self._pid}")
        self._reading = [
            asyncio.create_task(output.read(stream, pipe.reader), name=f"{stream} of process {self._pid}")
            for stream, pipe in outputs.items()
        ]

    async def finish(self) -> int:
        """
        The exit code, when the command has ended and all it said has been read; raises what a line
        handler raised. However it ends, cancellation included, the group is gone by then.
        """
        try:
            await self._until_exit()
            await self._until_silent()
        except BaseException:
            await self._end_group()
            raise
        finally:
            self._signal(signal.SIGKILL)
            for reading in self._reading:
                reading.cancel()
            await asyncio.gather(*self._reading, return_exceptions=True)
        return self._exit.result()

    async def _until_exit(self) -> None:
        """Until the command itself has ended; what it started may go on."""
        running: set[asyncio.Task[None] | asyncio.Task[int]] = {self._exit, *self._reading}
        while not self._exit.done():
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                ended.result()

    async def _until_silent(self) -> None:
        """Until the output ends. What was left behind may finish a sentence, and then has to go."""
        _, talking = await asyncio.wait(self._reading, timeout=self._term_wait_s)
        if talking:
            self._output.left_behind()
            await self._end_group()
        for reading in self._reading:
            if reading.done():
                reading.result()

    async def _end_group(self) -> None:
        """TERM to the group; KILL when it has not gone in `term_wait_s`, or when cancelled again."""
        until = asyncio.get_running_loop().time() + self._term_wait_s
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait([self._exit], timeout=self._term_wait_s)
            # For a child that was just being born: until it is its own program, the first TERM
            # went to a copy of its parent.
            self._signal(signal.SIGTERM)
            await asyncio.wait(self._reading, timeout=max(0, until - asyncio.get_running_loop().time()))
        finally:
            self._signal(signal.SIGKILL)
            # Nothing of the group is left to hold the output; what left the group may hold it for ever.
            for pipe in self._outputs.values():
                pipe.close()
            await asyncio.shield(self._exit)

    def _signal(self, number: signal.Signals) -> None:
        _signal_group(self._pid, number)


class _Output:
    """What a command says, on its way into the log."""

    def __init__(self, logger: TaskLogger, on_line: LineHandler | None) -> None:
        self._logger = logger
        self._on_line = on_line
        self._lines = 0
        self._bytes = 0

    async def read(self, stream: Stream, reader: asyncio.StreamReader) -> None:
        """Read until the output ends. May be cancelled: what was not read is lost, what was read is said."""
        decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        speech = Speech(self._logger, Level.INFO, {"stream": stream}, self._take(stream))
        try:
            while data := await reader.read(READ_BYTES):
                self._lines += speech.feed(decoder.decode(data))
                self._bytes += len(data)
                # There may be more at once, for ever: others get their turn.
                await asyncio.sleep(0)
                await self._wait_for_store()
        except asyncio.CancelledError:
            speech.end()
            raise
        speech.feed(decoder.decode(b"", final=True))
        speech.end()

    def left_behind(self) -> None:
        """The command has ended and something that it started still holds its output."""
        self._logger.warning("ended, but left processes behind that hold its output open: they are ended now")

    def _take(self, stream: Stream) -> Callable[[str], bool] | None:
        on_line = self._on_line
        return None if on_line is None else lambda line: on_line(stream, line)

    async def _wait_for_store(self) -> None:
        """Not faster than the store; but a store that is away must not stop the command."""
        if self._lines < LINES_UNSTORED_MAX and self._bytes < BYTES_UNSTORED_MAX:
            return
        self._lines = self._bytes = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STORE_WAIT_S):
                await self._logger.drain()
