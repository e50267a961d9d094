"""The token: who has none gets nothing, and nothing that taskd writes or says has it."""

import os
import re
from pathlib import Path

import pytest

from tests.helpers.served import run_taskd
from tests.security.conftest import BEARER, TOKEN, Target, target

ENVIRON = '''

class Environ(Plugin):
    """Shows what a process of its own is given."""

    name = "environ"

    async def execute(self, params, context):
        import os, sys
        await context.run_process([sys.executable, "-c", "import os; print(sorted(os.environ.items()))"],
        env={**os.environ})
        context.logger.info(f"{sorted(os.environ.items())}")
'''


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "taskd.example"])
def test_nothing_is_served_beyond_this_machine_without_a_token(tmp_path: Path, host: str) -> None:
    """Ray CVE-2023-48022, Dask CVE-2021-42343: whoever reaches the port runs code."""
    refused = run_taskd("serve", "--port", "0", "--data-dir", str(tmp_path / "data"), "--host", host)
    assert refused.returncode == 2
    assert "needs a token" in refused.stderr
    assert not (tmp_path / "data").exists()


def test_a_token_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """The file is for its owner alone; and what is in it is not told."""
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o640)
    refused = run_taskd("serve", "--port", "0", "--data-dir", str(tmp_path / "data"), "--token-file", str(file))
    assert refused.returncode == 2
    assert "chmod 600" in refused.stderr
    assert TOKEN not in refused.stderr


@pytest.mark.parametrize("token", ["geheim\x01nis", "gehe\u00efm"])
def test_a_token_that_cannot_be_sent_is_refused_without_being_told(tmp_path: Path, token: str) -> None:
    """npm CVE-2020-15095: what is refused is not repeated."""
    refused = run_taskd("serve", "--port", "0", "--data-dir", str(tmp_path / "data"), TASKD_TOKEN=token)
    assert refused.returncode == 2
    assert "geh" not in refused.stderr


def test_every_wrong_token_has_the_same_answer(locked: Target) -> None:
    """Nothing to learn from: as long, as near or none; comparison in constant time is in tests/api/test_auth.py."""
    tries = ["x", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "x" * len(TOKEN), "x" * 20_000, "*", f"{TOKEN} {TOKEN}"]
    answers = [
        locked.ask("GET /api/tasks HTTP/1.1", "Host: localhost", f"Authorization: Bearer {one}") for one in tries
    ]
    answers.append(locked.ask("GET /api/tasks HTTP/1.1", "Host: localhost"))
    answers.append(locked.ask("GET /api/no-such-thing HTTP/1.1", "Host: localhost"))
    assert {answer.status for answer in answers} == {401}
    assert len({answer.body for answer in answers}) == 1
    told = [locked.http("POST", "/api/session", json={"token": one}) for one in tries]
    assert len({(answer.status_code, answer.content) for answer in told}) == 1


def test_a_token_in_the_address_opens_nothing(locked: Target) -> None:
    """It would be in histories and logs; userinfo, parameters and cookies of that name alike."""
    for path in (f"/api/tasks?token={TOKEN}", f"/api/tasks?access_token={TOKEN}", f"/api/tasks;token={TOKEN}"):
        assert locked.http("GET", path, headers={}).status_code == 401
    basic = {"Authorization": "Basic dGFza2Q6Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5"}
    for headers in (basic, {"Cookie": f"token={TOKEN}"}, {"X-Token": TOKEN}, {"Cookie": f"taskd_session={TOKEN}"}):
        assert locked.http("GET", "/api/tasks", headers=headers).status_code == 401


