"""Why a backup or a restore ends early."""

import concurrent.futures
import threading

NAME_SHOWN = 200


class Damaged(Exception):
    """The bytes of an archive are not those that were written; the text names the place."""


class Stopped(concurrent.futures.CancelledError):
    """The thread has seen that the task is cancelled."""


def check(stop: threading.Event) -> None:
    if stop.is_set():
        raise Stopped


def why(error: OSError) -> str:
    return error.strerror or str(error)


def shown(name: str) -> str:
    """Return a name for a message, which is short however long the name is."""
    return repr(name if len(name) <= NAME_SHOWN else f"{name[: NAME_SHOWN // 2]}…{name[-NAME_SHOWN // 2 :]}")
