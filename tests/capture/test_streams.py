"""A task's prints are in its log; whatever else a program does with the streams works."""

import asyncio
import codecs
import contextlib
import io
import subprocess
import sys
from typing import Any
from unittest import mock

import pytest

from taskd.capture.install import capture_installed
from taskd.entries import Level
from tests.helpers.speakers import Speaker, captured


@captured
async def test_bytes_written_to_the_buffer_are_lines() -> None:
    """A character that comes in two writes is whole; what is no UTF-8 survives."""
    speaker = Speaker()

    def speak() -> None:
        out = sys.stdout.buffer
        assert out.write(b"one\ntw") == 6
        sys.stdout.buffer.write("ö".encode()[:1])
        sys.stdout.buffer.write(memoryview("ö".encode()[1:]))
        out.writelines([b"\xff\n", bytearray(b"end")])

    await speaker.run(speak)
    assert [message for _, _, message in speaker.told()] == ["one", r"twö\xff", "end"]


@captured
async def test_a_stream_wrapped_around_the_buffer_is_heard() -> None:
    """So scripts choose an encoding; when it is collected it closes the buffer, which closes nothing."""
    speaker = Speaker()

    def speak() -> None:
        wrapped = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", line_buffering=True)
        print("wrapped é", file=wrapped)
        wrapped.close()
        print("codec é", file=codecs.getwriter("utf-8")(sys.stdout.buffer))
        print("after")

    await speaker.run(speak)
    assert [message for _, _, message in speaker.told()] == ["wrapped é", "codec é", "after"]


@captured
async def test_code_that_runs_often_finds_the_stream_of_its_task() -> None:
    """The interpreter takes a shorter way to a module's attribute then."""
    speaker, text = Speaker(), io.StringIO()

    def found() -> list[object]:
        return [sys.stdout for _ in range(1_000)]

    def speak() -> None:
        with contextlib.redirect_stdout(text):
            assert {*map(id, found())} == {id(text)}
        assert {*map(id, found())} == {id(standing)}

    standing = sys.stdout
    await speaker.run(speak)


@captured
async def test_text_and_bytes_are_not_taken_for_each_other() -> None:
    """As with the real streams, it is a TypeError."""
    out: Any = sys.stdout
    speaker = Speaker()

    def speak() -> None:
        with pytest.raises(TypeError, match="must be str, not bytes"):
            out.write(b"bytes")
        with pytest.raises(TypeError):
            out.buffer.write("text")

    await speaker.run(speak)


@captured
async def test_a_task_cannot_take_the_streams_from_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    """Close, detach and reconfigure have no effect in it."""
    with capture_installed(Level.INFO):
        speaker, out = Speaker(), sys.stdout
        encoding = out.encoding

        def speak() -> None:
            with out:
                pass
            out.buffer.close()
            assert isinstance(out, io.TextIOBase)
            out.detach().write(b"detached\n")
            out.reconfigure(encoding="ascii")  # type: ignore[attr-defined]  # of a TextIOWrapper
            out.flush()
            assert not out.isatty()

        await speaker.run(speak)
        print("still open")
        assert out.encoding == encoding
    assert capsys.readouterr().out == "still open\n"
    assert [message for _, _, message in speaker.told()] == ["detached"]


