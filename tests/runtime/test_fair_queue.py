"""Everybody gets a turn."""

import pytest

from taskd.runtime.fair_queue import Turns


def turns_of(*items: str) -> Turns[str]:
    """Items whose owner is their first letter."""
    turns: Turns[str] = Turns()
    for item in items:
        turns.add(item[0], item)
    return turns


def test_owners_are_taken_in_turn_and_of_one_the_oldest_first() -> None:
    """However many one has put in before."""
    turns = turns_of("a1", "a2", "a3", "a4", "b1", "b2", "c1")
    assert [turns.take() for _ in range(7)] == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]
    with pytest.raises(IndexError):
        turns.take()


def test_whoever_comes_later_waits_for_one_turn_of_each_before() -> None:
    """A single one behind a thousand of another is the next or the one after."""
    turns = turns_of(*[f"a{number}" for number in range(1_000)])
    assert turns.take() == "a0"
    turns.add("b", "b0")
    assert [turns.take(), turns.take()] == ["a1", "b0"]
    assert len(turns) == 998


def test_to_come_back_is_no_way_to_the_front() -> None:
    """Who had the last turn, had nothing left and puts something in again goes behind the others."""
    turns = turns_of("a1", "b1", "b2")
    assert turns.take() == "a1"
    turns.add("a", "a2")
    assert [turns.take(), turns.take(), turns.take()] == ["b1", "a2", "b2"]


def test_what_is_removed_is_not_taken() -> None:
    """And an owner without anything left has no turn."""
    turns = turns_of("a1", "b1", "b2")
    assert turns.remove("a", "a1")
    assert not turns.remove("a", "a1")
    assert not turns.remove("b", "b9")
    assert turns.counts() == {"b": 2}
    assert turns.clear() == ["b1", "b2"]
    assert len(turns) == 0
