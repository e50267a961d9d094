"""
Plugins: what they are, where they are found, and how they are called.

A plugin is a class with a `name` and an `execute`. They are found in directories (`*.py`, each
file for itself; one that has outgrown its file is a package, `NAME/__init__.py`, with the class in
that file and the rest beside it) and as entry points of the group `taskd.plugins`. One that cannot
be loaded is reported with the reason and does not stop the others.

Old plugins go on working: `inspect.signature` decides whether `execute` takes a `context`, and
one that is not a coroutine function runs in a thread of its own. What could not run is refused
here, with the reason, and not by its first task.

A file is run on the main thread, where its code may expect to be, and may take as long as it
likes: `loading` names it, and after `SLOW_S` it is reported. Only regular files are opened.

Plugins are code: they run with the rights of the service.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import inspect
import logging
import re
import stat
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ValidationError

from taskd.errors import Fault, ParamsInvalid, PluginNotFound
from taskd.text.sanitise import clean_text
from taskd.text.sources import MODULE_PREFIX
from taskd.text.tracebacks import exception_line, mark_as_own

if TYPE_CHECKING:
    from taskd.runtime.context import TaskContext

ENTRY_POINTS = "taskd.plugins"
PACKAGE = "__init__.py"
NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
# How long a file may take to load before stderr names it.
SLOW_S = 5.0
KINDS = {
    stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe (FIFO)", stat.S_IFSOCK: "a socket",
    stat.S_IFLNK: "a link to nothing", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip

_log = logging.getLogger("taskd.plugins")


class Plugin:
    """
    What a plugin's author writes.

    `name` (`[a-z][a-z0-9_-]*`, at most 64 characters) is how a task asks for it. `Params`, a
    pydantic model, is optional: with it, params are validated and passed as the model; without
    it they are passed as a dict. What `execute` returns, JSON-able, is the task's result; what
    it raises fails the task.
    """

    name: ClassVar[str]
    title: ClassVar[str] = ""
    Params: ClassVar[type[BaseModel]]

    async def execute(self, params: Any, context: "TaskContext") -> object:
        """Do the work. It is cancelled where a person cancels the task or the service stops."""
        raise TypeError(f"plugin {self.name!r} has no execute")


class PluginMissing(Exception):
    """A file that should have a plugin has none; the text says why."""


@dataclass(frozen=True, slots=True)
class BrokenPlugin:
    """A plugin that could not be loaded: its name or file, and why."""

    name: str
    error: str


@dataclass(frozen=True, slots=True)
class LoadedPlugin:
    """A plugin that can run."""

    name: str
    title: str
    description: str
    params_schema: dict[str, Any]
    takes_context: bool
    is_async: bool
    factory: type[Any]
    params_model: type[BaseModel] | None

    def validate(self, params: dict[str, Any]) -> Any:
        """The params as `execute` gets them. Raises `ParamsInvalid` with every fault."""
        if self.params_model is None:
            return dict(params)
        try:
            # What is not known is a fault, unless the model says what it is to it.
            chosen = "extra" in self.params_model.model_config
            return self.params_model.model_validate(params, extra=None if chosen else "forbid")
        except ValidationError as error:
            faults = error.errors(include_url=False, include_context=False)
            raise ParamsInvalid(self.name, [self._fault(fault) for fault in faults]) from error

    def _fault(self, fault: Any) -> Fault:
        message = fault["msg"].removeprefix("Value error, ").removeprefix("Input ")
        match fault["type"]:
            case "extra_forbidden":
                known = ", ".join(self.params_schema.get("properties", {})) if len(fault["loc"]) == 1 else ""
                message = "there is no such parameter" + (f"; there are: {known}" if known else "")
            case "missing":
                message = "it is required"
            case "list_type":
                message = 'expected a list, as JSON: ["one", "two"]'
        return {"path": ".".join(["params", *map(str, fault["loc"])]), "message": message}


class PluginRegistry:
    """All plugins found, by name, and those that are broken."""

    def __init__(self) -> None:
        self.plugins: dict[str, LoadedPlugin] = {}
        self.broken: list[BrokenPlugin] = []
        # The file or entry point that is being imported now; `on_loading` is called when an import begins.
        self.loading: str | None = None
        self.on_loading: Callable[[], None] = lambda: None

    def __getitem__(self, name: str) -> LoadedPlugin:
        """The plugin of that name. Raises `PluginNotFound`, which names those there are."""
        if name not in self.plugins:
            raise PluginNotFound(name, sorted(self.plugins))
        return self.plugins[name]

    def load_directory(self, directory: Path) -> None:
        """Load every `*.py` in it, and every package, that does not begin with `_` or `.`."""
        if not directory.is_dir():
            is_file = directory.is_file()
            told = "expected a directory, this is a file" if is_file else "there is no such directory"
            self.broken.append(BrokenPlugin(str(directory), told))
            return
        mark_as_own(directory)
        for path in sorted([*directory.glob("*.py"), *directory.glob(f"*/{PACKAGE}")]):
            if not path.relative_to(directory).parts[0].startswith(("_", ".")):
                self._load_file(path)

    def load_entry_points(self) -> None:
        """Load what installed packages offer as `taskd.plugins`: plugin classes, or modules of them."""
        for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
            try:
                with self._loading(point.value):
                    loaded = point.load()
                self._add_all([loaded] if inspect.isclass(loaded) else _found_in(loaded), point.name)
                mark_as_own(_home_of(point.module))
            except BaseException as error:
                self._report(point.name, error)

    def _load_file(self, path: Path) -> None:
        where = str(path.parent if path.name == PACKAGE else path)
        if path.name != PACKAGE and (path / PACKAGE).is_file():
            return  # a package whose name ends in .py
        try:
            _check_kind(path)
            with self._loading(where):
                module = _import(path)
            # A package without a plugin is there for the others, or for something else.
            if _classes(module) or path.name != PACKAGE:
                self._add_all(_found_in(module), where)
        except BaseException as error:  # KeyboardInterrupt too: Ctrl-C raises none here (`taskd.system.signals`)
            self._report(where, error)

    @contextlib.contextmanager
    def _loading(self, where: str) -> Iterator[None]:
        """Note what is being imported in a `with` block, and report it if that takes long."""
        slow = threading.Timer(
            SLOW_S, _log.warning, (f"%s is still loading after {SLOW_S:g} s; taskd waits for it", where)
        )
        slow.daemon = True
        with contextlib.suppress(RuntimeError):  # the system allows no more threads
            slow.start()
        self.loading = where
        self.on_loading()
        try:
            yield
        finally:
            self.loading = None
            slow.cancel()

    def _add_all(self, classes: Iterable[type[Any]], where: str) -> None:
        for plugin in classes:
            try:
                self._add(_loaded(plugin))
            except BaseException as error:
                self._report(f"{where}: {plugin.__name__}", error)

    def _add(self, plugin: LoadedPlugin) -> None:
        other = self.plugins.get(plugin.name)
        if other is not None:
            file = getattr(sys.modules.get(other.factory.__module__), "__file__", None)
            raise ValueError(f"there is a plugin {plugin.name!r} already, {other.factory.__qualname__} in {file}")
        self.plugins[plugin.name] = plugin

    def _report(self, name: str, error: BaseException) -> None:
        told = str(error) if isinstance(error, PluginMissing) else exception_line(error)
        self.broken.append(BrokenPlugin(name, told))


def _told(path: Path) -> str:
    return path.parent.name if path.name == PACKAGE else path.name


def _check_kind(path: Path) -> None:
    """Raise `PluginMissing` for what is no regular file: to open a pipe waits for its other end."""
    mode = stat.S_IFMT(path.stat().st_mode) if path.exists() else stat.S_IFLNK
    if mode != stat.S_IFREG:
        raise PluginMissing(f"expected a Python file, this is {KINDS.get(mode, 'another kind of file')}")


def _import(path: Path) -> ModuleType:
    """Run the file as a module under a name of its own: two directories may both have a `git.py`."""
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    name = f"{MODULE_PREFIX}{digest}_{_told(path).removesuffix('.py')}"
    within = [str(path.parent)] if path.name == PACKAGE else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=within)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        for loaded in [loaded for loaded in sys.modules if loaded == name or loaded.startswith(f"{name}.")]:
            del sys.modules[loaded]
        raise
    return module


def _home_of(module: str) -> str:
    """The directory of the package that a module is in; of a module in none, its file."""
    whole = sys.modules[module.partition(".")[0]]
    return next(iter(getattr(whole, "__path__", [])), None) or str(whole.__file__)


def _found_in(module: ModuleType) -> list[type[Any]]:
    """The plugins of a module. Raises `PluginMissing`, which says what is missing, where there is none."""
    if classes := _classes(module):
        return classes
    for nameless in _that_execute(module):
        raise PluginMissing(
            f'class {nameless.__name__} has execute but no name: add name = "{nameless.__name__.strip("_").lower()}"'
        )
    raise PluginMissing("no class in it has a name and an execute method")


def _classes(module: ModuleType) -> list[type[Any]]:
    return [value for value in _that_execute(module) if getattr(value, "name", None) is not None]


def _that_execute(module: ModuleType) -> list[type[Any]]:
    """The classes with an `execute` that a module defines itself; what it imports is not its own."""
    return [
        value
        for value in dict.fromkeys(value for value in vars(module).values() if inspect.isclass(value))
        if value.__module__ == module.__name__ and _may_execute(value)
    ]


def _may_execute(value: type[Any]) -> bool:
    """Whether a class is meant to be a plugin, if perhaps not as it must be."""
    execute = getattr(value, "execute", None)
    return callable(execute) or isinstance(execute, property) or (issubclass(value, Plugin) and execute is not None)


def _loaded(plugin: type[Any]) -> LoadedPlugin:
    name = plugin.name
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"name {name!r}: expected a lower-case letter, then letters, digits, '_' or '-'")
    model = getattr(plugin, "Params", None)
    if model is not None and not (inspect.isclass(model) and issubclass(model, BaseModel)):
        raise TypeError(f"Params is {model!r}: expected a subclass of pydantic.BaseModel")
    if plugin.execute is Plugin.execute:
        raise TypeError("it has no execute method of its own")
    _check_kind_of_execute(plugin.execute)
    takes_context = _takes_context(plugin.execute)
    _check_call(plugin, takes_context)
    _check_made(plugin)
    return LoadedPlugin(
        name=name,
        title=clean_text(str(getattr(plugin, "title", "") or name)),
        description=clean_text(inspect.getdoc(plugin) or "") if plugin.__doc__ else "",
        params_schema=_schema_of(model) if model else {"type": "object"},
        takes_context=takes_context,
        is_async=inspect.iscoroutinefunction(plugin.execute),
        factory=plugin,
        params_model=model,
    )


def _schema_of(model: type[BaseModel]) -> dict[str, Any]:
    try:
        return model.model_json_schema()
    except Exception as error:
        raise TypeError(f"Params has no JSON schema: {exception_line(error)}") from error


def _check_kind_of_execute(execute: Any) -> None:
    """Raise `TypeError` for what is called without anything being done, or cannot be called."""
    if isinstance(execute, property) or inspect.isclass(execute) or not callable(execute):
        raise TypeError(f"execute is a {_kind_of(execute)}: expected a method")
    # A callable object is what its `__call__` is.
    for called in (execute, type(execute).__call__):
        if inspect.isasyncgenfunction(called) or (inspect.isgeneratorfunction(called) and not _is_coroutine(called)):
            raise TypeError(
                "execute is a generator (it has a yield in it), so calling it does nothing: "
                "log or report progress instead, and return the result"
            )


def _kind_of(execute: Any) -> str:
    return "class" if inspect.isclass(execute) else type(execute).__name__


def _is_coroutine(function: Any) -> bool:
    """Whether a generator function is marked as a coroutine (`types.coroutine`)."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code is not None and bool(code.co_flags & inspect.CO_ITERABLE_COROUTINE)


