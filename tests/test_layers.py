"""Imports point one way: no module of taskd, and no package, depends on itself by way of others."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "taskd"
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
