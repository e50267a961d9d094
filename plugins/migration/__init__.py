"""
Migration: brings an SQLite database to a newer version, one numbered SQL file at a time.

A directory holds `0001_name.sql`, `0002_other.sql` and so on. What is true of it:

- Everything that can be known before is checked before anything is touched: numbers without a
  gap or a duplicate, applied files unchanged (by checksum), every statement complete.
- Each migration and its record in `taskd_migrations` are one transaction. Whatever happens,
  the database is at one version or at the next, never between.
- Before the first one a copy of the database is put into the task's own directory.
- Two at once on one database wait for each other; what the first has applied, the second finds
  applied.
- Neither the SQL of a migration nor the database itself reaches beyond the database's file
  (`guard`), and each migration has a connection of its own: no setting of one holds for the next.

The work is done in a thread, for a statement may take long and the loop must not wait for it.
"""

import concurrent.futures
import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from taskd import Plugin, PluginError, TaskContext, TaskLogger

from .files import File, Statement, read_files
from .guard import RECORDS, Guard

PREFIX = "sqlite:///"
LOCK_WAIT_S = 30.0
# SQLite cannot be interrupted while it waits for a lock: so often it is looked whether the task is cancelled.
LOCK_LOOK_S = 0.5
BACKUP_STEP_PAGES = 1_000
STATEMENTS_SHOWN_MAX = 1_000
NAME_BYTES_MAX = 200
# What SQLite keeps beside a database, by the end of its name.
PARTS = ("-journal", "-wal", "-shm")

# With `main`, for a migration may have a temporary table of that name.
CREATE_RECORDS = f"""
CREATE TABLE IF NOT EXISTS main.{RECORDS} (
  version     INTEGER PRIMARY KEY,
  name        TEXT NOT NULL,
  checksum    TEXT NOT NULL,
  applied_at  TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
  duration_ms REAL NOT NULL
)
"""
HAS_RECORDS = f"SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND lower(name) = '{RECORDS}'"
SELECT_RECORDS = f"SELECT version, name, checksum FROM main.{RECORDS} ORDER BY version"
SELECT_NESTING = "SELECT sql FROM main.sqlite_master WHERE type IN ('trigger', 'view')"
INSERT_RECORD = f"INSERT INTO main.{RECORDS} (version, name, checksum, duration_ms) VALUES (?, ?, ?, ?)"


class Stopped(concurrent.futures.CancelledError):
    """The thread has seen that the task is cancelled."""


def _is_sqlite(database: str) -> str:
    if not database.startswith(PREFIX + "/") or len(database) == len(PREFIX) + 1:
        path = database if database[:1] == "/" else "/srv/app.db"
        raise ValueError(f"expected {PREFIX}/absolute/file, e.g. {PREFIX}{path}")
    return _no_nul(database)


def _no_nul(path: str) -> str:
    if "\0" in path:
        raise ValueError("it has a NUL character in it, which no path can have")
    return path


class MigrationParams(BaseModel):
    """Which database, and where its migrations are."""

    model_config = ConfigDict(extra="forbid")

    database: Annotated[str, AfterValidator(_is_sqlite)] = Field(
        description="The database as sqlite:////absolute/file; it is created where it is missing."
    )
    directory: Annotated[str, AfterValidator(_no_nul)] = Field(
        min_length=1, description="The directory of the migrations, files NNNN_name.sql."
    )
    target: int | None = Field(None, ge=0, description="The version to stop at; by default the newest.")
    dry_run: bool = Field(False, description="Show what would be applied; nothing runs, so wrong SQL is not found.")
    backup: bool = Field(True, description="Copy the database into the task's own directory before.")

    @property
    def path(self) -> Path:
        """The file of the database."""
        return Path(self.database.removeprefix(PREFIX))


class Migration(Plugin):
    """Applies numbered SQL files to an SQLite database, each in one transaction with its record."""

    name = "migration"
    title = "Database migration"
    Params = MigrationParams

    async def execute(self, params: MigrationParams, context: TaskContext) -> object:
        run = Run(params, context)
        return await context.run_in_thread(run.migrate, stop=run.stop)


# The plan


@dataclass(frozen=True, slots=True)
class Record:
    """A migration that the database says was applied."""

    version: int
    name: str
    checksum: str


def plan(files: list[File], records: list[Record], target: int | None) -> list[File]:
    """What is to be applied. Raises `PluginError` where files and records do not fit together."""
    for file, record in zip(files, records, strict=False):
        if (file.version, file.checksum) != (record.version, record.checksum):
            raise PluginError(
                f"{file.name} is not what was applied as version {record.version} ({record.name}): its checksum "
                "has changed. Put the old file back, and write the change as a new migration."
            )
    if len(records) > len(files):
        missing = records[len(files)]
        raise PluginError(f"The database has {missing.name} applied, and there is no such file. Bring it back.")
    wanted = len(files) if target is None else target
    if wanted < len(records):
        raise PluginError(
            f"target {wanted}: the database is at version {len(records)}, and migrations are never undone."
        )
    if wanted > len(files):
        raise PluginError(f"target {wanted}: expected at most {len(files)}, the newest migration.")
    return files[len(records) : wanted]


