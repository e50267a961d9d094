"""
The page: `/` and `/tasks/{id}` are one document, which reads the rest from its own address.

Its files are few and small, so they are read once, at the start, and each becomes a route of
its own. No path that a client sends ever names a file: there is nothing to traverse.
"""

import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from taskd.api.operations import Answer, Operation
from taskd.api.responses import Headers

# What a page is made of; anything else in its folder (sources, notes) is not for the network.
SUFFIXES = frozenset({".html", ".css", ".js", ".svg", ".png", ".ico", ".woff2", ".webmanifest"})

# Entries may hold anything, so the page runs no script and loads nothing that is not its own file.
HEADERS: Headers = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Asked for again each time, and answered with 304 while it is the same.
    "Cache-Control": "no-cache",
}

NOT_BUILT = b"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>taskd</title>
<h1>taskd</h1>
<p>The service is running, but its page was not built. <code>make demo</code> builds and serves it,
<code>pip install .</code> builds and installs it.</p>
<p>The API is complete without it: <a href="/api/openapi.json">/api/openapi.json</a>.</p>
"""


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file of the page, in memory."""

    content: bytes
    media_type: str

    @property
    def etag(self) -> str:
        """Changes with the content."""
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'

    async def show(self, request: Request) -> Response:
        """The file, or that it has not changed."""
        headers = {**HEADERS, "ETag": self.etag}
        if self.etag in request.headers.get("if-none-match", ""):
            return Response(None, 304, headers)
        return Response(self.content, headers=headers, media_type=self.media_type)


def read_page_files(folder: Path) -> dict[str, PageFile]:
    """The files below `folder` by their path in a URL. Links that lead out of it are left out."""
    root = folder.resolve()
    files = (path for path in sorted(root.rglob("*")) if path.suffix in SUFFIXES and path.is_file())
    inside = (path for path in files if path.resolve().is_relative_to(root))
    return {f"/{path.relative_to(root).as_posix()}": _read(path) for path in inside}


def _read(path: Path) -> PageFile:
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return PageFile(path.read_bytes(), media_type)


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
