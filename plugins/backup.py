"""
Backup: a directory, a file or an SQLite database into one `.tar.zst`, and back again.

What is true of it:

- An archive has its name only when it is complete, on disk and (with `verify`) read back:
  until then it is a `.partial` file beside it, which a failure or a cancellation removes.
  What a killed service left behind, the next backup into the same directory removes.
- Nothing is held in memory but a piece of a file and the names of one directory. Entries are
  in the order of their names, so two archives of the same tree list alike.
- What cannot be read, vanishes or changes meanwhile does not stop a backup: a WARNING says so.
- A restore reads the whole archive first and writes nothing unless all of it is harmless. It
  builds the tree under a hidden name beside the destination and renames it when complete.
  Owners are not restored, nor setuid bits: what is restored belongs to whoever runs taskd.

The work is done in a thread, for a disk may be slow and the loop must not wait for it.
"""

import asyncio
import contextlib
import fcntl
import fnmatch
import hashlib
import os
import re
import secrets
import shutil
import sqlite3
import stat
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, Self, cast
from urllib.parse import quote

import zstandard
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from taskd import Plugin, TaskContext, TaskLogger

READ_BYTES = 1_048_576
ZSTD_LEVEL = 3
SQLITE_PREFIX = "sqlite:///"
SQLITE_STEP_PAGES = 1_000
SQLITE_WAIT_S = 30.0
LINKS_FOLLOWED_MAX = 40
HEADER_BYTES_MAX = 1_048_576
RATIO_MAX = 1_000
RATIO_FREE_BYTES = 4 * 1_024**3

# What `tarfile` raises for bytes that were never a tar archive, or are one on purpose.
NOT_AN_ARCHIVE = (
    *(tarfile.TarError, zstandard.ZstdError, EOFError, ValueError),
    *(LookupError, OverflowError, RecursionError),
)

_ARCHIVE = re.compile(r".+-[0-9a-f]{8}-\d{8}T\d{6}\.\d{6}Z\.tar\.zst")
_PARTIAL = re.compile(r"\..+\.[0-9a-f]{12}\.(partial|snapshot|restoring)")


class Failed(Exception):
    """The work cannot be done; the text says why and what to do."""


class Stopped(Exception):
    """The thread has seen that the task is cancelled."""


