"""
The page: `/` and `/tasks/{id}` are one document, which reads the rest from its own address.

Its files are few and small, so they are read once, at the start, and each becomes a route of
its own. No path that a client sends ever names a file: there is nothing to traverse. What the
build named after its content (`/assets/`) never changes and is kept for a year; everything else
is asked for again each time, and answered with 304 while it is the same.

Text is packed with gzip, once, at the start. Parts of a file are not sent: a `Range` is answered
with the whole, as RFC 9110 (14.2) allows, and so cannot be made expensive.
"""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from taskd.api.operations import Answer, Headers, Operation

# What a page is made of; anything else in its folder (sources, notes) is not for the network.
MEDIA_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".webmanifest": "application/manifest+json",
}
PACKED_ALREADY = frozenset({".png", ".ico", ".woff2"})

# Entries may hold anything, so the page runs and loads only files of its own: no inline script or
# style, no connection to elsewhere, no markup made from text but by Svelte's own templates.
HEADERS: Headers = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'; "
    "require-trusted-types-for 'script'; trusted-types svelte-trusted-html",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Accept-Ranges": "none",
    "Vary": "Accept-Encoding",
}
ASSETS = "/assets/"
KEPT = "public, max-age=31536000, immutable"
ASKED_AGAIN = "no-cache"

NOT_BUILT = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>taskd: the page is not built</title>
</head>
<body>
<main>
<h1>taskd</h1>
<p>The service is running, but its page was not built.</p>
<p>In a checkout, <code>make page</code> builds it, and <code>make demo</code> builds and serves it;
<code>TASKD_REQUIRE_WEB=1 pip install .</code> installs it, or says why it cannot.
Then start <code>taskd serve</code> again.</p>
<p>All the rest works without it: <code>taskd tasks</code> and <code>taskd logs -f @last</code> in a terminal,
and the API, which <a href="/api/openapi.json">/api/openapi.json</a> describes.</p>
</main>
</body>
</html>
"""


@dataclass(frozen=True)
class PageFile:
    """One file of the page, in memory; `packed` is its content in gzip, where that is smaller."""

    content: bytes
    media_type: str
    packed: bytes | None = None
    cache_control: str = ASKED_AGAIN

    @cached_property
    def digest(self) -> str:
        """Changes with the content."""
        return hashlib.sha256(self.content).hexdigest()[:32]

    async def show(self, request: Request) -> Response:
        """The file, packed where the client takes that, or that it has not changed."""
        packed = self.packed if _takes_gzip(request.headers.get("accept-encoding", "")) else None
        # The two forms are different bytes, so they have different strong tags (RFC 9110, 8.8.3.3).
        etag = f'"{self.digest}-gzip"' if packed else f'"{self.digest}"'
        headers = {**HEADERS, "ETag": etag, "Cache-Control": self.cache_control}
        if _names(request.headers.get("if-none-match", ""), etag):
            return Response(None, 304, headers)
        if packed:
            headers["Content-Encoding"] = "gzip"
        return Response(packed or self.content, headers=headers, media_type=self.media_type)


def _takes_gzip(accept_encoding: str) -> bool:
    for each in accept_encoding.lower().split(","):
        coding, _, weight = each.partition(";")
        if coding.strip() == "gzip":
            return weight.replace(" ", "").rstrip("0") not in ("q=", "q=0.")
    return False


def _names(if_none_match: str, etag: str) -> bool:
    tags = (tag.strip().removeprefix("W/") for tag in if_none_match.split(","))
    return any(tag in ("*", etag) for tag in tags)


def is_built(folder: Path) -> bool:
    """Whether `folder` holds a page."""
    return (folder / "index.html").is_file()


def read_page_files(folder: Path) -> dict[str, PageFile]:
    """The files below `folder` by their path in a URL. Links that lead out of it are left out."""
    root = folder.resolve()
    files = (path for path in sorted(root.rglob("*")) if path.suffix in MEDIA_TYPES and path.is_file())
    inside = {f"/{path.relative_to(root).as_posix()}": path for path in files if path.resolve().is_relative_to(root)}
    return {url: _read(path, url) for url, path in inside.items()}


def _read(path: Path, url: str) -> PageFile:
    content = path.read_bytes()
    packed = None if path.suffix in PACKED_ALREADY else gzip.compress(content, 9, mtime=0)
    smaller = packed if packed and len(packed) < len(content) else None
    return PageFile(content, MEDIA_TYPES[path.suffix], smaller, KEPT if url.startswith(ASSETS) else ASKED_AGAIN)


def operations(folder: Path) -> tuple[Operation, ...]:
    """The routes of the page that is in `folder`."""
    files = read_page_files(folder)
    index = files.get("/index.html", PageFile(NOT_BUILT, "text/html"))
    pages = (
        _operation("/", index, "show_page", "The page: all tasks"),
        _operation("/tasks/{task_id}", index, "show_task_page", "The page: one task and its log"),
    )
    return pages + tuple(_operation(path, file, path, "A file of the page", False) for path, file in files.items())


def _operation(path: str, file: PageFile, name: str, summary: str, documented: bool = True) -> Operation:
    return Operation(
        "GET",
        path,
        file.show,
        name,
        summary,
        {200: Answer("The page.", media_type=file.media_type), 304: Answer("It has not changed.")},
        public=True,
        documented=documented,
        # The page keeps its filters in its address: its query string is its own business.
        any_parameters=True,
    )
