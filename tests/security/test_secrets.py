"""
What a task was told in secret: in no file, no answer, no frame, no output, in whatever form it says it.

Jenkins CVE-2020-2182, Airflow CVE-2024-45784, npm CVE-2020-15095. Best effort for what a program
transforms itself; `tests/text/test_masking.py` has the forms that are known.
"""

import base64
import re
from collections.abc import Iterator
from urllib.parse import quote

import orjson
import pytest
from websockets.sync.client import connect

from tests.security.conftest import Target, target

SECRET = 'hunter2"and\\more/Ünd?=%&'
SECOND = "second-line-of-a-key"
WHOLE = f"{SECRET}\n{SECOND}"
FORMS = [
    SECRET, SECOND, quote(SECRET, safe=""), base64.b64encode(WHOLE.encode()).decode(),
    orjson.dumps(SECRET).decode()[1:-1],
    ascii(SECRET)[1:-1], base64.urlsafe_b64encode(SECRET.encode()).decode().rstrip("="),
]  # fmt: skip
LEAKY = '''
import base64, json, logging, subprocess, sys, urllib.parse, warnings
from pydantic import BaseModel, Field, SecretStr


class Told(Exception):
    pass


class Leaky(Plugin):
    """Says its secret wherever it can."""

    name = "leaky"

    class Params(BaseModel):
        secret: SecretStr = Field(min_length=8)
        plain: int = 0
        copy_of_it: str = ""
        gate: str = ""
        fail: bool = False

    async def execute(self, params, context):
        s = params.secret.get_secret_value()
        forms = [s, s.encode(), urllib.parse.quote(s, safe=""), base64.b64encode(s.encode()).decode(), json.dumps(s),
                 json.dumps(s, ensure_ascii=False), repr(s), ascii(s), *s.splitlines(), "http://me:pass-word-9@x/" + s]
        log = context.logger
        for form in forms:
            log.info(form)
            log.info(f"in words {form} and more", value=form, nested={"list": [form]}, **{str(form): 1})
            log.with_source(str(form)).info("from there")
            with log.group(form), log.progress(str(form), total=2, unit=str(form)) as progress:
                progress.update(1, message=form)
            print(form)
            logging.getLogger(str(form)).warning("%s", form, extra={"field": form})
            warnings.warn(str(form))
            try:
                raise Told(form) from KeyError(form)
            except Told as error:
                error.add_note(str(form))
                log.exception("failed", value=form)
        for form in forms[:2]:
            program = "import sys; print(sys.argv[1]); print(sys.argv[1], file=sys.stderr)"
            await context.run_process([sys.executable, "-c", program, str(form)])
        context.add_secret("added-later")
        log.info("and added-later is one too")
        await asyncio.sleep(0)
        if params.gate:
            while not Path(params.gate).exists():
                await asyncio.sleep(0.02)
        if params.fail:
            raise Told(s)
        return {"secret": s, "forms": [str(form) for form in forms]}
'''


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(tmp_path_factory.mktemp("leaky"), plugins=LEAKY) as served:
        yield served
        served.check()


def assert_hidden(text: str | bytes, where: str) -> None:
    """No form of a secret is in `text`."""
    data = text.encode() if isinstance(text, str) else text
    for form in (*FORMS, "hunter2", "added-later", "pass-word-9"):
        found = data.find(form.encode())
        assert found < 0, f"{where}: {data[max(0, found - 80) : found + 80]!r}"


def told(leaky: Target, task_id: str) -> Iterator[tuple[str, str]]:
    """All that the service tells of a task, by where."""
    log = f"/api/tasks/{task_id}/logs"
    for path in ("/api/tasks", f"/api/tasks/{task_id}", f"{log}?limit=5000", f"{log}/sources", f"{log}/stats",
                 f"{log}/outline", f"{log}/next", f"{log}/stream", "/metrics", "/api/health", "/api/plugins",
                 *(f"{log}/export?format={form}" for form in ("text", "ndjson", "csv"))):  # fmt: skip
        yield path, leaky.http("GET", path).text
    with connect(f"ws://127.0.0.1:{leaky.port}{log}/live", proxy=None, max_size=None) as connection:
        yield "frames", "".join(str(message) for message in connection)
    yield "output", "".join(leaky.said)


def test_a_secret_is_in_no_file_while_a_task_runs_and_in_none_afterwards(leaky: Target) -> None:
    """Journal, database and WAL: it is hidden before any of them."""
    gate = leaky.data_dir.parent / "gate"
    task_id = leaky.start_task("leaky", secret=WHOLE, copy_of_it=SECRET, gate=str(gate))
    said = ""
    while "one too" not in said:
        said = leaky.http("GET", f"/api/tasks/{task_id}/logs?limit=5000").text
    for _ in range(2):
        for path in leaky.data_dir.rglob("*"):
            if path.is_file():
                assert_hidden(path.read_bytes(), path.name)
        gate.touch()
        leaky.http("GET", f"/api/tasks/{task_id}/logs/stream")


@pytest.mark.parametrize("fail", [False, True])
def test_a_secret_is_in_nothing_that_is_told_of_its_task(leaky: Target, fail: bool) -> None:
    """Params, entries, keys, sources, titles, errors, results, files, frames, counters, output."""
    task = leaky.run_task("leaky", secret=WHOLE, copy_of_it=SECRET, fail=fail)
    assert task["status"] == ("failed" if fail else "succeeded"), task["error"]
    assert task["params"]["secret"] == "***"
    for where, text in told(leaky, task["id"]):
        assert_hidden(text, where)
    assert "***" in leaky.http("GET", f"/api/tasks/{task['id']}/logs").text
    for words in (("tasks",), ("logs", "@last")):
        assert_hidden(leaky.taskd(*words).stdout, words[0])


def test_a_refusal_does_not_repeat_a_secret(leaky: Target) -> None:
    """Neither one that is too short for its parameter nor one beside another fault; a retry asks for it again."""
    for params in (
        {"secret": "hunter2"},
        {"secret": WHOLE, "plain": "x"},
        {"secret": [WHOLE]},
        {"secret": {"a": WHOLE}},
    ):
        answer = leaky.http("POST", "/api/tasks", json={"plugin": "leaky", "params": params})
        assert answer.status_code == 422
        assert re.search("secret|plain", answer.text)
        assert_hidden(answer.text, "refusal")
    task = leaky.run_task("leaky", secret=WHOLE)
    refused = leaky.http("POST", f"/api/tasks/{task['id']}/retry")
    assert refused.status_code == 422
    assert "params.secret" in refused.text
