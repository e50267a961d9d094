"""The service as a process: how it starts, how it refuses to, and how it stops."""

import contextlib
import re
import signal
import socket
import sqlite3
import subprocess
from pathlib import Path
from urllib.request import urlopen

import pytest

from taskd import shipped
from taskd.api import site
from taskd.server import server
from tests.helpers.reopened import Reopened
from tests.helpers.served import ENVIRONMENT, Served, run_taskd, taskd


def refused(directory: Path, *options: str, **environment: str) -> tuple[int, str]:
    """Exit code and words of a `serve` that is expected not to start."""
    result = run_taskd("serve", "--data-dir", str(directory / "data"), *options, **environment)
    assert result.stdout == ""
    return result.returncode, result.stderr


def assert_one_line(said: str, *parts: str) -> None:
    """One line, from taskd, that names what it must."""
    assert re.fullmatch(r"taskd: .+\n", said), said
    for part in parts:
        assert part in said


LEAVER = """
import asyncio, os, signal, sys

from taskd import Plugin


class Leaver(Plugin):
    name = "leaver"

    async def execute(self, params, context):
        loop, how = asyncio.get_running_loop(), params["how"]
        if how == "child":
            await asyncio.create_task(leave())
        if how == "callback":
            loop.call_soon(sys.exit, 3)
        if how == "interrupt":
            loop.call_later(0.01, interrupt)
        if how == "stop":
            loop.stop()
        if how == "signals":
            loop.add_signal_handler(signal.SIGINT, sys.exit, 3)
        if how == "given back":
            given = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
            for number, handler in given.items():
                signal.signal(number, handler)
            while any(signal.getsignal(number) is handler for number, handler in given.items()):
                await asyncio.sleep(0.05)
        if how == "cancel all":
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
        if how == "directory":
            os.chdir("/")
        await asyncio.sleep(0.05)
        if how == "late":
            loop.create_task(linger())
            await asyncio.sleep(0)


async def leave():
    sys.exit(3)


async def linger():
    try:
        await asyncio.sleep(600)
    finally:
        sys.exit(3)


def interrupt():
    raise KeyboardInterrupt
"""


# Start


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_line_says_ready_and_a_signal_ends_it_with_0(tmp_path: Path, number: signal.Signals) -> None:
    with Served(tmp_path) as served:
        assert served.get("/api/health")["status"] == "ok"
        assert served.stop(number) == 0
    ready, *rest = served.said
    assert re.fullmatch(r"taskd \d+\.\d+\.\d+ ready on http://127\.0\.0\.1:\d+\n", ready)
    assert rest == ([] if site.is_built(shipped.PAGE) else [server.UNBUILT + "\n"])


def test_a_page_that_was_not_built_is_told_at_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """pip shows nothing of a build that went wrong, so this is where its user hears of it."""
    server.tell_unbuilt(tmp_path)
    assert_one_line(capsys.readouterr().err, "not built", "how to build it")
    (tmp_path / "index.html").write_text("<!doctype html>")
    server.tell_unbuilt(tmp_path)
    assert capsys.readouterr().err == ""


def test_broken_plugins_are_told_before_the_ready_line(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "mine.py").write_text("raise ValueError('one\\ntwo')")
    with Served(tmp_path, "--plugins", str(tmp_path / "nowhere")) as served:
        assert served.stop() == 0
    *broken, ready = served.said
    assert broken == [
        "taskd: plugin mine.py cannot be loaded: ValueError: one two\n",
        f"taskd: plugin {tmp_path / 'nowhere'} cannot be loaded: there is no such directory\n",
    ]
    assert re.fullmatch(r"taskd \S+ ready on \S+\n", ready)


def test_a_port_in_use_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, said = refused(tmp_path, "--port", port)
    assert code == 1
    assert_one_line(said, port, "127.0.0.1", "--port")
    assert not (tmp_path / "data").exists()


def test_an_address_that_is_not_here_is_told(tmp_path: Path) -> None:
    code, said = refused(tmp_path, "--port", "0", "--host", "no.such.host.invalid", "--token", "x" * 32)
    assert code == 1
    assert_one_line(said, "no.such.host.invalid")