def _signature(function: Any) -> inspect.Signature:
    """The signature, also if an annotation names what exists for type checkers alone."""
    if sys.version_info >= (3, 14):  # annotations are evaluated when they are asked for
        from annotationlib import Format

        return inspect.signature(function, annotation_format=Format.FORWARDREF)
    return inspect.signature(function)


def _takes_context(execute: Any) -> bool:
    """Whether `execute` can be given `context=`: by its name, or because it takes any."""
    parameters = _signature(execute).parameters
    by_name = parameters.get("context")
    if by_name is not None and by_name.kind is not inspect.Parameter.POSITIONAL_ONLY:
        return by_name.kind is not inspect.Parameter.VAR_POSITIONAL
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())


def _check_call(plugin: type[Any], takes_context: bool) -> None:
    """Raise `TypeError` if `execute` cannot be called as it will be: better now than in its first task."""
    signature = _signature(plugin.execute)
    try:
        signature.bind(*[None] * _is_given_self(plugin), {}, **({"context": None} if takes_context else {}))
    except TypeError as error:
        told = f"execute{signature}: expected (self, params) or (self, params, context), by these names"
        raise TypeError(f"{told}: {error}") from error


def _is_given_self(plugin: type[Any]) -> bool:
    """Whether what stands as `execute` in the class becomes a method of its instances."""
    stands = inspect.getattr_static(plugin, "execute")
    if isinstance(stands, functools.partial):
        return sys.version_info >= (3, 14)
    return hasattr(type(stands), "__get__") and not isinstance(stands, staticmethod | classmethod)


def _check_made(plugin: type[Any]) -> None:
    """Raise `TypeError` if the class cannot be called without arguments, as each task does. It is not tried."""
    if inspect.isabstract(plugin):
        missing = ", ".join(sorted(plugin.__abstractmethods__))
        raise TypeError(f"it is abstract: it has no {missing} of its own")
    try:
        signature = _signature(plugin)
    except (TypeError, ValueError):  # of a class written in C
        return
    try:
        signature.bind()
    except TypeError as error:
        raise TypeError(
            f"{plugin.__name__}{signature}: expected a class that is made without arguments: {error}"
        ) from error
