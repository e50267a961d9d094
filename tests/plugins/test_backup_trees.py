"""`backup`: any tree that a system can hold, read and written by descriptors, whatever other processes do meanwhile."""

import asyncio
import contextlib
import io
import os
import re
import socket
import sqlite3
import struct
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zstandard

from plugins.backup import archiving, attributes, extent
from plugins.backup.archiving import backup
from plugins.backup.failures import Stopped
from plugins.backup.members import Member
from plugins.backup.packer import Packer, Tar
from plugins.backup.params import BackupParams
from plugins.backup.reader import Reader
from plugins.backup.restoring import restore
from plugins.backup.snapshot import take_snapshot
from plugins.backup.source import Found
from taskd import PluginError
from taskd.service import Service
from taskd.system.trees import OPEN_MAX
from tests.helpers.backups import DIRECTORY, HARD, LINK, hostile, member, result, run, tree_of, warnings
from tests.helpers.bars import scaled
from tests.helpers.deep_trees import depth, dig
from tests.helpers.loud import Loud

ROOT = os.geteuid() == 0
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"


async def restored(service: Service, made: dict[str, Any], destination: Path) -> Path:
    await result(service, action="restore", archive=made["archive"], destination=destination)
    return destination


def contents(archive: str) -> dict[str, bytes]:
    """The files of an archive by name, as Python reads them."""
    with (
        open(archive, "rb") as file,
        zstandard.ZstdDecompressor().stream_reader(file) as content,
        tarfile.open(fileobj=content, mode="r|") as tar,
    ):
        return {entry.name: tar.extractfile(entry).read() for entry in tar if entry.isreg()}  # type: ignore[union-attr]


# Depth


@pytest.mark.parametrize("levels", [OPEN_MAX - 1, OPEN_MAX, OPEN_MAX + 1, 1_500, 5_000])
async def test_a_tree_of_any_depth_comes_back(service: Service, deep: Path, levels: int) -> None:
    """Also with paths that are longer than PATH_MAX, and files on the way."""
    dig(deep / "source", levels, name="directory", file_every=100)
    (deep / "source" / "last").write_text("after the deep one")
    made = await result(service, source=deep / "source", destination=deep / "archives")
    back = await restored(service, made, deep / "back")
    assert (depth(back, "directory"), (back / "last").exists()) == (levels, True)
    assert made["files"] == (levels - 1) // 100 + 1