def test_nothing_is_closed_when_the_stand_in_is_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands in, and owns nothing."""
    real = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", real)
    with capture_installed(Level.INFO):
        assert sys.stdout.buffer is not real.buffer
    assert not real.closed


@captured
async def test_output_that_is_redirected_goes_where_it_is_sent() -> None:
    """And comes back afterwards."""
    speaker = Speaker()

    def speak() -> None:
        with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.redirect_stderr(text):
            print("redirected")
            print("too", file=sys.stderr)
        assert text.getvalue() == "redirected\ntoo\n"
        print("back")

    await speaker.run(speak)
    assert speaker.told() == [("stdout", "INFO", "back")]


@captured
async def test_what_a_task_puts_in_place_of_a_stream_is_its_own() -> None:
    """Its children and threads write there; tasks that overlap do not, however their changes alternate."""
    one, other = Speaker(), Speaker()
    texts = {"one": io.StringIO(), "other": io.StringIO()}
    changed, restored = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        with contextlib.redirect_stdout(texts["one"]):
            changed.set()
            await asyncio.create_task(asyncio.to_thread(print, "one in a thread"))
            print("one", flush=True)
        restored.set()
        print("one after")

    async def second() -> None:
        await changed.wait()
        print("other before")
        before = sys.stdout
        sys.stdout = texts["other"]
        await restored.wait()
        print("other")
        sys.stdout = before
        print("other after")

    await asyncio.gather(one.run(first), other.run(second))
    assert {name: text.getvalue() for name, text in texts.items()} == {
        "one": "one in a thread\none\n",
        "other": "other\n",
    }
    assert [message for _, _, message in one.told()] == ["one after"]
    assert [message for _, _, message in other.told()] == ["other before", "other after"]


@captured
async def test_a_stream_that_is_never_put_back_ends_with_its_task(capsys: pytest.CaptureFixture[str]) -> None:
    """The next task, and the service, have theirs."""
    with capture_installed(Level.INFO):
        one, other = Speaker(), Speaker()

        def replace() -> None:
            sys.stdout = io.StringIO()
            sys.stdout.close()

        await one.run(replace)
        await other.run(lambda: print("the next"))
        print("outside")
    assert other.told() == [("stdout", "INFO", "the next")]
    assert capsys.readouterr().out == "outside\n"


@captured
async def test_a_stream_can_be_patched_in_any_way() -> None:
    """As tests do it."""
    speaker = Speaker()

    def speak() -> None:
        with mock.patch("sys.stdout", new_callable=io.StringIO) as text, mock.patch.object(sys, "stderr", text):
            print("patched")
            print("too", file=sys.stderr)
            assert sys.stdout is text
        assert text.getvalue() == "patched\ntoo\n"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdout", io.StringIO())
            print("patched")
        print("back")

    await speaker.run(speak)
    assert speaker.told() == [("stdout", "INFO", "back")]


def test_outside_of_a_task_a_stream_is_replaced_for_all(capsys: pytest.CaptureFixture[str]) -> None:
    """As without taskd, `print` and all; and everything is put back."""
    kind, before = type(sys), vars(sys)["stdout"]
    with capture_installed(Level.INFO):
        with contextlib.redirect_stdout(io.StringIO()) as text:
            print("redirected")
        print("not")
        real = sys.stdout
        del sys.stdout
        assert not hasattr(sys, "stdout")
        sys.stdout = real
    assert (text.getvalue(), capsys.readouterr().out) == ("redirected\n", "not\n")
    assert (type(sys), vars(sys)["stdout"]) == (kind, before)


@captured
async def test_a_stream_that_passes_on_what_it_is_given_is_heard() -> None:
    """As a library that puts colours in, or a copy aside, does."""
    speaker = Speaker()

    class Tee:
        def __init__(self, stream: Any) -> None:
            self.stream, self.copy = stream, io.StringIO()

        def write(self, text: str) -> int:
            self.copy.write(text)
            return int(self.stream.write(text))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.stream, name)

    def speak() -> None:
        before = sys.stdout
        tee = sys.stdout = Tee(before)
        print("passed on")
        sys.stdout = before
        assert tee.copy.getvalue() == "passed on\n"

    await speaker.run(speak)
    assert speaker.told() == [("stdout", "INFO", "passed on")]


@captured
async def test_a_redrawn_line_is_a_progress() -> None:
    """As libraries draw their bars on stderr; it is no warning."""
    speaker = Speaker()

    def speak() -> None:
        for percent in range(101):
            print(f"\rload: {percent:3}%|", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)

    await speaker.run(speak)
    entries = speaker.entries()
    assert [(entry.source, entry.level) for entry in entries] == [("stderr", Level.INFO)] * len(entries)
    assert 2 <= len(entries) <= 4
    told = [(entry.metadata or {})["progress"] for entry in entries]
    assert (told[-1]["label"], told[-1]["current"], told[-1]["done"]) == ("load", 100, True)


SCRIPT = """
import asyncio, faulthandler, subprocess, sys
from taskd.capture.install import capture_installed
from taskd.entries import Level
from taskd.log.logger import TaskLogger
from taskd.log.queue import LogQueue
from taskd.settings import Settings
from taskd.capture.current import Capturing, current

async def main():
    queue = LogQueue(Settings(), lambda source, progress: None)
    with capture_installed(Level.INFO):
        current.set(Capturing(TaskLogger(queue, "p")))
        faulthandler.enable()
        assert sys.stdout.fileno() == 1 and sys.stderr.fileno() == 2
        subprocess.run(["echo", "child"], stdout=sys.stdout, check=True)
        told = subprocess.run(["echo", "piped"], capture_output=True, text=True, check=True).stdout
        assert told == "piped\\n"
        assert input("name? ") == "me"
        print("hello")
        current.set(None)
    print([(entry.source, entry.message) for entry in queue.take_rest()])

asyncio.run(main())
"""


def test_what_needs_a_real_descriptor_finds_it() -> None:
    """`subprocess`, `faulthandler` and `input`, in an interpreter of their own; a prompt is a task's word."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], input="me\n", capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["child", "[('stdout', 'name? hello')]"]


@captured
async def test_a_stream_that_a_task_takes_out_is_there_for_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    """For the task it is as if there were none: what it prints goes nowhere."""
    with capture_installed(Level.INFO):
        one, other = Speaker(), Speaker()

        def take_out() -> None:
            del sys.stdout
            print("nowhere")
            assert sys.stdout is None

        await one.run(take_out)
        await other.run(lambda: print("here"))
        print("outside")
    assert one.told() == []
    assert other.told() == [("stdout", "INFO", "here")]
    assert capsys.readouterr().out == "outside\n"
