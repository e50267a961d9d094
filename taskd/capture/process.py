"""
`run_process`: a command whose output is in the task's log while it runs.

What is true of it:

- The command is a list of words, never a line for a shell, and it reads nothing from us.
- It leads a process group of its own. However `run_process` ends, nothing of that group
  lives on: what ignores a polite TERM is killed.
- Its output is read in small pieces, each followed by a turn for the rest of the loop, and no
  more of it is held than one line's bound.
- No line is dropped for want of room. While the task's queue has room, the command runs ahead of
  the store; then it stands still at its own full pipe, for as long as the store needs.
- The pipes are read to their ends. A process that outlives the command may go on writing for
  `term_wait_s`; then it is ended, and its last words are read too.
- The child has the descriptors 0, 1 and 2 and no other.
- Bytes that are not UTF-8 survive as `\\xff`. A line that redraws itself with carriage returns
  (a progress bar) is a progress (`taskd.capture.output`).
"""

import asyncio
import codecs
import contextlib
import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from taskd.capture.output import Speech
from taskd.capture.pipes import Pipe
from taskd.concurrency import first
from taskd.entries import Level
from taskd.errors import ProcessFailed
from taskd.log.logger import TaskLogger

StrPath = str | os.PathLike[str]
Stream = Literal["stdout", "stderr"]
LineHandler = Callable[[Stream, str], bool]

# Below `shutdown_deadline_s` (4 s), so that a stop of the service still sees the group killed.
TERM_WAIT_S = 3.0
# After KILL, until the processes have closed their output. What has left the group may never do so.
KILL_WAIT_S = 1.0
# How full the task's queue may be before its commands wait for the store. One line may take three
# quarters of the queue (`taskd.log.prepare`), and the plugin's own entries need room too.
ROOM_SHARE = 0.25
# While a command is being ended: its last words matter more than room for others.
ROOM_SHARE_MAX = 0.75
# An exit code that no command can have.
UNKNOWN = 256
# How often to check for an end that no event reports.
LOOK_S = 0.1


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
    cancelled again) and lets the cancellation go on when the command is gone. While the store
    does not take entries, the command waits, and so does this, as long as that lasts.
    """
    words = _words(argv)
    name = source or os.path.basename(words[0])
    with _outputs() as outputs:
        process = _start(words, cwd, _environment(env), outputs)
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


@contextlib.contextmanager
def _outputs() -> Iterator[dict[Stream, Pipe]]:
    """Open the pipes for a child's output, and close them at the end of a `with` block."""
    pipes: dict[Stream, Pipe] = {}
    try:
        pipes["stdout"] = Pipe()
        pipes["stderr"] = Pipe()
        yield pipes
    finally:
        for pipe in pipes.values():
            pipe.close()


def _start(
    words: list[str], cwd: StrPath | None, env: dict[str, str], outputs: dict[Stream, Pipe]
) -> "subprocess.Popen[bytes]":
    """
    Start the command, in one step that no cancellation can divide.

    Not with the loop: uvloop's children inherit each pipe twice, and a daemon that closes 0, 1 and 2
    would still hold the other copy. `Popen` closes everything else in the child.
    """
    try:
        with _signals_let_through():
            return subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=outputs["stdout"].write_fd,
                stderr=outputs["stderr"].write_fd,
                cwd=cwd,
                env=env,
                start_new_session=True,
            )
    except (OSError, ValueError) as error:
        # 127 and 126 are a shell's exit codes for these.
        code = 127 if isinstance(error, FileNotFoundError) else 126
        raise ProcessFailed(_not_started(words[0], cwd, error), returncode=code, signal=None) from error
    finally:
        for pipe in outputs.values():
            pipe.give()


@contextlib.contextmanager
def _signals_let_through() -> Iterator[None]:
    """Unblock all signals: a child inherits the mask, and TERM must reach it."""
    before = signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


