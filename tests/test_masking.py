"""A registered secret is shown in none of the forms in which secrets escape."""

import base64
import json
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskd.masking import MASK, Masker
from taskd.sanitise import clean_text

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
        pytest.param(lambda secret: base64.b64encode(secret.encode()).decode(), id="base64"),
        pytest.param(lambda secret: base64.urlsafe_b64encode(secret.encode()).decode().rstrip("="), id="base64url"),
    ],
)
def test_a_secret_is_hidden_in_the_forms_in_which_it_escapes(written: Any) -> None:
    """A library that quotes it before it logs it does not give it away."""
    secret = 'pä "ss/wo+rd?>> \\x'
    form = written(secret)
    masked = masker_of(secret)(f"<{form}>")
    assert MASK in masked
    assert form not in masked


@given(SECRET, st.binary(max_size=5), st.binary(max_size=5))
def test_a_secret_is_hidden_in_the_middle_of_base64(secret: str, before: bytes, after: bytes) -> None:
    """`user:password` of an Authorization header hides the password wherever its bytes begin."""
    header = base64.b64encode(before + secret.encode() + after).decode()
    assert MASK in masker_of(secret)(f"Basic {header}")


def test_each_line_of_a_secret_is_hidden_by_itself() -> None:
    """A private key is printed line by line."""
    masker = masker_of("-----BEGIN-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQEF")
    assert masker("read kqhkiG9w0BAQEF from the file") == f"read {MASK} from the file"


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
