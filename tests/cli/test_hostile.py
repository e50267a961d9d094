"""Whatever answers at the address of a server, each command ends with one clear sentence."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskd.cli.answers import PLUGINS, TASK, TASKS, misfit
from tests.helpers.served import ask_taskd

ID = "01936d5c-1111-7000-8000-0123456789ab"
COMMANDS = (
    "tasks", "plugins", "run talk", "run talk --detach", "logs @last", f"logs {ID}", "logs 456789ab", f"logs -f {ID}",
    f"cancel {ID}", f"retry {ID}", f"retry {ID} -p a=1", f"delete {ID}", f"export {ID}", f"export {ID} --format ndjson",
)  # fmt: skip
GOOD_TASK = {
    "id": ID, "plugin": "talk", "status": "running", "created_at": "2026", "started_at": None, "finished_at": None,
    "result": None, "error": None, "last_seq": 1, "counts": {"WARNING": 0, "ERROR": 0},
}  # fmt: skip


def answer(body: bytes | str, head: str = "200 OK", *lines: str) -> bytes:
    content = body if isinstance(body, bytes) else body.encode()
    length = f"Content-Length: {len(content)}"
    return "\r\n".join([f"HTTP/1.1 {head}", length, *lines, "Connection: close", "", ""]).encode() + content


JSON = "Content-Type: application/json"
BODIES = (
    b"", b"[]", b"null", b"1", b'"text"', b"{}", b"{", b"NaN", b"\xff\xfe{\x00}\x00", b'{"detail": "\xff"}',
    b"[" * 100_000,
    b'{"tasks": {}}', b'{"tasks": [], "next_before": 5}', b'{"tasks": [null], "next_before": null}',
    b'{"tasks": [{"id": 1}], "plugins": [], "broken": [{}], "next_before": null}',
    b'{"entries": [{"seq": "1"}], "last_seq": 1, "more": false}', b'{"entries": [], "last_seq": null, "more": 0}',
    b'{"plugins": [{"name": "talk"}], "broken": []}', b'{"plugins": null, "broken": null}', b'{"status": "ok"}',
    b"<!doctype html><title>Something else</title>", json.dumps(GOOD_TASK | {"counts": []}).encode(),
    json.dumps(GOOD_TASK | {"id": None}).encode(), json.dumps(GOOD_TASK | {"id": "\x1b]0;owned\x07"}).encode(),
)  # fmt: skip
ANSWERS = (
    *(answer(body, "200 OK", JSON) for body in BODIES),
    answer('{"title": "Oops", "status": 500, "detail": "x"}', "200 OK", "Content-Type: application/problem+json"),
    answer("<html>Bad Gateway", "502 Bad Gateway", "Content-Type: text/html"),
    answer('{"detail": "Not Found"}', "404 Not Found", JSON),
    answer('{"detail": [{"loc": []}]}', "422 Unprocessable", JSON),
    answer("[]", "400 Bad Request", JSON),
    answer("", "302 Found", "Location: https://login.example/"),
    answer("", "304 Not Modified"),
    answer("", "204 No Content"),
    answer("not compressed", "200 OK", "Content-Encoding: gzip"),
    b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}",
    b"HTTP/1.1 999\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"\x15\x03\x01\x00\x02\x02\x46",
    b"",
)


@contextlib.contextmanager
def answering(data: bytes) -> Iterator[str]:
    """The address of a server that answers every request with `data` and closes."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = listener.accept()[0]
                with connection, contextlib.suppress(OSError):
                    connection.recv(65_536)
                    connection.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("data", ANSWERS, ids=repr)
