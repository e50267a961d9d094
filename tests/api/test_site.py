"""The page's files, and nothing else of the machine."""

import asyncio
import gzip
from pathlib import Path

import pytest
from starlette.requests import Request

from taskd.api import site
from tests.api.conftest import SCRIPT, Served, Shown

PLAIN = {"accept-encoding": "identity"}
PACKED = {"accept-encoding": "br, gzip"}


async def test_the_page_is_one_document_for_all_addresses_of_its_own(shown: Shown) -> None:
    """Its filters are in its address, so any query string is its own business; a reload finds it again."""
    first = await shown.http.get("/")
    assert first.status_code == 200
    assert first.headers["content-type"] == "text/html; charset=utf-8"
    for path in ("/tasks/any", "/tasks/any?min_level=WARNING&source=git", "/?theme=dark"):
        assert (await shown.http.get(path)).content == first.content, path


async def test_the_page_may_load_only_what_is_its_own(shown: Shown) -> None:
    """CSP from 'self', nothing inline, no frames around it, no guessing of types: an entry may hold anything."""
    for path in ("/", "/tasks/any", SCRIPT, "/favicon.svg"):
        headers = (await shown.http.get(path)).headers
        assert headers["content-security-policy"].startswith("default-src 'self';")
        assert "unsafe" not in headers["content-security-policy"]
        assert "connect-src 'self';" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"


async def test_what_is_named_after_its_content_is_kept_and_the_rest_asked_for_again(shown: Shown) -> None:
    """A year for `/assets/`; the document that names them must be the newest."""
    assert (await shown.http.get(SCRIPT)).headers["cache-control"] == "public, max-age=31536000, immutable"
    for path in ("/", "/tasks/any", "/index.html", "/favicon.svg"):
        assert (await shown.http.get(path)).headers["cache-control"] == "no-cache", path


@pytest.mark.parametrize("path", ["/", "/tasks/any", SCRIPT])
@pytest.mark.parametrize("accepted", [PLAIN, PACKED], ids=["plain", "gzip"])
async def test_a_file_that_has_not_changed_is_not_sent_again(shown: Shown, path: str, accepted: dict[str, str]) -> None:
    """304 for the ETag that was given, alone or among others, also where something on the way made it weak."""
    etag = (await shown.http.get(path, headers=accepted)).headers["etag"]
    for named in (etag, f"W/{etag}", f'"another", {etag}', "*"):
        answer = await shown.http.get(path, headers={**accepted, "if-none-match": named})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag), named
    for named in ('"another"', etag.strip('"'), etag[:-2] + '"'):
        assert (await shown.http.get(path, headers={**accepted, "if-none-match": named})).status_code == 200, named


@pytest.mark.parametrize("accepted", ["gzip", "GZIP", "deflate, gzip;q=1.0, *;q=0.5", "br;q=1, gzip;q=0.001"])
async def test_text_is_packed_where_the_client_takes_gzip(shown: Shown, accepted: str) -> None:
    """The bytes are the same in the end; the two forms are told apart by their tags."""
    plain = await shown.http.get(SCRIPT, headers=PLAIN)
    packed = await shown.http.get(SCRIPT, headers={"accept-encoding": accepted})
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"])
    assert packed.content == plain.content
    assert packed.headers["etag"] != plain.headers["etag"]
    assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"


@pytest.mark.parametrize("accepted", ["", "identity", "br, zstd", "gzip;q=0", "gzip; q=0.000", "x-gzip"])
async def test_text_is_sent_as_it_is_to_all_others(shown: Shown, accepted: str) -> None:
    answer = await shown.http.get(SCRIPT, headers={"accept-encoding": accepted})
    assert "content-encoding" not in answer.headers
    assert len(answer.content) == int(answer.headers["content-length"])


