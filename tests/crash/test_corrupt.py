"""Damaged databases and write-ahead logs, from outside: kept, told of, and never a loop."""

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from taskd.persistence.sqlite.corruption import stamp_now
from tests.helpers.bars import Record, scaled
from tests.helpers.oracle import with_tellers
from tests.helpers.served import Served, run_taskd, wait_until

AT_REST, RUNNING = scaled(4, 80), scaled(2, 20)
HEAD_BYTES = 100
READS = ("", "/logs?limit=5000", "/logs?search=word", "/logs/stats", "/logs/outline", "/logs/export?format=ndjson")

Damage = Callable[[Path, random.Random], str]


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of a server that was killed while tasks spoke: a database, its log and a journal."""
    directory = tmp_path_factory.mktemp("left")
    with with_tellers(directory, "--flush-interval-s", "0.2") as served:
        for n in range(6):
            served.submit("talk", count=400, word=f"of {n} " + "x" * 200)
        ids = [served.submit("teller", oracle=str(directory / "oracle"), burst=20) for _ in range(3)]
        for task_id in ids:
            served.wait_for(task_id, "number 400")
        served.stop(signal.SIGKILL)
    assert (served.data_dir / "taskd.db-wal").stat().st_size
    return served.data_dir


def flip(path: Path, rng: random.Random) -> str:
    data = bytearray(path.read_bytes())
    # From a byte to some pages, as a disk or a stray write does it.
    place, length = rng.randrange(HEAD_BYTES, len(data)), rng.choice((1, 16, 512, 4_096))
    data[place : place + length] = bytes(byte ^ rng.randrange(1, 256) for byte in data[place : place + length])
    path.write_bytes(data)
    return f"{length} bytes flipped at {place}"


def cut(path: Path, rng: random.Random) -> str:
    size = rng.randrange(path.stat().st_size)
    os.truncate(path, size)
    return f"cut to {size}"


def zero(path: Path, rng: random.Random) -> str:
    data = bytearray(path.read_bytes())
    place = rng.randrange(0, len(data), 4_096)
    data[place : place + 8_192] = bytes(len(data[place : place + 8_192]))
    path.write_bytes(data)
    return f"zeros at {place}"


def use(served: Served) -> None:
    """Everything that reads and writes: no answer may be a fault of taskd's."""
    with httpx.Client(base_url=served.url, trust_env=False, verify=False, timeout=20) as client:
        answers = [client.get("/api/tasks?limit=500")]
        for task in answers[0].json().get("tasks", []):
            base = f"/api/tasks/{task['id']}"
            answers += [
                client.get(base + path) for path in ("", "/logs?limit=5000", "/logs?search=word", "/logs/stats")
            ]
            answers += [client.get(base + "/logs/outline"), client.get(base + "/logs/export?format=ndjson")]
        answers.append(client.post("/api/tasks", json={"plugin": "talk", "params": {}}))
    assert served.process.poll() is None, served.said
    for answer in answers:
        assert answer.status_code in (200, 201, 404, 503), (answer.url, answer.text, served.said)


def kept(served: Served) -> list[Path]:
    return sorted(served.data_dir.glob("taskd.db*.corrupt-*"))


def assert_works(served: Served) -> None:
    """A new task runs to its end, and health has nothing against it."""

    def healthy() -> bool:
        with contextlib.suppress(httpx.TransportError):  # it may still be beginning anew
            return httpx.get(served.url + "/api/health", trust_env=False, verify=False).status_code == 200
        return False

    wait_until(healthy)
    task = served.wait_end(served.submit("talk"))
    assert (task["status"], task["last_seq"]) == ("succeeded", 6)


def damaged(directory: Path, left: Path, damage: Damage, name: str, rng: random.Random) -> str:
    shutil.copytree(left, directory / "data")
    return damage(directory / "data" / name, rng)


@pytest.mark.bar("R6")
@pytest.mark.timeout(scaled(120, 3_000))
def test_a_database_damaged_at_rest_is_kept_and_told_of(tmp_path: Path, left: Path, record_property: Record) -> None:
    """Or what was damaged is nothing that is needed, and all is as it was."""
    rng = random.Random(6)
    outcomes = {"set aside": 0, "log copied": 0, "unharmed": 0}
    for number in range(AT_REST):
        directory = tmp_path / str(number)
        directory.mkdir()
        damage, name = rng.choice((flip, flip, cut, zero)), rng.choice(("taskd.db", "taskd.db", "taskd.db-wal"))
        what = damaged(directory, left, damage, name, rng)
        before = (directory / "data" / name).read_bytes()
        with Served(directory) as served:
            use(served)
            assert_works(served)
            assert served.stop() == 0, what
        there = kept(served)
        said = "".join(served.said)
        assert bool(there) == (".corrupt-" in said), (what, said)
        assert len([path for path in there if not path.name.endswith(("-wal", "-shm"))]) <= 1, (what, there)
        if there:
            assert before in [path.read_bytes() for path in there] or name == "taskd.db", what
        outcomes["set aside" if "a new one was begun" in said else "log copied" if there else "unharmed"] += 1
        shutil.rmtree(directory)
    for outcome, count in outcomes.items():
        record_property(f"at rest: {outcome}", count)


