"""How a migration fails."""


class Failed(Exception):
    """The database was not migrated (further); the text says why and what to do."""
