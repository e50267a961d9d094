"""`backup`: archives that can be trusted, of trees, files and databases, and what a restore refuses."""

import hashlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import zstandard

from taskd.errors import ParamsInvalid
from taskd.service import Service
from taskd.tasks import TaskStatus
from tests.conftest import messages, read_all
from tests.helpers.backups import DIRECTORY, HARD, LINK, hostile, member, result, run, tree_of, warnings
from tests.helpers.bars import scaled
from tests.helpers.waiting import until_said


def names(archive: str) -> list[str]:
    """What GNU tar lists."""
    listing = ["tar", "--zstd", "--quoting-style=literal", "-tf", archive]
    return subprocess.run(listing, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small tree with one of everything that an archive can hold."""
    root = tmp_path / "source"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "b.txt").write_bytes(b"b" * 300_000)
    (root / "a.txt").write_text("a")
    (root / "empty").touch()
    (root / "sub" / "private").write_text("secret")
    (root / "sub" / "private").chmod(0o600)
    (root / "sub" / "deep").chmod(0o700)
    (root / "sub" / "link").symlink_to("../a.txt")
    os.link(root / "b.txt", root / "sub" / "hard")
    (root / "naïve – ß.txt").write_text("unicode")
    return root


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    """Where the archives go."""
    return tmp_path / "archives"


# Backup


async def test_what_was_backed_up_comes_back_as_it_was(
    service: Service, source: Path, archives: Path, tmp_path: Path
) -> None:
    """Content, modes, links and times: a restored tree equals its source."""
    os.utime(source / "a.txt", (1_000_000_000, 1_000_000_000))
    made = await result(service, source=source, destination=archives)
    restored = await result(service, action="restore", archive=made["archive"], destination=tmp_path / "back")
    assert restored == {"files": 7, "bytes": 300_014}
    assert tree_of(tmp_path / "back") == tree_of(source)
    assert (tmp_path / "back/a.txt").stat().st_mtime == 1_000_000_000
    assert (tmp_path / "back/sub/hard").stat().st_ino == (tmp_path / "back/b.txt").stat().st_ino


async def test_the_result_describes_the_archive_and_tar_reads_it(
    service: Service, source: Path, archives: Path
) -> None:
    """Path, size, checksum and number of files are those of the file on disk."""
    made = await result(service, source=source, destination=archives)
    content = Path(made["archive"]).read_bytes()
    assert made["archive"].endswith(".tar.zst")
    assert (made["bytes"], made["files"]) == (len(content), 7)
    assert made["sha256"] == hashlib.sha256(content).hexdigest()
    assert names(made["archive"])[:3] == ["./", "a.txt", "b.txt"]


async def test_two_archives_of_a_tree_have_one_order(service: Service, source: Path, archives: Path) -> None:
    """The order is that of the names, whatever the order on disk."""
    first = await result(service, source=source, destination=archives)
    shutil.copytree(source, source.with_name("copy"), symlinks=True)
    second = await result(service, source=source.with_name("copy"), destination=archives)
    assert names(first["archive"]) == names(second["archive"])
    assert names(first["archive"])[-4:] == ["sub/deep/", "sub/hard", "sub/link", "sub/private"]


async def test_a_single_file_is_backed_up_under_its_name(service: Service, source: Path, archives: Path) -> None:
    """The source may be a file."""
    made = await result(service, source=source / "b.txt", destination=archives)
    assert (names(made["archive"]), made["files"]) == (["b.txt"], 1)


@pytest.mark.parametrize(
    ("glob", "gone"),
    [
        ("*.txt", {"a.txt", "b.txt", "naïve – ß.txt"}),
        ("deep", {"sub/deep"}),
        ("sub/", {"sub", "sub/deep", "sub/hard", "sub/link", "sub/private"}),
        ("sub/p*", {"sub/private"}),
        ("/a.txt", {"a.txt"}),
        ("a.txt/", set()),
    ],
)
async def test_excluded_names_are_left_out(
    service: Service, source: Path, archives: Path, tmp_path: Path, glob: str, gone: set[str]
) -> None:
    """Without '/' a glob is for every name, with it for the path; with one at the end, for directories."""
    made = await result(service, source=source, destination=archives, exclude=[glob])
    await result(service, action="restore", archive=made["archive"], destination=tmp_path / "back")
    assert set(tree_of(source)) - set(tree_of(tmp_path / "back")) == gone


async def test_an_archive_does_not_swallow_itself(service: Service, source: Path) -> None:
    """A destination within the source, or the source itself, adds nothing to the next archive."""
    for destination in (source, source / "sub"):
        made = await result(service, source=source, destination=destination)
        again = await result(service, source=source, destination=destination)
        assert names(made["archive"]) == names(again["archive"])
        assert not [name for name in names(again["archive"]) if "tar.zst" in name or "partial" in name]
        Path(made["archive"]).unlink()
        Path(again["archive"]).unlink()


async def test_keep_removes_the_oldest_of_this_source_alone(service: Service, source: Path, archives: Path) -> None:
    """Of each source the newest stay; another source of the same name is another."""
    other = source.parent / "other" / source.name
    shutil.copytree(source, other, symlinks=True)
    kept = [(await result(service, source=other, destination=archives))["archive"]]
    made = [(await result(service, source=source, destination=archives))["archive"] for _ in range(2)]
    made.append((await result(service, source=source, destination=archives, keep=2))["archive"])
    assert sorted(map(str, archives.iterdir())) == sorted(kept + made[1:])


async def test_keep_counts_the_archives_of_any_name_and_no_others(service: Service, tmp_path: Path) -> None:
    """Also of a name with a line break; an archive of an archive is of another source."""
    source, archives = tmp_path / "a\nb", tmp_path / "archives"
    source.mkdir()
    leftover = archives / ".a\nb.0123456789ab.partial"
    archives.mkdir()
    leftover.touch()
    first = (await result(service, source=source, destination=archives))["archive"]
    other = (await result(service, source=first, destination=archives))["archive"]
    last = (await result(service, source=source, destination=archives, keep=1))["archive"]
    assert sorted(map(str, archives.iterdir())) == sorted([other, last])


async def test_an_older_archive_that_cannot_be_removed_is_reported(
    service: Service, source: Path, archives: Path
) -> None:
    """The new one is complete all the same."""
    older = Path((await result(service, source=source, destination=archives))["archive"])
    older.unlink()
    older.mkdir()
    task = await run(service, source=source, destination=archives, keep=1)
    assert task.status == "succeeded", task.error
    [warning] = await warnings(service, task)
    assert warning.startswith(f"the older archive {older.name} cannot be removed")


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="only Linux has such files")
async def test_a_file_with_more_bytes_than_its_size_is_reported(service: Service, archives: Path) -> None:
    """A header states the size before the content is read."""
    task = await run(service, source="/proc/version", destination=archives)
    assert (await warnings(service, task))[0].startswith("'version' is cut in the archive")


async def test_what_an_archive_cannot_hold_is_told_and_left_out(service: Service, source: Path, archives: Path) -> None:
    """A pipe neither stops a backup nor makes it wait; the log names it."""
    os.mkfifo(source / "pipe")
    task = await run(service, source=source, destination=archives)
    told = await warnings(service, task)
    assert task.status == "succeeded"
    assert "'pipe' is left out: it is a socket, a pipe or a device" in told[0]
    assert "1 entry is not in the archive" in told[1]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (FileNotFoundError(2, "No such file or directory"), "'b.txt' is left out: it vanished meanwhile"),
        (PermissionError(13, "Permission denied"), "'b.txt' is left out: it cannot be read (Permission denied)"),
    ],
)
async def test_a_file_that_cannot_be_opened_is_told_and_left_out(
    service: Service, source: Path, archives: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, told: str
) -> None:
    """Its hard link, which can be read, becomes the file."""
    really_open = os.open

    def refusing(path: Any, *arguments: Any, **options: Any) -> int:
        if path == "b.txt":
            raise error
        return really_open(path, *arguments, **options)

    monkeypatch.setattr("os.open", refusing)
    task = await run(service, source=source, destination=archives)
    assert (await warnings(service, task))[0] == told
    archive = (task.result or {})["archive"]
    assert "b.txt" not in names(archive)
    assert "sub/hard" in names(archive)


@pytest.mark.parametrize(
    ("size", "told"),
    [
        (10, "'b.txt' is left out: it shrank while it was read: the missing 299,990 bytes are zeros"),
        (400_000, "'b.txt' changed while it was read"),
    ],
)
async def test_a_file_that_changes_while_it_is_read_is_told(
    service: Service,
    source: Path,
    archives: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    told: str,
) -> None:
    """The archive stays whole: it holds as many bytes as it said it would."""
    make_header = tarfile.TarInfo.tobuf

    def made_header(member: tarfile.TarInfo, *arguments: Any) -> bytes:
        if member.name == "b.txt":
            os.truncate(source / "b.txt", size)
        return make_header(member, *arguments)

    monkeypatch.setattr("tarfile.TarInfo.tobuf", made_header)
    task = await run(service, source=source, destination=archives)
    assert told in (await warnings(service, task))[0]
    archive = (task.result or {})["archive"]
    await result(service, action="restore", archive=archive, destination=tmp_path / "back")
    assert (tmp_path / "back/b.txt").read_bytes() == (b"b" * min(size, 300_000)).ljust(300_000, b"\0")[:300_000]


async def test_zeros_become_holes_again(service: Service, archives: Path, tmp_path: Path) -> None:
    """A file that is large and empty takes no room, neither in the archive nor restored."""
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(50_000_001)
    made = await result(service, source=tmp_path / "sparse", destination=archives)
    await result(service, action="restore", archive=made["archive"], destination=tmp_path / "back")
    about = (tmp_path / "back" / "sparse").stat()
    assert about.st_size == 50_000_001
    assert made["bytes"] + about.st_blocks * 512 < 1_000_000


async def test_a_link_that_leads_out_is_stored_and_restored_as_a_link(
    service: Service, source: Path, archives: Path, tmp_path: Path
) -> None:
    """Only the link is stored; a restore makes it again without following it, or leaves it out if asked to."""
    (source / "out").symlink_to("/etc/hostname")
    task = await run(service, source=source, destination=archives)
    log = messages(await read_all(service, task.id))
    assert any(text.startswith("1 of the links lead out of the source, such as 'out' (to '/etc/host") for text in log)
    back = {"action": "restore", "archive": task.result["archive"]}
    restored = await run(service, **back, destination=tmp_path / "back")
    assert restored.result == {"files": 8, "bytes": 300_014}
    assert "1 link leads out of the destination, such as 'out'" in (await warnings(service, restored))[0]
    assert tree_of(tmp_path / "back") == tree_of(source)
    assert (await result(service, **back, destination=tmp_path / "less", skip_links=True))["files"] == 7
    assert not os.path.lexists(tmp_path / "less/out")


async def test_names_that_are_not_utf8_survive(service: Service, source: Path, archives: Path, tmp_path: Path) -> None:
    """A file's name is bytes, and so it comes back."""
    name = os.fsdecode(b"caf\xe9")
    (source / name).write_text("latin-1")
    made = await result(service, source=source, destination=archives)
    await result(service, action="restore", archive=made["archive"], destination=tmp_path / "back")
    assert (tmp_path / "back" / name).read_text() == "latin-1"


async def test_a_database_is_backed_up_while_it_is_written_to(service: Service, archives: Path, tmp_path: Path) -> None:
    """The archive holds the database as it was at one moment, without what is not committed."""
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE t AS SELECT 1 AS x")
        database.execute("BEGIN")
        database.execute("INSERT INTO t VALUES (2)")
        made = await result(service, source=f"sqlite:///{path}", destination=archives)
    assert names(made["archive"]) == ["app.db"]
    assert [path.name for path in archives.iterdir()] == [Path(made["archive"]).name]
    await result(service, action="restore", archive=made["archive"], destination=tmp_path / "back")
    with closing(sqlite3.connect(tmp_path / "back/app.db")) as copy:
        assert copy.execute("SELECT x FROM t").fetchall() == [(1,)]


async def test_a_database_that_others_write_to_comes_back_as_it_was_at_one_moment(
    service: Service, archives: Path, tmp_path: Path
) -> None:
    """Each transaction of another process is in the archive whole, or not at all, whatever its journal mode."""
    for mode in ("wal", "delete"):
        path = tmp_path / f"{mode}.db"
        with writing(path, mode):
            made = await result(service, source=f"sqlite:///{path}", destination=archives)
        await result(service, action="restore", archive=made["archive"], destination=tmp_path / mode)
        with closing(sqlite3.connect(tmp_path / mode / path.name)) as copy:
            [(total, rows)] = copy.execute("SELECT total(amount), count(*) FROM moved").fetchall()
            assert (total, rows % 2, copy.execute("PRAGMA integrity_check").fetchone()) == (0, 0, ("ok",))
            assert rows > 0


WRITER = """
import sqlite3, sys, time
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
database.execute(f"PRAGMA journal_mode={sys.argv[2]}")
database.execute("PRAGMA synchronous=OFF")
database.execute("CREATE TABLE moved (amount INTEGER, filling BLOB)")
number = 0
while True:
    number += 1
    database.execute("BEGIN IMMEDIATE")
    database.execute("INSERT INTO moved VALUES (?, randomblob(20000))", (number,))
    database.execute("INSERT INTO moved VALUES (?, randomblob(20000))", (-number,))
    database.execute("COMMIT")
    if number == 50:
        print("enough", flush=True)
"""


@contextmanager
def writing(path: Path, mode: str) -> Iterator[None]:
    """Another process that moves amounts from one row to another, without end."""
    command = [sys.executable, "-c", WRITER, str(path), mode]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "enough\n"
        try:
            yield
            assert writer.poll() is None
        finally:
            writer.kill()


async def test_what_is_read_back_is_compared_with_what_was_read(
    service: Service, source: Path, archives: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive that is sound in itself but holds another byte gets no name; the entry is named."""
    make_compressor: Any = zstandard.ZstdCompressor

    class Failing:
        """Memory that has flipped a bit before the compressor saw it."""

        def __init__(self, **options: Any) -> None:
            self.compressor = make_compressor(**options)

        @contextmanager
        def stream_writer(self, *arguments: Any, **options: Any) -> Iterator["Failing"]:
            with self.compressor.stream_writer(*arguments, **options) as self.writer:
                yield self

        def write(self, data: bytes) -> None:
            self.writer.write(data.replace(b"b" * 100, b"b" * 99 + b"c"))

    monkeypatch.setattr("zstandard.ZstdCompressor", Failing)
    task = await run(service, source=source, destination=archives)
    assert "'b.txt' in the archive is not what was read" in (task.error or "")
    assert list(archives.iterdir()) == []


async def test_what_was_packed_is_told_by_kind(service: Service, source: Path, archives: Path) -> None:
    """Links, holes and names that are not UTF-8 are counted in the log."""
    (source / os.fsdecode(b"caf\xe9")).write_text("latin-1")
    with (source / "sparse").open("wb") as file:
        file.truncate(1_000_000)
    task = await run(service, source=source, destination=archives)
    told = next(text for text in messages(await read_all(service, task.id)) if text.startswith("packed "))
    assert told == (
        "packed 3 directories, 6 files, 1 file with holes, 1 hard link, 1 name that is not UTF-8, 1 symbolic link"
    )


async def test_a_cancelled_backup_leaves_no_file(service: Service, archives: Path, tmp_path: Path) -> None:
    """Neither an archive nor a part of one."""
    source = tmp_path / "large"
    source.mkdir()
    with (source / "sparse").open("wb") as file:
        file.truncate(64 * 1_024**3)
    task = await service.manager.submit("backup", {"source": str(source), "destination": str(archives)})
    await until_said(service, task.id, "write")
    assert [path.name.endswith(".partial") for path in archives.iterdir()] == [True]
    await service.manager.cancel(task.id)
    assert (await service.manager.wait(task.id)).status is TaskStatus.CANCELLED
    assert list(archives.iterdir()) == []


async def test_what_a_killed_backup_left_is_removed_by_the_next(service: Service, source: Path, archives: Path) -> None:
    """A partial archive that nobody writes to any more goes; what is not ours stays."""
    archives.mkdir()
    (archives / ".source.0123456789ab.partial").write_text("left behind")
    (archives / "mine").write_text("not taskd's")
    made = await result(service, source=source, destination=archives)
    assert {path.name for path in archives.iterdir()} == {"mine", Path(made["archive"]).name}


async def test_a_full_disk_is_told_and_leaves_no_file(
    service: Service, source: Path, archives: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says what to do."""
    (source / "random").write_bytes(os.urandom(3_000_000))

    def full(fd: int, data: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.write", full)
        task = await run(service, source=source, destination=archives)
    assert "cannot be written: No space left on device. Make room" in (task.error or "")
    assert list(archives.iterdir()) == []


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({"destination": "/d"}, "params.source"),
        ({"action": "restore", "destination": "/d"}, "params.archive"),
        ({"source": "/s"}, "params.destination"),
        ({"source": "/s\0", "destination": "/d"}, "params.source"),
        ({"source": "/s", "destination": "/d\0"}, "params.destination"),
        ({"action": "restore", "archive": "/a\0", "destination": "/d"}, "params.archive"),
        ({"source": "sqlite:///relative", "destination": "/d"}, "params.source"),
        ({"source": "/s", "destination": "/d", "keep": -1}, "params.keep"),
        ({"source": "/s", "destination": "/d", "compress": 9}, "params.compress"),
    ],
)
async def test_bad_params_are_refused_with_their_path(service: Service, params: dict[str, Any], path: str) -> None:
    """Before there is a task."""
    with pytest.raises(ParamsInvalid) as refused:
        await service.manager.submit("backup", params)
    assert [fault["path"] for fault in refused.value.faults] == [path]


@pytest.mark.parametrize(
    ("source", "told"),
    [("/nowhere", "The source /nowhere cannot be read"), ("sqlite:////nowhere", "There is no database /nowhere")],
)
async def test_what_the_world_lacks_fails_the_task(service: Service, archives: Path, source: str, told: str) -> None:
    """The error names it and says what was expected."""
    task = await run(service, source=source, destination=archives)
    assert (task.status, list(archives.iterdir())) == ("failed", [])
    assert told in (task.error or "")


# Restore


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ([member("/tmp/pwned")], "outside of the destination"),
        ([member("../pwned")], "outside of the destination"),
        ([member("a/../../pwned")], "outside of the destination"),
        ([member("out", LINK, "/etc"), member("out/pwned")], "would be written through 'out'"),
        ([member("out", LINK, ".."), member("out/pwned")], "would be written through 'out'"),
        ([member("out", LINK, "."), member("hard", HARD, "out/../pwned")], "would be written through 'out'"),
        ([member("in", LINK, "."), member("in/pwned")], "would be written through 'in'"),
        ([member("file"), member("file/pwned")], "would be written through 'file'"),
        ([member("hard", HARD, "/etc/passwd")], "outside of the destination"),
        ([member("hard", HARD, "../pwned")], "outside of the destination"),
        ([member("hard", HARD, "later"), member("later")], "no file before it"),
        ([member("d", DIRECTORY), member("hard", HARD, "d")], "no file before it"),
        ([member("link", LINK, "/etc"), member("hard", HARD, "link"), member("hard/pwned")], "written through 'hard'"),
        ([member("device", tarfile.BLKTYPE)], "a device, a pipe or something unknown"),
        ([member("pipe", tarfile.FIFOTYPE)], "a device, a pipe or something unknown"),
        ([member("twice"), member("./twice")], "has 'twice' twice"),
        ([member("twice"), member("twice", LINK, "/etc/passwd")], "has 'twice' twice"),
        ([member("d/file"), member("d", LINK, "/tmp")], "written through 'd'"),
        ([member("d/file"), member("d")], "written through 'd'"),
        ([member("d", DIRECTORY), member("d", LINK, "/tmp"), member("d/pwned")], "has 'd' twice"),
        ([member("in", LINK, "later"), member("later", DIRECTORY), member("in/pwned")], "written through 'in'"),
        ([member("in/pwned"), member("in", LINK, "/tmp")], "written through 'in'"),
        ([member("hard", HARD, "harmless"), member("hard/pwned")], "written through 'hard'"),
        ([member("console", tarfile.CHRTYPE)], "a device, a pipe or something unknown"),
        ([member("unknown", b"Z", size=1)], "a device, a pipe or something unknown"),
        ([member("a/" * 5_000 + "../b")], "outside of the destination"),
        ([member("a/" + "b" * 256)], "a name of 256 bytes"),
        ([member("link", LINK, "a/" * 5_000)], "a target of 10,000 characters"),
        ([member("link", LINK, "")], "a target of 0 characters"),
        ([member(".", LINK, "x")], "root is not a directory"),
    ],
)
async def test_a_hostile_archive_is_refused_whole(
    service: Service, tmp_path: Path, members: list[tarfile.TarInfo], told: str
) -> None:
    """Nothing of it is written, not even what would be harmless."""
    archive = hostile(tmp_path / "bad.tar.zst", member("harmless"), *members)
    task = await run(service, action="restore", archive=archive, destination=tmp_path / "in" / "back")
    assert task.status == "failed"
    assert told in (task.error or "")
    assert not (tmp_path / "in").exists()
    assert not (tmp_path / "pwned").exists()


