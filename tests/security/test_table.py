"""The table of rules in the README of this directory against the tests that there are, both ways."""

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
NAMED = re.compile(r"`([\w./]+\.py)::(test_\w+)`")


def names_in(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_every_test_that_the_table_names_is_there() -> None:
    """A rule whose test was renamed or lost is a rule without one."""
    named = NAMED.findall((HERE / "README.md").read_text())
    assert len(named) > 40
    assert [each for each in named if each[1] not in names_in(HERE / each[0])] == []


def test_every_file_of_attacks_is_in_the_table() -> None:
    """What is tested is also said."""
    named = {file for file, _ in NAMED.findall((HERE / "README.md").read_text())}
    assert {path.name for path in HERE.glob("test_*.py")} - {"test_table.py"} <= named
