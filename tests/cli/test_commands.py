"""
The command, as a person and a script meet it, against a real server.

It is a process of its own where that matters: on a terminal, in a pipe that breaks, where a signal ends
it. What a command prints in a pipe and how it exits is asked in this process.
"""

import contextlib
import json
import os
import pty
import re
import signal
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from pydantic import BaseModel, SecretStr

from taskd.cli.tables import print_plugins
from taskd.settings import Settings
from tests.helpers.served import ENVIRONMENT, Served, ask_taskd, run_taskd, taskd, wait_until

NOWHERE = {"TASKD_SERVER": "http://127.0.0.1:1"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("cli")) as served:
        yield served


def seqs(ndjson: str) -> list[int]:
    return [json.loads(line)["seq"] for line in ndjson.splitlines()]


# Usage


def test_serve_lists_every_setting_with_its_default() -> None:
    shown = run_taskd("serve", "--help").stdout
    assert all(f"--{name.replace('_', '-')} " in shown for name in Settings.model_fields)
    assert "[default: 8642]" in shown


@pytest.mark.parametrize("words", ["nonsense", "logs", "logs x --nonsense", "run", "logs x --output xml", "serve x"])
def test_bad_usage_exits_2(words: str) -> None:
    result = ask_taskd(*words.split(), **NOWHERE)
    assert result.returncode == 2
    assert "Usage: taskd" in result.stderr


def test_the_version_is_told() -> None:
    assert re.fullmatch(r"taskd \d+\.\d+\.\d+\n", run_taskd("--version").stdout)


@pytest.mark.parametrize("words", ["tasks", "plugins", "run talk", "logs -f @last", "cancel 12345678"])
def test_no_server_exits_3_in_one_line(words: str) -> None:
    result = ask_taskd(*words.split(), **NOWHERE)
    assert (result.returncode, result.stdout) == (3, "")
    assert re.fullmatch(r"taskd: Cannot reach taskd at http://127.0.0.1:1: .*\n", result.stderr)


def test_a_bad_server_exits_2() -> None:
    assert ask_taskd("tasks", "--server", "nowhere").returncode == 2


def test_the_server_may_be_named_before_and_behind_the_command(served: Served) -> None:
    for words in (["--server", served.url, "tasks"], ["tasks", "--server", served.url]):
        assert ask_taskd(*words, **NOWHERE).returncode == 0


def test_the_help_says_what_an_option_takes() -> None:
    top, logs, tasks = (ask_taskd(*words.split()).stdout for words in ("--help", "logs --help", "tasks --help"))
    logs = " ".join(logs.split())
    assert "TASKD_SERVER" in top
    assert "TASKD_TOKEN" in top
    for told in (
        "--level DEBUG|INFO|WARNING|ERROR",
        "--after SEQ",
        "--tail N",
        "-f does not go with",
        "--output ndjson",
    ):
        assert told in logs
    assert "--status queued|running|" in tasks


def test_each_command_is_told_in_one_line_of_80_columns() -> None:
    for words in ("--help", "plugins --help"):
        assert "..." not in ask_taskd(*words.split()).stdout.partition("Commands:")[2]


@pytest.mark.parametrize("option", ["--until", "--before"])
def test_a_log_that_is_followed_has_no_end_to_set(option: str) -> None:
    refused = ask_taskd("logs", "-f", "@last", option, "5", **NOWHERE)
    assert refused.returncode == 2
    assert f"{option} does not go with -f." in refused.stderr


@pytest.mark.parametrize("tail", ["0", "5001", "x", "-1"])
def test_a_tail_out_of_its_range_is_refused_with_the_range(tail: str) -> None:
    refused = ask_taskd("logs", "@last", "--tail", tail, **NOWHERE)
    assert refused.returncode == 2
    assert f"'--tail': '{tail}': expected a whole number from 1 to 5,000." in refused.stderr


@pytest.mark.parametrize("command", ["run typed", "retry @last"])
def test_a_param_without_its_option_is_refused_with_a_hint(command: str) -> None:
    refused = ask_taskd(*command.split(), "name=x y", "n=2", "more", **NOWHERE)
    assert refused.returncode == 2
    assert "Unexpected argument: 'name=x y' n=2 more. Did you mean -p 'name=x y' -p n=2?" in refused.stderr
    assert "Did you mean" not in ask_taskd(*command.split(), "more", **NOWHERE).stderr


