"""
The site: `/` and `/tasks/{id}` are one document, which reads its state from its own address.

The files are few and small, so they are read once, at the start, and each becomes a route of its own.
No path that a client sends ever names a file, so there is nothing to traverse. A file that the build
named after its content (`/assets/`) never changes, and browsers keep it for a year. Browsers ask for all
other files again each time, and get 304 while a file is unchanged.

Text is compressed with gzip, once, at the start. A `Range` is answered with the whole file, as RFC 9110
(14.2) allows, so a client cannot make requests expensive with ranges.
"""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from taskd.api.operations import Answer, Headers, Operation

# The files that a site consists of. Other files in its folder (sources, notes) are not served.
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

# Entries may hold any text, so the site runs and loads only files of its own: no inline script or style,
# no connection to another host, and no markup made from text except by Svelte's own templates.
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
    """One file of the site, in memory; `packed` is its content in gzip, if that is smaller."""

    content: bytes
    media_type: str
    packed: bytes | None = None
    cache_control: str = ASKED_AGAIN

    @cached_property
    def digest(self) -> str:
        """A hash of the content."""
        return hashlib.sha256(self.content).hexdigest()[:32]

    async def show(self, request: Request) -> Response:
        """Answer with the file, compressed if the client accepts gzip, or with 304 if the client has it already."""
        packed = self.packed if _takes_gzip(request.headers.get("accept-encoding", "")) else None
        # The two forms consist of different bytes, so they need different strong tags (RFC 9110, 8.8.3.3).
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
    """Return whether `folder` holds a built site."""
    return (folder / "index.html").is_file()


def read_page_files(folder: Path) -> dict[str, PageFile]:
    """Return the files below `folder` by their path in a URL, without symbolic links that lead out of it."""
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
    """Return the routes of the site in `folder`."""
    files = read_page_files(folder)
    index = files.get("/index.html", PageFile(NOT_BUILT, "text/html"))
    pages = (
        _operation("/", index, "show_page", "Show the page: all tasks"),
        _operation("/tasks/{task_id}", index, "show_task_page", "Show the page: one task and its log"),
    )
    return pages + tuple(_operation(path, file, path, "A file of the page", False) for path, file in files.items())


def _operation(path: str, file: PageFile, name: str, summary: str, documented: bool = True) -> Operation:
    return Operation(
        "GET",
        path,
        file.show,
        name,
        summary,
        {200: Answer("The page.", media_type=file.media_type), 304: Answer("The page has not changed.")},
        public=True,
        documented=documented,
        # The page keeps its filters in its address, so the query string is not checked.
        any_parameters=True,
    )