async def test_a_cancelled_restore_of_a_deep_tree_leaves_nothing(
    service: Service, deep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the next backup into the same directory works."""
    entries = [member("/".join(["d"] * level), DIRECTORY) for level in range(1, 1_501)]
    archive = hostile(deep / "a.tar.zst", *entries)
    written, cancelled = threading.Event(), threading.Event()
    params = {"action": "restore", "archive": str(archive), "destination": str(deep / "in" / "back")}

    def syncing() -> None:
        written.set()
        cancelled.wait(30)

    with monkeypatch.context() as patched:
        patched.setattr("os.sync", syncing)
        task = await service.manager.submit("backup", params)
        while not written.is_set():
            await asyncio.sleep(0.01)
        cancelling = asyncio.create_task(service.manager.cancel(task.id))
        await asyncio.sleep(0)
        cancelled.set()
        await cancelling
        assert (await service.manager.wait(task.id)).status == "cancelled"
    assert list((deep / "in").iterdir()) == []
    await result(service, source=archive, destination=deep / "in")


async def test_what_a_killed_restore_left_is_removed_whatever_it_is(service: Service, deep: Path) -> None:
    """However deep, and with directories that may not be written to; a pipe under such a name is not waited for."""
    dig(deep / ".back.0123456789ab.restoring", 3_000)
    (deep / ".back.0123456789ab.restoring" / "d").chmod(0o500)
    os.mkfifo(deep / ".back.0123456789ac.partial")
    (deep / "source").mkdir()
    await result(service, source=deep / "source", destination=deep)
    assert [path.name for path in deep.iterdir() if path.name.startswith(".")] == []


async def test_a_leftover_that_cannot_be_removed_is_reported_and_fails_nothing(
    service: Service, tmp_path: Path
) -> None:
    """Here a link under such a name, which is not taskd's."""
    (tmp_path / "source").mkdir()
    (tmp_path / ".back.0123456789ab.restoring").symlink_to("source")
    task = await run(service, source=tmp_path / "source", destination=tmp_path)
    assert task.status == "succeeded"
    assert "0123456789ab.restoring cannot be removed" in (await warnings(service, task))[0]
    assert (tmp_path / "source").exists()


# Races

SWAP = """
import ctypes, os, sys
parent, names = os.open(sys.argv[1], os.O_RDONLY), [os.fsencode(name) for name in sys.argv[2:]]
exchange = ctypes.CDLL(None, use_errno=True).renameat2
print("swapping", flush=True)
while True:
    exchange(parent, names[0], parent, names[1], 2)
"""


@contextmanager
def swapping(parent: Path, one: str, other: str) -> Iterator[None]:
    """Another process that exchanges two names, without end."""
    command = [sys.executable, "-c", SWAP, str(parent), one, other]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as swapper:
        assert swapper.stdout is not None
        assert swapper.stdout.readline() == "swapping\n"
        try:
            yield
            assert swapper.poll() is None
        finally:
            swapper.kill()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names are exchanged by renameat2")
@pytest.mark.timeout(scaled(120, 1_200))
async def test_no_exchange_with_a_link_reads_outside_of_the_source(service: Service, tmp_path: Path) -> None:
    """Of a directory, of a file, and of a directory further down."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("secret")
    source = tmp_path / "source"
    for name in ("d", "deep/er/d"):
        (source / name).mkdir(parents=True)
        (source / name / "file").write_text("harmless")
        (source / name).with_name("link").symlink_to(tmp_path / "outside")
    (source / "file").write_text("harmless")
    (source / "file-link").symlink_to(tmp_path / "outside" / "file")
    with (
        swapping(source, "d", "link"),
        swapping(source / "deep" / "er", "d", "link"),
        swapping(source, "file", "file-link"),
    ):
        for _ in range(scaled(30, 2_000)):
            made = await result(service, source=source, destination=tmp_path / "archives")
            assert set(contents(made["archive"]).values()) <= {b"harmless"}
            Path(made["archive"]).unlink()


async def test_a_directory_that_is_exchanged_for_a_link_is_stored_as_the_link(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at its name and its opening."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    (tmp_path / "source" / "d").mkdir(parents=True)
    really_open = os.open

    def exchanging(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if path == "d" and not (tmp_path / "d").exists():
            (tmp_path / "source" / "d").rename(tmp_path / "d")
            (tmp_path / "source" / "d").symlink_to(tmp_path / "outside")
        return really_open(path, flags, *arguments, **options)

    monkeypatch.setattr("os.open", exchanging)
    made = await result(service, source=tmp_path / "source", destination=tmp_path / "archives")
    assert contents(made["archive"]) == {}
    back = await restored(service, made, tmp_path / "back")
    assert os.readlink(back / "d") == str(tmp_path / "outside")


async def test_a_restore_does_not_write_through_a_link_that_another_process_makes(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place of a directory that it has made; nor into another directory there."""
    entries = [
        member("d", DIRECTORY),
        member("d/e", DIRECTORY),
        member("d/e/f"),
        member("x", DIRECTORY),
        member("d/late"),
    ]
    archive = hostile(tmp_path / "a.tar.zst", *entries)
    really_make = os.mkdir
    for kind in ("link", "directory"):
        outside = tmp_path / kind
        outside.mkdir()

        def replacing(name: Any, *arguments: Any, outside: Path = outside, **options: Any) -> None:
            really_make(name, *arguments, **options)
            if name == "x":
                [staging] = tmp_path.glob(".back.*")
                (staging / "d").rename(staging / "moved")
                (staging / "d").symlink_to(outside) if outside.name == "link" else outside.rename(staging / "d")

        with monkeypatch.context() as patched:
            patched.setattr("os.mkdir", replacing)
            task = await run(service, action="restore", archive=archive, destination=tmp_path / "back")
        assert task.status == "failed"
        assert not outside.exists() or list(outside.iterdir()) == []
        assert not (tmp_path / "back").exists()


async def test_pipes_sockets_and_devices_are_reported_and_not_waited_for(service: Service, tmp_path: Path) -> None:
    """Each by its name."""
    source = tmp_path / "source"
    source.mkdir()
    os.mkfifo(source / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(source / "socket"))
        task = await run(service, source=source, destination=tmp_path / "archives")
    texts = await warnings(service, task)
    assert [text.split(" is left out")[0] for text in texts[:2]] == ["'pipe'", "'socket'"]


def test_a_new_file_with_the_number_of_a_removed_one_is_no_hard_link_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system gives a number again at once; here the same file with another content stands for it."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_text("old")
    os.link(source / "a", source / "b")
    add = Packer._add

    def exchange(self: Packer, tar: Tar, found: Found, advance: Callable[[int], None]) -> None:
        add(self, tar, found, advance)
        if found.name == "a":
            (source / "b").write_text("another")

    monkeypatch.setattr(Packer, "_add", exchange)
    archives = tmp_path / "archives"
    made = backup(BackupParams(source=str(source), destination=str(archives)), Loud.logger(), threading.Event())
    assert contents(str(made["archive"])) == {"a": b"old", "b": b"another"}


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux lists the open files of a process")
def test_a_snapshot_is_not_written_through_a_link_that_another_process_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite opens it by its path."""
    for name in ("database", "outside"):
        with contextlib.closing(sqlite3.connect(tmp_path / name)) as database:
            database.execute(f"CREATE TABLE of_{name} (x)")
    before = (tmp_path / "outside").read_bytes()

    def exchange(database: Path, snapshot: Path, *rest: Any) -> None:
        snapshot.unlink()
        snapshot.symlink_to(tmp_path / "outside")
        take_snapshot(database, snapshot, *rest)

    monkeypatch.setattr(archiving, "take_snapshot", exchange)
    params = BackupParams(source=f"sqlite:///{tmp_path}/database", destination=str(tmp_path / "archives"))
    with pytest.raises(PluginError, match="was replaced"):
        backup(params, Loud.logger(), threading.Event())
    assert ((tmp_path / "outside").read_bytes(), [*(tmp_path / "archives").iterdir()]) == (before, [])


def test_a_backup_that_waits_for_a_locked_database_is_cancelled_soon(tmp_path: Path) -> None:
    """And leaves nothing."""
    stop = threading.Event()
    params = BackupParams(source=f"sqlite:///{tmp_path}/database", destination=str(tmp_path / "archives"))
    with contextlib.closing(sqlite3.connect(tmp_path / "database", isolation_level=None)) as database:
        database.execute("CREATE TABLE t (x)")
        database.execute("BEGIN EXCLUSIVE")
        threading.Timer(0.2, stop.set).start()
        began = time.monotonic()
        with pytest.raises(Stopped):
            backup(params, Loud.logger(), stop)
    assert time.monotonic() - began < scaled(5, 30)
    assert [*(tmp_path / "archives").iterdir()] == []


# What a file has beside its content

ACL = bytes.fromhex(
    "02000000 01000600ffffffff 02000400e8030000 04000400ffffffff 10000400ffffffff 20000400ffffffff".replace(" ", "")
)


def with_attributes(source: Path) -> Path:
    """A file and a directory with extended attributes and ACLs."""
    (source / "d").mkdir(parents=True)
    (source / "file").write_text("content")
    try:
        os.setxattr(source / "file", "user.comment", b"any\0bytes\xff=\n")
        os.setxattr(source / "file", "user.a=b%c", b"")
        os.setxattr(source / "file", ACCESS, ACL)
        os.setxattr(source / "d", DEFAULT, ACL)
    except OSError as error:
        pytest.skip(f"this file system takes no attributes: {error}")
    return source


def archive_of(entry: Member) -> io.BytesIO:
    return io.BytesIO(zstandard.ZstdCompressor(write_checksum=True).compress(entry.header() + bytes(10_240)))


def attributes_of(path: Path) -> dict[str, bytes]:
    return {name: os.getxattr(path, name) for name in os.listxattr(path)}


@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="only Linux has extended attributes here")
async def test_extended_attributes_and_acls_come_back(service: Service, tmp_path: Path) -> None:
    """Of files and directories, also those that their owner may not write to."""
    source = with_attributes(tmp_path / "source")
    (source / "file").chmod(0o444)
    made = await result(service, source=source, destination=tmp_path / "archives")
    back = await restored(service, made, tmp_path / "back")
    for name in ("file", "d", "."):
        assert attributes_of(back / name) == attributes_of(source / name)
    assert tree_of(back) == tree_of(source)


@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="only Linux has extended attributes here")
async def test_an_acl_of_several_users_comes_back_and_one_of_the_parent_does_not(
    service: Service, tmp_path: Path
) -> None:
    """The kernel keeps users in the order in which they were set, whatever their rights; a tree is as it was."""
    source = with_attributes(tmp_path / "source")
    entries = [(1, 6), (2, 7, 2_000), (2, 4, 1_000), (2, 6, 3_000), (4, 4), (16, 7), (32, 0)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *(*entry, 0xFFFF_FFFF)[:3]) for entry in entries)
    os.setxattr(source / "file", ACCESS, acl)
    made = await result(service, source=source, destination=tmp_path / "archives")
    (tmp_path / "parent").mkdir()
    os.setxattr(tmp_path / "parent", DEFAULT, ACL)
    back = await restored(service, made, tmp_path / "parent" / "back")
    for name in ("file", "d", "."):
        assert attributes_of(back / name) == attributes_of(source / name)


@pytest.mark.parametrize(
    ("digits", "value"),
    [("4294967295", struct.pack("<IHHI", 2, 2, 7, 0xFFFF_FFFF)), ("4294967296", b""), ("9" * 5_000, b"")],
    ids=["unmapped", "beyond", "long"],
)
def test_an_acl_of_a_user_that_cannot_be_is_read_back_or_dropped(digits: str, value: bytes) -> None:
    """A user namespace shows users that it lacks as the last number."""
    assert dict(attributes.unpacked("SCHILY.acl.access", f"user:{digits}:rwx".encode())) == {ACCESS: value}


@pytest.mark.parametrize("second", [2**63 - 1, -(2**63)])
def test_any_time_that_a_file_can_have_is_read_back(second: int) -> None:
    """Some file systems, such as tmpfs, keep all the seconds of 64 bits."""
    entry = Member("file")
    entry.mtime_ns = second * 10**9 + 1
    assert [found.mtime_ns for found in Reader(archive_of(entry), threading.Event()).members()] == [entry.mtime_ns]


@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="only Linux has extended attributes here")
async def test_gnu_tar_and_backup_read_each_others_attributes(service: Service, tmp_path: Path) -> None:
    """With `--xattrs --acls`."""
    source = with_attributes(tmp_path / "source")
    made = await result(service, source=source, destination=tmp_path / "archives")
    options = ["--xattrs", "--xattrs-include=user.*", "--acls", "--zstd"]
    (tmp_path / "by-tar").mkdir()
    subprocess.run(["tar", *options, "-xf", made["archive"], "-C", tmp_path / "by-tar"], check=True)
    subprocess.run(["tar", *options, "-cf", tmp_path / "a.tar.zst", "-C", source, "."], check=True)
    back = await restored(service, {"archive": tmp_path / "a.tar.zst"}, tmp_path / "back")
    for name in ("file", "d"):
        assert attributes_of(tmp_path / "by-tar" / name) == attributes_of(source / name)
        assert attributes_of(back / name) == attributes_of(source / name)


async def test_attributes_that_give_rights_are_counted_and_not_restored(service: Service, tmp_path: Path) -> None:
    """In one line, however many files have them; and an ACL of a user that is unknown here."""
    entries = [member(f"{number}") for number in range(3)]
    for entry in entries:
        entry.pax_headers = {"SCHILY.xattr.security.capability": "x", "SCHILY.acl.access": "user:nosuchuser:rwx"}
        entry.mode = 0o4755
    archive = hostile(tmp_path / "a.tar.zst", *entries)
    task = await run(service, action="restore", archive=archive, destination=tmp_path / "back")
    modes, dropped = await warnings(service, task)
    assert modes == "setuid, setgid and sticky bits are not restored; 3 entries have them"
    assert (
        "6 extended attributes are not restored: 'security.capability' of 3, 'system.posix_acl_access' of 3" in dropped
    )
    assert (tmp_path / "back" / "0").stat().st_mode & 0o7777 == 0o755


async def test_times_come_back_to_the_nanosecond(service: Service, tmp_path: Path) -> None:
    """Of files, directories and links, also before 1970."""
    source = tmp_path / "source"
    (source / "d").mkdir(parents=True)
    (source / "file").touch()
    (source / "link").symlink_to("file")
    times = {"file": 1_700_000_000_123_456_789, "link": -1_500_000_001, "d": 999_999_999_999_999_999, ".": 1}
    for name, ns in times.items():
        os.utime(source / name, ns=(ns, ns), follow_symlinks=False)
    made = await result(service, source=source, destination=tmp_path / "archives")
    back = await restored(service, made, tmp_path / "back")
    assert {name: (back / name).lstat().st_mtime_ns for name in times} == times


# Links


async def test_links_are_restored_as_they_are_wherever_they_lead(service: Service, tmp_path: Path) -> None:
    """Nothing is written through them, and a hard link to one is one too."""
    (tmp_path / "outside").mkdir()
    targets = {
        "a": "/",
        "b": "..",
        "c": "d/../..",
        "d": "a",
        "e": "e",
        "f/g": str(tmp_path / "outside"),
        "h": "nowhere",
    }
    entries = [member(name, LINK, target) for name, target in targets.items()]
    archive = hostile(tmp_path / "a.tar.zst", *entries, member("i", HARD, "f/g"), member("f/file", size=3))
    await result(service, action="restore", archive=archive, destination=tmp_path / "back")
    targets["i"] = targets["f/g"]
    assert {name: os.readlink(tmp_path / "back" / name) for name in targets} == targets
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_restore_needs_no_option_that_the_backup_did_not_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file of zeros packs so well that it would be taken for a bomb; the backup reports what a restore needs."""
    monkeypatch.setattr(extent, "RATIO_FREE_BYTES", 1_000_000)
    (tmp_path / "source").write_bytes(bytes(30_000_000))
    made = backup(
        BackupParams(source=str(tmp_path / "source"), destination=str(tmp_path)), Loud.logger(), threading.Event()
    )
    needed = capsys.readouterr().out.partition("A restore of this archive has to be given ")[2]
    name, _, value = needed.split(",")[0].partition("=")
    back = {"action": "restore", "archive": made["archive"], "destination": str(tmp_path / "back")}
    with pytest.raises(PluginError, match=rf"raise {name} \(to \d+ at least\)") as refused:
        restore(BackupParams.model_validate(back), Loud.logger(), threading.Event())
    # The restore counts what it has read so far, which may be a byte less.
    assert int(value) - 1 <= int(re.findall(r"\d+", str(refused.value))[-1]) <= int(value)
    restore(BackupParams.model_validate(back | {name: int(value)}), Loud.logger(), threading.Event())
    assert (tmp_path / "back" / "source").stat().st_size == 30_000_000


def test_a_backup_measures_names_in_bytes_as_a_restore_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The value that it reports is enough, also for names that have more bytes than characters."""
    monkeypatch.setattr(extent, "NAME_BYTES", 16)
    monkeypatch.setattr(extent, "FILES_MAX", 20)
    (tmp_path / "source").mkdir()
    for number in range(10):
        (tmp_path / "source" / ("ö" * 120 + str(number))).touch()
    source, archives, back = (str(tmp_path / name) for name in ("source", "archives", "back"))
    made = backup(BackupParams(source=source, destination=archives), Loud.logger(), threading.Event())
    value = capsys.readouterr().out.partition("has to be given files_max=")[2].partition(",")[0]
    params = {"action": "restore", "archive": made["archive"], "destination": back, "files_max": int(value)}
    restore(BackupParams.model_validate(params), Loud.logger(), threading.Event())
    assert len(os.listdir(back)) == 10


# Another user than root

AS_NOBODY = """
import logging, os, sys, threading
from plugins.backup.archiving import backup
from plugins.backup.params import BackupParams
from plugins.backup.restoring import restore
from tests.helpers.loud import Loud
os.umask(0o022), os.setgroups([]), os.setgid(65534), os.setuid(65534)
root, stop = sys.argv[1], threading.Event()
made = backup(BackupParams(source=f"{root}/source", destination=f"{root}/archives"), Loud.logger(), stop)
restore(BackupParams(action="restore", archive=made["archive"], destination=f"{root}/back"), Loud.logger(), stop)
"""


@pytest.mark.skipif(not ROOT, reason="only root can become another user")
def test_a_user_who_is_not_root_restores_directories_that_may_not_be_written_to(tmp_path: Path) -> None:
    """Their entries are written before they get their modes; what cannot be read is reported."""
    source = tmp_path / "source"
    (source / "ro" / "below").mkdir(parents=True)
    (source / "ro" / "below" / "file").write_text("content")
    (source / "closed").mkdir()
    (source / "secret").write_text("of root")
    (source / "secret").chmod(0o600)
    for path in (*tmp_path.parents[:-2], tmp_path):
        path.chmod(path.stat().st_mode | 0o055)
    for path in (tmp_path, source, *source.rglob("*")):
        os.chown(path, *((0, 0) if path.name == "secret" else (65534, 65534)))
    (source / "ro" / "below").chmod(0o555)
    (source / "ro").chmod(0o555)
    (source / "closed").chmod(0o000)
    command = [sys.executable, "-c", AS_NOBODY, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert "'secret' is left out: it cannot be read (Permission denied)" in done.stdout
    assert "'closed' is left out: it cannot be read (Permission denied)" in done.stdout
    expected = tree_of(source)
    del expected["secret"]
    assert tree_of(tmp_path / "back") == expected
