"""
Access control: `Guard`, in front of every route, HTTP and WebSocket alike.

The guard checks a request in this order:

1. `Host`: another site whose name was made to point here (DNS rebinding) sends its own name.
2. `Origin`: a browser names the page that sends a request. The guard refuses a WebSocket or a change
   that comes from another site's page.
3. `Sec-Fetch-Site` (W3C Fetch Metadata): a page elsewhere that only reads (an image, a script) sends no
   `Origin` and cannot see the answer, but could keep the store busy and take the seats of viewers. The
   guard refuses it unless a person follows a link.
4. The token, if one is set: as a bearer token, as the page's cookie or as a WebSocket's sub-protocol.
   It never stands in the URL, which ends up in logs.

The cookie's value is derived from the token, so reading the cookie does not reveal the token, and a
new token ends every session. Comparisons take the same time for every wrong value.
"""

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Collection, Iterator
from hmac import compare_digest

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from taskd.api import schemas
from taskd.api.bodies import read_body
from taskd.api.middleware import refuse
from taskd.api.operations import Answer, Operation, Refused, service_of
from taskd.api.problems import problem
from taskd.settings import Settings

COOKIE = "taskd_session"
SUBPROTOCOL = "taskd.token."
TOKEN_MISSING = (
    "This service has a token, and the request does not carry it: expected Authorization: Bearer TOKEN, "
    "the cookie that POST /api/session sets, or, for a WebSocket, the sub-protocol taskd.token.TOKEN."
)
KNOWN = "taskd.known"
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="taskd"'}

_PAGE_SCHEMES = {"ws": "http", "wss": "https"}
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^\[\]:/@\s]+)(:(?P<port>\d{1,5}))?")


class Guard:
    """ASGI middleware that refuses with 403 (Host, Origin, Sec-Fetch-Site) and 401 (token) before any route runs."""

    def __init__(self, app: ASGIApp, settings: Settings, public: Collection[tuple[str, str]]) -> None:
        """Let the (method, path) pairs of `public` pass without a token; a path may end in `/*`, for any one name."""
        self._app = app
        self._token = _token_of(settings)
        self._hosts = {host.lower() for host in settings.allowed_hosts}
        self._public = frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await refuse(scope, receive, send, refusal)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        """Return the first check that the request fails, as a problem; None if it passes all."""
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            expected = "localhost, an IP address or one of the setting allowed_hosts"
            return problem(403, f"Host {', '.join(hosts)!r}: expected {expected}.")
        # A request without an Origin comes from no browser. An Origin must be equal to the letter (RFC 6454).
        own = _origin_of(scope["scheme"], hosts[0])
        if _changes(scope) and origins not in ([], [own]):
            return problem(403, f"Origin {', '.join(origins)!r}: expected {own!r} or none.")
        if _is_of_another_page(headers, scope):
            return problem(403, f"Sec-Fetch-Site {headers['sec-fetch-site']!r}: expected a request of taskd's page.")
        scope[KNOWN] = not self._token or self._is_known(scope)
        if not scope[KNOWN] and not self._is_public(scope):
            return problem(401, TOKEN_MISSING, headers=CHALLENGE)
        return None

    def _is_ours(self, host: str) -> bool:
        parts = _HOST.fullmatch(host.lower())
        if parts is None:
            return False
        name = parts["name"]
        return name == "localhost" or _is_address(name) or bool(self._hosts & {name, host.lower()})

    def _is_public(self, scope: Scope) -> bool:
        if scope["type"] == "websocket":
            return False
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        path: str = scope["path"]
        folder = path.rpartition("/")[0]
        return (method, path) in self._public or (method, f"{folder}/*") in self._public

    def _is_known(self, scope: Scope) -> bool:
        known = False
        # All candidates are compared, so the time does not reveal which of them the request carries.
        for shown, expected in self._candidates(scope):
            known |= compare_digest(shown, expected)
        return known

    def _candidates(self, scope: Scope) -> Iterator[tuple[bytes, bytes]]:
        """Yield each credential that the request carries, with the value expected there."""
        assert self._token is not None
        token = self._token.encode()
        connection = HTTPConnection(scope)
        for value in connection.headers.getlist("authorization"):
            scheme, _, shown = value.partition(" ")
            if scheme.lower() == "bearer":
                yield shown.strip().encode("latin-1"), token
        yield connection.cookies.get(COOKIE, "").encode("utf-8", "replace"), session_of(self._token).encode()
        for protocol in scope.get("subprotocols", ()):
            if protocol.startswith(SUBPROTOCOL):
                yield protocol.removeprefix(SUBPROTOCOL).encode("utf-8", "replace"), token


def is_known(scope: Scope) -> bool:
    """Return whether the request carries the token, or no token is set."""
    known: bool = scope[KNOWN]
    return known


def subprotocol_of(scope: Scope) -> str | None:
    """Return the offer that carries the token, if any: a browser gives up unless the server accepts its offer."""
    return next((offer for offer in scope["subprotocols"] if offer.startswith(SUBPROTOCOL)), None)


def session_of(token: str) -> str:
    """Return the cookie's value: it can be derived from the token, and does not reveal it."""
    return hmac.new(token.encode(), b"taskd session 1", hashlib.sha256).hexdigest()


def _token_of(settings: Settings) -> str | None:
    token: SecretStr | None = settings.token
    return token.get_secret_value() if token else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _changes(scope: Scope) -> bool:
    return scope["type"] == "websocket" or scope["method"] not in _READING


def _is_of_another_page(headers: Headers, scope: Scope) -> bool:
    if headers.get("sec-fetch-site") not in ("cross-site", "same-site"):
        return False
    return _changes(scope) or headers.get("sec-fetch-mode") != "navigate" or headers.get("sec-fetch-dest") != "document"


def _origin_of(scheme: str, host: str) -> str:
    """Return the origin of the page that this service serves."""
    return f"{_PAGE_SCHEMES.get(scheme, scheme)}://{host}"


async def open_session(request: Request) -> Response:
    """Exchange the token for the page's cookie. Raises `Refused` (401) for a wrong token."""
    shown = await read_body(request, schemas.SessionOpening)
    token = _token_of(service_of(request).settings)
    if token is None:
        return Response(None, 204)  # no token is set, so no cookie is needed
    if not compare_digest(shown.token.encode(), token.encode()):
        raise Refused(401, "The token is not this service's.", headers=CHALLENGE)
    response = Response(None, 204)
    is_https = request.scope["scheme"] == "https"
    response.set_cookie(COOKIE, session_of(token), httponly=True, samesite="strict", secure=is_https)
    return response


OPERATIONS = (
    Operation(
        "POST",
        "/api/session",
        open_session,
        "open_session",
        "Exchange the token for the page's cookie",
        {204: Answer("The cookie is set.", headers={"Set-Cookie": "HttpOnly, SameSite=Strict"})},
        body=schemas.SessionOpening,
        refusals=(401,),
        public=True,
    ),
)
