"""Any Python value becomes what JSON and the store can hold, within its limit, and nothing raises."""

import decimal
import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskd.text.sanitise import (
    DEPTH_MAX,
    KEY_CHARACTERS_MAX,
    KEYS_MAX,
    clean_metadata,
    clean_text,
    clean_value,
    free_key,
    plain_body,
    split_text,
)
from tests.helpers.hostile_values import (
    ANY_METADATA,
    ANYTHING,
    HOSTILE,
    Box,
    ReprIsNoText,
    ReprRaises,
    Text,
    a_cycle,
    deep,
)

BYTES_MAX = 2_048


STORABLE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


def texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from texts_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts_in(item)


def assert_storable(text: str) -> None:
    text.encode()
    assert "\0" not in text


def cleaned(**metadata: Any) -> Any:
    encoded = clean_metadata(metadata, 1_000_000)
    return None if encoded is None else json.loads(encoded)


# Messages


@given(ANYTHING)
def test_any_message_becomes_text_that_every_store_can_hold(message: Box) -> None:
    """Whatever is logged is valid UTF-8 without NUL, and plain text at that."""
    text = clean_text(message.value)
    assert type(text) is str
    assert_storable(text)


@given(STORABLE)
def test_a_text_that_can_be_stored_is_left_alone(text: str) -> None:
    """Every alphabet, every control character and every emoji but NUL stays as it was."""
    assert clean_text(text) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("caf\udce9", "caf\\udce9"),
        ("a\0b", "a\\x00b"),
        (b"\xff", "b'\\xff'"),
        (None, "None"),
        (["a"], "['a']"),
        (Text("plain"), "plain"),
        (ReprRaises(), "<ReprRaises: its repr raised RuntimeError>"),
        (ReprIsNoText(), "<ReprIsNoText: its repr raised TypeError>"),
    ],
)
def test_what_cannot_be_stored_is_shown_escaped(value: object, text: str) -> None:
    """Nothing is dropped in silence: one sees what was there."""
    assert clean_text(value) == text


# Metadata


@settings(max_examples=300, deadline=None)
@given(ANY_METADATA)
def test_any_metadata_becomes_a_json_object_within_its_limit(metadata: Box) -> None:
    """Nesting, cycles, bytes, huge numbers, objects that raise: the result is JSON, stored by any store."""
    encoded = clean_metadata(metadata.value, BYTES_MAX)
    if encoded is None:
        assert not metadata.value
        return
    assert len(encoded) <= BYTES_MAX
    decoded = json.loads(encoded)
    assert isinstance(decoded, dict)
    for text in texts_in(decoded):
        assert_storable(text)


@pytest.mark.parametrize("place", range(len(HOSTILE)), ids=lambda place: f"{place}-{type(HOSTILE[place]).__name__}")
def test_a_hostile_value_does_not_take_its_neighbours_with_it(place: int) -> None:
    """What stands beside it in the same call is kept as it is."""
    shown = cleaned(before=1, value=HOSTILE[place], after="two")
    assert (shown["before"], shown["after"]) == (1, "two")
    assert list(shown) == ["before", "value", "after"]


