"""
Every error that taskd raises on purpose, in one tree.

    TaskdError
    ├── SettingsError        a setting is wrong; nothing was started
    ├── DataDirHeld          another process serves this data directory or database
    ├── JournalNewer         the journal was written by a newer taskd
    ├── JournalUnreadable    a file of the journal cannot be read, or not be removed
    ├── StoreError
    │   ├── StoreUnavailable locked, full or failing: trying again later may work
    │   ├── StoreTimeout     a query took longer than `query_timeout_s`
    │   ├── StoreNewer       the database was written by a newer taskd
    │   └── StoreCorrupt     the database is damaged, or no database
    ├── ParameterInvalid     a query parameter is unknown or has a bad value
    ├── ParamsInvalid        a plugin's params do not validate: every fault with its path
    ├── PluginNotFound       no plugin of that name is loaded
    ├── PluginNotWritten     `plugins new` cannot write what was asked for
    ├── TaskNotFound         no task of that id
    ├── TaskConflict         the task's status does not allow it
    ├── TooManyTasks         the queue of tasks is full
    ├── Stopping             the service is stopping and takes nothing new
    ├── PluginError          a plugin cannot do what was asked, and reports why
    ├── ProcessFailed        a command ended with an exit code or a signal
    └── ClientError          a client's request had no good answer
        ├── Unreachable      no server answers there, or it cannot serve now
        ├── Refused          the server does not let this client in
        └── Invalid          what was asked for is wrong
            └── NotFound     what was asked for is not there

`str(error)` is a whole sentence for the person who meets it: what was wrong, what was
expected and what to do. Nothing here knows HTTP: `taskd.api.problems` has the one table
from error to status.
"""

from collections.abc import Sequence
from typing import TypedDict


class TaskdError(Exception):
    """The root: catch this to catch all of taskd's own errors."""


class SettingsError(TaskdError):
    """A setting has a bad value."""


class DataDirHeld(TaskdError):
    """Another process serves this data directory or database."""


class JournalNewer(TaskdError):
    """The journal has what only a newer taskd can read; nothing of it was removed."""


class JournalUnreadable(TaskdError):
    """A file of the journal cannot be read or removed."""


class StoreError(TaskdError):
    """The store could not do what it was asked."""


class StoreUnavailable(StoreError):
    """The store is locked, full or failing; the same call may work later."""


class StoreTimeout(StoreError):
    """A query was abandoned because it took too long."""


class StoreNewer(StoreError):
    """The database has a newer schema than this taskd knows."""


class StoreCorrupt(StoreError):
    """SQLite says that the database is damaged (SQLITE_CORRUPT) or none (SQLITE_NOTADB)."""


class ParameterInvalid(TaskdError):
    """A query parameter that is unknown, or whose value is not what was expected."""

    def __init__(self, parameter: str, value: str, expected: str) -> None:
        super().__init__(f"{parameter}={value!r}: expected {expected}.")
        self.parameter = parameter
        self.value = value
        self.expected = expected


class Fault(TypedDict):
    """One thing wrong with a plugin's params: where (`params.source`) and what."""

    path: str
    message: str


class ParamsInvalid(TaskdError):
    """Params that the plugin does not accept; `faults` has every one with its path."""

    def __init__(self, plugin: str, faults: Sequence[Fault]) -> None:
        told = "; ".join(f"{fault['path']}: {fault['message']}" for fault in faults)
        super().__init__(f"The params are not what plugin {plugin!r} expects: {told}.")
        self.faults = list(faults)


class PluginNotFound(TaskdError):
    """No plugin of that name is loaded."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"There is no plugin {name!r}; there are: {', '.join(known) or 'none'}.")


class PluginNotWritten(TaskdError):
    """A new plugin cannot have that name, or be where it should."""


class TaskNotFound(TaskdError):
    """No task has that id."""

    def __init__(self, task_id: str) -> None:
        super().__init__(f"There is no task {task_id!r}; taskd tasks (GET /api/tasks) lists those there are.")


class TaskConflict(TaskdError):
    """The task's status does not allow what was asked."""


class TooManyTasks(TaskdError):
    """As many tasks wait as `tasks_queued_max` allows."""

    def __init__(self, queued_max: int, retry_after_s: int) -> None:
        super().__init__(f"{queued_max:,} tasks are waiting to run, which is the limit; try again later.")
        self.retry_after_s = retry_after_s


class Stopping(TaskdError):
    """The service is stopping and takes no new tasks."""

    def __init__(self) -> None:
        super().__init__("taskd is stopping and takes no new tasks; try again when it is back.")


class PluginError(TaskdError):
    """
    A plugin cannot do what was asked, for a reason that is not a fault of its code.

    Raised by plugins. `message` is a sentence with what was wrong and what was expected, `advice` one with
    what to do. The task fails with both as its error, and its log has them without a traceback.
    """

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(f"{message} {advice}".rstrip())


class ProcessFailed(TaskdError):
    """A command ended with a non-zero exit code, or was killed by a signal."""

    def __init__(self, message: str, *, returncode: int, signal: int | None) -> None:
        super().__init__(message)
        self.returncode = returncode
        self.signal = signal


class ClientError(TaskdError):
    """A request had no good answer."""


class Unreachable(ClientError):
    """No server answers there, or it cannot serve now."""


class Refused(ClientError):
    """The server does not let this client in: the token, the Host or the Origin."""


class Invalid(ClientError):
    """What was asked for is wrong: the server, or the naming of the task, says why."""


class NotFound(Invalid):
    """What was asked for is not there."""
