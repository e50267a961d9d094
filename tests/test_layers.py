"""Imports point one way: each module uses only what the story of an entry has told before it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "taskd"

# From the ground up. A module imports only from lines above its own, or from its left.
LAYERS = """
version errors exact entries settings shipped hooks visible waiting threads trees metrics turns signals init
console operator_log descriptors
patterns fields folding tasks sanitise sources filters queries masking secrets counts outlines tracebacks
supervision results forks holding segments journal flood late parts queue progress logger hub
bars lines speech
persistence.base persistence.connection persistence.soundness persistence.appending persistence.committer
persistence.schema persistence.blocks persistence.search persistence.indexer persistence.purging
persistence.checkpoints persistence.sqlite persistence
speaking own loop shared_state streams records uncaught spreading capture pipes process
rereading writer pages exporting follow context plugins execution endings
live deletions manager watchdog retention strays recovery service
api api.schemas api.operations api.responses api.auth api.following api.tasks api.logs api.live api.stream api.export
api.health api.metrics api.page api.openapi api.app heads
connections protocols memory server addresses answers trust client frames printer arguments tables replacing flags
template commands cli demo
"""
ORDER = {name: place for place, name in enumerate(LAYERS.split())}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__main__.py")


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[str]:
    """The modules of taskd that a module imports when it is loaded or run; not for type checking alone."""
    tree = ast.parse(path.read_text())
    for_types = {id(node) for block in ast.walk(tree) if is_type_checking(block) for node in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name.removeprefix("taskd.") for name in names if name.startswith("taskd"))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def module_in(imported: str) -> str:
    """The module that `from taskd.x import y` means: `x.y` where that is one, else `x`."""
    while imported and not (
        (PACKAGE / (path := imported.replace(".", "/"))).is_dir() or (PACKAGE / f"{path}.py").is_file()
    ):
        imported = imported.rpartition(".")[0]
    return imported


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_from_below(path: Path) -> None:
    """No cycles, and the path of an entry can be read from top to bottom."""
    name = name_of(path)
    if name == "":  # what a plugin's author imports; no module inside may
        return
    below = [module_in(imported) for imported in imports_of(path)]
    assert "" not in below, f"{name} imports the package from inside itself"
    assert [other for other in below if other != name and ORDER[other] >= ORDER[name]] == []


def test_every_module_has_a_place() -> None:
    """A new module is put into the picture above."""
    assert {name_of(path) for path in MODULES} - {""} == set(ORDER)
