"""
What a log call costs elsewhere: one logger of another library, in a process of its own.

    python -m benchmarks.peers NAME FILE CALLS ROUNDS WARM REST_S SEED

prints a JSON array: ns a call, round by round. Each says the same message with the same two
fields, as that library is commonly set up, and its line reaches the file as its author would have
it: at once for a FileHandler and structlog, by a listener's thread for a QueueHandler. In the
rests nothing is done, so nobody's thread is in the way.
"""

import importlib.util
import json
import logging
import logging.handlers
import queue
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.words import messages

FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"

Say = Callable[[str, int], object]
# What says, and what ends it.
Peer = tuple[Say, Callable[[], object]]


def _stdlib(handler: logging.Handler) -> Say:
    logger = logging.getLogger("bench")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    logger.propagate = False
    return lambda message, n: logger.info("%s n=%d took_ms=%d", message, n, n)


def _file_handler(path: Path) -> logging.FileHandler:
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter(FORMAT))
    return handler


def file_handler(path: Path) -> Peer:
    """stdlib logging into a file."""
    handler = _file_handler(path)
    return _stdlib(handler), handler.close


def queue_handler(path: Path) -> Peer:
    """stdlib logging into a queue, which a listener's thread writes into a file."""
    records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    handler = _file_handler(path)
    listener = logging.handlers.QueueListener(records, handler)
    listener.start()

    def end() -> None:
        listener.stop()
        handler.close()

    return _stdlib(logging.handlers.QueueHandler(records)), end


def structlog_file(path: Path) -> Peer:
    """structlog as lines of JSON into a file."""
    import structlog

    file = path.open("w", encoding="utf-8")
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file),
        cache_logger_on_first_use=True,
    )
    logger = structlog.get_logger()
    return lambda message, n: logger.info(message, n=n, took_ms=n), file.close


PEERS: dict[str, Callable[[Path], Peer]] = {
    "FileHandler": file_handler,
    "QueueHandler": queue_handler,
    "structlog": structlog_file,
}


def missing(name: str) -> str | None:
    """Why a peer cannot be measured here, or None."""
    if name == "structlog" and importlib.util.find_spec("structlog") is None:
        return "not installed: pip install -e '.[bench]'"
    return None


def main() -> None:
    """Measure one."""
    name, path, calls, rounds, warm, rest_s, seed = sys.argv[1:]
    say, end = PEERS[name](Path(path))
    lines = messages(int(seed))[: int(calls)]
    took: list[float] = []
    for _ in range(int(warm) + int(rounds)):
        started = time.perf_counter_ns()
        for n, message in enumerate(lines):
            say(message, n)
        took.append((time.perf_counter_ns() - started) / len(lines))
        time.sleep(float(rest_s))
    end()
    print(json.dumps(took[int(warm) :]))


if __name__ == "__main__":
    main()
