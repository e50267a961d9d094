"""`run_process`: every line of a command is in the log, and nothing of it outlives its end."""

import asyncio
import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from taskd.capture.process import ProcessResult, run_process
from taskd.entries import Level, LogEntry
from taskd.errors import ProcessFailed
from taskd.log.logger import TaskLogger
from taskd.log.queue import LogQueue
from taskd.settings import Settings
from tests.helpers.waiting import until


class Log:
    """A task's queue and logger, without the rest of a task."""

    def __init__(self) -> None:
        self.shown: list[dict[str, Any]] = []
        self.queue = LogQueue(Settings(), lambda source, progress: self.shown.append(progress))
        self.logger = TaskLogger(self.queue, "test")

    async def entries(self) -> list[LogEntry]:
        """What has been said and was not yet taken; waits for something."""
        return await self.queue.take()

    async def said(self) -> list[str]:
        return [entry.message for entry in await self.entries()]


@pytest.fixture
async def log() -> Log:
    """A log of one's own."""
    return Log()


def shell(script: str) -> list[str]:
    """A command that runs `script`."""
    return ["sh", "-c", script]


def keep(seen: list[str], line: str) -> bool:
    """Remember a line, and let it pass."""
    seen.append(line)
    return False


def has_ended(pid: str | int) -> bool:
    """Whether a process has ended, or does so at once: the kernel says when."""
    try:
        process = os.pidfd_open(int(pid))
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], 10)[0])
    finally:
        os.close(process)


async def test_every_line_becomes_an_entry_of_the_commands_name(log: Log) -> None:
    """Its stream is in the metadata; a last line needs no end; an empty one is one."""
    assert await run_process(log.logger, shell("echo one; echo; printf two")) == ProcessResult(0, None)
    entries = await log.entries()
    assert [(entry.source, entry.level, entry.message) for entry in entries] == [
        ("sh", Level.INFO, "one"),
        ("sh", Level.INFO, ""),
        ("sh", Level.INFO, "two"),
    ]
    assert {(entry.metadata or {})["stream"] for entry in entries} == {"stdout"}


async def test_stderr_is_told_apart_and_the_source_can_be_chosen(log: Log) -> None:
    """What is on stderr is not therefore an error: many programs tell their progress there."""
    await run_process(log.logger, shell("echo told >&2"), source="build")
    [entry] = await log.entries()
    assert (entry.source, entry.level, entry.metadata) == ("build", Level.INFO, {"stream": "stderr"})


async def test_lines_are_in_the_log_while_the_command_runs(log: Log, tmp_path: Path) -> None:
    """The command waits here for what only a reader of its first line does."""
    go = tmp_path / "go"
    os.mkfifo(go)
    running = asyncio.create_task(run_process(log.logger, shell(f"echo first; cat {go}")))
    assert await log.said() == ["first"]
    await asyncio.to_thread(go.write_text, "second\n")
    await running
    assert await log.said() == ["second"]


async def test_bytes_that_are_not_utf8_survive(log: Log) -> None:
    """As escapes; characters that a read cuts in two are whole."""
    await run_process(log.logger, [sys.executable, "-c", r"import os; os.write(1, b'\xff\xc3\xa9' + b'\xc3')"])
    assert await log.said() == [r"\xffé\xc3"]


async def test_a_redrawn_line_is_a_progress(log: Log) -> None:
    """Its first and its last picture are entries; a handler sees every one."""
    seen: list[str] = []
    script = r"printf '1%%\r2%%\r\n'; printf 'a\rb\n\nc\r'"
    await run_process(log.logger, shell(script), on_line=lambda stream, line: keep(seen, line))
    assert seen == ["1%", "2%", "a", "b", "", "c"]
    entries = await log.entries()
    assert [entry.message for entry in entries] == ["1%", "2%", "a", "b", "", "c"]
    progresses = [(entry.metadata or {}).get("progress") for entry in entries]
    assert [told and (told["current"], told["total"], told["done"]) for told in progresses] == [
        (1, 100, False), (2, 100, True), None, None, None, None,
    ]  # fmt: skip
    assert log.shown[-1] == progresses[1]


async def test_a_line_that_a_handler_takes_is_no_entry(log: Log) -> None:
    """What it lets pass is."""
    await run_process(log.logger, shell("seq 4"), on_line=lambda stream, line: line in "13")
    assert await log.said() == ["2", "4"]