@given(st.dictionaries(STORABLE, st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | STORABLE, min_size=1))
def test_plain_metadata_is_left_alone(metadata: dict[str, Any]) -> None:
    """What JSON can hold comes back equal."""
    encoded = clean_metadata(metadata, 1_000_000)
    assert encoded is not None
    assert json.loads(encoded) == {key[:KEY_CHARACTERS_MAX]: value for key, value in metadata.items()}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (2**63, "9223372036854775808"),
        (10**5_000, "<integer of 16,610 bits>"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (b"\xff", "b'\\xff'"),
        ("a\0", "a\\x00"),
        (decimal.Decimal("1.5"), "Decimal('1.5')"),
        ((1, [2]), [1, [2]]),
        ({1: "a", "1": "b"}, {"1": "a", "1 (2)": "b"}),
        (a_cycle(), [1, {"again": "<cycle>"}]),
        (True, True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_json_cannot_hold_is_shown_as_text(value: object, shown: object) -> None:
    """It becomes its repr or a mark, and never null or something else."""
    assert cleaned(value=value) == {"value": shown}


VALUES = (
    st.text() | st.text("\0\\\"\n@:/\udc80u0é") | st.integers() | st.floats() | st.booleans() | st.none()
    | st.lists(st.integers(), max_size=2) | st.just(b"bytes") | st.decimals()
)  # fmt: skip


@given(
    st.text() | st.just("x" * 3_000) | st.text('\0\\"\n@:/\udc80u0é'), st.dictionaries(st.text(max_size=300), VALUES)
)
@settings(max_examples=300)
def test_what_is_taken_as_plain_needs_no_cleaning(message: str, metadata: dict[str, Any]) -> None:
    """The short way gives what the long way gives, and leaves to it whatever a URL's password may be in."""
    body = plain_body(message, metadata, BYTES_MAX)
    if body is None:
        return
    assert len(body) <= BYTES_MAX
    assert not (b"@" in body and b"://" in body)
    said = clean_metadata(metadata, BYTES_MAX)
    assert json.loads(body) == {"message": clean_text(message), "metadata": json.loads(said) if said else None}


@pytest.mark.parametrize(
    "message", ["said", "", "é ü 世界", 'a "quote"', "C:\\temp", "two\nlines", "https://host/path", "a@b"]
)
def test_the_usual_words_are_plain(message: str) -> None:
    """Or every call would take the long way."""
    fields = {"path": "/srv/a", "n": 7, "took_s": 0.5, "ok": True, "none": None}
    assert json.loads(plain_body(message, fields, BYTES_MAX) or b"") == {"message": message, "metadata": fields}


def test_the_same_object_twice_is_no_cycle() -> None:
    """Only what contains itself is marked."""
    shared = {"a": 1}
    assert cleaned(one=shared, two=[shared, shared]) == {"one": shared, "two": [shared, shared]}


def test_nesting_has_a_limit_that_is_said() -> None:
    """A thousand levels become `DEPTH_MAX` and a mark."""
    shown = json.dumps(cleaned(value=deep(1_000)))
    assert f"<deeper than {DEPTH_MAX}>" in shown
    assert shown.count("[") == DEPTH_MAX - 1


def test_many_keys_have_a_limit_that_is_said() -> None:
    """What is left out of an object or a list is counted."""
    many = dict.fromkeys(map(str, range(KEYS_MAX + 5)), 1)
    assert cleaned(value=many)["value"]["<more>"] == "5 keys left out"
    assert cleaned(value=list(many))["value"][-1] == "<5 more>"
    assert cleaned(**many)["<more>"] == "5 keys left out"


def test_the_largest_values_are_cut_first_and_say_how_long_they_were() -> None:
    """A short field beside a huge one survives."""
    encoded = clean_metadata({"small": "x", "huge": "y" * 10_000, "middle": "z" * 100}, 300)
    assert encoded is not None
    assert json.loads(encoded) == {"small": "x", "huge": "<10,002 bytes cut>", "middle": "z" * 100}


def test_metadata_that_is_all_keys_is_still_within_its_limit() -> None:
    """Where cutting values is not enough, one mark tells what there was."""
    encoded = clean_metadata({f"key number {number}": number for number in range(500)}, 256)
    assert encoded is not None
    assert len(encoded) <= 256
    assert json.loads(encoded)["<cut>"].startswith("500 keys, ")


def test_no_metadata_is_none() -> None:
    """An empty object is not stored."""
    assert clean_metadata({}, 256) is None


def test_looking_at_metadata_costs_no_more_than_its_limit_allows() -> None:
    """A value that is small in memory and astronomic when written out does not hold up the loop."""
    seen = []

    class Leaf:
        def __repr__(self) -> str:
            seen.append(1)
            return "leaf"

    value: Any = Leaf()
    for _ in range(5):
        value = [value] * 10
    encoded = clean_metadata({"value": value}, BYTES_MAX)
    assert encoded is not None
    assert len(encoded) <= BYTES_MAX
    assert len(seen) <= 10 * BYTES_MAX


@given(ANYTHING)
def test_any_result_becomes_json(value: Box) -> None:
    """What a plugin returns can be stored, whatever it is."""
    for text in texts_in(json.loads(json.dumps(clean_value(value.value), allow_nan=False))):
        assert_storable(text)


# Splitting


@given(STORABLE, st.integers(4, 40))
def test_parts_join_back_to_the_text(text: str, bytes_max: int) -> None:
    """Nothing is lost or doubled, no part is over the limit, and no character is split."""
    parts = list(split_text(text, bytes_max))
    assert "".join(parts) == text
    assert all(len(part.encode()) <= bytes_max for part in parts)
    assert all(parts) or parts == [""]


def test_a_character_is_not_split_between_two_parts() -> None:
    """Three bytes do not fit behind two of four."""
    assert list(split_text("ab€cd", 4)) == ["ab", "€c", "d"]


def test_keys_that_are_alike_when_they_are_cut_are_not_looked_for_again_and_again() -> None:
    """A thousand of them in sixty places held the loop for a quarter of a minute."""

    class Taken(dict[str, int]):
        looks = 0

        def __contains__(self, key: object) -> bool:
            self.looks += 1
            return super().__contains__(key)

    taken = Taken()
    for number in range(1_000):
        taken[free_key("key", taken)] = number
    assert len(taken) == 1_000
    assert taken.looks <= 2_000
