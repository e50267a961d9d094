"""Plugins are found and described; one that cannot be loaded is reported and stops nobody."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taskd.errors import ParamsInvalid, PluginNotFound
from taskd.runtime import plugins
from taskd.runtime.plugins import LoadedPlugin, PluginRegistry
from taskd.service import Service
from tests.conftest import running_service

Write = Callable[..., Path]

GOOD = """
class Good(Plugin):
    '''Does good.'''
    name = "good"
    title = "The good one"
    class Params(BaseModel):
        count: int
    async def execute(self, params, context): ...
"""


def loaded_from(directory: Path) -> PluginRegistry:
    registry = PluginRegistry()
    registry.load_directory(directory)
    return registry


def only(registry: PluginRegistry) -> LoadedPlugin:
    assert registry.broken == []
    (plugin,) = registry.plugins.values()
    return plugin


def test_a_plugin_is_described_by_its_class(plugin_dir: Write) -> None:
    """Name, title, docstring and the schema of its params are what the API shows."""
    plugin = only(loaded_from(plugin_dir(GOOD)))
    assert (plugin.name, plugin.title, plugin.description) == ("good", "The good one", "Does good.")
    assert plugin.params_schema["required"] == ["count"]
    assert (plugin.takes_context, plugin.is_async) == (True, True)


def test_any_class_with_a_name_and_execute_is_a_plugin(plugin_dir: Write) -> None:
    """Old plugins inherit from nothing; the title is the name and any params are taken."""
    plugin = only(loaded_from(plugin_dir("class Old:\n    name = 'old'\n    def execute(self, params): ...")))
    assert (plugin.title, plugin.description, plugin.params_schema) == ("old", "", {"type": "object"})
    assert (plugin.takes_context, plugin.is_async) == (False, False)
    assert plugin.validate({"any": 1}) == {"any": 1}


@pytest.mark.parametrize(
    ("parameters", "takes"),
    [
        ("self, params, context", True),
        ("self, params, context=None", True),
        ("self, params, *, context", True),
        ("self, params, **kwargs", True),
        ("self, params, **context", True),
        ("self, params", False),
        ("self, params, ctx=None", False),
        ("self, params, *args", False),
        ("self, params, *context", False),
        ("self, context, /, **kwargs", True),
    ],
)
def test_the_signature_decides_whether_it_is_given_a_context(plugin_dir: Write, parameters: str, takes: bool) -> None:
    """By the name `context`, or because it takes any keyword; and nothing that it would not take."""
    source = f"class One:\n    name = 'one'\n    async def execute({parameters}): ..."
    assert only(loaded_from(plugin_dir(source))).takes_context is takes


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("def broken(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        (
            "class Bad:\n    name = 'bad'\n    def execute(self, params): ...\n"
            "    class Params(BaseModel):\n        def model_json_schema(): raise SystemExit(4)",
            "SystemExit: 4",
        ),
        ("import not_there_at_all", "ModuleNotFoundError: No module named 'not_there_at_all'"),
        ("1 / 0", "ZeroDivisionError"),
        ("x = 1", "no class in it has a name and an execute method"),
        (
            "class NoName:\n    def execute(self, params): ...",
            'class NoName has execute but no name: add name = "noname"',
        ),
        ("class Bad:\n    name = 'Bad Name'\n    def execute(self, params): ...", "name 'Bad Name': expected"),
        ("class Bad:\n    name = ''\n    def execute(self, params): ...", "name '': expected"),
        ("class Bad:\n    name = '../x'\n    def execute(self, params): ...", "name '../x': expected"),
        (f"class Bad:\n    name = '{'x' * 65}'\n    def execute(self, params): ...", "expected a lower-case letter"),
        ("class Bad:\n    name = 'bad\\n'\n    def execute(self, params): ...", "expected a lower-case letter"),
        ("class Bad:\n    name, Params = 'bad', dict\n    def execute(self, params): ...", "expected a subclass of"),
        ("class Bad(Plugin):\n    name = 'bad'", "no execute method of its own"),
    ],
)
def test_a_broken_file_is_reported_with_the_reason_and_the_others_are_loaded(
    plugin_dir: Write, source: str, why: str
) -> None:
    """Whatever it does when it is imported."""
    plugin_dir(source, "a_broken.py")
    registry = loaded_from(plugin_dir(GOOD, "b_good.py"))
    assert list(registry.plugins) == ["good"]
    (broken,) = registry.broken
    assert "a_broken.py" in broken.name
    assert why in broken.error


@pytest.mark.parametrize("parameters", ["self", "self, **fields", "self, params, ctx", "self, params, context, more"])
def test_an_execute_that_cannot_be_called_is_refused_at_the_start(plugin_dir: Write, parameters: str) -> None:
    """Not by its first task."""
    registry = loaded_from(plugin_dir(f"class Odd:\n    name = 'odd'\n    def execute({parameters}): ..."))
    [broken] = registry.broken
    assert f"execute({parameters}): expected (self, params) or (self, params, context)" in broken.error


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("async def execute(self, params, context):\n        yield 1", "execute is a generator"),
        ("def execute(self, params):\n        yield 1", "execute is a generator"),
        ("execute = staticmethod(numbers)", "execute is a generator"),
        ("execute = functools.partial(numbers)", "execute is a generator"),
        ("execute = Yields()", "execute is a generator"),
        ("execute = property(lambda self: print)", "execute is a property: expected a method"),
        ("class execute:\n        def __init__(self, *more): ...", "execute is a class: expected a method"),
        ("def execute(params): ...", "execute(params): expected (self, params)"),
        ("def execute(params, context): ...", "execute(params, context): expected (self, params)"),
        ("def execute(self, params, *, more): ...", "execute(self, params, *, more): expected (self, params)"),
        ("def execute(self, params, context, /): ...", "execute(self, params, context, /): expected (self, params)"),
        ("execute = staticmethod(lambda self, params, more: 1)", "expected (self, params)"),
        (
            "def __init__(self, url): ...\n    def execute(self, params): ...",
            "Odd(url): expected a class that is made without",
        ),
        ("name = 5\n    def execute(self, params): ...", "name 5: expected"),
        ("def execute(self, params): ...\n    Params = {}", "expected a subclass of pydantic.BaseModel"),
        (
            "class Params(BaseModel):\n        f: Callable[[], int]\n    def execute(self, params): ...",
            "Params has no JSON schema",
        ),
        (
            "class Params(BaseModel):\n        f: 'Missing'\n    def execute(self, params): ...",
            "Params has no JSON schema",
        ),
    ],
)
def test_what_cannot_run_is_refused_at_the_start(plugin_dir: Write, body: str, why: str) -> None:
    """And not by its first task; the reason is in the listing."""
    head = """
