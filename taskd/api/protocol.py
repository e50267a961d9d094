"""
HTTP as it comes off the wire: uvicorn's protocol, with the bounds that it lacks.

uvicorn keeps whatever a client sends until it makes sense: 36 MB of small header lines, which
need no token, took 600 MB. So what comes without anything coming of it (a head that does not end,
a chunk's extension, trailers) is counted, and cut off with 431. A request line may also name a
host (RFC 9112, 3.2.2): where it is another than the `Host` that the guard looks at, somebody on
the way may have looked at the other one, and the request is refused.

What is refused here never reaches the application; it is a problem with safe headers all the same.
"""

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from taskd.api.responses import SAFE_HEADERS, problem

# What a header costs to keep, besides its text.
_HEADER_BYTES = 64


class _HeadRefused(Exception):
    """Raised within the parser, which ends with it."""


class BoundedHttp(HttpToolsProtocol):
    """One connection. The bound is where uvicorn has it for its other protocol: `h11_max_incomplete_event_size`."""

    _refusal: Response | None = None
    _unheard_bytes = 0

    def data_received(self, data: bytes) -> None:
        self._unheard_bytes += len(data)
        super().data_received(data)
        if self._unheard_bytes > self._head_bytes_max and not self.transport.is_closing():
            self._refusal = self._too_large()
            self.send_400_response("")

    def on_headers_complete(self) -> None:
        self._unheard_bytes = 0
        if sum(len(name) + len(value) + _HEADER_BYTES for name, value in self.headers) > self._head_bytes_max:
            self._refusal = self._too_large()
        elif not self._is_for_its_host():
            self._refusal = problem(400, "The request line names another host than the header Host.")
        if self._refusal is not None:
            raise _HeadRefused
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unheard_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unheard_bytes = 0
        super().on_message_complete()

    def _is_for_its_host(self) -> bool:
        if self.url.startswith(b"/") or self.url == b"*":
            return True
        _, _, rest = self.url.partition(b"://")
        hosts = [value for name, value in self.headers if name == b"host"]
        return hosts == [rest.partition(b"/")[0]]

    def send_400_response(self, msg: str) -> None:
        """Answer what was refused, or is no HTTP, with a problem, and close."""
        response = self._refusal or problem(400, "The request is not HTTP/1.1 as RFC 9112 has it.")
        headers = {**SAFE_HEADERS, **response.headers, "Connection": "close"}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("latin-1")
        self.transport.write(STATUS_LINE[response.status_code] + head + b"\r\n" + bytes(response.body))
        self.transport.close()

    @property
    def _head_bytes_max(self) -> int:
        assert self.config.h11_max_incomplete_event_size is not None, "the server sets it"
        return self.config.h11_max_incomplete_event_size

    def _too_large(self) -> Response:
        expected = f"expected at most {self._head_bytes_max:,} bytes (head_bytes_max)"
        return problem(431, f"The head of the request is too large: {expected}.")
