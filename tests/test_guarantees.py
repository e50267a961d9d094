"""Each promise of docs/guarantees.md has a test, and each bar too."""

import re
from pathlib import Path

from tests.helpers.bars import BARS

ROOT = Path(__file__).parent.parent
GUARANTEES = (ROOT / "docs" / "guarantees.md").read_text()
SOURCES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}


def test_every_test_that_a_guarantee_names_is_there() -> None:
    """A promise whose test was renamed or lost is a promise without one."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", GUARANTEES)
    assert len(named) > 15
    assert [each for each in named if f"def {each[1]}(" not in SOURCES.get(each[0], "")] == []


def test_every_guarantee_names_what_shows_it() -> None:
    """In the last cell of its row."""
    rows = [row for row in GUARANTEES.splitlines() if row.startswith("| ") and "| --- |" not in row]
    assert [row for row in rows if not re.search(r"\bR\d+\b|`tests/|shown by", row.rsplit("|", 2)[1])] == []


def test_every_bar_is_a_guarantee_and_has_a_test() -> None:
    """What `make torture` measures is what was promised."""
    shown = set(re.findall(r'mark\.bar\("(R\d+)"\)', "".join(SOURCES.values())))
    assert shown == set(BARS)
    assert set(BARS) <= set(re.findall(r"\bR\d+\b", GUARANTEES))
