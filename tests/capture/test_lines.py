"""Text that comes in pieces becomes the same lines, whatever the pieces."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskd.capture import lines as lines_module
from taskd.capture.lines import LINE_CHARACTERS_MAX, Line, Lines
from taskd.text.masking import Masker

TEXT = st.lists(
    st.sampled_from(["a", "é", "\r", "\n", "\r\n", " ", "bc", "1", "\b", "\x1b[A", "\x1b[2B", "\x1b[K", "\x1b"])
).map("".join)


def cut(text: str, pieces: Callable[[str], list[str]]) -> list[Line]:
    """What comes of a text that comes in pieces."""
    lines = Lines(Masker())
    return [line for piece in pieces(text) for line in lines.feed(piece)] + lines.end()


@given(TEXT)
def test_lines_do_not_depend_on_how_the_text_arrives(text: str) -> None:
    """Character by character or at once; without redrawing, they are the text's own."""
    at_once = cut(text, lambda text: [text])
    assert cut(text, list) == at_once
    if not {"\r", "\b", "\x1b"} & set(text):
        assert [line.text for line in at_once] == (text.removesuffix("\n").split("\n") if text else [])


def test_a_picture_is_what_ends_with_a_carriage_return() -> None:
    """The line that ends after it, with nothing more, is that picture once more."""
    assert cut("a\r\nb\rc\n\n", list) == [
        Line("a", picture=True), Line("a", drawn=True),
        Line("b", picture=True), Line("c"), Line(""),
    ]  # fmt: skip


def test_a_line_without_end_is_handed_over_in_parts() -> None:
    """Memory stays bounded, and nothing is lost."""
    lines = Lines(Masker())
    parts = [line for _ in range(40) for line in lines.feed("x" * 65_536)]
    assert [(len(part.text), part.continued) for part in parts] == [
        (LINE_CHARACTERS_MAX, False),
        (LINE_CHARACTERS_MAX, True),
    ]
    [last] = lines.end()
    assert (len(last.text), last.continued) == (40 * 65_536 - 2 * LINE_CHARACTERS_MAX, True)


@pytest.mark.parametrize("before", range(90, 130))
def test_no_secret_is_cut_in_two(before: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of one would not be recognised, wherever the bound falls."""
    monkeypatch.setattr(lines_module, "LINE_CHARACTERS_MAX", 128)
    masker = Masker()
    masker.add("hunter22")
    lines = Lines(masker)
    told = [line for character in "x" * before + "hunter22" + "y" * 300 for line in lines.feed(character)]
    shown = [masker(line.text) for line in [*told, *lines.end()]]
    assert len(shown) > 2
    assert not [text for text in shown if "hun" in text or "22" in text]
    assert "".join(shown) == "x" * before + "***" + "y" * 300


def test_a_password_in_a_url_is_not_cut_in_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is registered nowhere; a cut is made between words."""
    monkeypatch.setattr(lines_module, "LINE_CHARACTERS_MAX", 64)
    lines, masker = Lines(Masker()), Masker()
    text = "and so on " * 5 + "https://me:hunter22@host/path and so on"
    told = [line for character in text for line in lines.feed(character)]
    assert "hunter" not in "".join(masker(line.text) for line in [*told, *lines.end()])
