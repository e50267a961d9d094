"""
Fuzzing: requests made from the OpenAPI document, and WebSockets of random bytes and frames.

No answer is a 5xx or other than the document says, and nothing that a client sends makes the server
crash, complain or forget who it is.
"""

import random
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.bars import Record, scaled
from tests.security.conftest import KEY, TOKEN, Target, target

HOOKS = Path(__file__).parent / "schemathesis_hooks.py"
EXAMPLES = scaled(1, 80)
PHASES = scaled("fuzzing", "examples,coverage,fuzzing,stateful")
# The short form asks a few routes: what schemathesis makes of one takes about a second.
ROUTES = scaled("/api/tasks$|/logs(/next)?$", "")
CONNECTIONS = scaled(150, 5_000)
# A refusal of what fits the schema is looked at in the hooks; a plain request where a WebSocket is, is told so.
CONFIGURATION = """
seed = 15
hooks = "{hooks}"

[checks]
positive_data_acceptance.expected-statuses = ["2xx", 401, 403, 404, 409, 429, 400, 426, 431]
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 409, 413, 415, 422, 426, 429, 431]
"""
# So that routes below a task are reached: with the id of one, but where that would delete it.
OF_A_TASK = """
[[operations]]
include-path-regex = "task_id"
exclude-method = "DELETE"
parameters = {{ "path.task_id" = "{task_id}" }}
"""


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(tmp_path_factory.mktemp("fuzzed"), "--tasks-queued-max", "100000", token=TOKEN) as served:
        yield served
        served.check()


@pytest.mark.bar("R15")
@pytest.mark.timeout(scaled(120, 3_600))
@pytest.mark.parametrize("with_task", scaled([True], [True, False]))
def test_no_request_is_answered_otherwise_than_the_document_says(
    fuzzed: Target, tmp_path: Path, with_task: bool, record_property: Record
) -> None:
    """schemathesis, all checks: once below a real task, and once from whatever it makes up and creates."""
    task_id = fuzzed.run_task("talk", count=50, word="wörd\n\x1b[31m")["id"]
    told = CONFIGURATION.format(hooks=HOOKS) + (OF_A_TASK.format(task_id=task_id) if with_task else "")
    (tmp_path / "schemathesis.toml").write_text(told)
    # What a link says is created is not what the path is made to name.
    phases = PHASES.removesuffix(",stateful") if with_task else PHASES
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(tmp_path / "schemathesis.toml")),
        *("run", f"{fuzzed.url}/api/openapi.json", "-H", f"Authorization: Bearer {TOKEN}", "--checks", "all"),
        *("--phases", phases, "--max-examples", str(EXAMPLES), "--continue-on-failure", "--no-color"),
        *(("--include-path-regex", ROUTES) if ROUTES else ()),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ran.returncode == 0, ran.stdout[-8_000:] + ran.stderr
    cases = re.search(r"([\d,]+) generated", ran.stdout)
    assert cases, ran.stdout
    record_property(f"cases {'below a task' if with_task else 'free'}", int(cases[1].replace(",", "")))
    record_property("5xx or schema violations", 0)
    fuzzed.check()


@pytest.mark.bar("R15")
@pytest.mark.timeout(scaled(60, 1_800))
def test_nothing_that_a_websocket_client_sends_harms_the_server(fuzzed: Target, record_property: Record) -> None:
    """Handshakes that are none, frames that are none, frames that lie: the server is well, and serves the next one."""
    rng = random.Random(15)
    task_id = fuzzed.run_task("talk")["id"]
    for _ in range(CONNECTIONS):
        opened = rng.random() < 0.8
        sent = handshake(task_id) if opened else bad_handshake(rng, task_id)
        exchange(fuzzed.port, sent, b"".join(rng.choice(SENT)(rng) for _ in range(rng.randint(1, 8))))
    answered = fuzzed.upgrade(f"/api/tasks/{task_id}/logs/live", "Host: localhost", f"Authorization: Bearer {TOKEN}")
    assert answered.status == 101
    fuzzed.check()
    record_property("WebSocket connections", CONNECTIONS)
    record_property("crashes", 0)