import abc, functools
from typing import Callable
def numbers(params):
    yield 1
class Yields:
    async def __call__(self, params):
        yield 1
"""
    registry = loaded_from(plugin_dir(f"{head}class Odd(Plugin):\n    name = 'odd'\n    {body}"))
    assert list(registry.plugins) == []
    [broken] = registry.broken
    assert why in broken.error


def test_an_abstract_class_is_refused(plugin_dir: Write) -> None:
    """What it lacks is named; the class that has it runs."""
    source = """
import abc
class Base(Plugin, abc.ABC):
    name = "base"
    @abc.abstractmethod
    def work(self): ...
    def execute(self, params): return self.work()
class Real(Base):
    name = "real"
    def work(self): return 1
"""
    registry = loaded_from(plugin_dir(source))
    assert [broken.error for broken in registry.broken] == ["TypeError: it is abstract: it has no work of its own"]
    assert list(registry.plugins) == ["real"]


@pytest.mark.parametrize(
    "body",
    [
        "execute = staticmethod(lambda params, context: 'ran')",
        "execute = classmethod(lambda cls, params: 'ran')",
        "execute = Calls()",
        "execute = functools.partialmethod(lambda self, one, params: 'ran', 1)",
        "@wrapped\n    async def execute(self, params, context): return 'ran'",
        "execute = types.coroutine(waits)",
        "def __init__(self, url=None): ...\n    def execute(self, params: 'Missing', context: 'Missing'): return 'ran'",
    ],
)
async def test_unusual_forms_that_can_run_do(plugin_dir: Write, tmp_path: Path, body: str) -> None:
    """Static, class and partial methods, callable objects, and wrappers that hide a coroutine."""
    head = """
