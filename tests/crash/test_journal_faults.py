"""The journal's own faults, from outside: what cannot be read is never thrown away, and deaths may follow deaths."""

import random
import shutil
import signal
from pathlib import Path

import pytest

from tests.helpers.bars import Record, scaled
from tests.helpers.oracle import assert_told, noted, whole_log, with_tellers
from tests.helpers.served import Served, run_taskd, wait_until

KILLS = scaled(2, 60)


@pytest.fixture
def killed(tmp_path: Path) -> tuple[Served, str]:
    """A server that was killed while all that a task had said was in the journal alone; and that task."""
    served = with_tellers(tmp_path, "--flush-interval-s", "60")
    with served:
        task_id = served.submit("teller", oracle=str(tmp_path / "oracle"), burst=20)
        served.wait_for(task_id, "number 200")
        served.stop(signal.SIGKILL)
    return served, task_id


def refused(served: Served) -> str:
    """What a start says that exits 1, in one line."""
    result = run_taskd("serve", "--port", "0", "--data-dir", str(served.data_dir))
    assert result.returncode == 1
    assert result.stderr.startswith("taskd: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def assert_whole(served: Served, task_id: str, oracle: Path) -> None:
    with served:
        assert_told(whole_log(served, task_id), noted(oracle)[task_id])
        assert served.stop() == 0


def segment(served: Served) -> Path:
    return min((served.data_dir / "journal").iterdir())


def test_a_journal_of_a_newer_taskd_is_refused_and_kept(tmp_path: Path, killed: tuple[Served, str]) -> None:
    served, task_id = killed
    newer = segment(served).with_name("000777.journal")
    newer.write_bytes(b"taskd 02" + bytes(100))
    assert "newer taskd" in refused(served)
    newer.unlink()
    assert_whole(served, task_id, tmp_path / "oracle")


def test_a_journal_that_cannot_be_read_is_refused_and_kept(tmp_path: Path, killed: tuple[Served, str]) -> None:
    served, task_id = killed
    moved = segment(served).rename(tmp_path / "moved")
    loop = served.data_dir / "journal" / "000001.journal"
    loop.symlink_to(loop)
    assert "cannot be read" in refused(served)
    loop.unlink()
    moved.rename(loop)
    assert_whole(served, task_id, tmp_path / "oracle")


def test_what_damage_took_is_said_in_the_log_in_its_place(tmp_path: Path, killed: tuple[Served, str]) -> None:
    """Everything else is there."""
    served, task_id = killed
    path = segment(served)
    data = bytearray(path.read_bytes())
    data[data.index(b"number 100")] ^= 1
    path.write_bytes(data)
    with served:
        entries = whole_log(served, task_id)
        assert served.stop() == 0
    assert [entry["seq"] for entry in entries] == [*range(1, len(entries) + 1)]
    [lost] = [entry for entry in entries if entry["message"].startswith("lost")]
    told = [entry["metadata"]["n"] for entry in entries if entry["source"] == "teller"]
    assert told == [n for n in range(1, max(noted(tmp_path / "oracle")[task_id]) + 1) if n != 100]
    assert entries[lost["seq"] - 2]["metadata"]["n"] == 99
    assert any("is damaged" in line for line in served.said)


def test_a_journal_that_cannot_be_written_is_said_and_stops_nothing(tmp_path: Path) -> None:
    """From the start, and while it runs; entries then wait in memory for their commit."""
    served = with_tellers(tmp_path, "--flush-interval-s", "0.2", "--journal-segment-bytes", "1048576")
    with served:
        task_id = served.submit("teller", oracle=str(tmp_path / "oracle"), burst=20, filling="x" * 1_000)
        served.wait_for(task_id, "number 20" + "x" * 1_000)
        (served.data_dir / "journal").rename(tmp_path / "elsewhere")
        (served.data_dir / "journal").write_text("in the way")
        wait_until(lambda: "journal cannot be written" in problems(served), 60)
        (served.data_dir / "journal").unlink()
        wait_until(lambda: "journal cannot be written" not in problems(served), 60)
        served.taskd("cancel", task_id)
        served.wait_end(task_id)
        assert_told(whole_log(served, task_id), noted(tmp_path / "oracle")[task_id])


def test_a_journal_that_is_removed_while_it_is_used_is_begun_anew_and_told(tmp_path: Path) -> None:
    """What is said from then on survives a kill."""
    served = with_tellers(tmp_path, "--flush-interval-s", "60")
    with served:
        shutil.rmtree(served.data_dir / "journal")
        wait_until(lambda: any("journal's files were removed" in told for told in notices(served)))
        task_id = served.submit("teller", oracle=str(tmp_path / "oracle"), burst=20)
        served.wait_for(task_id, "number 200")
        served.stop(signal.SIGKILL)
    assert_whole(served, task_id, tmp_path / "oracle")


def notices(served: Served) -> list[str]:
    told: list[str] = served.get("/api/health")["problems"]
    return told


def problems(served: Served) -> str:
    return " ".join(notices(served))


@pytest.mark.bar("R1")
@pytest.mark.timeout(scaled(120, 1_200))
def test_a_recovery_that_is_killed_again_and_again_loses_nothing(tmp_path: Path, record_property: Record) -> None:
    """At any moment of it: while it reads, stores, removes the journal, marks the orphans."""
    rng = random.Random(11)
    served = with_tellers(tmp_path, "--flush-interval-s", "60")
    oracle = tmp_path / "oracle"
    with served:
        ids = [served.submit("teller", oracle=str(oracle), burst=200, filling="x" * 200) for _ in range(4)]
        for task_id in ids:
            served.wait_for(task_id, f"number {scaled(2_000, 20_000)}" + "x" * 200)
        served.stop(signal.SIGKILL)
    for _ in range(KILLS):
        served.start_and_kill(rng.uniform(0.3, 1.5))
    with served:
        for task_id in ids:
            entries = whole_log(served, task_id)
            assert_told(entries, noted(oracle)[task_id])
            assert sum(entry["message"].startswith("interrupted") for entry in entries) == 1
            assert served.get(f"/api/tasks/{task_id}")["status"] == "interrupted"
        assert served.stop() == 0
    assert [*(served.data_dir / "journal").iterdir()] == []
    record_property("kills of a recovery", KILLS)


def test_a_second_server_is_told_who_holds_data_and_database_also_after_a_kill(tmp_path: Path) -> None:
    """The lock ends with its process; what it has left in its file is not believed."""
    served = Served(tmp_path)
    with served:
        shared = f"sqlite:///{served.data_dir / 'taskd.db'}"
        other = run_taskd("serve", "--port", "0", "--data-dir", str(tmp_path / "other"), "--database", shared)
        assert other.returncode == 1
        assert f"taskd.db is in use by another taskd (process {served.process.pid})" in other.stderr
        served.stop(signal.SIGKILL)
    with served:
        assert f"process {served.process.pid}" in refused(served)
