"""
Every limit and every choice: one field, one unit, one sentence.

Each is a flag of `taskd serve` and an environment variable `TASKD_…`; `taskd serve --help`
is made from the descriptions below. How the limits must relate to each other is checked at
the end, so that a combination that cannot work stops the start and not a task.
"""

import difflib
import ipaddress
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from taskd.entries import Level
from taskd.errors import SettingsError

KIB = 1_024
MIB = 1_024 * KIB


PLUGIN_OPTION = re.compile(r"([a-z][a-z0-9_-]*)\.([A-Za-z_][A-Za-z0-9_-]*)=(.*)", re.DOTALL)


class Settings(BaseModel):
    """What an operator chooses; see `load_settings` for how."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # Where things are
    data_dir: Path = Field(Path("taskd-data"), description="Directory of the database and of the tasks' files.")
    database: str | None = Field(
        None, description="Where entries are stored, as a URL; by default sqlite:///DATA_DIR/taskd.db."
    )
    plugins: list[Path] = Field(
        default_factory=list,
        description="Directories of plugins besides the shipped ones; in the variable separated by ':'.",
    )
    synchronous: Literal["FULL", "NORMAL"] = Field(
        "FULL", description="SQLite's PRAGMA synchronous; NORMAL may lose the last commits when power fails."
    )

    # Who may come in
    host: str = Field("127.0.0.1", description="Address to listen on; any other than loopback needs a token.")
    port: int = Field(8642, ge=0, le=65_535, description="Port to listen on; 0 takes a free one.")
    token: SecretStr | None = Field(
        None, description="Secret that every client must show; better kept in token_file or the environment."
    )
    token_file: Path | None = Field(None, description="File (mode 0600) that holds the token.")
    allowed_hosts: list[str] = Field(
        default_factory=list,
        description="Host names to answer to besides localhost and IP addresses; separated by ','.",
    )
    plugin_option: list[str] = Field(
        default_factory=list,
        description="PLUGIN.KEY=VALUE, an option of a plugin; in the variable separated by ';'.",
    )
    git_file_roots: list[Path] = Field(
        default_factory=list,
        description="Directories below which the git plugin accepts file:// URLs, as --plugin-option git.file_roots; "
        "in the variable separated by ':'.",
    )

    # The path of an entry
    flush_interval_s: float = Field(
        2.0, gt=0, le=60, description="Longest time (s) from an entry to the commit that stores it."
    )
    batch_max: int = Field(10_000, ge=1, le=1_000_000, description="Pending entries of one task that force a flush.")
    queue_max: int = Field(
        100_000,
        ge=1,
        description="Entries of one task accepted but not yet committed; more are dropped and counted.",
    )
    queue_bytes_max: int = Field(
        64 * MIB,
        ge=64 * KIB,
        description="Bytes of one task accepted but not yet committed; more are dropped and counted.",
    )
    entries_per_s_max: int = Field(
        0, ge=0, description="Entries of one task in a second; more are suppressed and counted; 0 sets no limit."
    )
    thread_wait_s: float = Field(
        5.0,
        ge=0,
        le=600,
        description="Longest time (s) that a call from a thread waits for room in its task's queue.",
    )
    message_bytes_max: int = Field(
        64 * KIB,
        ge=64,
        le=16 * MIB,
        description="Bytes (UTF-8) of one message; a longer one is split over several entries.",
    )
    metadata_bytes_max: int = Field(
        64 * KIB,
        ge=256,
        le=16 * MIB,
        description="Bytes of one entry's metadata as JSON; more is cut, with a mark.",
    )
    journal_bytes_max: int = Field(
        1_024 * MIB,
        ge=16 * MIB,
        description="Bytes of disk for the journal; without room, entries wait in memory alone.",
    )
    journal_segment_bytes: int = Field(8 * MIB, ge=1 * MIB, description="Bytes of one file of the journal.")
    journal_sync_ms: int = Field(
        0, ge=0, le=60_000, description="Time (ms) after which entries survive a power cut; 0 leaves it to the flush."
    )
    capture_level: Level = Field(
        Level.INFO,
        description="Lowest level taken from stdlib loggers inside tasks that set no level themselves.",
    )
    retry_delay_s: float = Field(
        0.1,
        gt=0,
        le=60,
        description="First wait (s) after a failed flush; it doubles up to retry_delay_max_s.",
    )
    retry_delay_max_s: float = Field(5.0, gt=0, le=600, description="Longest wait (s) between two tries of a flush.")
    restart_delay_s: float = Field(
        1.0, gt=0, le=60, description="Wait (s) before a part of taskd that died is started again; it doubles."
    )
    restart_delay_max_s: float = Field(
        60.0, gt=0, le=3_600, description="Longest wait (s) before a part of taskd that died is started again."
    )
    start_wait_s: float = Field(
        30.0, ge=0, le=3_600, description="Longest time (s) that a start waits for a database that is locked or full."
    )

    # Readers
    subscriber_queue_max: int = Field(
        10_000, ge=1, description="Live entries kept for one reader; a slower one goes back to the store."
    )
    subscriber_bytes_max: int = Field(
        8 * MIB, ge=1, description="Live bytes kept for one reader; a slower one goes back to the store."
    )
    viewers_max: int = Field(2_000, ge=1, description="Readers that follow logs at once; more are refused (503).")
    connections_max: int = Field(
        4_000,
        ge=2,
        description="Connections of all kinds at once; idle ones make room for more, else more are refused (503).",
    )
    keep_alive_s: float = Field(
        5.0,
        gt=0,
        le=600,
        description="Longest time (s) that a connection stays open after an answer without a request.",
    )
    request_timeout_s: float = Field(
        20.0, gt=0, le=600, description="Longest time (s) that a client may take to send a request, head and body."
    )
    head_bytes_max: int = Field(
        32 * KIB, ge=1 * KIB, le=1 * MIB, description="Bytes of one request's line and headers; more are refused (431)."
    )
    page_bytes_max: int = Field(
        8 * MIB, ge=1, description="Bytes of entries, or of tasks, in one page; the rest is on the next."
    )
    frame_entries_max: int = Field(500, ge=1, le=5_000, description="Entries in one WebSocket frame.")
    frame_bytes_max: int = Field(256 * KIB, ge=1, description="Bytes of entries in one WebSocket frame.")
    frame_interval_s: float = Field(
        0.025, ge=0, le=0.025, description="Time (s) for which live entries are gathered into one frame."
    )
    ping_interval_s: float = Field(14.0, gt=0, le=15, description="Longest silence (s) on a live connection.")
    send_timeout_s: float = Field(
        20.0, gt=0, le=30, description="Longest time (s) for which a client may take nothing of its answer or frames."
    )
    index_entries_min: int = Field(
        20_000,
        ge=1,
        description="Entries from which on the text of an ended task's log is indexed; shorter ones are read.",
    )
    query_timeout_s: float = Field(10.0, gt=0, le=600, description="Longest time (s) that one query may take.")
    body_bytes_max: int = Field(1 * MIB, ge=1_024, description="Bytes of one request's body.")
    websocket_input_bytes_max: int = Field(
        16 * KIB,
        ge=1,
        description="Bytes that a live client may send before it is closed (it needs to send nothing).",
    )
    readers: int = Field(3, ge=1, le=16, description="Connections (and threads) for reading the database.")

    # What is kept
    retention_days: float = Field(
        0.0, ge=0, le=36_500, description="Days after its end for which a task is kept, log and files; 0 keeps all."
    )
    retention_bytes_max: int = Field(
        0,
        ge=0,
        description="Bytes of the database in use above which the oldest ended tasks are deleted; 0 sets no limit.",
    )
    retention_interval_s: float = Field(
        60.0, gt=0, le=86_400, description="Time (s) from one pass of deletions to the next, and before the first."
    )
    retention_share_max: float = Field(
        0.1, gt=0, le=0.1, description="Share of all tasks that one pass may delete; it may always delete one."
    )
    retention_suspend_s: float = Field(
        86_400.0,
        ge=0,
        description="Time (s) without deletions by age after the clock has jumped; by size they go on.",
    )

    # Tasks
    tasks_running_max: int = Field(100, ge=1, description="Tasks that run at once; more wait their turn.")
    tasks_queued_max: int = Field(1_000, ge=1, description="Tasks that may wait; more are refused (429).")
    loop_block_warn_s: float = Field(
        1.0, ge=0.1, le=60, description="Time (s) for which a task may hold the event loop before its log says so."
    )
    loop_block_told_max: int = Field(
        6, ge=1, description="Blocks of the loop that one task's log tells in a minute; more are counted alone."
    )
    shutdown_grace_s: float = Field(
        2.0, ge=0, description="Time (s) for running tasks to finish by themselves at a stop."
    )
    shutdown_deadline_s: float = Field(4.0, ge=0, description="Time (s) for cancelled tasks to end at a stop.")
    shutdown_flush_s: float = Field(2.0, ge=0, description="Time (s) for the store to take the last entries at a stop.")

    @model_validator(mode="before")
    @classmethod
    def _read_token_file(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("token_file") and not given.get("token"):
            return {**given, "token": _token_in(Path(given["token_file"]))}
        return given

    @field_validator("token")
    @classmethod
    def _token_can_be_sent(cls, token: SecretStr | None) -> SecretStr | None:
        if token is None or not token.get_secret_value():
            return None
        # What a header can carry. (As a WebSocket's sub-protocol only letters, digits and
        # !#$%&'*+-.^_`|~ can travel: RFC 9110, section 5.6.2. The page uses its cookie.)
        if not re.fullmatch(r"[!-~]([ -~]*[!-~])?", token.get_secret_value()):
            raise ValueError("a token consists of visible ASCII characters, with spaces only between them")
        return token

    @field_validator("plugins", "git_file_roots", mode="before")
    @classmethod
    def _split_paths(cls, value: Any) -> Any:
        return [part for part in value.split(":") if part] if isinstance(value, str) else value

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        given = [value] if isinstance(value, str) else value
        return [part.strip() for names in given for part in str(names).split(",") if part.strip()]

    @field_validator("plugin_option", mode="before")
    @classmethod
    def _split_options(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(";") if part.strip()] if isinstance(value, str) else value

    @field_validator("plugin_option")
    @classmethod
    def _options_have_a_plugin(cls, options: list[str]) -> list[str]:
        for option in options:
            if not PLUGIN_OPTION.fullmatch(option):
                raise ValueError(f"{option!r} is no option: expected PLUGIN.KEY=VALUE, such as words.root=/srv/texts")
        names = [option.partition("=")[0] for option in options]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"{twice} is given twice: give it once")
        return options

    @field_validator("synchronous", "capture_level", mode="before")
    @classmethod
    def _any_case(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _limits_fit_together(self) -> "Settings":
        """Relations without which a rule of the design could not hold."""
        _require(self.batch_max <= self.queue_max, "batch_max must not exceed queue_max, or a batch is never full")
        # The largest single entry must fit in an empty queue, or it could never be stored.
        # JSON may need six bytes for one of the message's.
        largest = 6 * self.message_bytes_max + self.metadata_bytes_max + KIB
        _require(
            largest <= self.queue_bytes_max,
            f"queue_bytes_max must hold one largest entry ({largest:,} bytes)",
        )
        _require(
            largest <= self.journal_segment_bytes,
            f"journal_segment_bytes must hold a largest entry ({largest:,} bytes)",
        )
        _require(2 * self.journal_segment_bytes <= self.journal_bytes_max, "journal_bytes_max must hold two segments")
        _require(self.retry_delay_s <= self.retry_delay_max_s, "retry_delay_s must not exceed retry_delay_max_s")
        _require(
            self.restart_delay_s <= self.restart_delay_max_s, "restart_delay_s must not exceed restart_delay_max_s"
        )
        _require(
            not 0 < self.retention_bytes_max < MIB,
            f"retention_bytes_max must be 0 or at least {MIB:,}, or an empty database would exceed it",
        )
        _require(
            not self.git_file_roots or "file_roots" not in options_of(self.plugin_option, "git"),
            "git_file_roots and the plugin option git.file_roots are the same setting: give one of them",
        )
        _require(self.frame_interval_s < self.ping_interval_s, "frame_interval_s must be below ping_interval_s")
        _require(self.viewers_max < self.connections_max, "viewers_max must be below connections_max")
        needs_token = not is_loopback(self.host) and not self.token and not self.token_file
        _require(not needs_token, f"host {self.host!r} is reachable from outside and needs a token or token_file")
        return self

    @property
    def database_url(self) -> str:
        """The store's URL, with the default filled in."""
        return self.database or f"sqlite:///{self.data_dir / 'taskd.db'}"

    def options_of(self, plugin: str) -> dict[str, str]:
        """Return what `plugin_option` has for a plugin. `git_file_roots` is git's `file_roots`, separated by ':'."""
        options = options_of(self.plugin_option, plugin)
        if plugin == "git" and self.git_file_roots:
            options["file_roots"] = ":".join(map(str, self.git_file_roots))
        return options

    def rooted(self) -> "Settings":
        """The same with whole paths, as they are meant here and now: a plugin may change the working directory."""
        scheme, _, file = (self.database or "").partition(":///")
        whole: dict[str, Any] = {
            "data_dir": self.data_dir.absolute(),
            "plugins": [path.absolute() for path in self.plugins],
            "git_file_roots": [path.absolute() for path in self.git_file_roots],
        }
        if scheme == "sqlite" and file:
            whole["database"] = f"sqlite:///{Path(file).absolute()}"
        return self.model_copy(update=whole)