@pytest.mark.timeout(scaled(60, 1_200))
async def test_no_archive_writes_outside_of_the_destination(service: Service, tmp_path: Path) -> None:
    """Of many that are thrown together from what does harm: each is refused whole, or stays within."""
    rng = random.Random(7)
    outside = tmp_path / "outside"
    (outside / "in").mkdir(parents=True)
    (outside / "kept").write_text("kept")
    before = tree_of(outside)
    parts = ("a", "b", "..", ".", "kept")
    kinds = (tarfile.REGTYPE, tarfile.REGTYPE, DIRECTORY, DIRECTORY, LINK, LINK, HARD)

    def path() -> str:
        return "/".join(rng.choices(parts, weights=(6, 6, 2, 1, 1), k=rng.randint(1, 4)))

    restored, archives = 0, scaled(120, 5_000)
    for number in range(archives):
        members = [member(path(), rng.choice(kinds), path()) for _ in range(rng.randint(1, 4))]
        archive = hostile(tmp_path / f"{number}.tar.zst", *members)
        root = outside / "in" / "root"
        task = await run(service, action="restore", archive=archive, destination=root, skip_links=rng.random() < 0.5)
        if task.status == "succeeded":
            restored += 1
            assert all(Path(os.path.realpath(found)).is_relative_to(root) for found in root.rglob("*"))
            shutil.rmtree(root)
        assert (task.status in ("succeeded", "failed"), tree_of(outside)) == (True, before), members
    assert 0.07 < restored / archives < 0.93


