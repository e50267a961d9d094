"""A backup: write the archive under a hidden name, sync, read it back, rename."""

import contextlib
import os
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from taskd import TaskLogger

from .failures import Failed
from .packer import HashingFile, Packer
from .params import SQLITE_PREFIX, BackupParams
from .reader import READ_BYTES, Reader
from .snapshot import take_snapshot
from .source import ARCHIVE, Source
from .temporary import made, remove_leftovers, sync_directory, temporary
from .witness import Witness

DISK_FAILING = "The disk or the memory may be failing; the archive was removed."


def backup(params: BackupParams, log: TaskLogger, stop: threading.Event) -> dict[str, object]:
    """The whole backup, in a thread. Raises `Stopped` soon after `stop` is set, and leaves no file then."""
    destination = made(Path(params.destination))
    remove_leftovers(destination, log)
    with opened(params, destination, log, stop) as source:
        log.info(f"backing up {source.told} into {destination}")
        written = write_archive(source, destination, params.verify, log, stop)
    if params.keep:
        _remove_old(written.path, params.keep, log)
    log.info(f"archive {written.path.name} is complete: {written.size:,} bytes")
    return {
        "archive": str(written.path),
        "bytes": written.size,
        "files": written.files,
        "sha256": written.sha256,
    }


@dataclass(frozen=True, slots=True)
class Written:
    """A complete archive."""

    path: Path
    size: int
    files: int
    sha256: str


@contextlib.contextmanager
def opened(params: BackupParams, destination: Path, log: TaskLogger, stop: threading.Event) -> Iterator["Source"]:
    """The source as a tree of files; a database as the one file of a snapshot, removed at the end."""
    told = params.source or ""
    if not told.startswith(SQLITE_PREFIX):
        yield Source.of(Path(told), params.exclude, destination)
        return
    database = Path(told.removeprefix(SQLITE_PREFIX))
    with temporary(destination, database.name, "snapshot") as (snapshot, _):
        take_snapshot(database, snapshot, log, stop)
        yield Source(database.resolve(), snapshot, database.name)


def write_archive(source: Source, destination: Path, verify: bool, log: TaskLogger, stop: threading.Event) -> Written:
    """Write, sync, read back, rename; without its last step there is no archive."""
    with temporary(destination, source.stem().rstrip("-"), "partial") as (partial, fd):
        with log.group("write"):
            output = HashingFile(fd)
            witness = Witness() if verify else None
            packer = Packer(source, log, stop, witness)
            packer.pack(output)
            output.sync()
        if witness is not None:
            witness.finish()
            with log.group("verify"):
                _verify(partial, witness, output, log, stop)
        path = _free_name(destination, source.stem())
        os.rename(partial, path)
        sync_directory(destination)
    return Written(path, output.size, packer.files, output.sha256.hexdigest())


def _verify(path: Path, packed: Witness, output: HashingFile, log: TaskLogger, stop: threading.Event) -> None:
    """Read the archive from disk to its end: each entry is what was read of the source, and no byte is another."""
    found = Witness()
    with open(path, "rb") as file, log.progress("verified", total=output.size, unit="bytes") as bar:
        reader = Reader(file, stop, bar.update)
        for member in reader.members():
            _listen(found, member, reader)
            if not found.last_agrees(packed):
                raise Failed(f"{member.name!r} in the archive is not what was read. {DISK_FAILING}")
    if reader.sha256() != output.sha256.hexdigest() or len(found) != len(packed):
        raise Failed(f"The archive on disk is not what was written. {DISK_FAILING}")
    told = "1 entry is as it was" if len(found) == 1 else f"{len(found):,} entries are as they were"
    log.info(f"verified: {told} read, in content and metadata")


def _listen(witness: Witness, member: tarfile.TarInfo, reader: Reader) -> None:
    witness.entry(member)
    if member.isreg():
        content = reader.open(member)
        while data := content.read(READ_BYTES):
            witness.feed(data)


def _free_name(destination: Path, stem: str) -> Path:
    while True:
        path = destination / f"{stem}{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.tar.zst"
        if not path.exists():
            return path


def _remove_old(newest: Path, keep: int, log: TaskLogger) -> None:
    """Of the archives of the same source keep `newest`, and the newest of the older ones."""
    stem = newest.name[: -len("20261123T141142.123456Z.tar.zst")]
    older = [
        path
        for path in newest.parent.iterdir()
        # A newer one is of another backup at the same time, or of a clock that was set back.
        if path.name.startswith(stem) and ARCHIVE.fullmatch(path.name) and path.name < newest.name
    ]
    for path in sorted(older, reverse=True)[keep - 1 :]:
        path.unlink(missing_ok=True)
        log.info(f"removed the older archive {path.name}: {keep} are kept")
