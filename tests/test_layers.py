"""Imports point one way: no module of taskd, and no package, depends on itself by way of others."""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "taskd"

# Each package, or module that belongs to none, imports only from those above it.
LAYERS = """
version
errors
entries
shipped
concurrency
metrics
settings
tasks
text
query
system
journal
persistence
persistence.sqlite
stores
log
reading
capture
runtime
service
api
server
cli
"""
ORDER = {name: place for place, name in enumerate(LAYERS.split())}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__main__.py")


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[str]:
    """Yield the modules of taskd that a module imports when it is loaded or run, not for type checking alone."""
    tree = ast.parse(path.read_text())
    for_types = {id(node) for block in ast.walk(tree) if is_type_checking(block) for node in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (module_in(name.removeprefix("taskd.")) for name in names if name.startswith("taskd"))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def module_in(imported: str) -> str:
    """Return the module that `from taskd.x import y` means: `x.y` if that is one, else `x`."""
    while imported and not (
        (PACKAGE / (path := imported.replace(".", "/"))).is_dir() or (PACKAGE / f"{path}.py").is_file()
    ):
        imported = imported.rpartition(".")[0]
    return imported


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_does_not_import_the_package_from_inside_itself(path: Path) -> None:
    """`taskd` is for authors of plugins."""
    if name_of(path):
        assert "" not in imports_of(path)


def test_modules_import_each_other_without_a_cycle() -> None:
    """The path of an entry can be read from top to bottom."""
    graph = {name_of(path): set(imports_of(path)) - {name_of(path)} for path in MODULES if name_of(path)}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def package_of(module: str) -> str:
    """Return the innermost package of a module, or itself if it is in none."""
    path = PACKAGE / module.replace(".", "/")
    return module if path.is_dir() or "." not in module else module.rpartition(".")[0]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_from_packages_above_its_own(path: Path) -> None:
    """Packages form one line, which reads from what needs nothing to the command."""
    own = package_of(name_of(path))
    if own:
        others = {package_of(imported) for imported in imports_of(path)} - {own}
        assert [other for other in others if ORDER[other] >= ORDER[own]] == []


def test_every_package_has_a_place_in_the_line() -> None:
    """A new one is put where its reader looks for it."""
    assert {package_of(name_of(path)) for path in MODULES} - {""} == set(ORDER)


def test_no_room_is_full() -> None:
    """At most 12 modules stand in `taskd` itself, and 16 in any package."""
    rooms = [PACKAGE, *(path for path in PACKAGE.rglob("*") if (path / "__init__.py").exists())]
    full = {room.name: len([*room.glob("*.py")]) - 1 for room in rooms}
    assert {name: count for name, count in full.items() if count > (12 if name == "taskd" else 16)} == {}


def test_nothing_imports_a_test_module() -> None:
    """What tests share stands in `tests/helpers`."""
    importing = re.compile(r"^\s*(?:from|import) tests\b.*\btest_", re.MULTILINE)
    assert [path.name for path in TESTS.rglob("*.py") if importing.search(path.read_text())] == []