@pytest.mark.parametrize(
    ("limits", "told"),
    [({"bytes_max": 9_999_999}, "raise bytes_max"), ({"files_max": 1}, "raise files_max")],
)
async def test_a_restore_has_caps(service: Service, tmp_path: Path, limits: dict[str, int], told: str) -> None:
    """An archive that would fill the disk is refused before it writes."""
    archive = hostile(tmp_path / "large.tar.zst", member("a", size=5_000_000), member("b", size=5_000_000))
    task = await run(service, action="restore", archive=archive, destination=tmp_path / "back", **limits)
    assert told in (task.error or "")
    assert not (tmp_path / "back").exists()


async def test_a_bomb_is_refused_before_it_is_unpacked(service: Service, tmp_path: Path) -> None:
    """A small archive that says it is much larger than any real one could have been."""
    zeros = bytes(1_048_576)
    with (tmp_path / "bomb.tar.zst").open("wb") as file, zstandard.ZstdCompressor().stream_writer(file) as packed:
        packed.write(member("bomb", size=5 * 1_024**3).tobuf())
        for _ in range(5):  # as much of it as would be read before what it says of itself is looked at
            packed.write(zeros)
    task = await run(service, action="restore", archive=tmp_path / "bomb.tar.zst", destination=tmp_path / "back")
    assert "it is taken for a bomb" in (task.error or "")
    assert not (tmp_path / "back").exists()