async def test_a_failure_is_raised_with_its_exit_code(log: Log) -> None:
    """Unless it is not checked."""
    with pytest.raises(ProcessFailed, match="sh ended with exit code 3") as failed:
        await run_process(log.logger, shell("exit 3"))
    assert (failed.value.returncode, failed.value.signal) == (3, None)
    assert await run_process(log.logger, shell("exit 3"), check=False) == ProcessResult(3, None)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("kill -9 $$", r"killed by signal 9, likely out of memory \(SIGKILL\)"),
        ("kill -15 $$", r"killed by signal 15 \(SIGTERM\)"),
        ("exit 139", r"exit code 139: what it ran was killed by signal 11, a fault in the program \(SIGSEGV\)"),
    ],
)
async def test_a_death_by_signal_is_explained(log: Log, script: str, told: str) -> None:
    """A number alone helps nobody."""
    with pytest.raises(ProcessFailed, match=told):
        await run_process(log.logger, shell(script))


async def test_a_death_by_signal_that_is_not_checked_is_in_the_log(log: Log) -> None:
    """As a warning of the task."""
    result = await run_process(log.logger, shell("kill -9 $$"), check=False)
    assert result == ProcessResult(-9, 9)
    [entry] = await log.entries()
    assert (entry.source, entry.level) == ("test", Level.WARNING)


@pytest.mark.parametrize(
    ("argv", "cwd", "told"),
    [
        (["no-such-program"], None, "no-such-program could not be started: there is no such program in PATH"),
        (["true"], "/nowhere", "true could not be started in '/nowhere': there is no such directory"),
        (["/etc"], None, "Permission denied"),
        (["true", "a\0b"], None, "embedded null byte"),
    ],
)
async def test_what_cannot_be_started_says_why(log: Log, argv: list[str], cwd: str | None, told: str) -> None:
    """Also where the exit code is not checked: there is none."""
    with pytest.raises(ProcessFailed, match=told):
        await run_process(log.logger, argv, cwd=cwd, check=False)


@pytest.mark.parametrize("argv", ["ls -l", []])
async def test_a_line_for_a_shell_is_refused(log: Log, argv: list[str]) -> None:
    """A command is a list of words."""
    with pytest.raises(ValueError, match="expects a list of words"):
        await run_process(log.logger, argv)