class BackupParams(BaseModel):
    """What to back up, or to restore, and to where."""

    model_config = ConfigDict(extra="forbid")

    action: Literal["backup", "restore"] = Field("backup", description="What to do.")
    source: str | None = Field(
        None,
        min_length=1,
        description="Backup: a directory, a file, or an SQLite database as sqlite:////absolute/file.",
    )
    archive: str | None = Field(None, min_length=1, description="Restore: the .tar.zst file to restore from.")
    destination: str = Field(
        min_length=1,
        description="Backup: the directory for the archive. Restore: a new or empty directory to fill.",
    )
    exclude: list[str] = Field(
        default_factory=list,
        description="Globs to leave out: without '/' against every name, with '/' against the path below the "
        "source ('*' matches '/' too); with a '/' at the end, directories only.",
    )
    keep: int = Field(
        0, ge=0, description="Backup: how many of the newest archives of this source to keep; 0 keeps all."
    )
    verify: bool = Field(True, description="Backup: read the archive back before it gets its name.")
    skip_links: bool = Field(
        False,
        description="Restore: leave out links that lead out of the destination instead of refusing all.",
    )
    files_max: int = Field(2_000_000, ge=1, description="Restore: refuse an archive of more entries than this.")
    bytes_max: int = Field(
        1024**4, ge=1, description="Restore: refuse an archive whose files have more bytes than this."
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        """Each action needs its own: a fault names the parameter that is missing."""
        needed = "source" if self.action == "backup" else "archive"
        if getattr(self, needed) is None:
            raise _fault(needed, f"action {self.action} needs it", None)
        source = self.source or ""
        if "://" in source or source.startswith("sqlite:"):
            _check_sqlite_url(source)
        return self


def _check_sqlite_url(source: str) -> None:
    if not source.startswith(SQLITE_PREFIX + "/"):
        raise _fault("source", "expected a path, or a database as sqlite:////absolute/file", source)


def _fault(name: str, message: str, value: object) -> ValidationError:
    """A fault of one field found while looking at several, with that field's path."""
    error = PydanticCustomError("params", cast(Any, message))
    return ValidationError.from_exception_data("BackupParams", [InitErrorDetails(type=error, loc=(name,), input=value)])


class Backup(Plugin):
    """Writes a directory, a file or an SQLite database to a compressed archive, and restores it."""

    name = "backup"
    title = "Backup and restore"
    Params = BackupParams

    async def execute(self, params: BackupParams, context: TaskContext) -> object:
        stop = threading.Event()
        work = _backup if params.action == "backup" else _restore
        return await _in_thread(lambda: work(params, context.logger, stop), stop)


async def _in_thread(work: Callable[[], object], stop: threading.Event) -> object:
    """Do `work` in a thread. When cancelled, wait until it has seen `stop` and cleaned up."""
    thread = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        stop.set()
        while not thread.done():
            # However often one is cancelled: what the thread wrote must not be left half done.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([thread])
        thread.exception()
        raise


# Backup


def _backup(params: BackupParams, log: TaskLogger, stop: threading.Event) -> dict[str, object]:
    """The whole backup, in a thread. Raises `Stopped` soon after `stop` is set, and leaves no file then."""
    destination = _made(Path(params.destination))
    _remove_leftovers(destination, log)
    with _opened(params, destination, log, stop) as source:
        log.info(f"backing up {source.told} into {destination}")
        written = _write_archive(source, destination, params.verify, log, stop)
    if params.keep:
        _remove_old(written.path, params.keep, log)
    log.info(f"archive {written.path.name} is complete: {written.files:,} files, {written.size:,} bytes")
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


def _made(destination: Path) -> Path:
    try:
        destination.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Failed(f"The destination {destination} cannot be made: {_why(error)}. Give a directory.") from error
    return destination.resolve()


@contextlib.contextmanager
def _opened(params: BackupParams, destination: Path, log: TaskLogger, stop: threading.Event) -> Iterator["Source"]:
    """The source as a tree of files; a database as the one file of a snapshot, removed at the end."""
    told = params.source or ""
    if not told.startswith(SQLITE_PREFIX):
        yield Source.of(Path(told), params.exclude, destination)
        return
    database = Path(told.removeprefix(SQLITE_PREFIX))
    with _temporary(destination, database.name, "snapshot") as (snapshot, _):
        _take_snapshot(database, snapshot, log, stop)
        yield Source(database.resolve(), snapshot, database.name)


@dataclass(slots=True)
class Source:
    """
    What is backed up: `told` is its name for people and for `keep`, `root` where it is read.

    A single file is stored as `name`; a directory's entries are stored as the paths below it.
    """

    told: Path
    root: Path
    name: str = "."
    excluded: Callable[[str, bool], bool] = field(default=lambda path, is_directory: False)
    destination: Path | None = None

    @classmethod
    def of(cls, path: Path, exclude: list[str], destination: Path) -> Self:
        try:
            root = path.resolve(strict=True)
            mode = root.stat().st_mode
        except OSError as error:
            raise Failed(f"The source {path} cannot be read: {_why(error)}. Give a directory or a file.") from error
        if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
            raise Failed(f"The source {path} is neither a directory nor a file; only those can be backed up.")
        return cls(root, root, "." if stat.S_ISDIR(mode) else root.name, _excluder(exclude), destination)

    def stem(self) -> str:
        """What the names of this source's archives begin with: two sources of one name differ in it."""
        place = hashlib.sha256(os.fsencode(self.told)).hexdigest()[:8]
        return f"{_short(self.told.name)}-{place}-"

    def walk(self, problem: Callable[[str, OSError], None]) -> Iterator[tuple[Path, str]]:
        """Every path with the name it is stored under: by name, a directory before what is in it."""
        yield self.root, self.name
        if self.name != ".":
            return
        levels = [self._children(self.root, "", problem)]
        while levels:
            child = next(levels[-1], None)
            if child is None:
                levels.pop()
                continue
            path, name, is_directory = child
            yield path, name
            if is_directory:
                levels.append(self._children(path, name + "/", problem))

    def _children(
        self, directory: Path, prefix: str, problem: Callable[[str, OSError], None]
    ) -> Iterator[tuple[Path, str, bool]]:
        try:
            with os.scandir(directory) as scanned:
                children = sorted((os.fsencode(child.name), child.is_dir(follow_symlinks=False)) for child in scanned)
        except OSError as error:
            problem(prefix.rstrip("/") or ".", error)
            return
        for raw, is_directory in children:
            name = os.fsdecode(raw)
            if not self._is_ours(directory, name) and not self.excluded(prefix + name, is_directory):
                yield directory / name, prefix + name, is_directory

    def _is_ours(self, directory: Path, name: str) -> bool:
        """True for what backups wrote into the destination: an archive must not swallow itself."""
        return directory == self.destination and bool(_ARCHIVE.fullmatch(name) or _PARTIAL.fullmatch(name))


def _excluder(globs: list[str]) -> Callable[[str, bool], bool]:
    """A predicate on a path below the source and whether it is a directory."""
    rules = []
    for glob in globs:
        only_directories, pattern = glob.endswith("/"), glob.strip("/")
        whole = "/" in glob.rstrip("/")
        rules.append((re.compile(fnmatch.translate(pattern)).match, whole, only_directories))

    def excluded(path: str, is_directory: bool) -> bool:
        name = path.rpartition("/")[2]
        return any(
            match(path if whole else name) and (is_directory or not only_directories)
            for match, whole, only_directories in rules
        )

    return excluded


def _write_archive(source: Source, destination: Path, verify: bool, log: TaskLogger, stop: threading.Event) -> Written:
    """Write, sync, read back, rename; without its last step there is no archive."""
    with _temporary(destination, source.stem().rstrip("-"), "partial") as (partial, fd):
        with log.group("write"):
            output = HashingFile(fd)
            packer = Packer(source, log, stop)
            packer.pack(output)
            output.sync()
        if verify:
            with log.group("verify"):
                _verify(partial, packer, output, log, stop)
        path = _free_name(destination, source.stem())
        os.rename(partial, path)
        _sync_directory(destination)
    return Written(path, output.size, packer.files, output.sha256.hexdigest())


class HashingFile:
    """A file that is written once, from start to end: its size and checksum are known at the end."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.size = 0
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            raise Failed(
                f"The archive cannot be written: {_why(error)}. Make room or give another destination."
            ) from error
        self.size += len(data)
        self.sha256.update(data)
        return len(data)

    def sync(self) -> None:
        """On disk, and out of the cache: what is read back now comes from the disk."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise Failed(f"The archive cannot be written to disk: {_why(error)}.") from error
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)


