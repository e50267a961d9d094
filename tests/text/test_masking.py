"""A registered secret is shown in none of the forms in which secrets escape."""

import base64
import html
import json
import shlex
from typing import Any
from urllib.parse import quote, quote_plus

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskd.text.masking import MASK, Masker
from taskd.text.sanitise import clean_text

SECRET = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="*"), min_size=8, max_size=30)


def masker_of(*secrets: str) -> Masker:
    masker = Masker()
    for secret in secrets:
        masker.add(secret)
    return masker


@given(SECRET, st.text(), st.text())
def test_a_secret_is_hidden_wherever_it_stands(secret: str, before: str, after: str) -> None:
    """In the middle of a text, the text around it stays."""
    masked = masker_of(secret)(f"{before} {secret} {after}")
    assert MASK in masked
    assert f" {secret} " not in masked


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(lambda secret: quote(secret, safe=""), id="url"),
        pytest.param(quote_plus, id="form"),
        pytest.param(lambda secret: json.dumps(secret)[1:-1], id="json"),
        pytest.param(lambda secret: json.dumps(secret, ensure_ascii=False)[1:-1], id="json-unicode"),
        pytest.param(lambda secret: json.dumps(json.dumps(secret))[3:-3], id="json-in-json"),
        pytest.param(lambda secret: quote(secret), id="path"),
        pytest.param(lambda secret: quote(quote(secret)), id="url-in-url"),
        pytest.param(lambda secret: quote(secret).lower(), id="url-small"),
        pytest.param(lambda secret: str(httpx.QueryParams(p=secret))[2:], id="httpx"),
        pytest.param(lambda secret: repr(secret)[1:-1], id="repr"),
        pytest.param(lambda secret: repr(secret.encode())[2:-1], id="repr-bytes"),
        pytest.param(lambda secret: ascii(secret)[1:-1], id="ascii"),
        pytest.param(lambda secret: shlex.quote(secret)[1:-1], id="shell"),
        pytest.param(html.escape, id="html"),
        pytest.param(lambda secret: base64.b64encode(secret.encode()).decode(), id="base64"),
        pytest.param(lambda secret: base64.urlsafe_b64encode(secret.encode()).decode().rstrip("="), id="base64url"),
    ],
)
def test_a_secret_is_hidden_in_the_forms_in_which_it_escapes(written: Any) -> None:
    """A library that quotes it before it logs it does not give it away."""
    secret = "pä \"ss/w'o+rd?>> $&\\x😀-_.~ \\\\!"
    form = written(secret)
    masked = masker_of(secret)(f"<{form}>")
    assert masked.startswith(f"<{MASK}")
    assert len(masked) <= len(MASK) + 6  # base64 leaves off what its neighbours share


@given(SECRET, st.binary(max_size=5), st.binary(max_size=5))
def test_a_secret_is_hidden_in_the_middle_of_base64(secret: str, before: bytes, after: bytes) -> None:
    """`user:password` of an Authorization header hides the password wherever its bytes begin."""
    header = base64.b64encode(before + secret.encode() + after).decode()
    assert MASK in masker_of(secret)(f"Basic {header}")


def test_each_line_of_a_secret_is_hidden_by_itself() -> None:
    """A private key is printed line by line."""
    masker = masker_of("-----BEGIN-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQEF")
    assert masker("read kqhkiG9w0BAQEF from the file") == f"read {MASK} from the file"


@settings(max_examples=60)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=8, max_size=20).filter(lambda text: "*" not in text))
def test_any_text_is_hidden_however_it_is_escaped(secret: str) -> None:
    """Also control characters and alphabets of all kinds."""
    masker = masker_of(secret)
    for form in (secret, json.dumps(secret)[1:-1], quote(secret), repr(secret)[1:-1], ascii(secret)[1:-1]):
        assert masker(f"<{form}>") == f"<{MASK}>"


def test_a_secret_of_backslashes_does_not_take_for_ever() -> None:
    """Nothing in the pattern is tried in more than one way; the test's own time limit tells."""
    masker = masker_of("\\" * 50 + "x", "\\\n" * 20, "'\"" * 20)
    assert masker("\\" * 20_000) == "\\" * 20_000
    assert masker("'\"" * 19 + "\\" * 20_000)