# Running tasks


def test_a_task_that_succeeds_exits_0_and_its_log_is_printed(served: Served) -> None:
    result = served.taskd("run", "talk", "-p", "count=2")
    assert result.returncode == 0
    said = [line.split(" ", 2)[2].strip() for line in result.stdout.splitlines()]
    assert [words for words in said if words.startswith("talk:")] == [
        "talk: word 1 n=1",
        "talk: word 2 n=2",
        "talk: last word",
    ]
    first, last = result.stderr.splitlines()
    assert re.fullmatch(r"taskd: task [0-9a-f]{8} \(talk\)", first)
    assert "succeeded" in last
    assert last.endswith(' s: {"said":2}')


def test_a_task_that_fails_exits_1_and_says_why(served: Served) -> None:
    result = served.taskd("run", "talk", "-p", "fail=true")
    assert result.returncode == 1
    assert "told to fail" in result.stdout
    assert "failed" in result.stderr
    assert served.taskd("logs", "-f", "@last").returncode == 1


def test_detach_prints_the_id_alone(served: Served) -> None:
    result = served.taskd("run", "talk", "--detach", "--params", '{"count": 1}')
    assert result.returncode == 0
    assert served.wait_end(result.stdout.strip())["params"] == {"count": 1}


def test_an_unknown_plugin_exits_2_and_names_those_there_are(served: Served) -> None:
    result = served.taskd("run", "nonsense")
    assert result.returncode == 2
    assert "talk" in result.stderr


def test_params_that_do_not_validate_exit_2_and_name_the_fault(served: Served) -> None:
    result = served.taskd("run", "migration", "-p", "nonsense=1")
    assert result.returncode == 2
    assert "params.database" in result.stderr
    assert "params.nonsense" in result.stderr


def test_a_string_that_looks_like_a_number_stays_a_string(served: Served) -> None:
    started = served.taskd("run", "--detach", "git", "-p", "action=status", "-p", "directory=123")
    assert served.wait_end(started.stdout.strip())["params"]["directory"] == "123"


def test_a_task_is_cancelled_and_retried(served: Served, tmp_path: Path) -> None:
    task_id = served.submit("talk", gate=str(tmp_path / "gate"))
    served.wait_for(task_id, "word 3")
    assert served.taskd("cancel", task_id).stdout == f"asked {task_id[-8:]} (talk) to stop\n"
    assert served.wait_end(task_id)["status"] == "cancelled"
    assert served.taskd("cancel", task_id).returncode == 2
    (tmp_path / "gate").touch()
    again = served.taskd("retry", task_id[-8:])
    assert re.fullmatch(r"taskd: started again as (\w{8}) \(talk\); .*taskd .*logs -f \1\n", again.stderr)
    assert served.wait_end(again.stdout.strip())["retry_of"] == task_id
    told = on_terminal(served, "retry", task_id)
    assert re.fullmatch(r"[0-9a-f-]{36}\s+taskd: started again as (\w{8}) \(talk\); .*taskd logs -f \1\s+", told)


def test_a_task_that_has_ended_is_deleted(served: Served, tmp_path: Path) -> None:
    """Its id alone goes to stdout; one that runs is left as it is."""
    task_id = served.submit("talk", gate=str(tmp_path / "gate"))
    refused = served.taskd("delete", task_id)
    assert (refused.returncode, "cancel it before deleting it" in refused.stderr) == (2, True)
    (tmp_path / "gate").touch()
    served.wait_end(task_id)
    deleted = served.taskd("delete", task_id[-8:])
    assert (deleted.returncode, deleted.stdout) == (0, f"{task_id}\n")
    assert deleted.stderr == f"taskd: deleted {task_id[-8:]} (talk)\n"
    for command in ("delete", "cancel", "retry", "logs"):
        missing = served.taskd(command, task_id)
        assert (missing.returncode, f"There is no task '{task_id}'" in missing.stderr) == (2, True), command
    last = served.submit("talk")
    served.wait_end(last)
    assert served.taskd("delete", "@last").stdout == f"{last}\n"


SECRETIVE = """
from pydantic import BaseModel, SecretStr
from taskd import Plugin

class Secretive(Plugin):
    name = "secretive"
    class Params(BaseModel):
        password: SecretStr
    async def execute(self, params, context):
        return len(params.password.get_secret_value())
"""


