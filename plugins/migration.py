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

The work is done in a thread, for a statement may take long and the loop must not wait for it.
"""

import concurrent.futures
import contextlib
import hashlib
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from taskd import Plugin, TaskContext, TaskLogger

PREFIX = "sqlite:///"
LOCK_WAIT_S = 30.0
BACKUP_STEP_PAGES = 1_000
SHOWN_CHARACTERS = 200
STATEMENTS_SHOWN_MAX = 1_000

CREATE_RECORDS = """
CREATE TABLE IF NOT EXISTS taskd_migrations (
  version     INTEGER PRIMARY KEY,
  name        TEXT NOT NULL,
  checksum    TEXT NOT NULL,
  applied_at  TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
  duration_ms REAL NOT NULL
)
"""
HAS_RECORDS = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'taskd_migrations'"
SELECT_RECORDS = "SELECT version, name, checksum FROM taskd_migrations ORDER BY version"
INSERT_RECORD = "INSERT INTO taskd_migrations (version, name, checksum, duration_ms) VALUES (?, ?, ?, ?)"

_FILE = re.compile(r"(\d{4,9})_[^/]+\.sql")
_BLANK = re.compile(r"(?:\s+|--[^\n]*(?:\n|\Z)|/\*.*?(?:\*/|\Z)|;)*", re.DOTALL)
# What may hide a ';', and the ';' itself; `open` is a quote that has no end.
_TOKEN = re.compile(r"""'[^']*'|"[^"]*"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?(?:\*/|\Z)|(?P<open>['"`\[])|;""", re.DOTALL)
_TRIGGER = re.compile(
    r"(?:EXPLAIN\s+(?:QUERY\s+PLAN\s+)?)?CREATE\b(?:\s|--[^\n]*\n|/\*.*?\*/)+(?:TEMP\w*\s+)?TRIGGER\b",
    re.IGNORECASE | re.DOTALL,
)
_FOREIGN_KEYS = re.compile(r"PRAGMA\s+foreign_keys\b", re.IGNORECASE)
_OWN_TRANSACTION = re.compile(r"(?:BEGIN|COMMIT|END|ROLLBACK|SAVEPOINT|RELEASE|VACUUM|ATTACH|DETACH)\b", re.IGNORECASE)


class Failed(Exception):
    """The database was not migrated (further); the text says why and what to do."""


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


# The files


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a file, and the line on which it begins."""

    sql: str
    line: int

    @property
    def shown(self) -> str:
        """The statement as one line, cut where it is long."""
        line = " ".join(self.sql.split())
        return line if len(line) <= SHOWN_CHARACTERS else line[:SHOWN_CHARACTERS] + " …"


@dataclass(frozen=True, slots=True)
class File:
    """One migration."""

    version: int
    name: str
    checksum: str
    text: str

    def statements(self) -> list[Statement]:
        """The file's statements. Raises `Failed` where one could not be part of a transaction."""
        statements = list(self._split())
        for statement in statements:
            if word := _OWN_TRANSACTION.match(statement.sql):
                raise Failed(
                    f"{self.name}, line {statement.line}: {word[0].upper()} is not possible here, for each "
                    "migration is one transaction of its own. Take the statement out."
                )
        return statements

    def _split(self) -> Iterator[Statement]:
        # Counted from one statement to the next: a file may have a million of them.
        line, counted = 1, 0
        start = _after_blank(self.text, 0)
        while start < len(self.text):
            line, counted = line + self.text.count("\n", counted, start), start
            end = self._end_of_statement(start)
            if end is None:
                raise Failed(f"{self.name}: the statement that begins on line {line} has no end (a quote, or END;?).")
            yield Statement(self.text[start:end].strip(), line)
            start = _after_blank(self.text, end)

    def _end_of_statement(self, start: int) -> int | None:
        # A ';' within a trigger ends a statement of the trigger: only SQLite knows which is the last.
        trigger = _TRIGGER.match(self.text, start)
        for token in _TOKEN.finditer(self.text, start):
            if token[0] == ";" and (not trigger or sqlite3.complete_statement(self.text[start : token.end()])):
                return token.end()
            if token["open"]:
                return None
        return len(self.text) if sqlite3.complete_statement(self.text[start:] + "\n;") else None


def _after_blank(text: str, start: int) -> int:
    match = _BLANK.match(text, start)
    return match.end() if match else start


def read_files(directory: Path) -> list[File]:
    """The migrations of a directory by version, from 1 without a gap. Raises `Failed`."""
    try:
        paths = sorted(path for path in directory.iterdir() if path.suffix.lower() == ".sql")
    except OSError as error:
        raise Failed(f"The directory {directory} cannot be read: {error.strerror}.") from error
    if not paths:
        raise Failed(f"The directory {directory} has no migrations. Expected files named NNNN_name.sql.")
    files = sorted((_read_file(path) for path in paths), key=lambda file: file.version)
    for expected, file in enumerate(files, 1):
        if file.version == expected - 1 and expected > 1:
            raise Failed(f"{files[expected - 2].name} and {file.name} have the same number. Renumber one of them.")
        if file.version != expected:
            raise Failed(f"There is a gap before {file.name}: expected a migration {expected:04}. Add or renumber.")
    return files


