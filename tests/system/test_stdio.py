"""The service's own words: said in order, and never waited for."""

import os
import sys

import pytest

from taskd.system import stdio
from taskd.system.stdio import patient_streams


def test_words_come_out_whole_and_in_order(capfd: pytest.CaptureFixture[str]) -> None:
    """All of them, by the end of the block."""
    with patient_streams():
        for n in range(100):
            print(f"line {n}", file=sys.stderr)
    assert capfd.readouterr().err.splitlines() == [f"line {n}" for n in range(100)]


def test_a_pipe_that_is_full_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than fits is said at once, what has no room is dropped, and the end comes."""
    reader, writer = os.pipe()
    monkeypatch.setattr(stdio, "_STREAMS", ((writer, "stderr"),))
    with patient_streams():
        for _ in range(3_000):
            print("x" * 1_000, file=sys.stderr)
    os.read(reader, 1_000_000)  # its thread is let go on
    os.close(reader)


def test_a_pipe_whose_reader_has_gone_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither when it is said nor at the end."""
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(stdio, "_STREAMS", ((writer, "stderr"),))
    with patient_streams():
        print("nobody", file=sys.stderr)
    os.close(writer)


def test_the_streams_are_what_they_were_afterwards() -> None:
    """And meanwhile they have the descriptors that they stand for."""
    before = sys.stdout, sys.stderr
    with patient_streams():
        assert (sys.stdout.fileno(), sys.stderr.fileno()) == (1, 2)
        assert sys.stdout.buffer.write(b"") == 0
    assert (sys.stdout, sys.stderr) == before


def test_a_stream_that_was_taken_out_or_closed_is_no_error(capfd: pytest.CaptureFixture[str]) -> None:
    """What was said before comes out all the same."""
    with patient_streams() as drain:
        print("said", file=sys.stderr)
        sys.stderr.close()
        del sys.stdout
        drain()
    assert capfd.readouterr().err == "said\n"
