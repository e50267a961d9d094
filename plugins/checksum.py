"""
Checksum: a plugin as they were written before there was a context, kept so on purpose.

It takes its params as a plain dict, works synchronously, prints, and logs with the standard
library; it knows nothing of taskd. That it runs, and that all it says is in its task's log,
proves that old plugins go on working. New ones are written like `migration.py`.
"""

import hashlib
import logging
import os
from collections.abc import Mapping
from typing import Any

READ_BYTES = 1_048_576
TELL_BYTES = 256 * READ_BYTES

logger = logging.getLogger("checksum")


class Checksum:
    """Computes the checksum of a file."""

    name = "checksum"
    title = "Checksum"

    def execute(self, params: Mapping[str, Any]) -> dict[str, object]:
        path, algorithm = _checked(params)
        logger.info("reading %s (%d bytes) for its %s", path, os.path.getsize(path), algorithm)
        digest, size = _digest(path, algorithm)
        print(f"{digest}  {path}")
        return {"path": path, "algorithm": algorithm, "digest": digest, "bytes": size}


def _checked(params: Mapping[str, Any]) -> tuple[str, str]:
    """The path and the algorithm, where the params have them and nothing else."""
    unknown = sorted(set(params) - {"path", "algorithm"})
    if unknown:
        raise ValueError(f"unknown params {', '.join(unknown)}: expected path and algorithm")
    path, algorithm = params.get("path"), params.get("algorithm", "sha256")
    if not isinstance(path, str) or not path:
        raise ValueError(f"path is {path!r}: expected the path of a file")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path} is not a file: expected the path of a file that exists")
    # The shake algorithms have no length of their own.
    known = sorted(name for name in hashlib.algorithms_guaranteed if not name.startswith("shake"))
    if algorithm not in known:
        raise ValueError(f"algorithm is {algorithm!r}: expected one of {', '.join(known)}")
    return os.path.abspath(path), algorithm


def _digest(path: str, algorithm: str) -> tuple[str, int]:
    checksum = hashlib.new(algorithm, usedforsecurity=False)
    size = told = 0
    with open(path, "rb") as file:
        while data := file.read(READ_BYTES):
            checksum.update(data)
            size += len(data)
            if size - told >= TELL_BYTES:
                told = size
                logger.info("read %d bytes so far", size)
    return checksum.hexdigest(), size
