"""
What a task says, on its way to a terminal, a file and the service's own output: data, never control.

Precedents: uvicorn CVE-2020-7694, Tomcat CVE-2025-55754, git CVE-2024-52005 (a log that speaks to the
terminal), ansi_up CVE-2021-3377 (to the browser; see web/tests), CVE-2020-15228 (a log that gives commands).
"""

import os
import pty
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from tests.helpers.served import ENVIRONMENT, taskd
from tests.security.conftest import Target, target

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\x1bPq\x1b\\\r\x08\u202e\u2066\u2028\x85\x7f\x0b"
# What a terminal obeys: C0 but line feed, tab and the return of pty's own line ends, C1, and what reorders text.
OBEYED = re.compile(r"[\x00-\x08\x0b-\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# A terminal that shows bars is asked to move and hide its cursor, by us.
CURSOR = re.compile(r"\x1b\[(\?25[hl]|\d*[AGK])|\r")
SPOKEN = '''

class Evil(Plugin):
    """\\x1b]0;described\\x07"""

    name = "evil"
    title = "\\x1b]0;titled\\x07\\u202e"

    async def execute(self, params, context):
        evil = params["evil"]
        context.logger.info(evil, field=evil, **{evil: 1})
        context.logger.with_source(evil).info("from there")
        context.logger.info("first\\n" + evil + "\\nthird")
        with context.logger.group(evil), context.logger.progress(evil, total=2, unit=evil) as progress:
            progress.update(1, message=evil)
        print(evil)
        for line in ("::set-env name=X::y", "##[error]x", "::add-mask::x", "<script>alert(1)</script>", "=1+1"):
            context.logger.info(line)
        if params.get("fail"):
            raise ValueError(evil)
        return {evil: evil}
'''


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server whose plugins say what terminals obey; one of them cannot be loaded, and says so likewise."""
    directory = tmp_path_factory.mktemp("spoken")
    served = target(directory, plugins=SPOKEN)
    (directory / "plugins" / "bad\x1b]0;file\x07\nname.py").write_text(f"raise ValueError({EVIL!r})")
    with served:
        yield served
        served.check()


def on_terminal(served: Target, *words: str) -> str:
    """All that the command says where it speaks to a terminal."""
    ours, its = pty.openpty()
    environment = ENVIRONMENT | {"TASKD_SERVER": served.url, "TERM": "xterm-256color"}
    with subprocess.Popen(taskd(*words), stdin=its, stdout=its, stderr=its, env=environment):
        os.close(its)
        said = b"".join(iter(lambda: _read(ours), b""))
    os.close(ours)
    return said.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65_536)
    except OSError:  # EIO: the other end is closed
        return b""


RUN = ("run", "evil", "--params", orjson.dumps({"evil": EVIL, "fail": True}).decode())


@pytest.mark.parametrize(
    "words",
    [
        ("logs", "-f", "@last", "--seq"), ("logs", "@last", "--output", "ndjson"), ("tasks",), ("plugins",), RUN,
        ("export", "@last"), ("logs", "@last", "--regex", "--search", "(" + EVIL), ("logs", "@last", "--" + EVIL),
    ],
    ids=lambda words: words[0],
)  # fmt: skip
def test_nothing_that_a_terminal_obeys_reaches_it(spoken: Target, words: tuple[str, ...]) -> None:
    """In messages, sources, fields, keys, groups, bars, results, errors, names, refusals: a real pseudo-terminal."""
    spoken.run_task("evil", evil=EVIL, fail=True)
    said = CURSOR.sub("", COLOUR.sub("", on_terminal(spoken, *words)))
    assert said.strip()
    assert not OBEYED.search(said), said
    assert "\x1b" not in said, said


def test_a_pipe_gets_what_was_said_to_the_byte(spoken: Target) -> None:
    """Escaping is for terminals: a file must be the log."""
    task_id = spoken.run_task("evil", evil=EVIL)["id"]
    entries = spoken.log(task_id)
    exported = [
        orjson.loads(line) for line in spoken.taskd("export", task_id, "--format", "ndjson").stdout.split("\n") if line
    ]
    assert exported[1:-1] == entries
    printed = spoken.taskd("logs", task_id, "--output", "ndjson").stdout.split("\n")
    assert [orjson.loads(line) for line in printed if line] == entries
    assert EVIL in [entry["message"] for entry in entries]


def test_an_export_to_a_file_writes_the_file_that_was_named(spoken: Target, tmp_path: Path) -> None:
    """Whatever the server proposes, and whatever the task or its plugin is called."""
    task_id = spoken.run_task("evil", evil=EVIL)["id"]
    assert spoken.taskd("export", task_id, "-o", str(tmp_path / "a.log")).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.log"]
    for form in ("text", "ndjson", "csv"):
        answer = spoken.http("GET", f"/api/tasks/{task_id}/logs/export?format={form}")
        proposed = answer.headers.get("content-disposition", "")
        assert re.fullmatch(r'attachment; filename="[a-zA-Z0-9._-]+"', proposed), proposed


def test_a_line_of_a_log_is_no_command(spoken: Target) -> None:
    """CVE-2020-15228: `::set-env` and its like are words like any others, and change nothing."""
    task = spoken.run_task("evil", evil="x")
    said = [entry["message"] for entry in spoken.log(task["id"])]
    assert {"::set-env name=X::y", "##[error]x", "::add-mask::x"} <= set(said)
    assert [entry["level"] for entry in spoken.log(task["id"]) if entry["message"] == "##[error]x"] == ["INFO"]


def test_the_services_own_output_is_one_plain_line_for_each_thing(spoken: Target) -> None:
    """uvicorn CVE-2020-7694: names of files, errors of plugins and what clients send are escaped."""
    for head in (f"GET /{EVIL} HTTP/1.1", "GET /%1b]0;x%07%0a%0dtaskd: forged HTTP/1.1"):
        spoken.ask(head.encode(), b"Host: localhost")
    spoken.ask("GET / HTTP/1.1", "Host: \x1b]0;x\x07")
    spoken.ask("GET / HTTP/1.1", "Host: localhost", "Origin: \x9b31m")
    said = "".join(spoken.said)
    assert "cannot be loaded" in said
    assert not OBEYED.search(said), said
    assert "\x1b" not in said
    assert not [line for line in said.splitlines() if not line.startswith("taskd")], said


def test_what_a_client_sends_is_escaped_in_a_refusal(spoken: Target) -> None:
    """A refusal that is shown in a terminal by curl has nothing that it obeys."""
    for target_path in (
        "/%1b%5d0;x%07",
        "/api/tasks?%1b=1",
        "/api/tasks?limit=%1b%5d0;x%07",
        "/api/tasks/%1b%9b%e2%80%ae",
    ):
        body = spoken.ask(f"GET {target_path} HTTP/1.1", "Host: localhost").body.decode()
        assert not OBEYED.search(body), body
        assert "\x1b" not in body
