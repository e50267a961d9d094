"""
`Guard`: what the SQL of a migration, and of the database itself, may do in taskd's process.

SQLite asks it (an authorizer) for each thing that a statement would do, triggers and views
included, before the statement runs. Refused is what reaches beyond the database's file or could
end the process: extensions, pointers to tokenizers, other databases, writing to the schema or to
pages by hand, settings of the whole process. Refused as well is what would be in vain: a PRAGMA
that has no effect inside a transaction, or that SQLite does not know. The records of what was
applied are taskd's own.

`trusted_schema` stays on: with it off, SQLite before 3.41 refuses json_extract() in a schema, and
later ones highlight() in a view. What it protects from, functions of an application, there are
none here, and SQLite never lets a schema call the functions that it calls dangerous.
"""

import contextlib
import re
import sqlite3
import sys
from collections.abc import Callable, Iterator

RECORDS = "taskd_migrations"
# A larger value would be a large part of the memory of taskd's process.
VALUE_BYTES_MAX = 256 * 1_024 * 1_024

# SQLite calls itself for each query that is inside another: with triggers, views and common table expressions
# there may be any number, and at some 12,000 the stack of the thread, and with it the process, is at its end.
QUERIES_MAX = 5_000
_QUERY = re.compile(
    r"""'[^']*'|"[^"]*"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?\*/|\b(?P<query>SELECT|INSERT|UPDATE|DELETE|REPLACE)\b""",
    re.IGNORECASE | re.DOTALL,
)

# Refused also where SQLite does not mark them as dangerous; some exist in its shell alone.
FORBIDDEN_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit", "fsdir"})
DIRECT_ONLY = 0x80000  # SQLITE_DIRECTONLY, SQLite's mark for what a schema must not call
MODULES = frozenset({
    "fts3", "fts4", "fts5", "fts4aux", "fts5vocab", "fts3tokenize", "rtree", "rtree_i32", "geopoly",
})  # fmt: skip
# With a value: what is kept in the file, what holds for the statements that follow, and questions.
PRAGMAS = frozenset({
    "application_id", "user_version", "incremental_vacuum", "optimize", "analysis_limit",
    "defer_foreign_keys", "recursive_triggers", "legacy_alter_table", "ignore_check_constraints",
    "case_sensitive_like", "secure_delete", "automatic_index", "reverse_unordered_selects",
    "table_info", "table_xinfo", "table_list", "index_info", "index_xinfo", "index_list",
    "foreign_key_list", "foreign_key_check", "integrity_check", "quick_check",
})  # fmt: skip
_BY_A_CLIENT = "Set it once with an SQLite client"
_BY_EACH_PROGRAM = "It holds for one connection: set it in the program that uses the database."
NO_EFFECT = {
    "journal_mode": f"{_BY_A_CLIENT}; it lasts.",
    "auto_vacuum": f"{_BY_A_CLIENT}, followed by VACUUM.",
    "page_size": f"{_BY_A_CLIENT}, followed by VACUUM.",
    "encoding": "It can only be set before the database has its first table.",
    "wal_checkpoint": "SQLite does it by itself.",
    "synchronous": _BY_EACH_PROGRAM,
    "temp_store": _BY_EACH_PROGRAM,
    "locking_mode": _BY_EACH_PROGRAM,
}
FOREIGN_KEYS = "within a transaction this has no effect (PRAGMA defer_foreign_keys has)"

_WRITES = {
    sqlite3.SQLITE_INSERT: 0, sqlite3.SQLITE_UPDATE: 0, sqlite3.SQLITE_DELETE: 0, sqlite3.SQLITE_DROP_TABLE: 0,
    sqlite3.SQLITE_ALTER_TABLE: 1, sqlite3.SQLITE_CREATE_TRIGGER: 1, sqlite3.SQLITE_CREATE_TEMP_TRIGGER: 1,
    sqlite3.SQLITE_CREATE_INDEX: 1,
}  # fmt: skip