async def test_the_environment_is_ours_without_the_token(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that prints its environment must not print the token into a log."""
    monkeypatch.setenv("TASKD_TOKEN", "secret")
    monkeypatch.setenv("MINE", "here")
    await run_process(log.logger, ["env"])
    said = await log.said()
    assert "MINE=here" in said
    assert not [line for line in said if "secret" in line]


async def test_an_environment_and_a_directory_can_be_given(log: Log, tmp_path: Path) -> None:
    """Then they are exactly those."""
    await run_process(log.logger, shell("pwd; echo $A$HOME"), cwd=tmp_path, env={"A": "b"})
    assert await log.said() == [str(tmp_path), "b"]


async def cancelled_after_first_line(log: Log, script: str, term_wait_s: float) -> list[str]:
    """Cancel `script` when it has said something; what it has said in all."""
    running = asyncio.create_task(run_process(log.logger, shell(script), term_wait_s=term_wait_s))
    said = await log.said()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    log.logger.info("(end)")
    return said + (await log.said())[:-1]


async def test_cancelling_lets_the_command_say_its_last_words(log: Log) -> None:
    """TERM comes first, and what is said then is in the log."""
    script = "trap 'echo bye; exit' TERM; echo $$; sleep 1000 & wait"
    pid, *last = await cancelled_after_first_line(log, script, 30)
    assert "bye" in last
    assert has_ended(pid)


async def test_cancelling_kills_what_ignores_it_with_all_that_it_started(log: Log) -> None:
    """The whole group, children of children too."""
    script = "trap '' TERM; (trap '' TERM; exec sleep 1000) & echo $$ $!; wait"
    [pids] = await cancelled_after_first_line(log, script, 0.05)
    assert all(map(has_ended, pids.split()))


async def test_cancelling_twice_does_not_wait(log: Log) -> None:
    """A second cancellation kills at once; the test's own time limit tells."""
    script = "trap 'echo no' TERM; echo $$; while :; do :; done"
    running = asyncio.create_task(run_process(log.logger, shell(script), term_wait_s=1_000))
    [pid] = await log.said()
    running.cancel()
    assert await log.said() == ["no"]
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert has_ended(pid)


async def test_what_a_command_leaves_behind_is_ended(log: Log) -> None:
    """It would hold the output open for ever; the log says so."""
    await run_process(log.logger, shell("sleep 1000 & echo $!"), term_wait_s=0.05)
    [pid, warning] = await log.said()
    assert "left processes behind" in warning
    assert has_ended(pid)


async def test_what_is_left_behind_may_finish_its_sentence(log: Log, tmp_path: Path) -> None:
    """A command ends before its last child: the output is read to its end."""
    os.mkfifo(tmp_path / "gate")
    script = f"(read x < {tmp_path}/gate; echo late) & echo early"
    running = asyncio.create_task(run_process(log.logger, shell(script), term_wait_s=30))
    assert await log.said() == ["early"]
    await asyncio.to_thread((tmp_path / "gate").write_text, "go\n")
    await running
    assert await log.said() == ["late"]


async def test_a_handler_that_raises_ends_the_command(log: Log) -> None:
    """Its exception comes out, and the command is gone."""
    pids = []

    def handler(stream: str, line: str) -> bool:
        pids.append(int(line))
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        await run_process(log.logger, shell("echo $$; sleep 1000"), on_line=handler)
    assert has_ended(pids[0])


async def test_a_command_that_floods_waits_for_the_store(log: Log) -> None:
    """Nothing of it is dropped, though it says more than the queue may hold."""
    log.queue = LogQueue(Settings(queue_max=20_000), lambda source, progress: None)
    running = asyncio.create_task(run_process(TaskLogger(log.queue, "test"), ["seq", "60000"]))
    expected = 1
    while expected <= 60_000:
        entries = await log.entries()
        assert [entry.message for entry in entries] == list(map(str, range(expected, expected + len(entries))))
        expected += len(entries)
        if log.queue.flush_asked or running.done():
            log.queue.committed(expected - 1 - log.queue._committed_seq, 0, expected - 1)
    await running


class Store:
    """The other end of a queue: it takes entries, and commits none until it is asked to."""

    def __init__(self, log: Log, entries_max: int) -> None:
        self.queue = log.queue = LogQueue(Settings(queue_max=entries_max, batch_max=1), lambda source, progress: None)
        self.logger = TaskLogger(self.queue, "test")
        self.taken: list[LogEntry] = []
        self.said: list[str] = []

    def take(self) -> list[str]:
        self.taken += self.queue.take_rest()
        return [entry.message for entry in self.taken]

    def commit(self) -> None:
        self.said += self.take()
        taken, self.taken = self.taken, []
        self.queue.committed(len(taken), sum(len(entry.encoded) for entry in taken), self.queue.last_seq)

    async def commit_until(self, running: asyncio.Task[ProcessResult]) -> None:
        while not running.done():
            self.commit()
            await asyncio.sleep(0)
        self.commit()


@pytest.mark.parametrize("entries_max", [1, 7, 100, 1_000])
async def test_a_queue_of_any_size_costs_no_line(log: Log, entries_max: int) -> None:
    """The lines wait in the pipe. Whatever a command prints, in the pieces in which it arrives."""
    store = Store(log, entries_max)
    running = asyncio.create_task(run_process(store.logger, shell("yes '' | head -n 6000; seq 3000")))
    await store.commit_until(running)
    assert store.said == [""] * 6_000 + list(map(str, range(1, 3_001)))


async def test_a_store_that_stands_still_costs_no_line_of_a_command_that_has_ended(log: Log) -> None:
    """The pipe is read to its end, however long that takes; the wait is not blamed on other processes."""
    store = Store(log, 100)
    running = asyncio.create_task(run_process(store.logger, shell("echo $$; exec seq 5000"), term_wait_s=0.001))
    await until(lambda: store.queue.flush_asked)
    state = Path(f"/proc/{store.take()[0]}/stat")
    await until(lambda: state.read_text().split()[2] == "Z")
    for _ in range(50):  # far longer than `term_wait_s`, if it were counted
        await asyncio.sleep(0.001)
    assert not running.done()
    store.commit()
    await store.commit_until(running)
    assert store.said[-1] == "5000"
    assert store.queue.last_seq == 5_001


@pytest.mark.parametrize("times", [1, 2])
async def test_cancelling_while_the_store_stands_still_costs_no_line(log: Log, times: int) -> None:
    """The rest of the pipe goes into the queue, which has kept room for it."""
    store = Store(log, 1_000)
    running = asyncio.create_task(run_process(store.logger, shell("seq 700; exec sleep 1000")))
    await until(lambda: store.queue.flush_asked)
    for _ in range(times):
        running.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await running
    store.commit()
    assert store.said == list(map(str, range(1, 701)))


async def test_a_handler_that_raises_costs_no_line(log: Log) -> None:
    """The line that it raised for is kept, and those after it."""

    def handler(stream: str, line: str) -> bool:
        raise RuntimeError(line)

    with pytest.raises(RuntimeError, match="1"):
        await run_process(log.logger, ["seq", "3"], on_line=handler)
    assert await log.said() == ["1", "2", "3"]


async def test_signals_that_are_blocked_here_reach_a_command(log: Log) -> None:
    """A child inherits the mask of the thread that starts it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        script = "trap 'echo bye; exit' TERM; echo; while :; do sleep 0.01; done"
        *_, last = await cancelled_after_first_line(log, script, 30)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert last == "bye"


async def test_a_signal_to_taskd_does_not_reach_the_command(log: Log) -> None:
    """A Ctrl-C in the terminal is for taskd alone: the command is in a session of its own."""
    await run_process(log.logger, [sys.executable, "-c", "import os; print(os.getsid(0) == os.getpid())"])
    assert await log.said() == ["True"]


async def test_a_very_long_line_is_split_and_says_so(log: Log) -> None:
    """Every part but the first is marked as continued, and has no other fields; nothing is lost."""
    size = 2_500_000
    await run_process(log.logger, [sys.executable, "-c", f"print('x' * {size}); print('next')"])
    first, *others, last = await log.entries()
    assert (first.metadata, last.message, last.metadata) == ({"stream": "stdout"}, "next", {"stream": "stdout"})
    assert {entry.metadata_json for entry in others} == {'{"continued":true}'}
    assert len(first.message) + sum(len(entry.message) for entry in others) == size


async def test_a_secret_that_comes_in_two_reads_is_hidden(log: Log) -> None:
    """In a line, and where a line is cut for its length."""
    log.queue.masker.add("hunter22")
    script = """
import os, time
os.write(1, b"a hun"); time.sleep(0.05); os.write(1, b"ter22 b\\n")
os.write(1, b"x" * 1_048_573 + b"hunter22" + b"y" * 1_048_573 + b"hunter22\\n")
"""
    await run_process(log.logger, [sys.executable, "-c", script])
    said = "".join(await log.said())
    assert said.startswith("a *** b")
    assert said.count("***") == 3
    assert "hun" not in said
    assert "r22" not in said


async def test_what_holds_the_output_open_from_another_session_does_not_hang_it(log: Log) -> None:
    """It cannot be ended with the group. Its output is let go, and the log says what that cuts."""
    script = "(setsid sleep 1000 & echo $!); printf half"
    await run_process(log.logger, shell(script), term_wait_s=0.05)
    pid, left_behind, half, held = await log.entries()
    assert "left processes behind" in left_behind.message
    assert (half.message, half.metadata) == ("half", {"stream": "stdout", "cut": True})
    assert "a process outside of its session holds its output open" in held.message
    os.kill(int(pid.message), 9)


async def test_a_child_that_is_left_behind_says_its_last_words(log: Log) -> None:
    """They come after TERM, and are read like all others."""
    script = "(trap 'echo bye; exit' TERM; echo up; while :; do sleep 0.01; done) & read x < /dev/null; echo down"
    await run_process(log.logger, shell(script), term_wait_s=0.5)
    *said, last = await log.said()
    assert last == "bye"
    assert {"up", "down"} < set(said)


LOOPS = [asyncio.SelectorEventLoop, uvloop.new_event_loop]


@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_command_has_three_descriptors(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """And no other, on any loop. The fourth that it sees is the one it lists them with."""

    async def said() -> list[str]:
        log = Log()
        await run_process(log.logger, [sys.executable, "-c", "import os; print(*sorted(os.listdir('/proc/self/fd')))"])
        return await log.said()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(said()) == ["0 1 2 3"]


@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_daemon_that_closes_its_output_is_not_waited_for(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """It holds nothing of ours, so there is nothing to report."""

    async def said() -> list[str]:
        log = Log()
        # The shell goes on when the daemon has left its group, which ends with the shell.
        script = "echo $(setsid sh -c 'echo $$; exec sleep 1000 >/dev/null 2>&1 </dev/null' &)"
        await run_process(log.logger, shell(script), term_wait_s=0.05)
        return await log.said()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        [pid] = runner.run(said())
    os.kill(int(pid), 9)


class Steps:
    """An asyncio task is cancelled just before its `number`th step."""

    def __init__(self, running: asyncio.Task[object], number: int) -> None:
        self.running, self.left = running, number

    async def run(self) -> bool:
        """False where it had ended before."""
        for _ in range(self.left):
            await asyncio.sleep(0)
            if self.running.done():
                return False
        self.running.cancel()
        return True


@pytest.mark.parametrize("times", [1, 2])
async def test_it_may_be_cancelled_at_any_step(log: Log, times: int, tmp_path: Path) -> None:
    """Once or twice, before, in and after its start: nothing that was started lives on, and no descriptor is left."""
    await run_process(log.logger, shell("true"))
    open_before = len(os.listdir("/proc/self/fd"))
    started = tmp_path / "started"
    script = f"sleep 1000 & echo $! $$ >> {started}; wait"
    for number in [*range(12), *range(12, 3_000, 331)]:
        running = asyncio.create_task(run_process(log.logger, shell(script), term_wait_s=0.2))
        assert await Steps(running, number).run()
        if times == 2:
            await asyncio.sleep(0)
            running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    async with asyncio.timeout(10):  # transports close themselves in the next steps
        while len(os.listdir("/proc/self/fd")) > open_before:
            await asyncio.sleep(0.01)
    pids = started.read_text().split() if started.exists() else []
    assert all(map(has_ended, pids))
