"""The version of taskd, for the packaging, the command and the API."""

__version__ = "0.1.0"
