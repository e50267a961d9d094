"""A backup: write the archive under a hidden name, sync, read it back, rename."""

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, cast

from taskd import PluginError, TaskLogger

from .failures import shown, why
from .members import Member
from .packer import HashingFile, Packer
from .params import SQLITE_PREFIX, BackupParams
from .reader import Reader
from .snapshot import take_snapshot
from .source import ARCHIVE, Source
from .temporary import made, remove_leftovers, temporary
from .witness import Witness

DISK_FAILING = "The disk or the memory may be failing; the archive was removed."


def backup(params: BackupParams, log: TaskLogger, stop: threading.Event) -> dict[str, object]:
    """The whole backup, in a thread. Raises `Stopped` soon after `stop` is set, and leaves no file then."""
    with made(Path(params.destination)) as (destination, fd):
        remove_leftovers(fd, log)
        with opened(params, destination, fd, log, stop) as source:
            log.info(f"backing up {source.place} into {destination}")
            written = write_archive(source, destination, fd, params.verify, log, stop)
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
def opened(
    params: BackupParams, destination: Path, fd: int, log: TaskLogger, stop: threading.Event
) -> Iterator[Source]:
    """The source as a tree of files; a database as the one file of a snapshot, removed at the end."""
    given = params.source or ""
    if not given.startswith(SQLITE_PREFIX):
        with Source.opened(Path(given), params.exclude, destination) as source:
            yield source
        return
    database = Path(given.removeprefix(SQLITE_PREFIX))
    with temporary(fd, database.name, "snapshot", log) as (name, file):
        take_snapshot(database, destination / name, file, log, stop)
        yield Source(database.resolve(), fd, name, database.name)


def write_archive(
    source: Source, destination: Path, parent: int, verify: bool, log: TaskLogger, stop: threading.Event
) -> Written:
    """Write, sync, read back, rename; without its last step there is no archive."""
    with temporary(parent, source.stem().rstrip("-"), "partial", log) as (partial, fd):
        with log.group("write"):
            output = HashingFile(fd)
            witness = Witness() if verify else None
            packer = Packer(source, log, stop, witness)
            packer.pack(output)
            output.sync()
        if witness is not None:
            witness.finish()
            with log.group("verify"):
                _verify(fd, witness, output, log, stop)
        path = _free_name(destination, source.stem())
        os.rename(partial, path.name, src_dir_fd=parent, dst_dir_fd=parent)
        os.fsync(parent)
    if needed := packer.extent.needed(output.size):
        log.warning(f"A restore of this archive has to be given {needed}, because it is larger than the defaults allow")
    return Written(path, output.size, packer.files, output.sha256.hexdigest())


def _verify(fd: int, packed: Witness, output: HashingFile, log: TaskLogger, stop: threading.Event) -> None:
    """Read the archive from disk to its end; compare each entry with the witness and all bytes with their checksum."""
    found = Witness()
    os.lseek(fd, 0, os.SEEK_SET)
    with (
        open(fd, "rb", buffering=0, closefd=False) as file,
        log.progress("verified", total=output.size, unit="bytes") as bar,
    ):
        reader = Reader(cast(IO[bytes], file), stop, bar.update)
        for member in reader.members():
            _listen(found, member, reader)
            if not found.last_agrees(packed):
                raise PluginError(f"{shown(member.name)} in the archive is not what was read. {DISK_FAILING}")
    if reader.sha256() != output.sha256.hexdigest() or len(found) != len(packed):
        raise PluginError(f"The archive on disk is not what was written. {DISK_FAILING}")
    entries = "1 entry is as it was" if len(found) == 1 else f"{len(found):,} entries are as they were"
    log.info(f"verified: {entries} read, in content and metadata")


def _listen(witness: Witness, member: Member, reader: Reader) -> None:
    witness.entry(member)
    for _, data in reader.content():
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
        # A longer one is of a source whose name begins as this one's archives do, such as one of these archives.
        if path.name.startswith(stem) and len(path.name) == len(newest.name) and path.name < newest.name
        if ARCHIVE.fullmatch(path.name)
    ]
    for path in sorted(older, reverse=True)[keep - 1 :]:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            log.warning(f"the older archive {path.name} cannot be removed ({why(error)}). Remove it by hand")
        else:
            log.info(f"removed the older archive {path.name}: {keep} are kept")