def test_secret_params_are_given_again_to_a_retry(tmp_path: Path) -> None:
    """They are not stored, and the error says which they are."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "secretive.py").write_text(SECRETIVE)
    with Served(tmp_path) as served:
        task_id = served.submit("secretive", password="four")
        assert served.wait_end(task_id)["result"] == 4
        refused = served.taskd("retry", task_id)
        assert (refused.returncode, "params.password" in refused.stderr) == (2, True)
        again = served.taskd("retry", task_id, "-p", "password=seven77")
        assert served.wait_end(again.stdout.strip())["result"] == 7


def test_a_task_that_waits_is_cancelled_at_once(tmp_path: Path) -> None:
    with Served(tmp_path, "--tasks-running-max", "1") as served:
        served.submit("talk", gate=str(tmp_path / "gate"))
        waiting = served.submit("talk")
        assert served.taskd("cancel", waiting).stdout == f"{waiting[-8:]} (talk) is cancelled\n"
        (tmp_path / "gate").touch()


def test_the_newest_tasks_are_listed(served: Served) -> None:
    task_id = served.submit("talk")
    served.wait_end(task_id)
    listed = served.taskd("tasks", "--limit", "1", "--status", "succeeded", "--plugin", "talk").stdout
    assert re.match(rf"{task_id[-8:]}  succeeded  talk  \S+Z  \S+ s  \d+ entries  1 warning\n$", listed)


def test_large_tasks_are_listed_however_few_fill_a_page(tmp_path: Path) -> None:
    with Served(tmp_path, "--page-bytes-max", "100") as served:
        ids = [served.submit("talk", word="x" * 60) for _ in range(5)]
        listed = served.taskd("tasks", "--limit", "4").stdout
    assert re.findall(r"^\S+", listed, re.M) == [task_id[-8:] for task_id in ids[:0:-1]]


def test_a_bad_status_exits_2(served: Served) -> None:
    result = served.taskd("tasks", "--status", "nonsense")
    assert result.returncode == 2
    assert "nonsense" in result.stderr


def test_plugins_are_listed_with_their_parameters_and_the_broken_ones(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "shattered.py").write_text("import nonsense_that_is_not_there")
    with Served(tmp_path) as served:
        listed = served.taskd("plugins")
        missing = served.taskd("run", "shatter")
    assert missing.returncode == 2
    assert re.search(r"no plugin 'shatter'.* shattered\.py cannot be loaded: .*nonsense_that", missing.stderr)
    assert listed.returncode == 0
    assert "database  string  (required)" in listed.stdout
    assert "talk  Says some words.\n    (params not declared)\n" in listed.stdout
    assert re.search(r"shattered\S*  failed to load: .*nonsense_that_is_not_there", listed.stdout)


def test_a_secret_parameter_is_listed_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    class Params(BaseModel):
        key: SecretStr
        spare: SecretStr | None = None

    print_plugins([{"name": "a", "title": "a", "description": "", "params_schema": Params.model_json_schema()}], [])
    listed = capsys.readouterr().out
    assert "key  secret string  (required)" in listed
    assert "spare  secret string or null  (default null)" in listed


# Reading logs


def test_a_log_is_named_by_last_by_ending_and_by_id(served: Served) -> None:
    task_id = served.submit("talk", word="unmistakable")
    served.wait_end(task_id)
    logs = [served.taskd("logs", name) for name in ("@last", task_id[-6:], task_id[-8:].upper(), task_id)]
    assert [log.returncode for log in logs] == [0, 0, 0, 0]
    assert {log.stdout for log in logs} == {logs[0].stdout}
    assert "unmistakable" in logs[0].stdout


@pytest.mark.parametrize("name", ["abc", "zzzzzz", "ffffff", "01936d5c-1111-7000-8000-000000000000"])
def test_a_task_that_is_not_there_exits_2(served: Served, name: str) -> None:
    result = served.taskd("logs", name)
    assert result.returncode == 2
    assert name in result.stderr


def test_filters_reach_the_server(served: Served) -> None:
    task_id = served.submit("talk", count=12)
    served.wait_end(task_id)

    def read(*filters: str) -> list[int]:
        return seqs(served.taskd("logs", task_id, "--output", "ndjson", *filters).stdout)

    everything = [entry["seq"] for entry in served.entries(task_id)]
    assert read() == everything
    assert read("--tail", "2") == everything[-2:]
    assert read("--after", "3", "--before", "6") == [4, 5]
    assert len(read("--source", "talk")) == 13
    assert len(read("--level", "warning", "--level", "error")) == 1
    assert len(read("--min-level", "WARNING")) == 1
    assert len(read("--search", "WORD", "--search", "1")) == 4
    assert len(read("--search", "word", "--exclude", "1", "--exclude", "last")) == 8
    assert len(read("--search", r"^word 1\d$", "--regex")) == 3
    assert read("--meta", "n=7") == [8]
    assert read("--since", "2999-01-01T00:00:00Z") == []
    assert read("--until", "2999-01-01T00:00:00Z") == everything


@pytest.mark.parametrize("words", ["--after x", "--level loud", "--tail 0", "--since never"])
def test_a_bad_filter_exits_2_and_names_it(served: Served, words: str) -> None:
    task_id = served.submit("talk")
    result = served.taskd("logs", task_id, *words.split())
    assert result.returncode == 2
    assert words.split()[-1] in result.stderr


def test_an_export_is_a_file_that_is_there_when_it_is_complete(served: Served, tmp_path: Path) -> None:
    task_id = served.submit("talk", count=12)
    served.wait_end(task_id)
    path = tmp_path / "log.csv"
    asked = ("export", task_id, "--search", r"word 1\d", "--regex", "--meta", "n=11", "--format", "csv")
    assert served.taskd(*asked, "-o", str(path)).returncode == 0
    assert path.read_text().endswith("# count: 1, complete: true\n")
    refused = served.taskd("export", task_id, "-o", str(path))
    assert (refused.returncode, "exists already: give another name, or --force" in refused.stderr) == (2, True)
    assert served.taskd(*asked, "-o", str(path), "--force").returncode == 0
    assert served.taskd(*asked).stdout == path.read_text()
    assert [*tmp_path.iterdir()] == [path]
    assert served.taskd("export", task_id, "--meta", "n").returncode == 2
    assert served.taskd("export", task_id, "-o", "/nowhere/log").returncode == 2


@pytest.mark.parametrize(
    ("file", "begins"), [("log.csv", "# task: "), ("log.NDJSON", '{"task":'), ("log.txt", "# task: ")]
)
def test_an_export_is_what_the_name_of_its_file_says(served: Served, tmp_path: Path, file: str, begins: str) -> None:
    """Unless it is told otherwise."""
    task_id = served.submit("talk")
    served.wait_end(task_id)
    path = tmp_path / file
    assert served.taskd("export", task_id, "-o", str(path)).returncode == 0
    assert path.read_text().startswith(begins)
    assert ("seq,timestamp" in path.read_text()) == (file == "log.csv")
    assert served.taskd("export", task_id, "-o", str(path), "--force", "--format", "text").returncode == 0
    assert "seq,timestamp" not in path.read_text()


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_link(path: Path) -> None:
    path.with_name("target").write_text("mine")
    path.symlink_to("target")


def make_dangling_link(path: Path) -> None:
    path.symlink_to("nothing")


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize("make", [make_fifo, make_link, make_dangling_link, make_socket, Path.mkdir])
def test_an_export_replaces_nothing_but_regular_files(
    served: Served, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    """As root a rename would replace /dev/null too."""
    served.wait_end(served.submit("talk"))
    path = tmp_path / "x"
    make(path)
    before = {file: file.lstat() for file in tmp_path.iterdir()}
    for more in ([], ["--force"]):
        refused = served.taskd("export", "@last", "-o", str(path), *more)
        assert refused.returncode == 2
        assert "is no regular file" in refused.stderr or "is a directory" in refused.stderr
    assert {file: (file.lstat().st_ino, file.lstat().st_mtime_ns) for file in tmp_path.iterdir()} == {
        file: (was.st_ino, was.st_mtime_ns) for file, was in before.items()
    }


def test_an_export_leaves_devices_as_they_are(served: Served) -> None:
    """Redirecting standard output writes to one."""
    for device in ("/dev/null", "/dev/stdout", "/dev/fd/1"):
        before = os.lstat(device)
        refused = served.taskd("export", "@last", "-o", device, "--force")
        assert (refused.returncode, "Without -o the log goes to standard output" in refused.stderr) == (2, True)
        assert os.lstat(device)[:3] == before[:3]


def test_a_file_that_is_replaced_passes_on_its_permissions(served: Served, tmp_path: Path) -> None:
    """A new one has those of the umask; a name may be as long as the file system has it."""
    served.wait_end(served.submit("talk"))
    path = tmp_path / ("n" * 251 + ".log")
    umask = os.umask(0o027)
    assert served.taskd("export", "@last", "-o", str(path)).returncode == 0
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o640
    path.chmod(0o604)
    assert served.taskd("export", "@last", "-o", str(path), "--force").returncode == 0
    assert path.stat().st_mode & 0o777 == 0o604
    assert path.read_text().endswith("complete: true\n")
    refused = served.taskd("export", "@last", "-o", str(path) + "n")
    assert (refused.returncode, "File name too long" in refused.stderr) == (2, True)
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_export_that_is_interrupted_leaves_the_old_file(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """And nothing beside it."""
    path = tmp_path / "out" / "log"
    path.parent.mkdir()
    path.write_text("old")
    with Served(tmp_path) as served:
        task_id = served.submit("talk", count=800, word="x" * 60_000)
        served.wait_end(task_id)
        command = taskd("export", task_id, "-o", str(path), "--force", "--server", served.url)
        with subprocess.Popen(command, stderr=subprocess.PIPE, env=ENVIRONMENT) as exporting:
            wait_until(lambda: any(file.stat().st_size > 1_000_000 for file in path.parent.iterdir()))
            exporting.send_signal(number)
            assert exporting.stderr
            assert exporting.stderr.read() == b""
    assert exporting.returncode == code
    assert {file: file.read_text() for file in path.parent.iterdir()} == {path: "old"}


def test_who_searches_for_a_field_is_told_of_meta(served: Served) -> None:
    """A line shows fields behind the message, as if they belonged to it."""
    served.wait_end(served.submit("talk"))
    told = served.taskd("logs", "@last", "--search", "word 1 n=1").stderr
    assert told == "taskd: no match; --search looks in messages, --meta KEY=VALUE in fields\n"


@pytest.mark.parametrize(("source", "hint"), [("ta*", "ta is one source, ta.*"), ("*", "NAME is one source, NAME.*")])
def test_a_source_with_a_star_that_matches_nothing_gets_a_hint(served: Served, source: str, hint: str) -> None:
    """A shell's pattern is a habit; only `NAME.*` means more than one source."""
    served.wait_end(served.submit("talk"))
    told = f"taskd: no match; --source {source} is not a pattern: {hint} includes all below it\n"
    for command in ("logs", "logs -f", "export"):
        assert served.taskd(*command.split(), "@last", "--source", source).stderr.endswith(told)
        assert "no match" not in served.taskd(*command.split(), "@last", "--source", f"{source},talk").stderr