import functools, types
class Calls:
    async def __call__(self, params, context): return 'ran'
def waits(self, params):
    yield from asyncio.sleep(0).__await__()
    return 'ran'
def wrapped(function):
    return lambda *args, **more: function(*args, **more)
"""
    directory = plugin_dir(f"{head}class Odd:\n    name = 'odd'\n    {body}")
    async with running_service(tmp_path, plugins=[directory]) as service:
        task = await service.manager.submit("odd", {})
        assert (await service.manager.wait(task.id)).result == "ran"


def test_an_annotation_for_type_checkers_alone_is_not_evaluated(plugin_dir: Write) -> None:
    """What it names need not exist when the plugin is loaded."""
    source = """
class Good(Plugin):
    name = "good"
    async def execute(self, params: "Missing", context: "Missing") -> "Missing": ...
"""
    lazy = source.replace('"Missing"', "Missing") if sys.version_info >= (3, 14) else source
    assert only(loaded_from(plugin_dir(lazy))).takes_context


def test_what_is_no_regular_file_is_reported_and_not_opened(plugin_dir: Write) -> None:
    """To open a pipe would wait for its other end."""
    directory = plugin_dir(GOOD)
    os.mkfifo(directory / "a.py")
    (directory / "b.py").mkdir()
    (directory / "c.py").symlink_to("/dev/zero")
    (directory / "d.py").symlink_to("nowhere")
    (directory / "e").mkdir()
    os.mkfifo(directory / "e" / "__init__.py")
    plugin_dir("", "f.py/__init__.py")
    registry = loaded_from(directory)
    assert list(registry.plugins) == ["good"]
    assert {Path(broken.name).name: broken.error for broken in registry.broken} == {
        "a.py": "expected a Python file, this is a pipe (FIFO)",
        "b.py": "expected a Python file, this is a directory",
        "c.py": "expected a Python file, this is a device",
        "d.py": "expected a Python file, this is a link to nothing",
        "e": "expected a Python file, this is a pipe (FIFO)",
    }


def test_a_file_that_takes_long_to_load_is_named(
    plugin_dir: Write, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While it loads: this one ends when that was reported."""
    monkeypatch.setattr(plugins, "SLOW_S", 0.01)
    source = """
class Heard(logging.Handler):
    def emit(self, record):
        reported.set()
reported = threading.Event()
heard = Heard()
logging.getLogger("taskd.plugins").addHandler(heard)
assert reported.wait(30)
logging.getLogger("taskd.plugins").removeHandler(heard)
"""
    directory = plugin_dir(source + GOOD)
    registry = loaded_from(directory)
    assert (list(registry.plugins), registry.broken) == (["good"], [])
    assert f"{directory / 'mine.py'} is still loading" in caplog.text


def test_a_failed_import_leaves_no_half_module(plugin_dir: Write) -> None:
    """Nothing can find what was not loaded."""
    before = set(sys.modules)
    loaded_from(plugin_dir("1 / 0"))
    assert {name for name in set(sys.modules) - before if "mine" in name} == set()


def test_the_first_of_two_plugins_with_one_name_stays(plugin_dir: Write) -> None:
    """The second is reported, and says which was there before it."""
    plugin_dir(GOOD, "a.py")
    directory = plugin_dir(GOOD.replace("class Good", "class Other"), "b.py")
    registry = loaded_from(directory)
    assert registry.plugins["good"].factory.__name__ == "Good"
    (broken,) = registry.broken
    assert (broken.name, broken.error) == (
        f"{directory / 'b.py'}: Other",
        f"ValueError: there is a plugin 'good' already, Good in {directory / 'a.py'}",
    )


