"""
The files of a migration, and the statements in them.

A file is split with the rules of SQLite's own tokenizer, so that a ';' in a quote, a comment or a
trigger ends no statement. A trigger ends at the END that follows a ';', which no other END does.
Whatever would make SQLite pass over the rest of a file in silence is refused: a quote or a
comment without an end, a comment that ends in a bare carriage return, a NUL character.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from taskd import PluginError

SHOWN_CHARACTERS = 200
# A larger one would take a large part of the memory of taskd's process, and to split it hold up the service.
FILE_BYTES_MAX = 32 * 1_024 * 1_024

_FILE = re.compile(r"([0-9]{4,9})_[^/]+\.sql")
# What SQLite takes for white space, a byte order mark included, and whole comments. A comment with a bare
# carriage return in it is not whole: SQLite reads on to the next newline.
_SPACE = r"[ \t\n\f\r\ufeff][ \t\n\v\f\r]*"
_LINE_COMMENT = r"--[^\n\r]*(?:\r*\n|\r*\Z)"
_COMMENT = rf"{_LINE_COMMENT}|/\*.*?\*/"
_BLANK = rf"(?:{_SPACE}|{_COMMENT})"
_WORD_ENDS = r"(?![A-Za-z0-9_$\x80-\U0010ffff])"
_BLANKS = re.compile(rf"(?:{_SPACE}|{_COMMENT}|;)*+", re.DOTALL)
# What may hide a ';', and the ';' itself; `open` begins something that has no end.
_TOKEN = re.compile(
    rf"""'[^']*'|"[^"]*"|`[^`]*`|\[[^\]]*\]|{_COMMENT}|(?P<open>['"`\[]|--|/\*)|;""",
    re.DOTALL,
)
_TRIGGER = re.compile(
    rf"(?:EXPLAIN{_BLANK}++(?:QUERY{_BLANK}++PLAN{_BLANK}++)?)?"
    rf"CREATE{_BLANK}++(?:TEMP(?:ORARY)?{_BLANK}++)?TRIGGER{_WORD_ENDS}",
    re.IGNORECASE | re.DOTALL,
)
_END = re.compile(rf"{_BLANK}*+END{_WORD_ENDS}", re.IGNORECASE | re.DOTALL)
_OWN_TRANSACTION = re.compile(
    rf"(?:BEGIN|COMMIT|END|ROLLBACK|SAVEPOINT|RELEASE|VACUUM|ATTACH|DETACH){_WORD_ENDS}", re.IGNORECASE
)


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
        """The file's statements. Raises `PluginError` if one cannot be part of a transaction."""
        statements = list(self._split())
        for statement in statements:
            if word := _OWN_TRANSACTION.match(statement.sql):
                raise PluginError(
                    f"{self.name}, line {statement.line}: {word[0].upper()} is not possible here, for each "
                    "migration is one transaction of its own. Take the statement out."
                )
        return statements

    def _split(self) -> Iterator[Statement]:
        # Counted from one statement to the next: a file may have a million of them.
        line, counted = 1, 0
        start = self._after_blanks(0)
        while start < len(self.text):
            line, counted = line + self.text.count("\n", counted, start), start
            end = self._end_of_statement(start, line)
            yield Statement(self.text[start:end].strip(), line)
            start = self._after_blanks(end)

    def _after_blanks(self, start: int) -> int:
        match = _BLANKS.match(self.text, start)
        return match.end() if match else start

    def _end_of_statement(self, start: int, line: int) -> int:
        """Return where the statement that begins at `start` ends. Raises `PluginError` if it does not end."""
        in_trigger = _TRIGGER.match(self.text, start) is not None
        for token in _TOKEN.finditer(self.text, start):
            if token["open"]:
                raise self._without_end(token, line)
            if token[0] != ";":
                continue
            if not in_trigger:
                return token.end()
            in_trigger = _END.match(self.text, token.end()) is None
        if in_trigger:
            raise PluginError(
                f"{self.name}: the trigger that begins on line {line} has no end: expected END; after a ';'."
            )
        return len(self.text)

    def _without_end(self, token: re.Match[str], line: int) -> PluginError:
        at = self.text.count("\n", 0, token.start()) + 1
        if token[0] == "--":
            return PluginError(
                f"{self.name}, line {at}: the comment has a carriage return in it, and SQLite would take all up to the "
                "next newline for a comment. Save the file with newlines (LF or CRLF)."
            )
        what = "comment" if token[0] == "/*" else "quote"
        return PluginError(
            f"{self.name}: the statement that begins on line {line} has no end: the {what} {token[0]} on line {at} "
            "is never closed."
        )


def read_files(directory: Path) -> list[File]:
    """The migrations of a directory by version, from 1 without a gap. Raises `PluginError`."""
    try:
        paths = sorted(path for path in directory.iterdir() if path.suffix.lower() == ".sql")
    except OSError as error:
        raise PluginError(f"The directory {directory} cannot be read: {error.strerror}.") from error
    if not paths:
        raise PluginError(f"The directory {directory} has no migrations. Expected files named NNNN_name.sql.")
    files = sorted((_read_file(path) for path in paths), key=lambda file: file.version)
    for expected, file in enumerate(files, 1):
        if file.version == expected - 1 and expected > 1:
            raise PluginError(f"{files[expected - 2].name} and {file.name} have the same number. Renumber one of them.")
        if file.version != expected:
            raise PluginError(
                f"There is a gap before {file.name}: expected a migration {expected:04}. Add or renumber."
            )
    return files


def _read_file(path: Path) -> File:
    match = _FILE.fullmatch(path.name)
    if match is None or not path.name.isprintable():  # what is no UTF-8 could not be recorded
        raise PluginError(
            f"{path.name!r} is not the name of a migration. Expected NNNN_name.sql, such as 0001_users.sql."
        )
    if not path.is_file():  # reading a pipe would wait for its other end
        raise PluginError(f"{path} is not a regular file. Replace or remove it.")
    try:
        with path.open("rb") as opened:
            content = opened.read(FILE_BYTES_MAX + 1)
        if len(content) > FILE_BYTES_MAX:
            raise PluginError(
                f"{path.name} has more than {FILE_BYTES_MAX >> 20} MiB. Divide it into several migrations."
            )
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise PluginError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise PluginError(f"{path.name} is not UTF-8 at byte {error.start:,}. Save it as UTF-8.") from error
    if "\0" in text:
        raise PluginError(
            f"{path.name} has a NUL character at byte {content.index(0):,}, as UTF-16 has. Save it as UTF-8."
        )
    return File(int(match[1]), path.name, hashlib.sha256(content).hexdigest(), text)
