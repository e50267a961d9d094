"""Stopping, from outside: whenever and however it is asked, nothing is lost and nobody is lied to."""

import contextlib
import functools
import os
import random
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.bars import Record, scaled
from tests.helpers.crowd import Crowd
from tests.helpers.oracle import assert_told, noted, whole_log, with_tellers
from tests.helpers.reopened import Reopened
from tests.helpers.served import ENVIRONMENT, Served, taskd, wait_until

ROUNDS = scaled(2, 100)
TASKS = scaled(20, 50)
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.mark.bar("R13")
@pytest.mark.timeout(scaled(120, 5_000))
def test_a_stop_under_load_loses_nothing_and_tells_its_viewers(tmp_path: Path, record_property: Record) -> None:
    """Again and again on one data directory, at random moments: exit 0, everything stored, viewers told the end."""
    rng = random.Random(13)
    oracle = tmp_path / "oracle"
    oracle.touch()
    served = with_tellers(tmp_path, "--shutdown-grace-s", "0.2")
    longest_s, checked = 0.0, 0
    for _ in range(ROUNDS):
        with served:
            ids = [served.submit("teller", oracle=str(oracle), burst=2) for _ in range(TASKS)]
            crowd = Crowd(served, ids, 2 * TASKS)
            time.sleep(rng.uniform(0.05, 1.0))  # the moment of the stop is what is random here
            began = time.monotonic()
            assert served.stop() == 0
            longest_s = max(longest_s, time.monotonic() - began)
        saw = crowd.saw()
        with Reopened(served) as left:
            far = noted(oracle)
            for task_id in ids:
                entries = whole_log(left, task_id)
                assert_told(entries, far[task_id])
                assert left.get(f"/api/tasks/{task_id}")["status"] == "interrupted"
                checked += len(entries)
        # Each log has ended with its task, so its viewers are told so; one that could not be is sent to come back.
        assert {(viewer["ended"], viewer["code"]) for viewer in saw} <= {(True, 1000), (False, 1001)}
        assert all(viewer["ordered"] for viewer in saw)
        oracle.write_text("")
    record_property("stops", ROUNDS)
    record_property("longest s", round(longest_s, 1))
    record_property("entries", checked)
    record_property("lost, or without a status", 0)
    assert longest_s <= 10


