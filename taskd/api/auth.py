"""
Who may come in: `Guard`, in front of every route, HTTP and WebSocket alike.

Three questions, in this order. Is the request meant for us: a page of another site whose
name was made to point here (DNS rebinding) sends its own name as `Host`. Does a page of ours
send it: a browser says in `Origin` which page asks, and a WebSocket or a change asked for by
any other page is refused. And, where a token is set, is it known: as a bearer token, as the
page's cookie or as a WebSocket's sub-protocol, never in the URL, which ends up in logs.

A page elsewhere that only reads (an image, a script) shows no `Origin`, and may not see the answer
either; but it could keep the store busy and take the seats of viewers. Browsers tell of it in
`Sec-Fetch-Site` (W3C Fetch Metadata), and it is refused, unless a person follows a link.

The cookie's value is derived from the token, so whoever reads it has not read the token; a
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
    "This service has a token, and the request does not show it: expected Authorization: Bearer TOKEN, "
    "the cookie that POST /api/session sets, or, of a WebSocket, the sub-protocol taskd.token.TOKEN."
)
KNOWN = "taskd.known"
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="taskd"'}

_PAGE_SCHEMES = {"ws": "http", "wss": "https"}
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^\[\]:/@\s]+)(:(?P<port>\d{1,5}))?")


class Guard:
    """ASGI middleware that refuses with 403 (Host, Origin) and 401 (token) before any route is looked at."""

    def __init__(self, app: ASGIApp, settings: Settings, public: Collection[tuple[str, str]]) -> None:
        """`public` are the (method, path) pairs that need no token; a path may end in `/*`: any one name."""
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
        """The first question that the request does not pass, as a problem."""
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            expected = "localhost, an IP address or one of the setting allowed_hosts"
            return problem(403, f"Host {', '.join(hosts)!r}: expected {expected}.")
        # Without an Origin it is no browser. With one it is ours to the letter (RFC 6454), or not ours.
        own = _origin_of(scope["scheme"], hosts[0])
        if _changes(scope) and origins not in ([], [own]):
            return problem(403, f"Origin {', '.join(origins)!r}: expected {own!r} or none.")
        if _is_of_another_page(headers, scope):
            return problem(403, f"Sec-Fetch-Site {headers['sec-fetch-site']!r}: expected a request of our own page.")
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
        # Every candidate is compared, so the time says nothing of which was tried.
        for shown, expected in self._candidates(scope):
            known |= compare_digest(shown, expected)
        return known

    def _candidates(self, scope: Scope) -> Iterator[tuple[bytes, bytes]]:
        """What the request shows, each with what it should be."""
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
    """Whether the request shows the token, or none is set."""
    known: bool = scope[KNOWN]
    return known


def subprotocol_of(scope: Scope) -> str | None:
    """The sub-protocol to accept: the one with the token. A browser gives up where its offer is not taken."""
    return next((offer for offer in scope["subprotocols"] if offer.startswith(SUBPROTOCOL)), None)


def session_of(token: str) -> str:
    """The cookie's value: known only to who knows the token, and not the token."""
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
    """The origin of the page that this service itself serves."""
    return f"{_PAGE_SCHEMES.get(scheme, scheme)}://{host}"


async def open_session(request: Request) -> Response:
    """Exchange the token for the page's cookie."""
    shown = await read_body(request, schemas.SessionOpening)
    token = _token_of(service_of(request).settings)
    if token is None:
        return Response(None, 204)  # Nothing is locked, so there is no key to give.
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