class Packer:
    """Packs a source into an archive, and says what it had to leave out."""

    def __init__(self, source: Source, log: TaskLogger, stop: threading.Event) -> None:
        self.files = 0
        self.entries = 0
        self._source = source
        self._log = log
        self._stop = stop
        self._left_out = 0

    def pack(self, output: HashingFile) -> None:
        """Write the whole archive to `output`."""
        compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True, threads=1)
        with (
            self._log.progress("files", total=self._measure(), unit="bytes") as bar,
            compressor.stream_writer(cast(IO[bytes], output), closefd=False) as packed,
            _new_tar(packed) as tar,
        ):
            for path, name in self._source.walk(self._problem):
                _check(self._stop)
                self._add(tar, path, name, bar.advance)
                forget_members(tar)
        if self._left_out:
            self._log.warning(f"{self._left_out:,} entries are not in the archive, or not as they were; see above")

    def _measure(self) -> int:
        """The bytes to read, as far as can be known before."""
        size = 0
        for path, _ in self._source.walk(lambda name, error: None):
            _check(self._stop)
            with contextlib.suppress(OSError):
                about = path.lstat()
                size += about.st_size if stat.S_ISREG(about.st_mode) else 0
        return size

    def _add(self, tar: tarfile.TarFile, path: Path, name: str, advance: Callable[[int], None]) -> None:
        try:
            kind = stat.S_IFMT(path.lstat().st_mode)
            if kind == stat.S_IFREG:
                self._add_file(tar, path, name, advance)
            elif kind in (stat.S_IFDIR, stat.S_IFLNK):
                self._add_header(tar, tar.gettarinfo(path, name))
            else:
                self._leave_out(name, "it is a socket, a pipe or a device, which an archive cannot hold")
        except OSError as error:
            self._problem(name, error)

    def _add_header(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        tar.addfile(member)
        self.entries += 1
        self.files += not member.isdir()
        if member.issym() and _leads_out(member):
            self._log.warning(
                f"{member.name!r} is a link to {member.linkname!r}, outside of the source: only the link is "
                "stored, and a restore needs skip_links=true to leave it out"
            )

    def _add_file(self, tar: tarfile.TarFile, path: Path, name: str, advance: Callable[[int], None]) -> None:
        # Opened before it is described: what is described is what is read. Not waiting for a pipe
        # that has just taken the file's place, nor following a link.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb", buffering=0) as file:
            member = tar.gettarinfo(arcname=name, fileobj=file)
            if member.islnk():
                self._add_header(tar, member)
            elif member.isreg():
                content = Content(cast(IO[bytes], file), member.size, self._stop, advance)
                tar.addfile(member, cast(IO[bytes], content))
                self.entries += 1
                self.files += 1
                self._compare(name, content, member, os.fstat(fd))

    def _compare(self, name: str, content: "Content", before: tarfile.TarInfo, after: os.stat_result) -> None:
        if content.fault:
            self._leave_out(name, f"it {content.fault}: the missing {content.missing:,} bytes are zeros in the archive")
        elif after.st_size != before.size or after.st_mtime != before.mtime:
            self._log.warning(f"{name!r} changed while it was read: the archive may mix the old and the new")

    def _problem(self, name: str, error: OSError) -> None:
        if name == self._source.name:
            raise Failed(f"The source {self._source.told} cannot be read: {_why(error)}.") from error
        gone = isinstance(error, FileNotFoundError)
        self._leave_out(name, "it vanished meanwhile" if gone else f"it cannot be read ({_why(error)})")

    def _leave_out(self, name: str, why: str) -> None:
        self._left_out += 1
        self._log.warning(f"{name!r} is left out: {why}", path=name)


class Content:
    """
    Exactly `size` bytes of a file, for an archive whose header has promised them.

    Where the file has fewer, or fails, the rest is zeros, and `fault` says so.
    """

    def __init__(self, file: IO[bytes], size: int, stop: threading.Event, advance: Callable[[int], None]) -> None:
        self.missing = size
        self.fault = ""
        self._file = file
        self._stop = stop
        self._advance = advance

    def read(self, size: int = -1) -> bytes:
        _check(self._stop)
        data = b"" if self.fault else self._next(min(size, self.missing))
        if not data:
            self.fault = self.fault or "shrank while it was read"
            return bytes(size)
        self.missing -= len(data)
        self._advance(len(data))
        # `tarfile` takes a short piece for the end of the file.
        return data if len(data) == size else data + self.read(size - len(data))

    def _next(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            self.fault = f"could not be read to its end ({_why(error)})"
            return b""


def _verify(path: Path, packer: Packer, output: HashingFile, log: TaskLogger, stop: threading.Event) -> None:
    """Read the archive from disk to its end: its bytes, its checksums, its entries."""
    entries = 0
    with open(path, "rb") as file, log.progress("verified", total=output.size, unit="bytes") as bar:
        reader = Reader(file, stop, bar.update)
        for _ in reader.members():
            entries += 1
    if reader.sha256() != output.sha256.hexdigest() or entries != packer.entries:
        raise Failed("The archive on disk is not what was written; the disk may be failing. It was removed.")


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
        if path.name.startswith(stem) and _ARCHIVE.fullmatch(path.name) and path.name < newest.name
    ]
    for path in sorted(older, reverse=True)[keep - 1 :]:
        path.unlink(missing_ok=True)
        log.info(f"removed the older archive {path.name}: {keep} are kept")


# SQLite


def _take_snapshot(database: Path, snapshot: Path, log: TaskLogger, stop: threading.Event) -> None:
    """Copy a database that may be written to meanwhile, as it is at one moment, and check the copy."""
    if not database.is_file():
        raise Failed(f"There is no database {database}. Give it as sqlite:////absolute/file.")
    try:
        with (
            contextlib.closing(_connect(database)) as source,
            contextlib.closing(sqlite3.connect(snapshot)) as copy,
        ):
            # Within one transaction no writer makes the copy start again; with a WAL none waits either.
            copy.execute("PRAGMA journal_mode=OFF")
            copy.execute("PRAGMA synchronous=OFF")
            source.execute("BEGIN")
            source.execute("SELECT 1 FROM sqlite_master").fetchone()
            with log.progress("database", unit="pages") as bar:
                source.backup(copy, pages=SQLITE_STEP_PAGES, progress=_snapshot_progress(bar, stop))
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(snapshot))}?immutable=1", uri=True)) as copy:
            fault = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        raise Failed(f"The database {database} cannot be read: {error}.") from error
    if fault != "ok":
        raise Failed(f"The database {database} is damaged: {fault}. Repair it first, or back up its file as it is.")
    about = database.stat()
    snapshot.chmod(stat.S_IMODE(about.st_mode))
    os.utime(snapshot, ns=(about.st_atime_ns, about.st_mtime_ns))