# While it starts


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_while_it_starts_ends_it_with_0_and_without_a_word(tmp_path: Path, number: signal.Signals) -> None:
    """From the first import on; before that it is Python's, and the signal's own."""
    for after_s in scaled((0.05, 0.3), tuple(n / 20 for n in range(2, 40))):
        process = subprocess.Popen(
            [*taskd("serve"), "--port", "0", "--data-dir", str(tmp_path / "data")],
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        wait_until(lambda pid=process.pid: handles(pid, number))
        time.sleep(after_s)  # any moment of the start is one
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "Traceback" not in said


def handles(pid: int, number: int) -> bool:
    """Whether the process has a handler for the signal."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:"))
    # SIGINT has Python's own long before; SIGTERM comes with taskd's.
    return bool(caught >> (signal.SIGTERM - 1) & 1 and (caught >> (number - 1) & 1 or number == signal.SIGHUP))


REFUSES = [
    "signal.signal(signal.SIGTERM, signal.SIG_IGN); open(begun, 'w').close(); time.sleep(3_600)",
    "signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals()); open(begun, 'w').close(); time.sleep(3_600)",
]
BLOCKS = [*REFUSES, "time.sleep(3_600)", "while True: pass", "os.mkfifo(begun + '.fifo'); open(begun + '.fifo')"]


@pytest.mark.parametrize("blocks", BLOCKS)
@pytest.mark.parametrize("signals", [1, 3])
def test_a_plugin_that_never_ends_its_import_does_not_hold_the_stop(tmp_path: Path, blocks: str, signals: int) -> None:
    """Whatever the import does with what is raised in it; the next start, without it, finds all in order."""
    begun, plugins = tmp_path / "begun", tmp_path / "plugins"
    plugins.mkdir()
    lines = ["import os, signal, time", f"begun = {str(begun)!r}"]
    lines += [] if blocks in REFUSES else ["open(begun, 'w').close()"]
    lines += ["while True:", "    try:", f"        {blocks}", "    except BaseException: pass"]
    (plugins / "mine.py").write_text("\n".join(lines))
    command = [*taskd("serve"), "--port", "0", "--data-dir", str(tmp_path / "data"), "--plugins", str(plugins)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    wait_until(begun.exists)
    for _ in range(signals):
        process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (0, "")
    (plugins / "mine.py").unlink()
    with Served(tmp_path) as served:
        assert served.get("/api/health")["status"] == "ok"


def test_a_stop_while_the_journal_is_recovered_leaves_it_for_the_next_start(tmp_path: Path) -> None:
    """Interrupted anywhere, it is done again."""
    oracle = tmp_path / "oracle"
    served = with_tellers(tmp_path, "--flush-interval-s", "60", "--batch-max", "100000")
    with served:
        ids = [served.submit("teller", oracle=str(oracle), burst=200, filling="x" * 500) for _ in range(3)]
        wait_until(lambda: sum(map(len, noted(oracle).values())) > 20_000 if oracle.exists() else False, 60)
        served.stop(signal.SIGKILL)
    for n in range(3):
        process = subprocess.Popen(
            [*taskd("serve"), "--port", "0", *served.options], stderr=subprocess.DEVNULL, env=served.environment
        )
        wait_until(lambda: held(served.data_dir))
        time.sleep(0.1 * n)  # any moment of the recovery is one
        process.terminate()
        assert process.wait(20) == 0
    with served:
        for task_id in ids:
            assert_told(whole_log(served, task_id), noted(oracle)[task_id])


def held(data_dir: Path) -> bool:
    """Whether a service holds the data directory; to try it would be in the way of one that starts."""
    inode = f":{(data_dir / 'lock').stat().st_ino} "
    return any(" FLOCK " in lock and inode in lock for lock in Path("/proc/locks").read_text().splitlines())


# Twice, and whatever else is going on


@pytest.mark.parametrize("pause_s", [0.0, 0.05, 0.5])
@pytest.mark.parametrize("order", [(signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)])
def test_two_signals_end_it_with_0_and_lose_nothing(
    tmp_path: Path, order: tuple[signal.Signals, signal.Signals], pause_s: float
) -> None:
    """In either order, quickly or late: the second cuts the waiting short and is never the last word."""
    oracle = tmp_path / "oracle"
    with with_tellers(tmp_path, "--shutdown-grace-s", "0.3") as served:
        task_id = served.submit("teller", oracle=str(oracle), burst=20)
        wait_until(oracle.exists)
        served.process.send_signal(order[0])
        time.sleep(pause_s)
        assert served.stop(order[1]) == 0
        assert "Traceback" not in "".join(served.said)
    with Reopened(served) as left:
        assert_told(whole_log(left, task_id), noted(oracle)[task_id])


def test_signals_to_the_very_end_do_not_change_how_it_ends(tmp_path: Path) -> None:
    """Also between the loop's end and that of the interpreter."""
    with Served(tmp_path) as served:
        while served.process.poll() is None:
            served.process.send_signal(signal.SIGINT)
            time.sleep(0.001)
        assert served.process.returncode == 0
        assert "Traceback" not in "".join(served.said)


@contextlib.contextmanager
def locked(database: Path) -> Iterator[None]:
    """Another process's lock on the store."""
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@pytest.mark.timeout(90)
def test_a_stop_while_the_store_is_locked_leaves_entries_in_the_journal(tmp_path: Path) -> None:
    """Within the time of any stop; the next start stores them."""
    oracle = tmp_path / "oracle"
    served = with_tellers(tmp_path)
    del served.environment["TASKD_SHUTDOWN_GRACE_S"]  # as it is by default
    with served:
        ids = [served.submit("teller", oracle=str(oracle), burst=5) for _ in range(5)]
        wait_until(lambda: oracle.exists() and len(noted(oracle)) == 5)
        with locked(served.data_dir / "taskd.db"):
            began = time.monotonic()
            assert served.stop() == 0
            assert time.monotonic() - began <= 10
    with Reopened(served) as left:
        for task_id in ids:
            assert_told(whole_log(left, task_id), noted(oracle)[task_id])
            assert left.get(f"/api/tasks/{task_id}")["status"] == "interrupted"


def test_a_client_in_the_middle_of_its_request_does_not_hold_the_stop(tmp_path: Path) -> None:
    """Head or body."""
    head = b"POST /api/tasks HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 100\r\n"
    with Served(tmp_path, "--request-timeout-s", "300") as served, contextlib.ExitStack() as clients:
        for sent in (b"", head, head + b'\r\n{"pl'):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", served.port)))
            client.sendall(sent)
        assert served.stop() == 0
        assert not [line for line in served.said if "ERROR" in line or "Traceback" in line]


def test_a_signal_while_the_loop_is_blocked_counts_when_it_goes_on(tmp_path: Path) -> None:
    """A plugin that blocks the loop delays the stop, and no more."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "block.py").write_text(
        "import time\nfrom pathlib import Path\nfrom taskd import Plugin\n"
        "class Block(Plugin):\n    name = 'block'\n    async def execute(self, params, context):\n"
        "        context.logger.info('blocking')\n        Path(params['mark']).touch()\n        time.sleep(1.5)\n"
    )
    with Served(tmp_path, "--shutdown-grace-s", "2") as served:
        with contextlib.suppress(Exception):
            task_id = served.submit("block", mark=str(tmp_path / "mark"))
        wait_until((tmp_path / "mark").exists)
        assert served.stop() == 0
    with Reopened(served) as left:
        assert left.get(f"/api/tasks/{task_id}")["status"] == "succeeded"


@pytest.mark.timeout(90)
def test_what_will_not_end_beside_a_locked_store_is_left_within_ten_seconds(tmp_path: Path) -> None:
    """The worst of all cases, with the times that are set by default."""
    served = Served(tmp_path)
    del served.environment["TASKD_SHUTDOWN_GRACE_S"]
    with served:
        ids = {plugin: served.submit(plugin) for plugin in ("stubborn", "stuck")}
        served.wait_for(ids["stubborn"], "never")
        served.wait_for(ids["stuck"], "stuck")
        with locked(served.data_dir / "taskd.db"):
            began = time.monotonic()
            assert served.stop() == 0
            assert time.monotonic() - began <= 12
    with Reopened(served) as left:
        assert {left.get(f"/api/tasks/{task_id}")["status"] for task_id in ids.values()} == {"interrupted"}


# Its terminal, and its output


@pytest.mark.parametrize("number", STOPS)
def test_each_signal_that_stops_it_stops_it_in_order(tmp_path: Path, number: signal.Signals) -> None:
    """SIGHUP too, which a terminal sends that is closed."""
    with Served(tmp_path) as served:
        task_id = served.submit("talk", gate=str(tmp_path / "never"))
        served.wait_for(task_id, "word 3")
        assert served.stop(number) == 0
    with Reopened(served) as left:
        assert left.get(f"/api/tasks/{task_id}")["status"] == "interrupted"


@pytest.mark.parametrize("ignored", [signal.SIGHUP, signal.SIGPIPE])
def test_a_signal_that_means_nothing_changes_nothing(tmp_path: Path, ignored: signal.Signals) -> None:
    """SIGHUP under `nohup`, and SIGPIPE always."""
    served = Served(tmp_path)
    served.before_start = functools.partial(signal.signal, ignored, signal.SIG_IGN)
    with served:
        served.process.send_signal(ignored)
        assert served.get("/api/health")["status"] == "ok"
        assert served.stop() == 0


def close_both() -> None:
    os.close(1)
    os.close(2)


def full_pipe() -> None:
    """Stderr is a pipe that is full and that nobody reads."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4_096)
    os.set_blocking(writer, True)
    os.dup2(writer, 2)
    os.dup2(writer, 1)
    os.dup2(reader, 50)  # open, so that nobody has gone


def broken_pipe() -> None:
    reader, writer = os.pipe()
    os.dup2(writer, 2)
    os.dup2(writer, 1)
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("output", [close_both, full_pipe, broken_pipe])
def test_nobody_reads_what_it_says_and_it_works_and_stops(tmp_path: Path, output: Callable[[], None]) -> None:
    """Closed (`2>&-`), a reader that sleeps, a reader that has gone; the words go nowhere, and into no file."""
    (tmp_path / "broken").mkdir()
    for n in range(20):
        (tmp_path / "broken" / f"broken{n}.py").write_text("raise ValueError('said at the start')")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    served = Served(tmp_path, "--plugins", str(tmp_path / "broken"), "--shutdown-deadline-s", "0.1")
    served.url = f"http://127.0.0.1:{port}"
    served.process = subprocess.Popen(
        [*taskd("serve"), "--port", str(port), *served.options], env=served.environment, preexec_fn=output, text=True
    )
    try:
        wait_until(lambda: is_served(served))
        served.submit("stubborn")  # which is told at the stop
        assert served.wait_end(served.submit("talk"))["status"] == "succeeded"
        served.process.terminate()
        assert served.process.wait(20) == 0
    finally:
        served.process.kill()
        served.process.wait()
    assert b"said at the start" not in b"".join(
        file.read_bytes() for file in served.data_dir.iterdir() if file.is_file()
    )


def is_served(served: Served) -> bool:
    try:
        return bool(served.get("/api/health")["status"] == "ok")
    except OSError:
        return False
    except Exception:
        return False