@pytest.mark.parametrize("name", ["data", "data/taskd.db"])
def test_a_data_directory_that_cannot_be_used_is_told(tmp_path: Path, name: str) -> None:
    # Tests may run as root, to whom no permission is denied: the wrong kind of thing is in the way.
    wrong = tmp_path / name
    if name == "data":
        wrong.write_text("a file")
    else:
        wrong.mkdir(parents=True)
    code, said = refused(tmp_path, "--port", "0")
    assert code == 1
    assert_one_line(said, str(tmp_path / "data"))


def test_a_database_of_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "taskd.db")) as database:
        database.execute("PRAGMA user_version = 999")
    code, said = refused(tmp_path, "--port", "0")
    assert code == 1
    assert_one_line(said, "999", "newer")
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "taskd.db")) as database:
        assert database.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def test_a_second_server_on_one_data_directory_is_refused(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        code, said = refused(tmp_path, "--port", "0")
        assert code == 1
        assert_one_line(said, str(tmp_path / "data"), str(served.process.pid))
        assert served.get("/api/health")["status"] == "ok"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--flush-interval-s", "never"], "flush_interval_s"),
        (["--port", "70000"], "port"),
        (["--host", "0.0.0.0"], "token"),
        (["--batch-max", "10", "--queue-max", "5"], "batch_max"),
        (["--synchronous", "maybe"], "synchronous"),
    ],
)
def test_a_bad_setting_exits_2_and_is_named(tmp_path: Path, options: list[str], named: str) -> None:
    code, said = refused(tmp_path, *options)
    assert code == 2
    assert_one_line(said, named)
    assert not (tmp_path / "data").exists()


def test_a_bad_variable_exits_2_and_is_named(tmp_path: Path) -> None:
    code, said = refused(tmp_path, TASKD_QUEUE_MAX="lots")
    assert code == 2
    assert_one_line(said, "TASKD_QUEUE_MAX", "'lots'")


def test_a_flag_comes_before_its_variable(tmp_path: Path) -> None:
    with Served(tmp_path, "--host", "127.0.0.2", TASKD_HOST="no.such.host.invalid") as served:
        assert served.url.startswith("http://127.0.0.2:")


# Stop