def _connect(database: Path) -> sqlite3.Connection:
    # Writable, for SQLite may have to finish what a crashed writer began; it makes no new file.
    return sqlite3.connect(
        f"file:{quote(str(database))}?mode=rw", uri=True, timeout=SQLITE_WAIT_S, isolation_level=None
    )


def _snapshot_progress(bar: Any, stop: threading.Event) -> Callable[[int, int, int], None]:
    def show(status: int, remaining: int, total: int) -> None:
        _check(stop)
        bar.total = total
        bar.update(total - remaining)

    return show


# Restore


def _restore(params: BackupParams, log: TaskLogger, stop: threading.Event) -> dict[str, object]:
    """The whole restore, in a thread. Raises `Stopped` soon after `stop` is set, and leaves nothing then."""
    archive, destination = Path(params.archive or ""), Path(os.path.abspath(params.destination))
    _check_free(destination)
    with _archive_opened(archive) as file:
        size = os.fstat(file.fileno()).st_size
        log.info(f"restoring {archive} into {destination}")
        with log.group("check"), log.progress("checked", total=size, unit="bytes") as bar:
            plan = Plan(params, size, log)
            for member in Reader(file, stop, bar.update).members():
                plan.add(member)
            plan.finish()
            _check_room(destination, plan.size)
        file.seek(0)
        with log.group("write"), log.progress("restored", total=plan.size, unit="bytes") as bar:
            _write_tree(Reader(file, stop), plan, destination, bar.advance, log)
    log.info(f"restored {plan.files:,} files, {plan.size:,} bytes")
    return {"files": plan.files, "bytes": plan.size}


