"""A plugin's params become the values that were meant."""

import io
from enum import StrEnum
from pathlib import Path

import click
import pytest
from pydantic import BaseModel, SecretStr

from taskd.cli.arguments import params_of


class Action(StrEnum):
    TAKE = "1"


class Params(BaseModel):
    name: str
    maybe: str | None = None
    action: Action = Action.TAKE
    secret: SecretStr | None = None
    where: Path | None = None
    count: int = 0
    flag: bool = False
    exclude: list[str] = []


SCHEMA = Params.model_json_schema()


@pytest.mark.parametrize("key", ["name", "maybe", "action", "secret", "where"])
def test_what_the_schema_wants_as_a_string_stays_as_it_was_typed(key: str) -> None:
    assert params_of(None, [f"{key}=123"], SCHEMA) == {key: "123"}


@pytest.mark.parametrize(
    ("pair", "value"),
    [("count=3", 3), ("flag=true", True), ('exclude=["a", "b"]', ["a", "b"]), ("unknown=null", None)],
)
def test_other_values_are_json_where_they_parse(pair: str, value: object) -> None:
    assert list(params_of(None, [pair], SCHEMA).values()) == [value]


def test_what_is_not_json_is_text() -> None:
    assert params_of(None, ["count=many=3", "x=NaN"], SCHEMA) == {"count": "many=3", "x": "NaN"}


def test_pairs_come_before_the_whole() -> None:
    assert params_of('{"name": "a", "count": 1}', ["name=b"], SCHEMA) == {"name": "b", "count": 1}


def test_a_pair_may_be_given_once() -> None:
    """The first would be lost without a word."""
    with pytest.raises(click.BadParameter, match="count is given twice"):
        params_of(None, ["count=1", "count=2"], SCHEMA)


def test_the_whole_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "params.json").write_text('{"name": "é"}')
    assert params_of(f"@{tmp_path / 'params.json'}", [], SCHEMA) == {"name": "é"}


def test_all_params_may_come_by_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"name": "\xc3\xa9"}')))
    assert params_of("@-", [], SCHEMA) == {"name": "é"}


@pytest.mark.parametrize("text", ["[1]", "{", "@/no/such/file", "nothing"])
def test_a_whole_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="expected a JSON object"):
        params_of(text, [], SCHEMA)


@pytest.mark.parametrize("pair", ["name", "=x", ""])
def test_a_pair_without_key_or_value_is_refused(pair: str) -> None:
    with pytest.raises(click.BadParameter, match="expected KEY=VALUE"):
        params_of(None, [pair], SCHEMA)


@pytest.mark.parametrize("value", ["18446744073709551616", "1e999", '{"a": 1, "a": 2}', "[" * 300 + "]" * 300])
def test_a_value_that_cannot_be_kept_is_refused_and_not_taken_for_text(value: str) -> None:
    """A param of another type would be stored."""
    for text, pairs in ((None, [f"unknown={value}"]), (f'{{"unknown": {value}}}', [])):
        with pytest.raises(click.BadParameter, match=r"expected|given twice"):
            params_of(text, pairs, SCHEMA)
    assert params_of(None, [f"name={value}"], SCHEMA) == {"name": value}