async def ask(port: int, request: str) -> tuple[bytes, bytes]:
    """The head and the body of an answer to what is sent by hand: a client library would tidy it up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{request}\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return head, body


@pytest.mark.parametrize("path", ["/", "/tasks/any", SCRIPT])
async def test_head_tells_what_get_would_and_sends_no_body(served: Served, path: str) -> None:
    asked, got = await ask(served.port, f"HEAD {path} HTTP/1.1"), await ask(served.port, f"GET {path} HTTP/1.1")

    def without_date(head: bytes) -> list[bytes]:
        return [line for line in head.split(b"\r\n") if not line.startswith(b"date:")]

    assert without_date(asked[0]) == without_date(got[0])
    assert (asked[1], len(got[1]) > 0) == (b"", True)


@pytest.mark.parametrize("asked", ["bytes=0-0", "bytes=5-", "bytes=-1", "bytes=9-1", "bytes=" + "0-," * 2_000 + "0-1"])
async def test_a_range_is_answered_with_the_whole(served: Served, asked: str) -> None:
    """So that no list of ranges is ever worked through (CVE-2025-62727)."""
    head, body = await ask(served.port, f"GET {SCRIPT} HTTP/1.1\r\nRange: {asked}")
    whole = await ask(served.port, f"GET {SCRIPT} HTTP/1.1")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"accept-ranges: none" in head
    assert body == whole[1]


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml", "/..%2fpyproject.toml", "/%2e%2e/pyproject.toml", "/..%5cpyproject.toml",
        "//etc/passwd", "/favicon.svg/../../pyproject.toml", "/favicon.svg%00.html", "/....//pyproject.toml",
        "/tasks/..%2f..%2fpyproject.toml", "/file:///etc/passwd", "/pyproject.toml", "/schema.sql", "/.sources",
        "/assets", "/assets/", "/assets/../../assets-not/x.js", "/assets/..%2findex.html", "/src/main.ts", "/build.py",
    ],
)  # fmt: skip
async def test_no_path_leads_out_of_the_page(served: Served, path: str) -> None:
    """Precedents: Starlette CVE-2023-29159 (a sibling whose name begins the same), and older ones."""
    head, body = await ask(served.port, f"GET {path} HTTP/1.1")
    assert head.split()[1] in (b"404", b"400")
    assert b"[project]" not in body
    assert b"root:" not in body


def test_only_files_inside_the_folder_and_of_a_pages_kinds_are_shown(tmp_path: Path) -> None:
    """A link that leads out, a sibling that begins the same, notes and sources stay unseen."""
    folder, sibling = tmp_path / "dist", tmp_path / "dist-old"
    (folder / "assets").mkdir(parents=True)
    sibling.mkdir()
    for name in ("index.html", "assets/app.js", "notes.md", ".env", ".sources", "app.ts"):
        (folder / name).write_text("x")
    secret = sibling / "secret.html"
    secret.write_text("secret")
    (folder / "linked.html").symlink_to(secret)
    (folder / "assets" / "up").symlink_to(sibling)
    assert set(site.read_page_files(folder)) == {"/index.html", "/assets/app.js"}


def test_a_file_that_gzip_does_not_make_smaller_is_not_packed(tmp_path: Path) -> None:
    """Nor is what is packed in its own way, whatever its size."""
    (tmp_path / "index.html").write_text("x")
    (tmp_path / "icon.png").write_bytes(b"\0" * 10_000)
    (tmp_path / "app.css").write_text("a{}" * 1_000)
    files = site.read_page_files(tmp_path)
    assert files["/index.html"].packed is None
    assert files["/icon.png"].packed is None
    assert gzip.decompress(files["/app.css"].packed or b"") == files["/app.css"].content


async def test_a_page_that_was_not_built_says_how_to_build_it(tmp_path: Path) -> None:
    """200, at every address of the page: the service is well without it."""
    operations = {operation.path: operation for operation in site.operations(tmp_path / "nowhere")}
    request = Request({"type": "http", "method": "GET", "headers": []})
    for path in ("/", "/tasks/{task_id}"):
        answer = await operations[path].endpoint(request)
        assert answer.status_code == 200
        assert b"make page" in bytes(answer.body)