@contextlib.contextmanager
def _archive_opened(archive: Path) -> Iterator[IO[bytes]]:
    if archive.exists() and not archive.is_file():  # opening a pipe would wait for its other end
        raise Failed(f"The archive {archive} is not a regular file. Give a .tar.zst file.")
    try:
        file = open(archive, "rb")  # noqa: SIM115 (only opening it is told like this)
    except OSError as error:
        raise Failed(f"The archive {archive} cannot be read: {_why(error)}. Give a .tar.zst file.") from error
    with file:
        yield file


def _check_free(destination: Path) -> None:
    """Restoring over what is there would mix two trees, and could not be undone."""
    if not os.path.lexists(destination):
        return
    if destination.is_symlink() or not destination.is_dir() or any(destination.iterdir()):
        raise Failed(f"The destination {destination} is not an empty directory. Give a new or an empty one.")
    if destination.is_mount():
        raise Failed(f"The destination {destination} is a mount point and cannot be replaced. Give a directory in it.")


def _check_room(destination: Path, size: int) -> None:
    there = next(path for path in (destination, *destination.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if size > free:
        raise Failed(f"The archive holds {size:,} bytes and {there} has room for {free:,}. Make room first.")


class Reader:
    """
    Reads an archive once from start to end, never holding more than a piece of it.

    `sha256()` is the checksum of the file's bytes, known after all members were read.
    """

    def __init__(self, file: IO[bytes], stop: threading.Event, show: Callable[[int], None] = lambda at: None) -> None:
        self._file = file
        self._stop = stop
        self._show = show
        self._sha256 = hashlib.sha256()
        self._at = 0
        self._allowed = 0
        self._tar: tarfile.TarFile | None = None
        decompressor = zstandard.ZstdDecompressor()
        self._content = decompressor.stream_reader(
            cast(IO[bytes], _Tee(self._read_file)), read_size=READ_BYTES, read_across_frames=True
        )

    def members(self) -> Iterator[tarfile.TarInfo]:
        """Every entry; raises `Failed` where this is no archive, or not all of one."""
        try:
            self._allow(0)
            with tarfile.open(fileobj=cast(IO[bytes], self), mode="r|", errors="surrogateescape") as tar:
                self._tar = tar
                while member := tar.next():
                    forget_members(tar)
                    self._allow(member.size)
                    yield member
                self._drain(tar)
        except NOT_AN_ARCHIVE as error:
            raise Failed(f"This is not a complete .tar.zst archive: {error}. Give another archive.") from error

    def open(self, member: tarfile.TarInfo) -> IO[bytes]:
        """The content of the member that was given last, if it is a file."""
        file = self._tar.extractfile(member) if self._tar else None
        assert file is not None
        return file

    def sha256(self) -> str:
        return self._sha256.hexdigest()

    def read(self, size: int) -> bytes:
        """For `tarfile`: decompressed bytes, as many as the entry before may have."""
        _check(self._stop)
        self._allowed -= size
        if self._allowed < 0:
            raise Failed(f"A header of this archive is larger than {HEADER_BYTES_MAX:,} bytes: it is refused.")
        return self._content.read(size)

    def _allow(self, content: int) -> None:
        # A header is read whole into memory and says itself how long it is. So between two
        # members no more may be read than the first one's content and a reasonable header.
        if content < 0:
            raise Failed("An entry of this archive has a negative size: it is refused.")
        self._allowed = content + HEADER_BYTES_MAX

    def _drain(self, tar: tarfile.TarFile) -> None:
        """Read what follows the last member: only there are the marks of a complete archive."""
        ended = cast(Any, tar.fileobj).tell() >= tar.offset + tarfile.BLOCKSIZE
        while self._content.read(READ_BYTES):
            _check(self._stop)
        if not ended:
            raise EOFError("it ends too early")

    def _read_file(self, size: int) -> bytes:
        data = self._file.read(size)
        self._sha256.update(data)
        self._at += len(data)
        self._show(self._at)
        return data


class _Tee:
    """A readable made of a function."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self.read = read


class Plan:
    """
    What a restore will write, known before it writes anything.

    Every name is a path below the root that no other entry has; nothing is written through a
    link, for no entry lies below one; a hard link names a file that came before it; and a
    symbolic link does not lead out, even by way of others.
    """

    def __init__(self, params: BackupParams, archive_size: int, log: TaskLogger) -> None:
        self.files = 0
        self.size = 0
        self.skipped: set[str] = set()
        self._params = params
        self._ratio_bytes_max = max(RATIO_FREE_BYTES, RATIO_MAX * archive_size)
        self._log = log
        self._kinds: dict[str, bytes] = {}
        self._links: dict[str, str] = {}
        self._hard_links: dict[str, str] = {}

    def add(self, member: tarfile.TarInfo) -> None:
        """Look at the next entry; raises `Failed` where it cannot be restored safely."""
        name = safe_name(member.name)
        self._check_kind(member)
        if name in self._kinds and not (name == "." and member.isdir()):
            raise Failed(f"The archive has {name!r} twice, and only one of them can be meant: it is refused.")
        self._kinds[name] = member.type
        if member.issym():
            self._links[name] = member.linkname
        elif member.islnk():
            self._add_hard_link(name, member)
        self.files += not member.isdir()
        self.size += member.size if member.isreg() else 0
        self._check_limits()

    def finish(self) -> None:
        """Look at what only all entries together can tell."""
        for name in self._kinds:
            self._check_parents(name)
        for name, target in self._links.items():
            if self._leads_out(name):
                self._refuse_link(name, target)
        for name, target in self._hard_links.items():
            if target in self.skipped:
                raise Failed(f"{name!r} is a hard link to {target!r}, which is left out: the archive is refused.")

    def _check_kind(self, member: tarfile.TarInfo) -> None:
        if safe_name(member.name) == "." and not member.isdir():
            raise Failed("The archive's root is not a directory: it is refused.")
        if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
            raise Failed(
                f"The archive holds {member.name!r}, a device, a pipe or something unknown. Only files, "
                "directories and links are restored: it is refused."
            )

    def _add_hard_link(self, name: str, member: tarfile.TarInfo) -> None:
        target = safe_name(member.linkname)
        if self._kinds.get(target) not in (*tarfile.REGULAR_TYPES, tarfile.LNKTYPE) or target == name:
            raise Failed(f"{name!r} is a hard link to {member.linkname!r}, which is no file before it: it is refused.")
        self._hard_links[name] = target

    def _check_limits(self) -> None:
        if len(self._kinds) > self._params.files_max:
            raise Failed(f"The archive has more than {self._params.files_max:,} entries; raise files_max if it may.")
        if self.size > self._params.bytes_max:
            raise Failed(f"The archive holds more than {self._params.bytes_max:,} bytes; raise bytes_max if it may.")
        if self.size > self._ratio_bytes_max:
            raise Failed(f"The archive holds more than {RATIO_MAX:,} times its own size: it is taken for a bomb.")

    def _check_parents(self, name: str) -> None:
        for parent in map(str, PurePosixPath(name).parents):
            if self._kinds.get(parent, tarfile.DIRTYPE) != tarfile.DIRTYPE:
                raise Failed(f"{name!r} would be written through {parent!r}, which is no directory: it is refused.")

    def _refuse_link(self, name: str, target: str) -> None:
        if not self._params.skip_links:
            raise Failed(
                f"{name!r} is a link to {target!r}, out of the destination: the archive is refused. "
                "Give skip_links=true to leave such links out."
            )
        self._log.warning(f"{name!r} is left out: it is a link to {target!r}, out of the destination", path=name)
        self.skipped.add(name)
        self.files -= 1

    def _leads_out(self, name: str) -> bool:
        """Follow a link as the system would, through the links of this archive."""
        at: list[str] = []
        ahead = name.split("/")[::-1]
        followed = 0
        while ahead:
            part = ahead.pop()
            if part == "..":
                if not at:
                    return True
                at.pop()
                continue
            if part in ("", "."):
                continue
            at.append(part)
            target = self._links.get("/".join(at))
            if target is not None:
                followed += 1
                if target.startswith("/"):
                    return True
                if followed > LINKS_FOLLOWED_MAX:
                    return False
                at.pop()
                ahead.extend(target.split("/")[::-1])
        return False


def _new_tar(packed: zstandard.ZstdCompressionWriter) -> tarfile.TarFile:
    tar = tarfile.open(  # noqa: SIM115 (the caller closes it)
        fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT, bufsize=READ_BYTES, errors="surrogateescape"
    )
    tar.copybufsize = READ_BYTES  # type: ignore[attr-defined] # documented, and missing from the stubs
    return tar


def forget_members(tar: tarfile.TarFile) -> None:
    """Free what `tarfile` keeps of every member for a second look that we never take."""
    cast(Any, tar).members.clear()


def safe_name(name: str) -> str:
    """A member's name as a path below the root, or `Failed`."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\0" in name or not name:
        raise Failed(f"The archive holds {name!r}, which would be outside of the destination: it is refused.")
    return "/".join(parts) or "."


def _leads_out(member: tarfile.TarInfo) -> bool:
    """True where a symbolic link, taken alone, leads out of the root of its archive."""
    joined = os.path.normpath(os.path.join(os.path.dirname(member.name), member.linkname))
    return os.path.isabs(joined) or joined.split("/")[0] == ".."


def _write_tree(reader: Reader, plan: Plan, destination: Path, advance: Callable[[int], None], log: TaskLogger) -> None:
    """Write all below a hidden directory beside the destination, which then takes its name."""
    parent = _made(destination.parent)
    _remove_leftovers(parent, log)
    with _temporary(parent, destination.name, "restoring", directory=True) as (root, _):
        try:
            _fill(Tree(root, reader, advance), plan)
            os.sync()
            os.rename(root, parent / destination.name)
        except OSError as error:
            raise Failed(f"The tree cannot be written at {destination}: {_why(error)}.") from error
        _sync_directory(parent)


def _fill(tree: "Tree", plan: Plan) -> None:
    for member in tree.reader.members():
        if safe_name(member.name) not in plan.skipped:
            tree.add(member)
    tree.finish()


class Tree:
    """The tree that is being restored, from entries that a `Plan` has accepted."""

    def __init__(self, root: Path, reader: Reader, advance: Callable[[int], None]) -> None:
        self._root = root
        self.reader = reader
        self._advance = advance
        self._directories: list[tuple[Path, tarfile.TarInfo]] = []

    def add(self, member: tarfile.TarInfo) -> None:
        path = self._root / safe_name(member.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        _look_again(member, self._root)
        if member.isdir():
            path.mkdir(exist_ok=True, mode=0o700)
            self._directories.append((path, member))
        elif member.issym():
            os.symlink(member.linkname, path)
            _set_time(path, member)
        elif member.islnk():
            os.link(self._root / safe_name(member.linkname), path, follow_symlinks=False)
        else:
            self._write(path, member)

    def finish(self) -> None:
        """Directories last and from within, for a directory may be one that nobody may write to."""
        for path, member in reversed(self._directories):
            path.chmod(member.mode & 0o777)
            _set_time(path, member)

    def _write(self, path: Path, member: tarfile.TarInfo) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            content = self.reader.open(member)
            while data := content.read(READ_BYTES):
                # Zeros become a hole again, which takes no room.
                if data.count(0) < len(data):
                    file.write(data)
                else:
                    file.seek(len(data), os.SEEK_CUR)
                self._advance(len(data))
            file.truncate()
            os.fchmod(fd, member.mode & 0o777)
        _set_time(path, member)


def _look_again(member: tarfile.TarInfo, root: Path) -> None:
    """Let the standard library look too, where it can (since 3.11.4)."""
    data_filter = getattr(tarfile, "data_filter", None)
    if data_filter is None:
        return
    try:
        data_filter(member, str(root))
    except tarfile.TarError as error:
        raise Failed(f"{member.name!r} cannot be restored safely: {error}. The archive is refused.") from error


def _set_time(path: Path, member: tarfile.TarInfo) -> None:
    # An archive may hold any number as a time, and not every file system any time.
    with contextlib.suppress(OSError, OverflowError, ValueError):
        os.utime(path, (member.mtime, member.mtime), follow_symlinks=False)


# Files under temporary names


@contextlib.contextmanager
def _temporary(parent: Path, stem: str, kind: str, *, directory: bool = False) -> Iterator[tuple[Path, int]]:
    """
    A new hidden file (or directory) beside what it will become, and gone at the end under that
    name. It is locked while it is in use, so that what a killed process left can be told apart.
    """
    path, fd = _new_locked(parent, f".{_short(stem)}.{{}}.{kind}", directory)
    try:
        yield path, fd
    finally:
        _remove(path)
        os.close(fd)


def _new_locked(parent: Path, pattern: str, directory: bool) -> tuple[Path, int]:
    flags = os.O_RDONLY if directory else os.O_RDWR | os.O_CREAT | os.O_EXCL
    while True:
        path = parent / pattern.format(secrets.token_hex(6))
        try:
            if directory:
                path.mkdir(mode=0o700)
            fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Failed(f"{parent} cannot be written to: {_why(error)}. Give another directory.") from error
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_SH)
        # Another task that looks for leftovers may have come between the making and the lock.
        if path.exists():
            return path, fd
        os.close(fd)


def _remove_leftovers(parent: Path, log: TaskLogger) -> None:
    """Remove what a killed service left unfinished: nobody holds its lock any more."""
    for path in [path for path in parent.iterdir() if _PARTIAL.fullmatch(path.name)]:
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(path)
                log.info(f"removed {path.name}, which an interrupted task had left behind")
            finally:
                os.close(fd)


def _remove(path: Path) -> None:
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    path.chmod(0o700)
    for directory, names, _ in os.walk(path):
        for inner in (Path(directory, name) for name in names):
            if not inner.is_symlink():
                inner.chmod(0o700)
    shutil.rmtree(path, ignore_errors=True)


def _short(name: str) -> str:
    """As much of a file's name as fits into another's."""
    return os.fsencode(name)[:120].decode(errors="ignore").replace("{", "").replace("}", "") or "root"


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _check(stop: threading.Event) -> None:
    if stop.is_set():
        raise Stopped


def _why(error: OSError) -> str:
    return error.strerror or str(error)
