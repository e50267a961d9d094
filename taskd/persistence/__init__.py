"""Where logs are kept. `open_persistence` imports only the backend that the URL names."""

from contextlib import AbstractAsyncContextManager

from taskd.errors import SettingsError
from taskd.metrics import Metrics
from taskd.persistence.base import LogPersistenceService
from taskd.settings import Settings

__all__ = ["LogPersistenceService", "open_persistence"]


def open_persistence(
    settings: Settings, metrics: Metrics | None = None
) -> AbstractAsyncContextManager[LogPersistenceService]:
    """
    The store that `settings.database_url` names, opened by entering the result.

    `sqlite:///relative/file` and `sqlite:////absolute/file`. Raises `SettingsError` for
    anything else, `StoreError` where the database cannot be opened.
    """
    scheme, separator, path = settings.database_url.partition(":///")
    if separator and scheme == "sqlite" and path:
        from taskd.persistence.sqlite import open_sqlite

        return open_sqlite(path, settings, metrics or Metrics())
    raise SettingsError(
        f"setting database (TASKD_DATABASE) {settings.database_url!r}: expected sqlite:///relative/file "
        "or sqlite:////absolute/file"
    )
