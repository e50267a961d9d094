"""`backup`: a damaged archive is never restored as a shorter or another one, and archives of GNU tar are restored."""

import io
import os
import random
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import zstandard

from taskd.service import Service
from tests.helpers.backups import hostile, member, result, run, tree_of, warnings
from tests.helpers.bars import scaled

BLOCK = tarfile.BLOCKSIZE


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small tree, of which the content cannot be compressed and fills several zstd blocks."""
    root = tmp_path / "source"
    (root / "sub").mkdir(parents=True)
    for number in range(5):
        (root / "sub" / f"{number}").write_bytes(random.Random(number).randbytes(number * 70_000))
    (root / ("long" * 60)).write_text("its name is in an extended header")
    (root / "link").symlink_to("sub/1")
    os.link(root / "sub" / "1", root / "hard")
    return root


def unpacked(archive: Path) -> bytes:
    with archive.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as content:
        return content.read()


def packed(path: Path, *contents: bytes, checksum: bool = True) -> Path:
    """An archive of these contents, each in a frame of its own."""
    compressor = zstandard.ZstdCompressor(write_checksum=checksum)
    path.write_bytes(b"".join(map(compressor.compress, contents)))
    return path


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Flip bits of a byte, cut the end, or take a piece out, double it or zero it, anywhere."""
    at = rng.choice(
        [rng.randrange(len(content)), rng.randrange(min(40, len(content))), len(content) - rng.randint(1, 40)]
    )
    end = min(len(content), at + rng.choice([1, 4, BLOCK, 5_000]))
    piece = rng.choice([b"", content[at:end] * 2, bytes(end - at), bytes([content[at] ^ rng.randint(1, 255)])])
    if len(piece) == 1:
        end = at + 1
    return content[:at] if rng.random() < 0.3 else content[:at] + piece + content[end:]


@pytest.mark.timeout(scaled(120, 3_600))
async def test_an_archive_that_is_damaged_anywhere_is_refused_or_restored_whole(
    service: Service, source: Path, tmp_path: Path
) -> None:
    """Some bits of a zstd header mean nothing; a change of any other byte, or a cut, is noticed."""
    made = await result(service, source=source, destination=tmp_path)
    content, before = Path(made["archive"]).read_bytes(), tree_of(source)
    rng = random.Random(18)
    refused = 0
    for _ in range(tries := scaled(200, 5_000)):
        bad = tmp_path / "bad.tar.zst"
        bad.write_bytes(damaged(content, rng))
        task = await run(service, action="restore", archive=bad, destination=tmp_path / "back")
        if task.status == "succeeded":
            assert tree_of(tmp_path / "back") == before
            shutil.rmtree(tmp_path / "back")
        else:
            refused += 1
            assert task.error
            assert not (tmp_path / "back").exists()
    assert refused > 0.9 * tries


@pytest.mark.timeout(scaled(120, 3_600))
async def test_without_checksums_damage_to_names_and_lengths_is_noticed_all_the_same(
    service: Service, source: Path, tmp_path: Path
) -> None:
    """Nothing can notice another byte in the content of a file; but no entry is missing, added or renamed."""
    made = await result(service, source=source, destination=tmp_path)
    content, before = unpacked(Path(made["archive"])), tree_of(source)
    headers = [at for at in range(0, len(content), BLOCK) if content[at + 257 : at + 262] == b"ustar"]
    rng = random.Random(19)
    for _ in range(scaled(100, 3_000)):
        changed = bytearray(content)
        changed[rng.choice(headers) + rng.randrange(BLOCK)] ^= 1 << rng.randrange(8)
        bad = packed(tmp_path / "bad.tar.zst", bytes(changed), checksum=False)
        task = await run(service, action="restore", archive=bad, destination=tmp_path / "back")
        if task.status == "succeeded":
            assert tree_of(tmp_path / "back") == before
            shutil.rmtree(tmp_path / "back")