def test_a_second_name_for_one_class_is_no_second_plugin(plugin_dir: Write) -> None:
    """`plugin = Good` at the end of a file is not a mistake."""
    registry = loaded_from(plugin_dir(f"{GOOD}\nplugin = Good"))
    assert (list(registry.plugins), registry.broken) == (["good"], [])


def test_a_file_may_hold_several_plugins_and_what_it_imports_is_not_its_own(plugin_dir: Write) -> None:
    """A base class from elsewhere is not loaded again."""
    plugin_dir(GOOD, "_shared.py")
    two = f"{GOOD}\nclass Second(Good):\n    name = 'second'\n    async def execute(self, params): ..."
    registry = loaded_from(plugin_dir(two))
    assert (sorted(registry.plugins), registry.broken) == (["good", "second"], [])


def test_two_directories_may_have_files_of_one_name(plugin_dir: Write, tmp_path: Path) -> None:
    """Each is a module of its own."""
    registry = loaded_from(plugin_dir(GOOD, "git.py"))
    other = tmp_path / "other"
    other.mkdir()
    (other / "git.py").write_text("class Two:\n    name = 'two'\n    def execute(self, params): ...")
    registry.load_directory(other)
    assert (sorted(registry.plugins), registry.broken) == (["good", "two"], [])


def test_a_class_that_has_no_name_is_told_to_have_one(plugin_dir: Write) -> None:
    """With the path of its file, as every broken one."""
    directory = plugin_dir("class Nightly(Plugin):\n    async def execute(self, params, context): ...")
    (broken,) = loaded_from(directory).broken
    assert broken.name == str(directory / "mine.py")
    assert broken.error == 'class Nightly has execute but no name: add name = "nightly"'


def test_a_plugin_may_be_a_package(plugin_dir: Write) -> None:
    """Its parts import each other; the name of the directory is what is told of a broken one."""
    directory = plugin_dir("1 / 0", "broken/__init__.py")
    plugin_dir("COUNT = 3", "good/parts.py")
    plugin_dir(f"from .parts import COUNT\n{GOOD}", "good/__init__.py")
    plugin_dir("", "helpers/__init__.py")
    plugin_dir("1 / 0", "_shared/__init__.py")
    registry = loaded_from(directory)
    assert list(registry.plugins) == ["good"]
    assert [(Path(broken.name).name, broken.error) for broken in registry.broken] == [
        ("broken", "ZeroDivisionError: division by zero")
    ]


def test_a_directory_that_is_not_there_is_reported(tmp_path: Path) -> None:
    """A misspelt `--plugins` is seen where plugins are listed."""
    (broken,) = loaded_from(tmp_path / "none").broken
    assert (broken.name, broken.error) == (str(tmp_path / "none"), "there is no such directory")


def test_a_file_in_the_place_of_a_directory_is_told_as_that(plugin_dir: Write) -> None:
    """There it is, so "no such directory" would not help."""
    (broken,) = loaded_from(plugin_dir(GOOD) / "mine.py").broken
    assert broken.error == "expected a directory, this is a file"


def test_an_unknown_plugin_is_answered_with_those_there_are(plugin_dir: Write) -> None:
    """A typing mistake is seen at once."""
    with pytest.raises(PluginNotFound, match="There is no plugin 'god'; there are: good"):
        loaded_from(plugin_dir(GOOD))["god"]


def test_every_fault_of_params_has_its_path(plugin_dir: Write) -> None:
    """Params are validated before there is a task."""
    source = GOOD.replace("count: int", "count: int\n        many: list[int] = []")
    plugin = loaded_from(plugin_dir(source))["good"]
    assert plugin.validate({"count": 3}).count == 3
    with pytest.raises(ParamsInvalid) as caught:
        plugin.validate({"count": "x", "many": [1, "y"]})
    assert [fault["path"] for fault in caught.value.faults] == ["params.count", "params.many.1"]


