"""The address of a server, as a user gives it."""

from urllib.parse import urlsplit

from taskd.errors import Invalid

EXPECTED = "expected a URL such as http://127.0.0.1:8642, http://[::1]:8642 or https://tools.example/taskd"


def server_url(text: str) -> str:
    """Return the URL without a slash at its end. Raises `Invalid`, which repeats no password."""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
        host.encode("idna")  # the form that a look-up uses
    except ValueError as error:  # UnicodeError is one
        raise Invalid(f"--server {_shown(text)!r}: {EXPECTED}.") from error
    whole = parts.scheme in ("http", "https") and host and not parts.query and not parts.fragment
    if not whole or not text.isprintable() or " " in text:
        raise Invalid(f"--server {_shown(text)!r}: {EXPECTED}.")
    if "@" in parts.netloc:
        raise Invalid(f"--server {_shown(text)!r}: expected no user and password; give a token with --token.")
    return f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")


def _shown(text: str) -> str:
    """Return `text` with the part that may hold a user and a password hidden."""
    scheme, separator, rest = text.rpartition("://")
    _, at, host = rest.rpartition("@")
    return f"{scheme}{separator}***@{host}" if at else text
