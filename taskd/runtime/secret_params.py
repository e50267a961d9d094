"""
Which params of a task are secret, and the params without them.

A place in params is a path as a person writes it: `remote.password`, `hosts.0.key`. Params are
stored and shown without their secrets; the paths are stored, so that a retry can say what must
be given again.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import AliasChoices, BaseModel, Secret, SecretBytes, SecretStr
from pydantic.fields import FieldInfo

from taskd.text.masking import MASK


def secret_paths(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Where validated params hold one of pydantic's secrets: its path, by each name it may have, and the secret."""
    if isinstance(value, SecretStr | SecretBytes | Secret):
        yield path, _text(value.get_secret_value())
    elif isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            for shown in _names(name, field):
                yield from secret_paths(getattr(value, name), _below(path, shown))
    elif isinstance(value, set | frozenset):
        # Which of its parts is which is not known any more: the whole is hidden.
        for item in value:
            yield from ((path, secret) for _, secret in secret_paths(item))
    else:
        for name, item in _items(value):
            yield from secret_paths(item, _below(path, name))


def without_secrets(params: Any, paths: Iterable[str]) -> Any:
    """A copy of raw params in which what lies at `paths` is `"***"`."""
    hidden = list(paths)
    if "" in hidden:
        return MASK
    if isinstance(params, dict):
        return {name: without_secrets(item, _under(hidden, name)) for name, item in params.items()}
    if isinstance(params, list):
        return [without_secrets(item, _under(hidden, str(place))) for place, item in enumerate(params)]
    return params


def differing(given: Any, shown: Any, path: str = "") -> Iterator[str]:
    """The paths at which the params shown are not those given: what was hidden."""
    if given == shown:
        return
    items, others = dict(_items(given)), dict(_items(shown))
    if not items or items.keys() != others.keys():
        yield path
        return
    for name, item in items.items():
        yield from differing(item, others[name], _below(path, name))


def value_at(params: Any, path: str) -> Any:
    """What lies in raw params at `path`, or None."""
    if not path:
        return params
    for name, item in _items(params):
        if path == name or path.startswith(f"{name}."):
            return value_at(item, path[len(name) + 1 :])
    return None


def _items(value: object) -> Iterator[tuple[str, Any]]:
    """The parts of a dict or a list, by name or place."""
    if isinstance(value, dict):
        yield from ((str(name), item) for name, item in value.items())
    elif isinstance(value, list | tuple):
        yield from ((str(place), item) for place, item in enumerate(value))


def _names(name: str, field: FieldInfo) -> set[str]:
    """The names by which a field may be given."""
    alias = field.validation_alias
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
    return {name, *(choice for choice in (*choices, field.alias) if isinstance(choice, str))}


def _text(secret: object) -> str:
    return secret.decode(errors="replace") if isinstance(secret, bytes) else str(secret)


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _under(paths: Iterable[str], name: str) -> list[str]:
    """The rests of those `paths` that lie under `name`."""
    own = [path for path in paths if path == name or path.startswith(f"{name}.")]
    return [path[len(name) + 1 :] for path in own]