async def _ended(pid: int) -> None:
    """Wait until a child has ended. Its exit code stays where it is, and so its pid stays its own."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:  # an old kernel, no descriptor left, or another caller of waitpid was faster
        while not _is_over(pid):  # noqa: ASYNC110 (there is no event: hence this branch)
            await asyncio.sleep(LOOK_S)
        return
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_reader(descriptor, over.set)
    try:
        await over.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _is_over(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _collect_exit_code(process: "subprocess.Popen[bytes]") -> None:
    """Set the exit code of a child that has ended; `UNKNOWN` if another `os.waitpid` in this process took it."""
    try:
        process.returncode = os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1])
    except ChildProcessError:
        process.returncode = UNKNOWN


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
        process: "subprocess.Popen[bytes]",
        outputs: dict[Stream, Pipe],
        output: "_Output",
        term_wait_s: float,
    ) -> None:
        self._process = process
        self._pipes = list(outputs.values())
        self._output = output
        self._term_wait_s = term_wait_s
        self._exit = asyncio.create_task(_ended(process.pid), name=f"exit of process {process.pid}")
        self._reading = [
            asyncio.create_task(output.read(stream, pipe), name=f"{stream} of process {process.pid}")
            for stream, pipe in outputs.items()
        ]

    async def finish(self) -> int:
        """
        Return the exit code when the command has ended and all of its output is read; raise the exception of a
        line handler. However this ends, cancellation included, the group is gone by then.
        """
        try:
            await self._until_exit()
            await self._until_silent()
        except BaseException:
            await self._end_group()
            raise
        finally:
            await self._let_go()
        if self._output.error is not None:
            raise self._output.error
        return int(self._process.returncode)

    async def _until_exit(self) -> None:
        """Wait until the command itself has ended; its children may go on."""
        await first(self._exit, self._output.failed.wait())
        if self._output.error is not None:
            raise self._output.error

    async def _until_silent(self) -> None:
        """Wait until the output ends. Processes left behind may finish a sentence, and then have to go."""
        for pipe, reading in zip(self._pipes, self._reading, strict=True):
            pipe.settle()
            await first(pipe.settled.wait(), reading)
        if await self._all_read(self._term_wait_s):
            return
        self._output.warn("ended, but left processes behind that hold its output open: they are ended now")
        self._signal(signal.SIGTERM)
        if not await self._all_read(self._term_wait_s):
            self._signal(signal.SIGKILL)
            await self._all_read(KILL_WAIT_S)
        self._give_up()
        await asyncio.wait(self._reading)

    async def _all_read(self, timeout_s: float) -> bool:
        """Whether the output ends in time, not counting the time for which the readers wait for the store."""
        left_s = timeout_s
        while left_s > 0 and not self._are_done():
            await self._output.flowing.wait()
            began = time.monotonic()
            await asyncio.wait(self._reading, timeout=min(left_s, LOOK_S))
            left_s -= time.monotonic() - began
        return self._are_done()

    def _are_done(self) -> bool:
        return all(reading.done() for reading in self._reading)

    async def _end_group(self) -> None:
        """Send TERM to the group, and wait until it has gone, for `term_wait_s` or until cancelled again."""
        self._output.use_all_room()
        until = time.monotonic() + self._term_wait_s
        self._signal(signal.SIGTERM)
        await asyncio.wait([self._exit], timeout=self._term_wait_s)
        # For a child that was just being born: until it is its own program, the first TERM
        # went to a copy of its parent.
        self._signal(signal.SIGTERM)
        await asyncio.wait(self._reading, timeout=max(0, until - time.monotonic()))

    async def _let_go(self) -> None:
        """End what is left of the group and read the rest, in bounded time; cancellation waits until then."""
        ending = asyncio.create_task(self._end(), name=f"end of process {self._process.pid}")
        cancelled: asyncio.CancelledError | None = None
        while not ending.done():
            try:
                await asyncio.wait([ending])
            except asyncio.CancelledError as error:
                cancelled = error
        ending.result()
        if cancelled is not None:
            raise cancelled

    async def _end(self) -> None:
        self._signal(signal.SIGKILL)
        await asyncio.wait([self._exit, *self._reading], timeout=KILL_WAIT_S)
        self._give_up()
        self._output.wait_no_more()
        await asyncio.wait(self._reading)
        if not all(pipe.ended for pipe in self._pipes):
            self._output.warn("a process outside of its session holds its output open: what it writes is not read")
        if self._exit.done():
            _collect_exit_code(self._process)
        else:  # it is in a system call that not even KILL interrupts
            self._exit.cancel()

    def _give_up(self) -> None:
        for pipe in self._pipes:
            pipe.give_up()

    def _signal(self, number: signal.Signals) -> None:
        _signal_group(self._process.pid, number)


class _Output:
    """The output of a command, on its way into the log."""

    def __init__(self, logger: TaskLogger, on_line: LineHandler | None) -> None:
        self.error: BaseException | None = None
        self.failed = asyncio.Event()
        self.flowing = asyncio.Event()
        self.flowing.set()
        self._logger = logger
        self._queue = logger.queue
        self._on_line = on_line
        self._share = ROOM_SHARE
        self._share_raised = asyncio.Event()
        self._waiting = 0

    async def read(self, stream: Stream, pipe: Pipe) -> None:
        """Read until the output ends or is given up. Not to be cancelled: lines in hand would be lost."""
        decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        take = None if self._on_line is None else lambda line: self._take(stream, line)
        speech = Speech(self._logger, Level.INFO, {"stream": stream}, take)
        while data := await pipe.read():
            await self._keep(speech, decoder.decode(data))
            # There may be more at once, without end: others get their turn.
            await asyncio.sleep(0)
        await self._keep(speech, decoder.decode(b"", final=True))
        speech.end(cut=not pipe.ended)

    def warn(self, message: str) -> None:
        """Log a warning about the command, as its source."""
        self._logger.warning(message)

    def use_all_room(self) -> None:
        """Wait for the store only when the queue is nearly full: the command is being ended."""
        self._raise_share(ROOM_SHARE_MAX)

    def wait_no_more(self) -> None:
        """Hand over the rest without waiting: the queue counts any entry that it drops."""
        self._raise_share(math.inf)

    def _raise_share(self, share: float) -> None:
        self._share = share
        raised, self._share_raised = self._share_raised, asyncio.Event()
        raised.set()

    async def _keep(self, speech: Speech, text: str) -> None:
        lines, start = speech.lines.feed(text), 0
        while start < len(lines):
            if self._queue.filled > self._share:
                await self._wait_for_room()
            # The first line may be a very long one, of which this text has only the end.
            end = start + self._queue.burst_max if start else 1
            speech.say(lines[start:end])
            start = end

    async def _wait_for_room(self) -> None:
        """Wait until the store has taken the queued entries, however long: the full pipe stops the command."""
        self._waiting += 1
        self.flowing.clear()
        queue = self._queue
        try:
            while queue.filled > self._share and not queue.closed:
                await first(queue.drain(), self._share_raised.wait())
        finally:
            self._waiting -= 1
            if not self._waiting:
                self.flowing.set()

    def _take(self, stream: Stream, line: str) -> bool:
        """Ask the line handler. When it raises, it is asked no more, and the lines are kept."""
        if self._on_line is None or self.error is not None:
            return False
        try:
            return self._on_line(stream, line)
        except BaseException as error:
            self.error = error
            self.failed.set()
            return False