def archive_of(*names: str) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in names:
            tar.addfile(member(name))
    return raw.getvalue().rstrip(b"\0").ljust(BLOCK * len(names), b"\0")


ENTRIES, END = archive_of("first", "second", "third"), bytes(2 * BLOCK)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ([ENTRIES], "it ends too early"),
        ([ENTRIES + bytes(BLOCK)], "it ends too early"),
        ([ENTRIES + END[1:]], "it ends too early"),
        ([ENTRIES[: 2 * BLOCK] + bytes(BLOCK) + ENTRIES[2 * BLOCK :] + END], "zeros is in the middle"),
        ([ENTRIES + END + b"\0" * BLOCK + b"x"], "something follows its end"),
        ([ENTRIES + END, ENTRIES + END], "something follows its end"),
        ([ENTRIES[: BLOCK + 1] + b"x" + ENTRIES[BLOCK + 2 :] + END], "headers is damaged (bad checksum)"),
        ([ENTRIES[:BLOCK] + b"garbage!" * 64 + ENTRIES[BLOCK:] + END], "headers is damaged"),
        ([b""], "it ends too early"),
        ([], "it ends too early"),
    ],
)
async def test_every_block_is_where_it_belongs(
    service: Service, tmp_path: Path, content: list[bytes], error: str
) -> None:
    """The end is two blocks of zeros, with nothing but zeros after them; and no header is skipped."""
    archive = packed(tmp_path / "a.tar.zst", *content)
    task = await run(service, action="restore", archive=archive, destination=tmp_path / "back")
    assert error in (task.error or "")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    "payload",
    [
        b"20 path=other\n",
        b"14 path=other\n14 path=other",
        b"14 path=othersx",
        b"x4 path=other\n",
        b"14 path:other\n",
        b"0 a=b\n",
    ],
)
async def test_an_extended_header_that_is_damaged_is_refused(service: Service, tmp_path: Path, payload: bytes) -> None:
    """Without the name in it, an entry would be restored under another one."""
    header = member("x", tarfile.XHDTYPE, size=len(payload)).tobuf() + payload.ljust(BLOCK, b"\0")
    archive = packed(tmp_path / "a.tar.zst", header + archive_of("first") + END)
    task = await run(service, action="restore", archive=archive, destination=tmp_path / "back")
    assert "an extended header is damaged" in (task.error or "")


@pytest.mark.parametrize("cut", [1, 4, 5, 100])
async def test_a_frame_that_lacks_its_end_is_refused(service: Service, source: Path, tmp_path: Path, cut: int) -> None:
    """Also if only its checksum is missing, and so all of the content is there."""
    made = Path((await result(service, source=source, destination=tmp_path))["archive"])
    made.write_bytes(made.read_bytes()[:-cut])
    task = await run(service, action="restore", archive=made, destination=tmp_path / "back")
    assert "it ends within a zstd frame" in (task.error or "")


async def test_frames_follow_each_other_and_may_be_skippable(service: Service, tmp_path: Path) -> None:
    """As pzstd writes them; but what follows is another frame, or an error."""
    archive = packed(tmp_path / "a.tar.zst", ENTRIES[:700], ENTRIES[700:], END)
    skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc"
    whole = archive.read_bytes()
    for number, content in enumerate((whole, skippable + whole + skippable)):
        archive.write_bytes(content)
        await result(service, action="restore", archive=archive, destination=tmp_path / f"{number}")
        assert len(list((tmp_path / f"{number}").iterdir())) == 3
    for rest in (b"\0", b"trailing garbage", skippable[:-1]):
        archive.write_bytes(whole + rest)
        task = await run(service, action="restore", archive=archive, destination=tmp_path / "back")
        assert "not a complete .tar.zst archive" in (task.error or "")


async def test_an_archive_without_checksums_is_restored_with_a_warning(service: Service, tmp_path: Path) -> None:
    """Damage to its contents could not be noticed."""
    archive = packed(tmp_path / "a.tar.zst", ENTRIES + END, checksum=False)
    task = await run(service, action="restore", archive=archive, destination=tmp_path / "back")
    assert (task.status, len(list((tmp_path / "back").iterdir()))) == ("succeeded", 3)
    assert "without checksums" in (await warnings(service, task))[0]