def test_a_fault_of_params_is_told_in_plain_words(plugin_dir: Write) -> None:
    """Who mistypes a name is told those there are."""
    source = GOOD.replace(
        "        count: int",
        """
        count: int
        many: list[str] = []
        sure: bool = True
        @field_validator("sure")
        def _yes(cls, value):
            if not value: raise ValueError("be sure")
""",
    )
    plugin = loaded_from(plugin_dir(f"from pydantic import field_validator\n{source}"))["good"]
    with pytest.raises(ParamsInvalid) as caught:
        plugin.validate({"cuont": 3, "many": "big", "sure": False})
    assert {fault["path"]: fault["message"] for fault in caught.value.faults} == {
        "params.count": "it is required",
        "params.cuont": "there is no such parameter; there are: count, many, sure",
        "params.many": 'expected a list, as JSON: ["one", "two"]',
        "params.sure": "be sure",
    }


# Entry points


def install(directory: Path, module: str, source: str, points: str) -> None:
    """An installed package, as packaging tools leave it."""
    (directory / f"{module}.py").write_text(source)
    info = directory / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[taskd.plugins]\n{points}\n")


def test_an_installed_package_offers_classes_or_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both forms of an entry point are plugins like those of a directory."""
    source = "\n".join(
        f"class {name.title()}:\n    name = '{name}'\n    def execute(self, params): ..." for name in ("one", "two")
    )
    install(tmp_path, "offers_class", source, "x = offers_class:One")
    install(tmp_path, "offers_module", source.replace("'one'", "'three'"), "y = offers_module")
    monkeypatch.syspath_prepend(tmp_path)
    registry = PluginRegistry()
    registry.load_entry_points()
    assert {"one", "two", "three"} <= set(registry.plugins)


def test_a_broken_entry_point_is_reported_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that cannot be imported, and a class without a name, stop nobody."""
    install(tmp_path, "offers_exit", "raise SystemExit(1)", "leaving = offers_exit:Plugin")
    install(tmp_path, "offers_nothing", "class Nameless: ...", "nameless = offers_nothing:Nameless")
    monkeypatch.syspath_prepend(tmp_path)
    registry = PluginRegistry()
    registry.load_entry_points()
    told = {broken.name: broken.error for broken in registry.broken}
    assert told["leaving"] == "SystemExit: 1"
    assert "no attribute 'name'" in told["nameless: Nameless"]


# Secret params

LOGIN = """
class Login(BaseModel):
    user: str
    password: SecretStr

class Connect:
    name = "connect"
    class Params(BaseModel):
        token: SecretStr | None = None
        login: Login | None = None
        logins: list[Login] = []
        by_host: dict[str, SecretStr] = {}
        named: SecretStr | None = Field(None, alias="api-key")
        unique: set[SecretStr] = set()
    async def execute(self, params): ...
"""


@pytest.mark.parametrize(
    ("params", "shown"),
    [
        ({"token": "s3cret"}, {"token": "***"}),
        ({"token": "pin"}, {"token": "***"}),
        ({"token": None}, {"token": None}),
        ({"login": {"user": "me", "password": "s3cret"}}, {"login": {"user": "me", "password": "***"}}),
        (
            {"logins": [{"user": "a", "password": "s3cret"}, {"user": "b", "password": "an0ther"}]},
            {"logins": [{"user": "a", "password": "***"}, {"user": "b", "password": "***"}]},
        ),
        ({"by_host": {"localhost": "pin"}}, {"by_host": {"localhost": "***"}}),
        ({"by_host": {"git.example.org": "pin"}}, {"by_host": {"git.example.org": "***"}}),
        ({"api-key": "s3cret"}, {"api-key": "***"}),
        ({"api-key": "pin"}, {"api-key": "***"}),
        ({"unique": ["s3cret"]}, {"unique": "***"}),
    ],
    ids=["plain", "short", "none", "nested", "list", "dict", "key-with-dots", "alias", "short-alias", "set"],
)
async def test_secret_params_are_not_stored(
    service: Service, plugin_dir: Write, params: dict[str, Any], shown: dict[str, Any]
) -> None:
    """Wherever a `SecretStr` lies in the model, what is stored has `***` there, and only there."""
    service.plugins.load_directory(plugin_dir(f"from pydantic import Field\n{LOGIN}"))
    task = await service.manager.submit("connect", params)
    assert (await service.store.task(task.id)).params == shown