@pytest.mark.bar("R6")
@pytest.mark.timeout(scaled(120, 3_000))
def test_a_database_damaged_while_it_runs_is_set_aside_by_the_running_server(
    tmp_path: Path, record_property: Record
) -> None:
    """It begins anew by itself, on the same port, and its next start finds nothing wrong."""
    found = 0
    for number in range(RUNNING):
        rng = random.Random(number)
        directory = tmp_path / str(number)
        directory.mkdir()
        with with_tellers(directory, "--flush-interval-s", "0.1") as served:
            ids = [served.submit("talk", count=3_000, word="x" * 300) for _ in range(3)]
            for task_id in ids:
                served.wait_end(task_id)
            speaking = served.submit("teller", oracle=str(directory / "oracle"), burst=5)
            served.wait_for(speaking, "number 20")
            overwrite_pages(served.data_dir / "taskd.db", rng)
            deadline = time.monotonic() + 20
            while not kept(served) and time.monotonic() < deadline:
                with contextlib.suppress(httpx.TransportError):
                    use(served)
            found += bool(kept(served))
            assert_works(served)
            assert served.stop() == 0
        assert sum("a new one was begun" in line for line in served.said) == bool(kept(served))
        with served:
            assert_works(served)
        shutil.rmtree(directory)
    assert found
    record_property("while running: damaged", RUNNING)
    record_property("while running: set aside", found)


def overwrite_pages(path: Path, rng: random.Random) -> None:
    """Most pages but the first, in place, as a stray write would."""
    with path.open("r+b", buffering=0) as file:
        for page in range(1, path.stat().st_size // 4_096):
            if rng.random() < 0.9:
                file.seek(page * 4_096)
                file.write(rng.randbytes(4_096))


def test_a_file_that_is_no_database_of_taskds_is_refused_and_left_alone(tmp_path: Path) -> None:
    """Named by mistake, it is somebody's."""
    notes = tmp_path / "notes.txt"
    notes.write_text("not a database, but long enough to be looked at" * 100)
    result = run_taskd("serve", "--port", "0", "--data-dir", str(tmp_path / "data"), "--database", f"sqlite:///{notes}")
    assert result.returncode == 1
    assert "notes.txt cannot be opened" in result.stderr
    assert notes.read_text().startswith("not a database")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "notes.txt"]


def test_the_fourth_within_minutes_is_refused(tmp_path: Path) -> None:
    """Then it is not the database that is wrong, and to begin anew again and again would be a loop."""
    served = Served(tmp_path)
    served.data_dir.mkdir()
    for _ in range(3):
        (served.data_dir / "taskd.db").write_bytes(b"no database" * 1_000)
        with served:
            assert_works(served)
            assert served.stop() == 0
        for side in ("-wal", "-shm"):
            (served.data_dir / f"taskd.db{side}").unlink(missing_ok=True)
    (served.data_dir / "taskd.db").write_bytes(b"no database" * 1_000)
    result = run_taskd("serve", "--port", "0", "--data-dir", str(served.data_dir))
    assert result.returncode == 1
    assert "look at the disk" in result.stderr
    assert (served.data_dir / "taskd.db").read_bytes() == b"no database" * 1_000


def test_a_running_server_gives_up_at_the_fourth_too(tmp_path: Path) -> None:
    """It ends with a sentence, and its database stays where it is."""
    with with_tellers(tmp_path, "--flush-interval-s", "0.1") as served:
        served.wait_end(served.submit("talk", count=3_000, word="x" * 300))
        served.submit("teller", oracle=str(tmp_path / "oracle"), burst=5)
        for number in range(3):
            (served.data_dir / f"taskd.db.corrupt-{stamp_now()}-{number + 2}").write_bytes(b"")
        overwrite_pages(served.data_dir / "taskd.db", random.Random(1))
        deadline = time.monotonic() + 30
        while served.process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError, AssertionError):
                use(served)
        assert served.stop() == 1
    assert served.said[-1].startswith("taskd: The database"), "".join(served.said)
    assert "look at the disk" in served.said[-1]
    assert (served.data_dir / "taskd.db").exists()