def _read_file(path: Path) -> File:
    match = _FILE.fullmatch(path.name)
    if match is None:
        raise Failed(f"{path.name!r} is not the name of a migration. Expected NNNN_name.sql, such as 0001_users.sql.")
    if not path.is_file():  # reading a pipe would wait for its other end
        raise Failed(f"{path} is not a regular file. Replace or remove it.")
    try:
        content = path.read_bytes()
        return File(int(match[1]), path.name, hashlib.sha256(content).hexdigest(), content.decode("utf-8-sig"))
    except OSError as error:
        raise Failed(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise Failed(f"{path.name} is not UTF-8 at byte {error.start:,}. Save it as UTF-8.") from error


# The plan


@dataclass(frozen=True, slots=True)
class Record:
    """A migration that the database says was applied."""

    version: int
    name: str
    checksum: str


def plan(files: list[File], records: list[Record], target: int | None) -> list[File]:
    """What is to be applied. Raises `Failed` where files and records do not fit together."""
    for file, record in zip(files, records, strict=False):
        if (file.version, file.checksum) != (record.version, record.checksum):
            raise Failed(
                f"{file.name} is not what was applied as version {record.version} ({record.name}): its checksum "
                "has changed. Put the old file back, and write the change as a new migration."
            )
    if len(records) > len(files):
        missing = records[len(files)]
        raise Failed(f"The database has {missing.name} applied, and there is no such file. Bring it back.")
    wanted = len(files) if target is None else target
    if wanted < len(records):
        raise Failed(f"target {wanted}: the database is at version {len(records)}, and migrations are never undone.")
    if wanted > len(files):
        raise Failed(f"target {wanted}: expected at most {len(files)}, the newest migration.")
    return files[len(records) : wanted]


# The run


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
        """The whole work. Raises `Failed`, or `Stopped` soon after `stop`."""
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
            raise Failed(f"The database {self._path} cannot be used: {error}.{_advice(error)}") from error

    def _result(self, applied: list[File], version: int, planned: list[File]) -> dict[str, object]:
        result: dict[str, object] = {"applied": [file.name for file in applied], "version": version}
        return result | ({"planned": [file.name for file in planned]} if self._params.dry_run else {})

    def _records_before(self) -> list[Record]:
        """What is applied, without creating or changing anything."""
        if not self._path.parent.is_dir():
            raise Failed(f"There is no directory {self._path.parent} for the database. Make it first.")
        if not self._path.exists():
            return []
        if not self._path.is_file():
            raise Failed(f"{self._path} is not a regular file. Give the file of a database.")
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
        if self._params.backup and self._path.exists() and self._path.stat().st_size:
            self._copy()
        applied: list[File] = []
        with self._connected("rwc") as connection, self._log.progress("migrations", len(planned)) as bar:
            for file in planned:
                self._check()
                if self._apply(connection, file, statements[file.version]):
                    applied.append(file)
                bar.advance()
            version = len(_records(connection))
        self._log.info(f"{self._path} is at version {version}")
        return self._result(applied, version, planned)

    def _apply(self, connection: sqlite3.Connection, file: File, statements: list[Statement]) -> bool:
        """One migration and its record in one transaction; False where another task was quicker."""
        with self._log.group(file.name), _transaction(connection):
            connection.execute(CREATE_RECORDS)
            records = _records(connection)
            if not plan_goes_on(records, file):
                self._log.info(f"{file.name} was applied by another task meanwhile")
                return False
            started = time.monotonic()
            for statement in statements:
                self._execute(connection, file, statement)
            taken_ms = round((time.monotonic() - started) * 1_000, 3)
            connection.execute(INSERT_RECORD, (file.version, file.name, file.checksum, taken_ms))
            self._check()
        return True

    def _execute(self, connection: sqlite3.Connection, file: File, statement: Statement) -> None:
        self._check()
        place = f"{file.name}:{statement.line}"
        if _FOREIGN_KEYS.match(statement.sql):
            self._log.warning(f"{place}: within a transaction this has no effect (PRAGMA defer_foreign_keys has)")
        started, changes = time.monotonic(), connection.total_changes
        try:
            returned = sum(1 for _ in connection.execute(statement.sql))
        except (sqlite3.Error, sqlite3.Warning) as error:
            self._check()
            self._log.error(f"{place}: {error}", line=statement.line, statement=statement.sql)
            raise Failed(
                f"{file.name}, line {statement.line}: {error}. The statement is: {statement.shown} "
                f"The database is as it was at version {file.version - 1}. Correct the file and run again."
            ) from error
        rows = connection.total_changes - changes or returned
        taken_ms = round((time.monotonic() - started) * 1_000, 3)
        self._log.info(f"{place} {statement.shown}", line=statement.line, duration_ms=taken_ms, rows=rows)
        if not connection.in_transaction:
            raise Failed(f"{place} ended the transaction of its migration. Take the statement out.")

    def _copy(self) -> None:
        """The database as it is, in the task's own directory, complete when it has its name."""
        copy = self._context.data_dir / f"{self._path.name}.before"
        partial = copy.with_name(copy.name + ".partial")
        partial.unlink(missing_ok=True)
        try:
            with (
                self._connected("rw") as connection,
                contextlib.closing(sqlite3.connect(partial)) as target,
                self._log.progress("backup", unit="pages") as bar,
            ):
                # Within one transaction no writer makes the copy start again.
                connection.execute("BEGIN")
                connection.execute("SELECT 1 FROM sqlite_master").fetchone()
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
    def _connected(self, mode: str) -> Iterator[sqlite3.Connection]:
        url = f"file:{quote(str(self._path))}?mode={mode}"
        # Made in the thread that uses it; only `interrupt` comes from another.
        connection = sqlite3.connect(url, uri=True, timeout=LOCK_WAIT_S, isolation_level=None, check_same_thread=False)
        self._connection = connection
        try:
            self._check()
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
    raise Failed(f"The database was changed by another task: {file.name} does not come next any more. Run again.")


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing. No other writer comes between: the lock is taken at the start."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


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
