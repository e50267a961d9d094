"""
The head of a request: what two programs could read differently is refused, not guessed.

httptools accepts more than RFC 9112 lets a server understand: transfer codings that are not decoded here,
HTTP/2.0 in a request line, fragments, WebSocket handshakes with a body. A proxy in front of taskd may
read such a request in another way, and the guard would then judge a request that was never sent.
"""

import re
from collections.abc import Sequence
from http import HTTPStatus

Headers = Sequence[tuple[bytes, bytes]]
Fault = tuple[int, str]

_ABSOLUTE = re.compile(rb"https?://([^/?#]*)(/[^#]*)?", re.IGNORECASE)


def target_of(url: bytes, headers: Headers) -> bytes | None:
    """
    Return the path and query that a request line asks for, or None if it is not for our `Host`.

    A request line may name the host as well (RFC 9112, 3.2.2), but only the one that the guard judges.
    """
    if url.startswith(b"/") or url == b"*":
        return None if b"#" in url else url
    found = _ABSOLUTE.fullmatch(url)
    hosts = [value.lower() for name, value in headers if name == b"host"]
    return (found[2] or b"/") if found and hosts == [found[1].lower()] else None


def framing_fault(version: str, headers: Headers) -> Fault | None:
    """Return why the version or the framing of a request cannot be understood; None if it can."""
    if version not in ("1.0", "1.1"):
        return HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, f"HTTP/{version}: expected HTTP/1.1."
    codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    if not codings:
        return None
    if version == "1.0":
        return HTTPStatus.BAD_REQUEST, "Transfer-Encoding in HTTP/1.0: expected Content-Length."
    if codings != [b"chunked"]:
        return HTTPStatus.BAD_REQUEST, "Transfer-Encoding: expected chunked and no other coding."
    return None


def handshake_fault(method: bytes, headers: Headers) -> Fault | None:
    """Return why a request cannot become a WebSocket (RFC 6455, 4.1: a GET without a body), or None."""
    bodies = [value for name, value in headers if name in (b"transfer-encoding", b"content-length")]
    if method == b"GET" and all(value == b"0" for value in bodies):
        return None
    return HTTPStatus.BAD_REQUEST, "Upgrade: websocket: expected a GET without a body."