def test_base64_that_is_broken_into_lines_is_hidden() -> None:
    """A key of several hundred bytes, as `openssl` and `base64` write it."""
    secret = "".join(chr(33 + number * 7 % 90) for number in range(300))
    masker = masker_of(secret)
    for columns in (64, 76):
        whole = base64.b64encode(secret.encode()).decode()
        for start in range(0, len(whole), columns):
            assert masker(whole[start : start + columns]) == MASK


def test_a_number_that_is_a_secret_is_hidden_in_fields() -> None:
    """A PIN does not stop being one for lack of quotes; two keys that are hidden are still two."""
    masker = masker_of("271828", "abcdef")
    assert masker.value({"pin": 271828, "n": 271829}) == {"pin": MASK, "n": 271829}
    assert masker.value({"abcdef": 1, "ABCDEF": 2, "abcdefabcdef": 3}) == {MASK: 1, "ABCDEF": 2, MASK * 2: 3}
    assert masker.value({"271828": 1, "abcdef": 2}) == {MASK: 1, f"{MASK} (2)": 2}


def test_the_longest_secret_is_hidden_first() -> None:
    """Where one secret contains another, no rest of the longer is left."""
    assert masker_of("abcd", "abcdefgh")("abcdefgh abcd") == f"{MASK} {MASK}"


@pytest.mark.parametrize("short", ["", "a", "abc", "\n\n\n\n\n", "   a   "])
def test_under_four_characters_nothing_is_hidden(short: str) -> None:
    """It would hide half of every log."""
    text = "abc a   \n\n\n\n\n the quick brown fox"
    assert masker_of(short)(text).replace(MASK, short) == text
    assert masker_of("abc")(text) == text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("clone https://me:hunter2@host/x", "clone https://me:***@host/x"),
        ("redis://:hunter2@host:6379", "redis://:***@host:6379"),
        ("https://a:b@h and ssh://c:d@i", "https://a:***@h and ssh://c:***@i"),
        ("https://me:hun@ter2@host/x@y", "https://me:***@host/x@y"),
        ("https://host:8080/a@b", "https://host:8080/a@b"),
        ("https://me@host", "https://me@host"),
        ("https://ghp_0123456789abcdef@host/x", "https://***@host/x"),
        ("https://ghp_0123456789abcdef:x-oauth@host/x", "https://***:***@host/x"),
        ("https://a-host-of-a-long-name.example.org/a@b", "https://a-host-of-a-long-name.example.org/a@b"),
        ("a://b no:c@d", "a://b no:c@d"),
    ],
)
def test_the_password_in_a_url_is_always_hidden(text: str, masked: str) -> None:
    """Without any secret being registered; as in URL parsers, the last '@' before the path ends it."""
    masker = Masker()
    assert masker(text) == masked
    assert not masker.needed


def test_a_secret_that_is_not_utf_8_is_hidden_as_it_is_shown() -> None:
    """An environment variable may hold any bytes; a log shows them escaped."""
    secret = b"hunter\xe9password".decode("utf-8", "surrogateescape")
    assert "password" not in masker_of(secret)(clean_text(f"got {secret}"))


def test_values_are_masked_in_every_text_of_metadata_keys_included() -> None:
    """Numbers, booleans and null stay what they are."""
    value = {"hunter22": ["x hunter22", {"a": 1, "b": None, "c": True}], "url": "x://u:p@h"}
    assert masker_of("hunter22").value(value) == {
        MASK: [f"x {MASK}", {"a": 1, "b": None, "c": True}],
        "url": "x://u:***@h",
    }


@given(st.text(), SECRET)
def test_masking_twice_is_masking_once(text: str, secret: str) -> None:
    """What is masked already is not changed again."""
    masker = masker_of(secret)
    once = masker(text)
    assert masker(once) == once


def test_a_secret_is_text_and_not_a_pattern() -> None:
    """Characters that mean something in regular expressions mean themselves."""
    assert masker_of("a.*b(c[")("a.*b(c[ axxb(c[") == f"{MASK} axxb(c["
