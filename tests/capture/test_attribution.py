"""
The promises of capture, kept by a real service: each log holds exactly its own task's words, with
the right sources and in order; no secret is in any byte that it writes or sends; and programs do
in a task what they do without taskd.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.helpers.served import Served, wait_until

LINES = 1_000
TASKS = 6

SPEAKERS = '''
import asyncio, contextvars, logging, sys, threading, warnings
from concurrent.futures import ThreadPoolExecutor

from taskd import Plugin

LINES = 1_000


class Everyhow(Plugin):
    """Says its name a thousand times in each way, all at once."""

    name = "everyhow"

    async def execute(self, params, context):
        me = params["me"]
        loop = asyncio.get_running_loop()

        async def each(say, every=20):
            for n in range(LINES):
                say(n)
                if n % every == 0:
                    await asyncio.sleep(0)

        def record(n):
            logging.getLogger("lib.records").info("%s %d", me, n, extra={"me": me})

        def warn(n):
            warnings.warn_explicit(f"{me} {n}", UserWarning, "a.py", 1, registry={})

        def out(n):
            sys.stdout.write(f"{me} ")
            sys.stdout.write(f"{n}\\n")

        def err(n):
            print(me, n, file=sys.stderr)

        def in_thread(name):
            for n in range(LINES):
                logging.getLogger(name).warning("%s %d", me, n)

        plain = threading.Thread(target=in_thread, args=("lib.thread",))
        plain.start()
        with ThreadPoolExecutor(1) as own:
            await asyncio.gather(
                *(asyncio.create_task(each(say)) for say in (record, warn, out, err)),
                asyncio.to_thread(in_thread, "lib.to_thread"),
                loop.run_in_executor(None, in_thread, "lib.shared_pool"),
                loop.run_in_executor(own, in_thread, "lib.own_pool"),
                context.run_process(["sh", "-c", f"for n in $(seq 0 {LINES - 1}); do echo {me} $n; done"]),
            )
        plain.join()


class OldHow(Plugin):
    """The same, of a plugin that is not asynchronous and knows of no context."""

    name = "oldhow"

    def execute(self, params):
        def out():
            for n in range(LINES):
                print(params["me"], n)

        thread = threading.Thread(target=contextvars.copy_context().run, args=(out,))
        thread.start()
        for n in range(LINES):
            logging.getLogger("lib.old").error("%s %d", params["me"], n)
        thread.join()
'''
SOURCES = {
    "everyhow": {
        "lib.records", "py.warnings", "stdout", "stderr", "lib.thread", "lib.to_thread", "lib.shared_pool",
        "lib.own_pool", "sh",
    },
    "oldhow": {"lib.old", "stdout"},
}  # fmt: skip


@pytest.fixture
def served(tmp_path: Path) -> Served:
    return Served(tmp_path)


def add_plugin(served: Served, source: str) -> None:
    (served.data_dir.parent / "plugins" / "more.py").write_text(source)


def said_by(log: list[dict[str, Any]], source: str) -> list[str]:
    return [entry["message"] for entry in log if entry["source"] == source]


def log_of(served: Served, task_id: str) -> list[dict[str, Any]]:
    """The whole log, once the task has ended."""
    address = f"{served.url}/api/tasks/{task_id}/logs/stream"
    with httpx.stream("GET", address, trust_env=False, timeout=60) as lines:
        return [json.loads(line) for line in lines.iter_lines()]


def test_each_log_holds_exactly_its_own_words_in_order(served: Served) -> None:
    """Overlapping tasks, each speaking a thousand times in every way."""
    add_plugin(served, SPEAKERS)
    with served:
        names = [("oldhow" if number % 3 == 2 else "everyhow", f"task-{number}") for number in range(TASKS)]
        tasks = [(plugin, me, served.submit(plugin, me=me)) for plugin, me in names]
        logs = [(plugin, me, log_of(served, task_id)) for plugin, me, task_id in tasks]
    for plugin, me, log in logs:
        assert [entry["seq"] for entry in log] == list(range(1, len(log) + 1))
        spoken: dict[str, list[str]] = defaultdict(list)
        for entry in log:
            if entry["source"] != "system":
                spoken[entry["source"]].append(entry["message"].removeprefix("a.py:1: UserWarning: "))
        assert spoken.keys() == SOURCES[plugin]
        for source, words in spoken.items():
            assert words == [f"{me} {n}" for n in range(LINES)], source
    assert not [line for line in served.said if "task-" in line], "said in the service's own output too"


SECRET = "p$w\"o'rd\\n\nsecond=line/é"
FORMS = ("p$w", "cDV3", "second=line", "second%3Dline", "p%24w", "line/", "line%2F", "hunte", "nter22")

LEAKY = '''
import asyncio, base64, json, logging, shlex, sys, urllib.parse
from pathlib import Path

from pydantic import BaseModel, SecretStr

from taskd import Plugin


class Params(BaseModel):
    password: SecretStr
    gate: str


class Leaky(Plugin):
    """Says its secret in every way it can think of, when `gate` is there."""

    name = "leaky"
    Params = Params

    async def execute(self, params, context):
        secret = params.password.get_secret_value()
        log = context.logger
        context.add_secret("hunter22")
        while not Path(params.gate).exists():
            await asyncio.sleep(0.01)
        forms = [
            secret, repr(secret), json.dumps(secret), json.dumps({"a": json.dumps(secret)}), shlex.quote(secret),
            urllib.parse.quote(secret), urllib.parse.quote(secret, safe=""), urllib.parse.quote_plus(secret),
            base64.b64encode(secret.encode()).decode(), base64.b64encode(b"me:" + secret.encode()).decode(),
            f"https://me:{urllib.parse.quote(secret)}@host/", "https://u:hunter22@host/",
        ]
        for form in forms:
            log.info(form)
            log.info("in fields", **{form[:200]: form, "deep": [{form: (form,)}]})
            logging.getLogger("lib").warning("%s", form, extra={"form": form})
            print(form)
            half = len(form) // 2
            sys.stdout.write(form[:half])
            await asyncio.sleep(0)
            sys.stdout.write(form[half:] + "\\n")
            with log.group(form), log.progress(form, unit=form) as bar:
                bar.update(1, form)
            print(f"\\r{form} 1%\\r{form} 2%\\r{form} 3%")
        sys.stdout.write("x" * 1_048_570 + "hun")
        sys.stdout.write("ter22" + "y" * 1_048_576 + "\\n")
        log.with_source("x" * 58 + "hunter22").info("in the source")
        await context.run_process([sys.executable, "-c", "import sys; print(sys.argv[1]); print(sys.argv[1:])", secret])
        await context.run_process(["printf", "hun"])
        try:
            raise ValueError(secret)
        except ValueError:
            log.exception(f"failed with {secret}")
            logging.getLogger(secret).exception("as a name")
        await asyncio.sleep(0.3)
        if context.task_id:
            raise RuntimeError(f"{secret} and {forms[5]}") from ValueError("hunter22")
'''


async def test_no_secret_is_in_any_byte_that_is_written_or_sent(tmp_path: Path) -> None:
    """The database, its WAL, the journal, live frames and pages: in none of them, in none of its forms."""
    served = Served(tmp_path)
    add_plugin(served, LEAKY)
    with served:
        gate = tmp_path / "gate"
        task_id = served.submit("leaky", password=SECRET, gate=str(gate))
        sent = bytearray()
        address = f"{served.url.replace('http', 'ws')}/api/tasks/{task_id}/logs/live"
        async with connect(address, max_size=None) as live:
            async for frame in live:
                sent += frame.encode() if isinstance(frame, str) else frame
                if b'"type":"caught_up"' in sent:
                    gate.touch()  # progress is shown to those alone who are there
        async with httpx.AsyncClient(trust_env=False, base_url=f"{served.url}/api/tasks/{task_id}") as pages:
            for path in ("", "/logs?limit=5000", "/logs/stats", "/logs/sources", "/logs/export?format=text"):
                sent += (await pages.get(path)).content
        written = b"".join(path.read_bytes() for path in served.data_dir.rglob("*") if path.is_file())
        task = served.get(f"/api/tasks/{task_id}")
    assert task["status"] == "failed"
    assert task["error"] == "RuntimeError: *** and ***"
    written += b"".join(path.read_bytes() for path in served.data_dir.rglob("*") if path.is_file())
    for form in FORMS:
        assert form.encode() not in sent, form
        assert form.encode() not in written, form
    assert len(sent) > 2_000_000
    assert b'"type":"progress"' in sent


USUAL = '''
import asyncio, http.server, io, logging, subprocess, sys, threading
from pathlib import Path

import httpx
import pytest

from taskd import Plugin

TESTS = """
import logging, sys, warnings

