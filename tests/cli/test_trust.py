"""The command trusts what the machine trusts, over HTTP and WebSocket alike."""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.helpers.served import Served, ask_taskd

# The key and certificate of localhost and 127.0.0.1, which signed itself.
CERTIFICATE = Path(__file__).parents[1] / "helpers" / "localhost.pem"
READ_BYTES = 65_536


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("trust")) as served:
        yield served


@pytest.fixture(scope="module")
def port(served: Served) -> Iterator[int]:
    """A port that speaks TLS and leads to the server, as a proxy does."""
    ready, stop = threading.Event(), threading.Event()
    ports: list[int] = []

    async def terminate() -> None:
        async with terminating(served.port) as port:
            ports.append(port)
            ready.set()
            await asyncio.get_running_loop().run_in_executor(None, stop.wait)

    thread = threading.Thread(target=asyncio.run, args=(terminate(),))
    thread.start()
    assert ready.wait(20)
    yield ports[0]
    stop.set()
    thread.join()


@contextlib.asynccontextmanager
async def terminating(target: int) -> AsyncIterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward, back = await asyncio.open_connection("127.0.0.1", target)
        async with asyncio.TaskGroup() as both:
            both.create_task(pass_on(reader, back))
            both.create_task(pass_on(onward, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """From one end to the other, until either closes."""
    with contextlib.suppress(OSError):
        while data := await reader.read(READ_BYTES):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_certificate_in_ssl_cert_file_is_trusted(port: int, host: str) -> None:
    """By each command that asks, follows or exports."""
    server = {"TASKD_SERVER": f"https://{host}:{port}", "SSL_CERT_FILE": str(CERTIFICATE)}
    assert ask_taskd("run", "talk", **server).stdout.count("word") == 4
    for words in ("tasks", "logs @last", "logs -f @last", "export @last"):
        assert ask_taskd(*words.split(), **server).returncode == 0, words


def test_a_certificate_in_ssl_cert_dir_is_trusted(port: int, tmp_path: Path) -> None:
    """A directory as `openssl rehash` makes it, in which files are named by the hash of the subject."""
    (tmp_path / "ce275665.0").write_bytes(CERTIFICATE.read_bytes())
    server = {"TASKD_SERVER": f"https://localhost:{port}", "SSL_CERT_DIR": str(tmp_path)}
    assert ask_taskd("tasks", **server, SSL_CERT_FILE="").returncode == 0


@pytest.mark.parametrize("words", ["tasks", "logs -f 01936d5c-1111-7000-8000-0123456789ab", "plugins"])
def test_a_certificate_that_is_not_trusted_is_refused_with_advice(port: int, words: str) -> None:
    """Exit 3, in one line."""
    result = ask_taskd(*words.split(), "--server", f"https://localhost:{port}", SSL_CERT_FILE="")
    assert result.returncode == 3
    assert result.stderr.endswith(
        "not trusted: self-signed certificate. Name the file of its certificate authority in SSL_CERT_FILE.\n"
    )
    assert result.stderr.count("\n") == 1


def test_a_certificate_of_another_name_is_refused(port: int) -> None:
    """More trust would be no help, so it is not advised."""
    result = ask_taskd("tasks", "--server", f"https://127.0.0.2:{port}", SSL_CERT_FILE=str(CERTIFICATE))
    assert (result.returncode, "SSL_CERT_FILE" in result.stderr) == (3, False)


@pytest.mark.parametrize(("content", "told"), [(None, "No such file"), ("no certificate", "PEM")])
def test_a_file_of_certificates_that_has_none_is_bad_input(tmp_path: Path, content: str | None, told: str) -> None:
    """OpenSSL would go on without it."""
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    result = ask_taskd("tasks", "--server", "https://127.0.0.1:1", SSL_CERT_FILE=str(path))
    assert result.returncode == 2
    assert f"SSL_CERT_FILE='{path}': " in result.stderr
    assert told in result.stderr


@pytest.mark.parametrize("words", ["tasks", "logs -f 01936d5c-1111-7000-8000-0123456789ab"])
def test_the_wrong_scheme_is_told(served: Served, port: int, words: str) -> None:
    """Both ways."""
    plain = ask_taskd(*words.split(), "--server", f"https://127.0.0.1:{served.port}")
    assert (plain.returncode, "ask it with http://" in plain.stderr) == (3, True)
    secure = ask_taskd(*words.split(), "--server", f"http://localhost:{port}")
    assert (secure.returncode, "Traceback" in secure.stderr) == (3, False)
    assert secure.stderr.count("\n") == 1


def test_no_proxy_is_asked(served: Served) -> None:
    """A proxy cannot reach this machine, and would see the token."""
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy", "ALL_PROXY"), "http://127.0.0.1:1")
    for words in ("run talk", "logs -f @last", "tasks"):
        assert served.taskd(*words.split(), **proxies).returncode == 0
