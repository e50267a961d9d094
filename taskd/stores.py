"""Open the store that the URL of the database names; only that store is imported."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from taskd.errors import SettingsError
from taskd.persistence.base import LogPersistenceService
from taskd.settings import Settings
from taskd.system.supervision import Supervisor


def open_persistence(
    settings: Settings, supervisor: Supervisor | None = None
) -> AbstractAsyncContextManager[LogPersistenceService]:
    """
    The store that `settings.database_url` names, opened by entering the result; `supervisor` keeps its parts running.

    `sqlite:///relative/file` and `sqlite:////absolute/file`. Raises `SettingsError` for
    anything else, `StoreError` where the database cannot be opened.
    """
    from taskd.persistence.sqlite.store import open_sqlite

    return open_sqlite(_sqlite_path(settings), settings, supervisor or Supervisor(settings))


def set_aside_database(settings: Settings, stamp: str, before: Callable[[], None]) -> str:
    """
    Keep a damaged database, which is closed, under a name with `stamp`, so that a new one can be begun; the name.

    `before` is called first, to set aside what belongs to it.

    Raises `StoreCorrupt` where that has been done too often of late, `StoreError` where it cannot be done.
    """
    from taskd.persistence.sqlite.store import set_aside_sqlite

    return str(set_aside_sqlite(_sqlite_path(settings), stamp, before))


def _sqlite_path(settings: Settings) -> str:
    scheme, separator, path = settings.database_url.partition(":///")
    if separator and scheme == "sqlite" and path:
        return path
    raise SettingsError(
        f"setting database (TASKD_DATABASE) {settings.database_url!r}: expected sqlite:///relative/file "
        "or sqlite:////absolute/file"
    )