@pytest.mark.parametrize(
    "options",
    [
        ["--format=gnu"], ["--format=pax"], ["--format=oldgnu", "-S"], ["--format=gnu", "-S"], ["--format=pax", "-S"],
        ["--format=pax", "-S", "--sparse-version=0.1"], ["--format=pax", "-S", "--sparse-version=0.0"],
    ],
    ids=" ".join,
)  # fmt: skip
async def test_an_archive_of_gnu_tar_is_restored(
    service: Service, source: Path, tmp_path: Path, options: list[str]
) -> None:
    """In each of its formats, with long names, links to links, and files with more holes than a header has room for."""
    os.link(source / "link", source / "same-link", follow_symlinks=False)
    with (source / "sparse").open("wb") as file:
        for number in range(60):
            file.seek(number * 100_000)
            file.write(b"data")
        file.truncate(10_000_000)
    archive = tmp_path / "a.tar.zst"
    subprocess.run(["tar", *options, "--zstd", "-cf", archive, "-C", source, "."], check=True)
    task = await run(service, action="restore", archive=archive, destination=tmp_path / "back")
    assert task.status == "succeeded", task.error
    assert tree_of(tmp_path / "back") == tree_of(source)
    assert (tmp_path / "back" / "hard").stat().st_nlink == 2


async def test_times_in_a_header_of_gnu_tar_are_no_directory(service: Service, tmp_path: Path) -> None:
    """It keeps them where the standard has the directories of a long name."""
    (tmp_path / "file").write_text("content")
    command = ["tar", "--format=gnu", "--listed-incremental=snapshot", "--zstd", "-cf", "a.tar.zst", "file"]
    subprocess.run(command, cwd=tmp_path, check=True)
    await result(service, action="restore", archive=tmp_path / "a.tar.zst", destination=tmp_path / "back")
    assert {name: content for name, (_, _, content) in tree_of(tmp_path / "back").items()} == {"file": b"content"}


@pytest.mark.parametrize("style", ["v7", "ustar"])
async def test_an_archive_in_an_old_format_is_restored(
    service: Service, source: Path, tmp_path: Path, style: str
) -> None:
    """They have no room for long names."""
    (source / ("long" * 60)).unlink()
    archive = tmp_path / "a.tar.zst"
    subprocess.run(["tar", f"--format={style}", "--zstd", "-cf", archive, "-C", source, "."], check=True)
    await result(service, action="restore", archive=archive, destination=tmp_path / "back")
    assert tree_of(tmp_path / "back") == tree_of(source)


@pytest.mark.parametrize(
    "records",
    [
        {"GNU.sparse.map": "0,5,3,5", "GNU.sparse.size": "10"},
        {"GNU.sparse.map": "0,5", "GNU.sparse.size": "10"},
        {"GNU.sparse.map": "0,10,5", "GNU.sparse.size": "10"},
        {"GNU.sparse.map": "5,10", "GNU.sparse.size": "10"},
        {"GNU.sparse.map": "-1,10", "GNU.sparse.size": "10"},
        {"GNU.sparse.map": "0,10"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "10"},
        {"size": "-5"}, {"size": "x"}, {"mtime": "nan"}, {"mtime": "1e99"}, {"uid": "-1"},
    ],
)  # fmt: skip
async def test_numbers_that_cannot_be_are_refused(service: Service, tmp_path: Path, records: dict[str, str]) -> None:
    """A map that overlaps, or does not fit the content; and what is no number."""
    entry = member("sparse", size=10)
    entry.pax_headers = records
    archive = hostile(tmp_path / "a.tar.zst", entry)
    task = await run(service, action="restore", archive=archive, destination=tmp_path / "back")
    assert "not a complete .tar.zst archive" in (task.error or "")