def exchange(port: int, *sent: bytes) -> None:
    """Connect, send, read what there is, and go."""
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        try:
            for data in sent:
                connection.sendall(data)
            connection.settimeout(0.02)
            while connection.recv(65_536):
                pass
        except OSError:
            pass  # closed by the server, or it waits for more


def handshake(task_id: str) -> bytes:
    """As it should be."""
    lines = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}")
    head = (f"GET /api/tasks/{task_id}/logs/live HTTP/1.1", "Host: localhost", f"Authorization: Bearer {TOKEN}")
    return "\r\n".join([*head, *lines, "", ""]).encode()


def bad_handshake(rng: random.Random, task_id: str) -> bytes:
    """As it should not be: a line is missing, twice there or other, or bytes are."""
    data = handshake(task_id)
    lines = data.split(b"\r\n")
    place = rng.randrange(len(lines) - 2)
    match rng.randrange(5):
        case 0:
            del lines[place]
        case 1:
            lines.insert(place, lines[place])
        case 2:
            lines[place] = lines[place].partition(b":")[0] + b": " + rng.choice(ODD_VALUES)
        case 3:
            spoilt = bytearray(data)
            for _ in range(rng.randint(1, 5)):
                spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
            return bytes(spoilt)
        case _:
            lines[1:1] = [b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=8; x=" + b"y" * 99]
    return b"\r\n".join(lines)


def frame(rng: random.Random, opcode: int, payload: bytes, *, fin: int = 1, rsv: int = 0, masked: int = 1) -> bytes:
    """A frame of RFC 6455 (5.2)."""
    size = len(payload)
    length = bytes([size]) if size < 126 else b"\x7e" + struct.pack("!H", size)
    head = bytes([fin << 7 | rsv << 4 | opcode, masked << 7 | length[0]]) + length[1:]
    if not masked:
        return head + payload
    mask = rng.randbytes(4)
    return head + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))


def any_frame(rng: random.Random) -> bytes:
    return frame(
        rng, rng.randrange(16), rng.randbytes(rng.choice([0, 1, 2, 125, 126, 2_000])),
        fin=rng.randrange(2), rsv=rng.choice([0, 0, 0, 4, 7]), masked=rng.choice([1, 1, 1, 0]),
    )  # fmt: skip


def lying_length(rng: random.Random) -> bytes:
    size = rng.choice([2**63 - 1, 2**64 - 1, 2**31, 65_536])
    return b"\x82\xff" + struct.pack("!Q", size) + rng.randbytes(rng.randrange(50))


def fragments(rng: random.Random) -> bytes:
    return frame(rng, 1, b"a", fin=0) + b"".join(frame(rng, 0, b"", fin=0) for _ in range(rng.randrange(200)))


def pings(rng: random.Random) -> bytes:
    return b"".join(frame(rng, 9, rng.randbytes(125)) for _ in range(rng.randrange(300)))


def bad_text(rng: random.Random) -> bytes:
    return frame(rng, 1, rng.choice([b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\xaf", b"ok\xf4\x90\x80\x80", b"\x00" * 9]))


def closing(rng: random.Random) -> bytes:
    code = rng.choice([0, 999, 1_000, 1_004, 1_005, 1_006, 1_015, 2_999, 3_000, 4_999, 5_000, 65_535])
    return frame(rng, 8, rng.choice([b"", b"\x03", struct.pack("!H", code), struct.pack("!H", code) + b"\xff"]))


def noise(rng: random.Random) -> bytes:
    return rng.randbytes(rng.randrange(1, 4_000))


SENT: tuple[Callable[[random.Random], bytes], ...] = (
    any_frame, any_frame, lying_length, fragments, pings, bad_text, closing, noise,
)  # fmt: skip
ODD_VALUES = (
    b"",
    b"7",
    b"13, 8",
    b"x" * 30_000,
    b"\xff\xfe",
    b"taskd.token." + b"\xe9",
    b"AAAA",
    b"websocket, h2c",
    b"\t",
)