def test_the_cookie_is_the_pages_alone_and_says_nothing_of_the_token(locked: Target) -> None:
    """HttpOnly, SameSite=Strict, no Domain, ends with the browser; and is of no use to another page."""
    cookie = locked.http("POST", "/api/session", json={"token": TOKEN}, headers={}).headers["set-cookie"]
    value, *attributes = cookie.split("; ")
    assert {attribute.lower() for attribute in attributes} == {"httponly", "samesite=strict", "path=/"}
    assert TOKEN not in cookie
    assert locked.http("GET", "/api/tasks", headers={"Cookie": value}).status_code == 200
    evil = {"Cookie": value, "Origin": "http://evil.example"}
    assert locked.http("POST", "/api/tasks", json={"plugin": "talk"}, headers=evil).status_code == 403
    altered = value[:-1] + ("0" if value[-1] != "0" else "1")
    assert locked.http("GET", "/api/tasks", headers={"Cookie": altered}).status_code == 401


def test_a_websocket_needs_the_token(locked: Target) -> None:
    """401 before the upgrade; by sub-protocol among others, and by no other name."""
    path = f"/api/tasks/{locked.run_task('talk')['id']}/logs/live"
    for lines in ([], [f"Sec-WebSocket-Protocol: {TOKEN}"], ["Sec-WebSocket-Protocol: taskd.token."],
                  [f"Sec-WebSocket-Protocol: xtaskd.token.{TOKEN}"], [f"Sec-WebSocket-Protocol: taskd.token.{TOKEN}x"],
                  ["Authorization: Bearer x"], [f"Sec-WebSocket-Protocol: TASKD.TOKEN.{TOKEN}"]):  # fmt: skip
        assert locked.upgrade(path, "Host: localhost", *lines).status == 401, lines
    assert locked.upgrade(f"{path}?token={TOKEN}", "Host: localhost").status == 401
    for lines in ([f"Authorization: Bearer {TOKEN}"], [f"Sec-WebSocket-Protocol: a, taskd.token.{TOKEN}"]):
        assert locked.upgrade(path, "Host: localhost", *lines).status == 101


def test_the_token_is_in_nothing_that_is_written_said_or_shown(tmp_path: Path) -> None:
    """
    Files, output, answers, process titles, and the environment of what a task starts.

    Jenkins CVE-2020-2182, Airflow CVE-2024-45784: secrets came out in logs.
    """
    with target(tmp_path, token=TOKEN, plugins=ENVIRON) as served:
        task = served.run_task("environ")
        assert task["status"] == "succeeded"
        wrong = {"Authorization": f"Bearer {TOKEN}x", "Cookie": f"taskd_session={TOKEN}"}
        answers = [served.http("GET", path, headers=headers).text for headers in (BEARER, wrong) for path in (
            "/", "/api/health", "/api/plugins", "/api/openapi.json", "/api/tasks", f"/api/tasks/{task['id']}",
            f"/api/tasks/{task['id']}/logs?limit=5000", f"/api/tasks/{task['id']}/logs/export", "/metrics", "/api/none",
        )]  # fmt: skip
        assert TOKEN not in "".join(answers)
        assert "environ" in "".join(answers)
        assert TOKEN.encode() not in Path(f"/proc/{served.process.pid}/cmdline").read_bytes()
        written = [path for path in served.data_dir.rglob("*") if path.is_file()]
        assert written
        assert not [path for path in written if TOKEN.encode() in path.read_bytes()]
    assert TOKEN not in "".join(served.said)


def test_what_lies_in_the_data_directory_is_for_its_owner(tmp_path: Path) -> None:
    """Logs hold what tasks were told: other users of the machine cannot read them, whatever the umask is."""
    before = os.umask(0o022)
    try:
        with target(tmp_path) as served:
            mode = served.data_dir.stat().st_mode & 0o777
    finally:
        os.umask(before)
    assert mode == 0o700


def test_the_command_does_not_repeat_a_token_that_is_refused(locked: Target) -> None:
    """Nor one that no header can hold."""
    for token in ("wrong-but-secret", "wrong\nbut-secret", "wrong-é-but-secret"):
        refused = locked.taskd("tasks", TASKD_TOKEN=token)
        assert refused.returncode in (2, 4)
        assert not re.search("but-secret|Traceback", refused.stdout + refused.stderr)