class Guard:
    """The authorizer of one connection. `refused` is why it refused something last."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.refused: str | None = None
        self._warn: Callable[[str], object] = lambda warning: None
        self._own = False
        self._queries = 0
        self._pragmas = {str(name) for (name,) in connection.execute("PRAGMA pragma_list")}
        self._functions = FORBIDDEN_FUNCTIONS | _marked_dangerous(connection)
        # Damage is then an error, not a wrong answer.
        connection.execute("PRAGMA cell_size_check = ON")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        if sys.version_info >= (3, 12):
            connection.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)
        connection.set_authorizer(self._authorize)

    def count(self, sql: str) -> None:
        """Count the queries of a statement, and those that last. Raises `sqlite3.OperationalError` if they are many."""
        queries = sum(1 for token in _QUERY.finditer(sql) if token["query"])
        if self._queries + queries > QUERIES_MAX:
            raise sqlite3.OperationalError(
                f"the statement, with the triggers and views that there are, has more than {QUERIES_MAX:,} queries, "
                "and inside each other they would end the process"
            )
        if sql[:6].upper() == "CREATE":
            self._queries += queries

    @contextlib.contextmanager
    def own(self) -> Iterator[None]:
        """Let the statements of a `with` block begin and end transactions and write the records."""
        self._own = True
        try:
            yield
        finally:
            self._own = False

    @contextlib.contextmanager
    def warning(self, warn: Callable[[str], object]) -> Iterator[None]:
        """Call `warn` for what a statement of a `with` block does in vain but may do."""
        self._warn = warn
        try:
            yield
        finally:
            self._warn = lambda warning: None

    def _authorize(
        self, action: int, first: str | None, second: str | None, database: str | None, inside: str | None
    ) -> int:
        refused = self._reason(action, first or "", second)
        if refused is None:
            return sqlite3.SQLITE_OK
        self.refused = refused
        return sqlite3.SQLITE_DENY

    def _reason(self, action: int, first: str, second: str | None) -> str | None:
        """Return why the action is refused, or None."""
        if action == sqlite3.SQLITE_FUNCTION and second is not None and second.lower() in self._functions:
            return f"the function {second} is not allowed in a migration: it reaches beyond the database"
        if action == sqlite3.SQLITE_PRAGMA:
            return self._about_pragma(first.lower(), second)
        if action in (sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH):
            return "a migration is about one database: ATTACH, DETACH and VACUUM are not allowed in it"
        if action == sqlite3.SQLITE_CREATE_VTABLE and (second or "").lower() not in MODULES:
            return f"virtual tables of the module {second} are not allowed in a migration"
        if action == sqlite3.SQLITE_TRANSACTION and not self._own:
            return "each migration is one transaction of its own: it can neither begin nor end one"
        if action in _WRITES:
            return self._about_table(((first, second or "")[_WRITES[action]]).lower())
        return None

    def _about_table(self, table: str) -> str | None:
        if table == RECORDS and not self._own:
            return f"{RECORDS} has the records of what was applied; only taskd writes to it"
        if table == "sqlite_dbpage":
            return "the pages of the database are not to be written by hand"
        return None

    def _about_pragma(self, name: str, value: str | None) -> str | None:
        if name not in self._pragmas:
            return f"SQLite does not know PRAGMA {name} and would pass over it. Correct its name or take it out"
        if name in PRAGMAS or (value is None and name != "wal_checkpoint"):
            return None
        if name == "foreign_keys":
            self._warn(FOREIGN_KEYS)
            return None
        if name in NO_EFFECT:
            return f"PRAGMA {name} has no effect inside a transaction, and each migration is one. {NO_EFFECT[name]}"
        return f"PRAGMA {name} is not allowed in a migration: it is no setting of the database"


def _marked_dangerous(connection: sqlite3.Connection) -> set[str]:
    # Not by a SELECT, which would read the schema: the database may be locked.
    return {str(name) for name, *_, flags in connection.execute("PRAGMA function_list") if flags & DIRECT_ONLY}