# The run


class Guarded(sqlite3.Connection):
    """A connection with its `guard`."""

    guard: Guard


class Run:
    """One task's work, in a thread; `stop` is called from another."""

    def __init__(self, params: MigrationParams, context: TaskContext) -> None:
        self._params = params
        self._path = params.path
        self._context = context
        self._log: TaskLogger = context.logger
        self._stopped = threading.Event()
        self._connection: sqlite3.Connection | None = None

    def stop(self) -> None:
        """Let the work end soon: the statement that runs is interrupted and its migration undone."""
        self._stopped.set()
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(sqlite3.ProgrammingError):
                connection.interrupt()

    def migrate(self) -> dict[str, object]:
        """The whole work. Raises `PluginError`, or `Stopped` soon after `stop`."""
        try:
            files = read_files(Path(self._params.directory))
            records = self._records_before()
            planned = plan(files, records, self._params.target)
            statements = {file.version: file.statements() for file in planned}
            self._tell(planned, len(records))
            if self._params.dry_run or not planned:
                return self._result([], len(records), planned)
            return self._apply_all(planned, statements)
        except sqlite3.Error as error:
            self._check()
            raise PluginError(f"The database {self._path} cannot be used: {error}.{_advice(error)}") from error

    def _result(self, applied: list[File], version: int, planned: list[File]) -> dict[str, object]:
        result: dict[str, object] = {"applied": [file.name for file in applied], "version": version}
        return result | ({"planned": [file.name for file in planned]} if self._params.dry_run else {})

    def _records_before(self) -> list[Record]:
        """What is applied, without creating or changing anything."""
        if not self._path.parent.is_dir():
            raise PluginError(f"There is no directory {self._path.parent} for the database. Make it first.")
        if not os.path.exists(self._path):  # a name that is too long for one is told by SQLite
            return []
        for part in ("", *PARTS):
            path = self._path.with_name(self._path.name + part)
            if os.path.exists(path) and not path.is_file():  # SQLite would wait for the other end of a pipe
                raise PluginError(
                    f"{path} is not a regular file. {'Remove it' if part else 'Give the file of a database'}."
                )
        with self._connected("rw") as connection:
            return _records(connection)

    def _tell(self, planned: list[File], version: int) -> None:
        what, many = "would apply" if self._params.dry_run else "to apply", "s" * (len(planned) > 1)
        told = f"{what}: {len(planned):,} migration{many}" if planned else "nothing to apply"
        self._log.info(f"{self._path} is at version {version}; {told}")
        for file in planned if self._params.dry_run else []:
            statements = file.statements()
            self._log.info(f"would apply {file.name}: {len(statements):,} statement{'s' * (len(statements) != 1)}")
            for statement in statements[:STATEMENTS_SHOWN_MAX]:
                self._log.info(f"{file.name}:{statement.line} {statement.shown}", line=statement.line)

    def _apply_all(self, planned: list[File], statements: dict[int, list[Statement]]) -> dict[str, object]:
        if self._params.backup and os.path.exists(self._path) and self._path.stat().st_size:
            self._copy()
        applied: list[File] = []
        version = 0
        with self._log.progress("migrations", len(planned)) as bar:
            for file in planned:
                with self._connected("rwc") as connection:
                    version, quicker = self._apply(connection, file, statements[file.version])
                applied += [] if quicker else [file]
                bar.advance()
        self._log.info(f"{self._path} is at version {version}")
        return self._result(applied, version, planned)

    def _apply(self, connection: "Guarded", file: File, statements: list[Statement]) -> tuple[int, bool]:
        """One migration and its record in one transaction; returns the version and if another task was quicker."""
        with self._log.group(file.name), self._transaction(connection):
            with connection.guard.own():
                connection.execute(CREATE_RECORDS)
            records = _records(connection)
            if not plan_goes_on(records, file):
                self._log.info(f"{file.name} was applied by another task meanwhile")
                return len(records), True
            started = time.monotonic()
            for statement in statements:
                self._execute(connection, file, statement)
            taken_ms = round((time.monotonic() - started) * 1_000, 3)
            with connection.guard.own():
                connection.execute(INSERT_RECORD, (file.version, file.name, file.checksum, taken_ms))
            self._check()
        return file.version, False

    @contextlib.contextmanager
    def _transaction(self, connection: "Guarded") -> Iterator[None]:
        """All or nothing. No other writer comes between: the lock is taken at the start."""
        self._patiently(connection, "BEGIN IMMEDIATE")
        try:
            yield
            self._patiently(connection, "COMMIT")
        finally:
            if connection.in_transaction:
                with connection.guard.own():
                    connection.execute("ROLLBACK")

    def _patiently(self, connection: "Guarded", sql: str) -> list[Any]:
        """Return what a statement that waits for a lock answers. Raises `Stopped` soon after `stop`."""
        until = time.monotonic() + LOCK_WAIT_S
        while True:
            self._check()
            try:
                with connection.guard.own():
                    return connection.execute(sql).fetchall()
            except sqlite3.OperationalError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                    raise

    def _execute(self, connection: "Guarded", file: File, statement: Statement) -> None:
        self._check()
        # What is returned is only counted: to decode a large text would hold up the whole service.
        connection.text_factory = bytes
        place = f"{file.name}:{statement.line}"
        started, changes = time.monotonic(), connection.total_changes
        try:
            connection.guard.count(statement.sql)
            with connection.guard.warning(lambda warning: self._log.warning(f"{place}: {warning}")):
                returned = sum(1 for _ in connection.execute(statement.sql))
        except (sqlite3.Error, sqlite3.Warning) as error:
            self._check()
            why = (connection.guard.refused or str(error)).rstrip(".")
            self._log.error(f"{place}: {why}", line=statement.line, statement=statement.sql)
            raise PluginError(
                f"{file.name}, line {statement.line}: {why}. The statement is: {statement.shown} "
                f"The database is as it was at version {file.version - 1}. Correct the file and run again."
            ) from error
        rows = connection.total_changes - changes or returned
        taken_ms = round((time.monotonic() - started) * 1_000, 3)
        self._log.info(f"{place} {statement.shown}", line=statement.line, duration_ms=taken_ms, rows=rows)
        if not connection.in_transaction:
            raise PluginError(f"{place} ended the transaction of its migration. Take the statement out.")

    def _copy(self) -> None:
        """The database as it is, in the task's own directory, complete when it has its name."""
        name = os.fsencode(self._path.name)[:NAME_BYTES_MAX].decode(errors="ignore")
        copy = self._context.data_dir / f"{name}.before"
        partial = copy.with_name(copy.name + ".partial")
        partial.unlink(missing_ok=True)
        try:
            with (
                self._connected("rw") as connection,
                contextlib.closing(sqlite3.connect(partial)) as target,
                self._log.progress("backup", unit="pages") as bar,
            ):
                # Within one transaction no writer makes the copy start again.
                self._patiently(connection, "BEGIN")
                self._patiently(connection, "SELECT 1 FROM sqlite_master")
                connection.backup(target, pages=BACKUP_STEP_PAGES, progress=self._shown_in(bar))
            os.rename(partial, copy)
        finally:
            partial.unlink(missing_ok=True)
        self._log.info(f"the database as it was is at {copy}")

    def _shown_in(self, bar: Any) -> Callable[[int, int, int], None]:
        def show(status: int, remaining: int, total: int) -> None:
            self._check()
            bar.total = total
            bar.update(total - remaining)

        return show

    @contextlib.contextmanager
    def _connected(self, mode: str) -> Iterator["Guarded"]:
        url = f"file://{quote(str(self._path))}?mode={mode}"
        # Made in the thread that uses it; only `interrupt` comes from another.
        connection = sqlite3.connect(
            url, uri=True, timeout=LOCK_LOOK_S, isolation_level=None, check_same_thread=False, factory=Guarded
        )
        self._connection = connection
        try:
            self._check()
            connection.guard = Guard(connection)
            # Text that is no UTF-8 is the database's affair.
            connection.text_factory = lambda text: text.decode(errors="replace")
            for (sql,) in self._patiently(connection, SELECT_NESTING):
                connection.guard.count(str(sql))
            yield connection
        finally:
            self._connection = None
            connection.close()

    def _check(self) -> None:
        if self._stopped.is_set():
            raise Stopped


def plan_goes_on(records: list[Record], file: File) -> bool:
    """Whether `file` is the next to apply, now that nobody else can; False where it is applied."""
    if len(records) == file.version - 1:
        return True
    if len(records) >= file.version and records[file.version - 1].checksum == file.checksum:
        return False
    raise PluginError(f"The database was changed by another task: {file.name} does not come next any more. Run again.")


def _records(connection: sqlite3.Connection) -> list[Record]:
    if connection.execute(HAS_RECORDS).fetchone() is None:
        return []
    return [Record(*row) for row in connection.execute(SELECT_RECORDS)]


def _advice(error: sqlite3.Error) -> str:
    if "locked" in (text := str(error)) or "busy" in text:
        return f" Another program has held its lock for {LOCK_WAIT_S:.0f} s: end it, or run again later."
    if "not a database" in text:
        return " Give the file of an SQLite database, or a name that does not exist yet."
    return ""