def test_capsys(capsys):
    print("inside")
    print("inside too", file=sys.stderr)
    assert capsys.readouterr() == ("inside\\\\n", "inside too\\\\n")

def test_caplog(caplog):
    caplog.set_level(logging.DEBUG)
    logging.getLogger("lib").debug("debugged %d", 1)
    assert caplog.messages == ["debugged 1"]

def test_warnings(recwarn):
    warnings.warn("recorded")
    assert len(recwarn) == 1

def test_that_fails():
    print("shown by pytest")
    assert 1 == 2
"""


class Usual(Plugin):
    """Does what programs do."""

    name = "usual"

    async def execute(self, params, context):
        path = context.data_dir / "test_inside.py"
        path.write_text(TESTS)
        code = pytest.main(["-p", "no:cacheprovider", "--capture=sys", "-q", "--rootdir", str(path.parent), str(path)])
        server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            answer = await httpx.AsyncClient(trust_env=False).head(f"http://127.0.0.1:{server.server_port}/")
        finally:
            await asyncio.to_thread(server.shutdown)
            thread.join()
            server.server_close()
        piped = await asyncio.to_thread(subprocess.run, ["echo", "piped"], capture_output=True, text=True, check=True)
        replaced, sys.stdout = sys.stdout, io.StringIO()
        print("into the text")
        text, sys.stdout = sys.stdout.getvalue(), replaced
        print("at the end")
        return {"pytest": int(code), "http": answer.status_code, "piped": piped.stdout, "text": text}
'''


def test_programs_do_in_a_task_what_they_do_without_taskd(served: Served) -> None:
    """pytest in the same process, httpx, a server's thread, subprocess, a stream that is replaced."""
    add_plugin(served, USUAL)
    with served:
        task_id = served.submit("usual")
        log = log_of(served, task_id)
        task = served.get(f"/api/tasks/{task_id}")
    assert task["error"] is None
    assert task["result"] == {"pytest": 1, "http": 200, "piped": "piped\n", "text": "into the text\n"}
    printed = "\n".join(said_by(log, "stdout"))
    assert "1 failed, 3 passed" in printed
    assert "shown by pytest" in printed
    assert printed.endswith("at the end")
    assert any("HEAD" in message for message in said_by(log, "httpx"))
    assert any("HEAD / HTTP/1.1" in message for message in said_by(log, "stderr"))


