"""Why a backup or a restore ends early."""

import concurrent.futures
import threading


class Failed(Exception):
    """The work cannot be done; the text says why and what to do."""


class Stopped(concurrent.futures.CancelledError):
    """The thread has seen that the task is cancelled."""


def check(stop: threading.Event) -> None:
    if stop.is_set():
        raise Stopped


def why(error: OSError) -> str:
    return error.strerror or str(error)