async def test_an_archive_that_is_changed_between_the_readings_is_refused(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written is what was looked at, or nothing."""
    archive = hostile(tmp_path / "a.tar.zst", member("a"), member("link", LINK, "a"))
    really_free = shutil.disk_usage

    def swapped(path: Any) -> Any:
        hostile(archive, member("a"), member("link", LINK, "/etc"))
        return really_free(path)

    monkeypatch.setattr("shutil.disk_usage", swapped)
    task = await run(service, action="restore", archive=archive, destination=tmp_path / "back")
    assert "was changed while it was restored" in (task.error or "")
    assert not (tmp_path / "back").exists()


async def test_a_header_that_would_fill_the_memory_is_refused(service: Service, tmp_path: Path) -> None:
    """A header says itself how long it is, and is read whole: so there is a limit."""
    archive = hostile(tmp_path / "header.tar.zst", member("x", tarfile.XHDTYPE, size=50_000_000))
    task = await run(service, action="restore", archive=archive, destination=tmp_path / "back")
    assert "A header of this archive is larger" in (task.error or "")


async def test_an_archive_with_a_damaged_header_is_not_taken_for_a_shorter_one(
    service: Service, tmp_path: Path
) -> None:
    """What comes behind it would be missing, and nobody would know."""
    archive = hostile(tmp_path / "a.tar.zst", member("first"), member("second"), member("third"))
    content = bytearray(zstandard.ZstdDecompressor().stream_reader(archive.read_bytes()).read())
    content[tarfile.BLOCKSIZE] ^= 1
    archive.write_bytes(zstandard.ZstdCompressor().compress(content))
    task = await run(service, action="restore", archive=archive, destination=tmp_path / "back")
    assert "one of its headers is damaged (bad checksum)" in (task.error or "")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.9, 0.99])
async def test_an_archive_that_ends_too_early_is_refused(
    service: Service, source: Path, archives: Path, tmp_path: Path, kept: float
) -> None:
    """Whatever of it is left, nothing is restored."""
    (source / "random").write_bytes(os.urandom(300_000))
    made = await result(service, source=source, destination=archives)
    content = Path(made["archive"]).read_bytes()
    cut = tmp_path / "cut.tar.zst"
    cut.write_bytes(content[: int(kept * len(content)) if kept < 1 else int(kept)])
    task = await run(service, action="restore", archive=cut, destination=tmp_path / "back")
    assert "not a complete .tar.zst archive" in (task.error or "")
    assert not (tmp_path / "back").exists()


async def test_an_archive_with_a_flipped_bit_is_refused(
    service: Service, source: Path, archives: Path, tmp_path: Path
) -> None:
    """Its own checksum tells."""
    (source / "random").write_bytes(os.urandom(300_000))
    made = await result(service, source=source, destination=archives)
    content = bytearray(Path(made["archive"]).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "bad.tar.zst").write_bytes(content)
    task = await run(service, action="restore", archive=tmp_path / "bad.tar.zst", destination=tmp_path / "back")
    assert (task.status, (tmp_path / "back").exists()) == ("failed", False)


async def test_a_restore_does_not_write_over_what_is_there(
    service: Service, source: Path, archives: Path, tmp_path: Path
) -> None:
    """Only a new or an empty directory is filled."""
    made = await result(service, source=source, destination=archives)
    refused = await run(service, action="restore", archive=made["archive"], destination=source)
    assert "is not an empty directory" in (refused.error or "")
    (tmp_path / "empty").mkdir()
    await result(service, action="restore", archive=made["archive"], destination=tmp_path / "empty")
    assert tree_of(tmp_path / "empty") == tree_of(source)


async def test_progress_and_groups_are_in_the_log(service: Service, source: Path, archives: Path) -> None:
    """Who watches sees what is done and how far it is."""
    task = await run(service, source=source, destination=archives)
    entries = await read_all(service, task.id)
    groups = [metadata["group"]["title"] for entry in entries if "group" in (metadata := entry.metadata or {})]
    assert groups == ["write", "write", "verify", "verify"]
    assert task.progress is not None
    assert task.progress["done"]
    assert messages(entries, "backup")[-1].startswith("archive source-")