def test_what_ended_a_task_is_in_its_log(served: Served) -> None:
    """A time limit, a cancellation from within, and who asked to cancel."""
    add_plugin(
        served,
        """
import asyncio

from taskd import Plugin

class Ends(Plugin):
    name = "ends"

    async def execute(self, params, context):
        if params["how"] == "timeout":
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        if params["how"] == "within":
            asyncio.current_task().cancel("the disk is low")
        try:
            context.logger.info("waiting")
            await asyncio.Event().wait()
        except asyncio.CancelledError as cancelled:
            context.logger.info(f"because: {cancelled}")
            raise
""",
    )
    with served:
        timeout = served.wait_end(served.submit("ends", how="timeout"))
        within = served.wait_end(served.submit("ends", how="within"))
        task_id = served.submit("ends", how="asked")
        served.wait_for(task_id, "waiting")
        served.taskd("cancel", task_id)
        asked = log_of(served, task_id)
    assert timeout["error"].startswith("TimeoutError: a time limit was over in execute (more.py:")
    assert within["error"].endswith("nobody asked for it: the disk is low")
    assert "because: asked to cancel" in said_by(asked, "ends")
    assert "asked to cancel" in said_by(asked, "system")


OUTLIVING = """
import asyncio, logging, threading, time

log = logging.getLogger(__name__)


class Outliving:
    name = "outliving"

    async def execute(self, params, context):
        log.warning("by the module's own logger")
        logging.getLogger("a,b").warning("comma")

        async def go_on():
            while not context.logger.queue.closed:
                await asyncio.sleep(0.01)
            print("printed late")
            context.logger.error("said late")
            raise ValueError("raised late")

        def go_on_in_thread():
            while not context.logger.queue.closed:
                time.sleep(0.01)
            log.info("recorded late")
            raise OSError("raised in a thread")

        threading.Thread(target=go_on_in_thread).start()
        asyncio.create_task(go_on())
"""


def test_what_outlives_its_task_is_on_the_services_stderr_with_its_name(served: Served) -> None:
    """Prints, records, words and exceptions; and sources are called as their author knows them."""
    add_plugin(served, OUTLIVING)
    late = ["stdout: printed late", "outliving: said late", "ValueError: raised late", "more: recorded late"]
    late += ["OSError: raised in a thread"]
    with served:
        task_id = served.submit("outliving")
        served.wait_end(task_id)
        wait_until(lambda: sum("after its end" in line for line in served.said) == len(late))
        sources = served.get(f"/api/tasks/{task_id}/logs/sources")["sources"]
        found = {
            name: said_by(served.get(f"/api/tasks/{task_id}/logs?source={name}")["entries"], name) for name in sources
        }
    assert sources == ["a,b", "more", "system"]
    assert (found["more"], found["a,b"]) == (["by the module's own logger"], ["comma"])
    for words in late:
        assert [line for line in served.said if words in line and f"outliving {task_id[-8:]}, after its end" in line]