def test_what_running_tasks_said_is_there_after_a_stop_and_a_start(tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")
    with Served(tmp_path, "--flush-interval-s", "60", "--shutdown-grace-s", "0") as served:
        ids = [served.submit("talk", gate=gate, count=20, word=f"of {n}") for n in range(5)]
        for n, task_id in enumerate(ids):
            served.wait_for(task_id, f"of {n}")
        assert served.stop() == 0
    with served:
        for n, task_id in enumerate(ids):
            entries = served.entries(task_id)
            assert [entry["seq"] for entry in entries] == list(range(1, len(entries) + 1))
            assert sum(entry["message"] == f"of {n}" for entry in entries) == 20
            assert sum("interrupted" in entry["message"] for entry in entries) == 1
            assert served.get(f"/api/tasks/{task_id}")["status"] == "interrupted"


@pytest.mark.parametrize("plugin", ["stubborn", "stuck"])
def test_what_will_not_end_is_left_behind_within_the_deadline(tmp_path: Path, plugin: str) -> None:
    with Served(tmp_path, "--shutdown-grace-s", "0.1", "--shutdown-deadline-s", "0.5") as served:
        task_id = served.submit(plugin)
        served.wait_for(task_id, {"stubborn": "never", "stuck": "stuck"}[plugin])
        assert served.stop() == 0
    with Reopened(served) as left:
        assert left.get(f"/api/tasks/{task_id}")["status"] == "interrupted"


def test_a_second_signal_cuts_the_waiting_short_and_loses_nothing(tmp_path: Path) -> None:
    with Served(tmp_path, "--shutdown-grace-s", "300", "--shutdown-deadline-s", "300") as served:
        task_id = served.submit("stubborn")
        served.wait_for(task_id, "never")
        served.process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            served.process.wait(1)
        assert served.stop(signal.SIGINT) == 0
    with Reopened(served) as left:
        entries = left.get(f"/api/tasks/{task_id}/logs")["entries"]
        assert "never" in [entry["message"] for entry in entries]


def test_a_stop_in_the_moment_of_ready_is_heard(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*taskd("serve"), "--port", "0", "--data-dir", str(tmp_path / "data")],
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    assert process.stderr
    assert "ready" in process.stderr.readline()
    process.terminate()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(20) == 0


def test_a_reader_that_never_reads_does_not_hold_the_stop(tmp_path: Path) -> None:
    with Served(tmp_path, "--send-timeout-s", "30") as served:
        task_id = served.submit("talk", count=20_000, word="x" * 1_000, gate=str(tmp_path / "gate"))
        with socket.create_connection(("127.0.0.1", served.port)) as reader:
            request = f"GET /api/tasks/{task_id}/logs/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
            reader.sendall(request.encode())
            assert reader.recv(1_000).startswith(b"HTTP/1.1 200")
            assert served.stop() == 0


# What plugins raise


@pytest.mark.parametrize(
    ("how", "status", "told"),
    [
        ("child", "failed", "SystemExit in "),
        ("callback", "succeeded", "SystemExit in "),
        ("interrupt", "succeeded", "KeyboardInterrupt in "),
        ("stop", "succeeded", "A plugin's loop.stop() "),
        ("late", "succeeded", "SystemExit in "),
    ],
)
def test_what_leaves_the_loop_does_not_end_the_service(tmp_path: Path, how: str, status: str, told: str) -> None:
    """asyncio lets it through from child tasks and callbacks; who was talking beside it goes on to the end."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "leaver.py").write_text(LEAVER)
    with Served(tmp_path) as served:
        gate = tmp_path / "gate"
        other = served.submit("talk", gate=str(gate))
        assert served.wait_end(served.submit("leaver", how=how))["status"] == status
        gate.touch()
        assert served.wait_end(other)["status"] == "succeeded"
        assert served.stop() == 0
    [line] = [line for line in served.said if "would have ended taskd" in line]
    assert_one_line(line, told)


def test_a_signal_that_a_plugin_has_taken_stops_in_order(tmp_path: Path) -> None:
    """As servers do that are made to be programs of their own."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "leaver.py").write_text(LEAVER)
    with Served(tmp_path) as served:
        served.wait_end(served.submit("leaver", how="signals"))
        assert served.stop(signal.SIGINT) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_that_a_plugin_gives_back_are_taken_again(tmp_path: Path, number: signal.Signals) -> None:
    """Python's own handlers end a process at once, or raise where nobody hears it."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "leaver.py").write_text(LEAVER)
    with Served(tmp_path) as served:
        assert served.wait_end(served.submit("leaver", how="given back"))["status"] == "succeeded"
        assert served.stop(number) == 0


def test_a_plugin_that_cancels_every_asyncio_task_ends_neither_the_service_nor_a_view(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "leaver.py").write_text(LEAVER)
    with Served(tmp_path) as served:
        gate = tmp_path / "gate"
        talk = served.submit("talk", gate=str(gate))
        with urlopen(f"{served.url}/api/tasks/{talk}/logs/stream", timeout=20) as stream:
            assert served.wait_end(served.submit("leaver", how="cancel all"))["status"] == "succeeded"
            # To Python the other plugin is a task as any; its view, its log and its end are taskd's.
            assert served.wait_end(talk)["status"] == "failed"
            assert b"nobody asked for it" in stream.read()
        assert served.wait_end(served.submit("talk"))["status"] == "succeeded"
        assert served.stop() == 0
    assert [line for line in served.said if "Traceback" in line] == []


def test_a_plugin_that_changes_the_directory_does_not_move_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default its path is a relative one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "leaver.py").write_text(LEAVER)
    with Served(tmp_path, "--data-dir", "data") as served:
        served.wait_end(served.submit("leaver", how="directory"))
        task = served.wait_end(served.submit("talk"))
        assert task["last_seq"] == len(served.entries(task["id"]))
        assert served.get("/api/health")["status"] == "ok"
