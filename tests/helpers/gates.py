"""Gates that hold a test's plugins until the test opens them."""

import asyncio

_gates: dict[str, asyncio.Event] = {}


def gate(name: str) -> asyncio.Event:
    """The gate of that name; made where it is first asked for."""
    return _gates.setdefault(name, asyncio.Event())


def close_all() -> None:
    """Forget all gates: each test begins with closed ones."""
    _gates.clear()