def test_what_is_not_taskd_is_one_sentence_and_exit_3(data: bytes, tmp_path: Path) -> None:
    """No traceback, no empty success, and no file."""
    with answering(data) as server:
        for words in (*COMMANDS, f"export {ID} -o {tmp_path / 'file'}"):
            result = ask_taskd(*words.split(), "--server", server)
            if words.startswith("delete") and data.startswith(b"HTTP/1.1 204"):
                continue  # that may well be taskd
            assert result.returncode == 3, (words, result)
            assert result.stderr.startswith("taskd: "), words
            assert result.stderr.count("\n") == 1, (words, result.stderr)
    assert [*tmp_path.iterdir()] == []


def test_another_programs_task_may_have_any_time(capsys: pytest.CaptureFixture[str]) -> None:
    """A time that is none shows as none."""
    task = GOOD_TASK | {"started_at": "yesterday", "finished_at": "2026-01-01"}
    with answering(answer(json.dumps({"tasks": [task], "next_before": None}))) as server:
        result = ask_taskd("tasks", "--server", server)
    assert (result.returncode, result.stdout[:8]) == (0, ID[-8:])


def test_pages_that_lead_nowhere_end() -> None:
    """A `next_before` without tasks, and a page of entries that comes again."""
    entry = {"seq": 5, "timestamp": "", "level": "INFO", "source": "s", "message": "m", "metadata": None}
    with answering(answer('{"tasks": [], "next_before": "x"}')) as server:
        assert ask_taskd("tasks", "--server", server).returncode == 0
    with answering(answer(json.dumps({"entries": [entry], "last_seq": 9, "more": True}))) as server:
        result = ask_taskd("logs", ID, "--server", server)
    assert (result.returncode, "is not taskd" in result.stderr) == (3, True)


@pytest.mark.parametrize(
    "wanted",
    [
        True, None, 5, {"type": 5}, {"type": [1, None]}, {"$ref": "#/$defs/a"}, {"$ref": "#/$defs/loop"}, {"anyOf": 1},
        {"anyOf": [True, {"$ref": "#/$defs/deep"}]}, {"enum": 1}, {"type": "array", "items": False}, {"description": 1},
        {"$ref": 1},
    ],
)  # fmt: skip
def test_any_schema_of_a_plugin_is_listed_and_taken(wanted: object) -> None:
    """A plugin's author writes it, and JSON Schema allows true, false and references to itself."""
    definitions = {"loop": {"$ref": "#/$defs/loop"}, "deep": {"anyOf": [{"$ref": "#/$defs/deep"}] * 2}, "a": 1}
    schema = {"properties": {"a": wanted}, "required": 1, "$defs": definitions}
    plugin = {"name": "talk", "title": "", "description": "", "params_schema": schema}
    answers = {"plugins": [plugin], "broken": [], **GOOD_TASK}
    with answering(answer(json.dumps(answers))) as server:
        listed = ask_taskd("plugins", "--server", server)
        started = ask_taskd("run", "talk", "--detach", "-p", "a=1", "--server", server)
    assert listed.stdout.startswith("talk  \n    a  ")
    assert (started.returncode, started.stdout.strip()) == (0, ID)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"tasks": [GOOD_TASK], "next_before": None, "more": 1}, ""),
        ({"tasks": [GOOD_TASK | {"last_seq": "1"}], "next_before": None}, "tasks.0.last_seq has another type"),
        (
            {"tasks": [GOOD_TASK | {"status": "\x1b[2J"}], "next_before": None},
            "tasks.0.status has another type",
        ),
        ({"tasks": [{}], "next_before": None}, "tasks.0.id is missing"),
        ({"tasks": {}}, "tasks is not an array"),
        ([], "it is not an object"),
    ],
)
def test_the_place_of_a_misfit_is_named(value: object, found: str) -> None:
    """So that a person sees what the other program sends."""
    assert misfit(value, TASKS) == found


def test_shapes_are_those_of_the_api() -> None:
    """What a client reads is described, so that it cannot be taken away unnoticed."""
    from taskd.api import schemas

    assert set(TASK) <= set(schemas.Task.model_fields)
    assert set(PLUGINS["plugins"][0]) <= set(schemas.PluginShown.model_fields)