def test_an_export_whose_server_is_killed_is_recognised_as_incomplete(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        task_id = served.submit("talk", count=800, word="x" * 60_000)
        served.wait_end(task_id)
        command = taskd("export", task_id, "--format", "ndjson", "--server", served.url)
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT) as exporting:
            assert exporting.stdout
            assert exporting.stderr
            assert json.loads(exporting.stdout.readline())["last_seq"] == 803
            # 48 MB do not fit into the pipe and the sockets: the server is still sending.
            served.process.kill()
            rest = exporting.stdout.read()
            assert b'"complete"' not in rest
            assert b"not complete" in exporting.stderr.read()
        assert exporting.returncode == 3


def test_a_long_log_is_read_page_by_page(served: Served) -> None:
    task_id = served.submit("talk", count=11_000)
    served.wait_end(task_id)
    last = served.get(f"/api/tasks/{task_id}")["last_seq"]
    assert seqs(served.taskd("logs", task_id, "--output", "ndjson").stdout) == list(range(1, last + 1))


def test_seqs_are_shown_in_text_where_they_are_asked_for(served: Served) -> None:
    served.wait_end(served.submit("talk"))
    printed = served.taskd("logs", "@last", "--seq", "--after", "2", "--before", "4").stdout
    assert [line.split()[0] for line in printed.splitlines()] == ["3"]