def options_of(given: Iterable[str], plugin: str) -> dict[str, str]:
    """Return the options of one plugin out of PLUGIN.KEY=VALUE texts."""
    found = filter(None, map(PLUGIN_OPTION.fullmatch, given))
    return {match[2]: match[3] for match in found if match[1] == plugin}


def load_settings(**overrides: Any) -> Settings:
    """
    The settings from the environment, with `overrides` (a command's flags) before it.

    Raises `SettingsError` with one line that names each bad setting, its value and why.
    """
    variables = {name: os.environ.get(_variable(name)) for name in Settings.model_fields}
    given = {name: value for name, value in variables.items() if value is not None} | overrides
    try:
        return Settings(**given)
    except ValidationError as error:
        raise SettingsError("; ".join(_told(fault) for fault in error.errors())) from error


def unknown_variables() -> list[str]:
    """Of each variable of the environment that begins as a setting's and is none, a line that says so."""
    known = {*map(_variable, Settings.model_fields), "TASKD_SERVER"}
    unknown = sorted(name for name in os.environ if name.startswith("TASKD_") and name not in known)
    return [f"{name} is no setting and is ignored{_meant(name, known)}" for name in unknown]


def _meant(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, 1, 0.8)
    return f"; {near[0]} is one" if near else "; taskd serve --help lists them"


def is_loopback(host: str) -> bool:
    """True where only this machine can connect to `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _variable(name: str) -> str:
    """The environment variable of the setting `name`."""
    return f"TASKD_{name.upper()}"


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def _told(fault: Any) -> str:
    name = ".".join(str(part) for part in fault["loc"])
    message: str = fault["msg"].removeprefix("Value error, ")
    if not name:
        return message
    shown = "" if name == "token" else f" {fault['input']!r}"
    return f"setting {name} ({_variable(name)}){shown}: {message[0].lower()}{message[1:]}"


def _token_in(path: Path) -> str:
    try:
        token = path.read_text().strip()
        mode = path.stat().st_mode & 0o777
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"token_file {str(path)!r} cannot be read ({error})") from error
    _require(not mode & 0o077, f"token_file {str(path)!r} has mode {mode:04o}, which lets others read it; chmod 600 it")
    _require(bool(token), f"token_file {str(path)!r} is empty")
    return token
