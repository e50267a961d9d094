"""The page's files, and nothing else of the machine."""

import asyncio
from pathlib import Path

import pytest
from starlette.requests import Request

from taskd.api import page
from tests.api.conftest import Served, Shown


async def test_the_page_is_one_document_for_all_addresses_of_its_own(shown: Shown) -> None:
    """Its filters are in its address, so any query string is its own business."""
    first = await shown.http.get("/")
    assert first.status_code == 200
    assert first.headers["content-type"] == "text/html; charset=utf-8"
    for path in ("/tasks/any", "/tasks/any?min_level=WARNING&source=git", "/?theme=dark"):
        assert (await shown.http.get(path)).content == first.content, path


async def test_the_page_may_load_only_what_is_its_own(shown: Shown) -> None:
    """CSP from 'self', no frames around it, no guessing of types: an entry may hold anything."""
    for path in ("/", "/tasks/any", "/page.css"):
        headers = (await shown.http.get(path)).headers
        assert headers["content-security-policy"].startswith("default-src 'self';")
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"


async def test_a_file_that_has_not_changed_is_not_sent_again(shown: Shown) -> None:
    """304 for the ETag that was given."""
    etag = (await shown.http.get("/page.css")).headers["etag"]
    answer = await shown.http.get("/page.css", headers={"if-none-match": etag})
    assert (answer.status_code, answer.content) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml", "/..%2fpyproject.toml", "/%2e%2e/pyproject.toml", "/..%5cpyproject.toml",
        "//etc/passwd", "/page.css/../../pyproject.toml", "/page.css%00.html", "/....//pyproject.toml",
        "/tasks/..%2f..%2fpyproject.toml", "/file:///etc/passwd", "/pyproject.toml", "/schema.sql",
    ],
)  # fmt: skip
async def test_no_path_leads_out_of_the_page(served: Served, path: str) -> None:
    """As they are, sent by hand: a client library would tidy them up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.split()[1] in (b"404", b"400")
    assert b"[project]" not in answer
    assert b"root:" not in answer


def test_only_files_inside_the_folder_and_of_a_pages_kinds_are_shown(tmp_path: Path) -> None:
    """A link that leads out, notes and sources stay unseen."""
    folder = tmp_path / "web"
    (folder / "assets").mkdir(parents=True)
    for name in ("index.html", "assets/app.js", "notes.md", ".env"):
        (folder / name).write_text("x")
    secret = tmp_path / "secret.html"
    secret.write_text("secret")
    (folder / "linked.html").symlink_to(secret)
    (folder / "assets" / "up").symlink_to(tmp_path)
    assert set(page.read_page_files(folder)) == {"/index.html", "/assets/app.js"}


async def test_a_page_that_was_not_built_says_how_to_build_it(tmp_path: Path) -> None:
    """200: the service is well without it."""
    operations = {operation.path: operation for operation in page.operations(tmp_path / "nowhere")}
    request = Request({"type": "http", "method": "GET", "headers": []})
    answer = await operations["/"].endpoint(request)
    assert answer.status_code == 200
    assert b"make demo" in bytes(answer.body)