@pytest.mark.parametrize(
    ("words", "told"), [("logs @last --search nothing-says-this", "no match"), ("tasks --plugin nobodys", "no tasks")]
)
def test_nothing_found_is_told_on_stderr_and_is_no_fault(served: Served, words: str, told: str) -> None:
    served.wait_end(served.submit("talk"))
    assert on_terminal(served, *words.split()) == f"taskd: {told}\r\n"
    script = served.taskd(*words.split())
    assert (script.returncode, script.stdout, script.stderr) == (0, "", f"taskd: {told}\n")


def test_a_task_that_is_deleted_during_its_export_is_a_line_and_no_fault(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        task_id = served.submit("talk", count=300, word="x" * 60_000)
        served.wait_end(task_id)
        url = f"{served.url}/api/tasks/{task_id}"
        with httpx.stream("GET", f"{url}/logs/export", timeout=40, trust_env=False) as export:
            pieces = export.iter_raw()
            received = [next(pieces)]
            assert httpx.delete(url, timeout=40, trust_env=False).status_code == 204
            with pytest.raises(httpx.RemoteProtocolError):
                received.extend(pieces)
        assert b"complete: false" in received[-1]
    told = served.said[1:]
    assert [line for line in told if "an export broke off: There is no task" in line] == told != []


def test_following_shows_what_is_stored_and_what_comes(served: Served, tmp_path: Path) -> None:
    task_id = served.submit("talk", gate=str(tmp_path / "gate"))
    following = follow(task_id, served.url, "--search", "word")
    assert following.stdout
    assert ["word" in following.stdout.readline() for _ in range(3)] == [True, True, True]
    (tmp_path / "gate").touch()
    rest, _ = ended(following)
    assert "last word" in rest
    assert following.returncode == 0


def follow(task_id: str, server: str, *filters: str) -> subprocess.Popen[str]:
    """A `logs -f` that runs, with its words in pipes."""
    return subprocess.Popen(
        taskd("logs", "-f", task_id, "--output", "ndjson", "--server", server, *filters),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )


def test_following_goes_on_when_the_connection_breaks(served: Served, tmp_path: Path) -> None:
    task_id = served.submit("talk", gate=str(tmp_path / "gate"))
    with breakable(served.port) as (port, cut):
        following = follow(task_id, f"http://127.0.0.1:{port}")
        assert following.stdout
        read = [following.stdout.readline() for _ in range(3)]
        cut()
        (tmp_path / "gate").touch()
        rest, said = ended(following)
    assert seqs("".join(read) + rest) == [entry["seq"] for entry in served.entries(task_id)]
    assert following.returncode == 0
    assert re.fullmatch(r"taskd: .*; trying again\ntaskd: connected again\ntaskd: succeeded .*\n", said)


def ended(following: subprocess.Popen[str]) -> tuple[str, str]:
    """Wait for the end; the rest of what was printed, and what was said beside it."""
    impatience = threading.Timer(30, following.kill)
    impatience.start()
    with following:
        assert following.stdout
        assert following.stderr
        words = following.stdout.read(), following.stderr.read()
    impatience.cancel()
    return words


@contextmanager
def breakable(port: int) -> Iterator[tuple[int, Callable[[], None]]]:
    """A port that leads to `port`, and what breaks every connection through it."""
    ends: list[socket.socket] = []

    def cut() -> None:
        for end in list(ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                pair = (listener.accept()[0], socket.create_connection(("127.0.0.1", port)))
                ends.extend(pair)
                for source, target in (pair, pair[::-1]):
                    threading.Thread(target=pass_on, args=(source, target), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1], cut
        listener.shutdown(socket.SHUT_RDWR)
        cut()
        for end in ends:
            end.close()


def test_following_goes_on_across_the_servers_death(tmp_path: Path) -> None:
    served = Served(tmp_path, "--flush-interval-s", "0.05").start()
    task_id = served.submit("talk", gate=str(tmp_path / "gate"))
    following = follow(task_id, served.url)
    assert following.stdout
    read = [following.stdout.readline() for _ in range(4)]
    wait_until(lambda: "word 3" in stored(served.data_dir))
    assert served.stop(signal.SIGKILL) == -signal.SIGKILL
    with served:
        rest, said = ended(following)
        assert seqs("".join(read) + rest) == [entry["seq"] for entry in served.entries(task_id)]
        assert served.get(f"/api/tasks/{task_id}")["status"] == "interrupted"
    assert following.returncode == 1
    assert "Cannot reach" in said or "closed the connection" in said


def stored(data_dir: Path) -> str:
    """The messages in the database."""
    with contextlib.closing(sqlite3.connect(data_dir / "taskd.db")) as database:
        return "\n".join(row[0] for row in database.execute("SELECT message FROM task_logs"))


def test_a_stop_of_the_server_ends_the_following_of_what_it_interrupts(tmp_path: Path) -> None:
    with Served(tmp_path, "--shutdown-grace-s", "0") as served:
        task_id = served.submit("talk", gate=str(tmp_path / "gate"))
        following = follow(task_id, served.url)
        assert following.stdout
        assert "started" in following.stdout.readline()
        assert served.stop() == 0
        rest, said = ended(following)
    assert following.returncode == 1
    assert "interrupted" in rest
    assert said.startswith("taskd: interrupted")


def test_who_stops_following_leaves_the_task_as_it_is(served: Served, tmp_path: Path) -> None:
    task_id = served.submit("talk", gate=str(tmp_path / "gate"))
    following = follow(task_id, served.url)
    assert following.stdout
    assert "started" in following.stdout.readline()
    following.send_signal(signal.SIGINT)
    _, said = ended(following)
    assert following.returncode == 130
    assert f"taskd --server {served.url} logs -f {task_id[-8:]}\n" in said
    assert served.get(f"/api/tasks/{task_id}")["status"] == "running"
    (tmp_path / "gate").touch()


# Where it is printed


def test_a_reader_that_goes_away_is_no_noise(served: Served) -> None:
    task_id = served.submit("talk", count=5_000, word="x" * 200)
    served.wait_end(task_id)
    command = taskd("logs", task_id, "--server", served.url)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT) as reading:
        assert reading.stdout
        assert reading.stderr
        reading.stdout.readline()
        reading.stdout.close()
        assert reading.stderr.read() == b""
    assert reading.returncode == 141


ASCII_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(
    "environment", [ASCII_LOCALE, {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}], ids=repr
)
def test_json_is_utf_8_whatever_the_terminal_is(served: Served, environment: dict[str, str]) -> None:
    """In a pipe and on a terminal (RFC 8259, 8.1); text is escaped instead."""
    task_id = served.submit("talk", word="straße 😀 \x9b", count=1)
    served.wait_end(task_id)
    for words in (f"logs {task_id} --output ndjson", f"export {task_id} --format ndjson"):
        lines = run_bytes(served, *words.split(), **environment).splitlines()
        assert "straße 😀 \x9b" in {json.loads(line).get("message") for line in lines}, words
        printed = on_terminal(served, *words.split(), code=0, **environment)
        assert "straße 😀 \\u009b" in printed, words
        assert all(json.loads(line) for line in printed.splitlines()), words
    assert b"\\U0001f600" in run_bytes(served, "logs", task_id, **environment)
    for words in ("tasks", "plugins", "run talk -p word=ß"):
        assert run_bytes(served, *words.split(), **environment)


def run_bytes(served: Served, *words: str, **environment: str) -> bytes:
    variables = ENVIRONMENT | {"TASKD_SERVER": served.url} | environment
    return subprocess.run(taskd(*words), env=variables, capture_output=True, check=True, timeout=40).stdout


def test_words_are_utf_8_in_a_locale_that_is_ascii(served: Served, tmp_path: Path) -> None:
    """Python hands them over as surrogates then; bytes that are no UTF-8 are refused."""
    task_id = run_bytes(served, "run", "talk", "--detach", "-p", "word=größe", **ASCII_LOCALE).decode().strip()
    assert served.wait_end(task_id)["params"] == {"word": "größe"}
    (tmp_path / "größe.json").write_text('{"word": "größe"}')
    assert "größe".encode() in run_bytes(
        served, "run", "talk", "--params", f"@{tmp_path / 'größe.json'}", "--output", "ndjson", **ASCII_LOCALE
    )
    assert b"gr" in run_bytes(served, "logs", task_id, "--search", "GRÖẞE".casefold(), **ASCII_LOCALE)
    for words in ("run talk -p word=\udcff", "logs @last --search \udcff", "run \udcff", "logs @last --meta a=\udcff"):
        refused = served.taskd(*words.split())
        assert (refused.returncode, "expected UTF-8" in refused.stderr) == (2, True), words


@pytest.mark.parametrize("words", ["tasks", "logs @last", "plugins", "export @last", "run talk", "--help"])
def test_output_that_cannot_be_written_is_told(served: Served, words: str) -> None:
    """Exit 1, in one line."""
    variables = ENVIRONMENT | {"TASKD_SERVER": served.url}
    with open("/dev/full", "wb") as full:
        ran = subprocess.run(
            taskd(*words.split()), env=variables, stdout=full, stderr=subprocess.PIPE, check=False, timeout=40
        )
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == b"taskd: cannot write to standard output: No space left on device"


def test_a_stderr_that_fails_changes_no_exit_code(served: Served) -> None:
    for words, code in (("tasks --plugin nobodys", 0), ("logs --nonsense", 2), ("tasks --server nowhere", 2)):
        variables = ENVIRONMENT | {"TASKD_SERVER": served.url}
        with open("/dev/full", "wb") as full:
            ran = subprocess.run(taskd(*words.split()), env=variables, stderr=full, check=False, timeout=40)
        assert ran.returncode == code, words


def test_a_failure_is_told_twice_at_most_where_log_and_last_words_meet(served: Served) -> None:
    """Both in the log's last entry, its first line and its traceback; apart from it, the last words are whole."""
    printed = on_terminal(served, "run", "talk", "-p", "fail=true", code=1, NO_COLOR="1")
    assert printed.count("ValueError: told to fail") == 2
    assert printed.count(" system: failed after ") == 1
    assert printed.splitlines()[-1].endswith("ValueError: told to fail")
    assert "taskd: result {" in on_terminal(served, "run", "talk").splitlines()[-1]
    apart = served.taskd("logs", "-f", "@last", "--source", "talk")
    assert apart.stderr.startswith("taskd: succeeded after ")


def on_terminal(served: Served, *words: str, code: int = 0, **environment: str) -> str:
    """What the command prints where its output is a terminal."""
    ours, its = pty.openpty()
    variables = ENVIRONMENT | {"TASKD_SERVER": served.url, "TERM": "xterm-256color"} | environment
    with subprocess.Popen(taskd(*words), stdout=its, stderr=its, env=variables) as printing:
        os.close(its)
        printed = b""
        while block := read_terminal(ours):
            printed += block
        assert printing.wait(20) == code
    os.close(ours)
    return printed.decode()


def read_terminal(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65_536)
    except OSError:  # EIO: the other end is closed
        return b""


def test_a_terminal_gets_colour_and_no_control_characters_of_a_log(served: Served) -> None:
    served.wait_end(served.submit("talk", word="\x1b]0;owned\x07\x9b31m", count=1))
    printed = on_terminal(served, "logs", "@last")
    assert "\\x1b]0;owned\\x07\\x9b31m" in printed
    assert "\x1b]0" not in printed
    assert "\x1b[" in printed
    assert "\x1b" not in on_terminal(served, "logs", "@last", NO_COLOR="1")


def test_a_long_error_is_cut_to_the_width_of_a_terminal(served: Served) -> None:
    served.wait_end(served.submit("git", action="status", directory="/nowhere" * 20))
    shown = on_terminal(served, "tasks", "--limit", "1", COLUMNS="100", NO_COLOR="1")
    assert shown.endswith("…\r\n")
    assert len(shown.rstrip()) == 100
    assert "…" not in served.taskd("tasks", "--limit", "1").stdout


# The token


def test_an_export_to_a_terminal_does_not_speak_to_it(served: Served) -> None:
    task_id = served.submit("talk", count=1, word="\x1b[31mred\nно")
    served.wait_end(task_id)
    printed = on_terminal(served, "export", task_id)
    assert "\x1b" not in printed
    assert "\\x1b[31mred\r\n    но" in printed
    assert "complete: true" in printed


def test_a_token_is_needed_where_there_is_one(tmp_path: Path) -> None:
    with Served(tmp_path, TASKD_TOKEN="open sesame") as served:
        refused = served.taskd("tasks")
        assert refused.returncode == 4
        assert "requires a token: give it with --token or TASKD_TOKEN" in refused.stderr
        wrong = served.taskd("tasks", "--token", "wrong")
        assert (wrong.returncode, wrong.stderr) == (4, "taskd: this server does not accept the token\n")
        assert served.taskd("run", "talk", "--token", "open sesame").returncode == 0
        assert served.taskd("logs", "-f", "@last", TASKD_TOKEN="open sesame").returncode == 0
        assert served.taskd("--token", "open sesame", "logs", "-f", "@last").returncode == 0
