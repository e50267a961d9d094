"""`hooked`: put something of ours in the place of a name that belongs to Python, and take it out again."""

from collections.abc import Iterator
from contextlib import contextmanager

_MISSING = object()


@contextmanager
def hooked(owner: object, name: str, hook: object) -> Iterator[None]:
    """Have `hook` as `owner.name` for the length of a `with` block; what others put there meanwhile stays."""
    before = vars(owner).get(name, _MISSING)
    setattr(owner, name, hook)
    try:
        yield
    finally:
        if vars(owner).get(name) is hook:
            if before is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, before)
