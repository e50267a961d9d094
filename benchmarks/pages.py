"""
`Pages`: a second client that reads pages of 1,000 entries, anywhere in a log, while it grows.

It asks a few times a second, over one connection, each time somewhere else; the value is the time
from the request to the last byte.
"""

import http.client
import json
import random
import threading
import time
from typing import Self

PAGE_ENTRIES = 1_000
ASK_AGAIN_S = 0.1


class Pages:
    """Reads for as long as the context lasts; then `times_ms` has what each took."""

    def __init__(self, port: int, task_id: str, seed: int) -> None:
        self.times_ms: list[float] = []
        self._path = f"/api/tasks/{task_id}"
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._random = random.Random(seed)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._connection.close()

    def _read(self) -> None:
        while not self._over.wait(ASK_AGAIN_S):
            newest = json.loads(self._get(self._path))["last_seq"]
            if newest < 2 * PAGE_ENTRIES:
                continue
            after = self._random.randrange(newest - PAGE_ENTRIES)
            started = time.perf_counter()
            page = self._get(f"{self._path}/logs?after={after}&limit={PAGE_ENTRIES}")
            self.times_ms.append(1_000 * (time.perf_counter() - started))
            if len(json.loads(page)["entries"]) != PAGE_ENTRIES:
                raise RuntimeError(f"the page after {after} is not whole")

    def _get(self, path: str) -> bytes:
        self._connection.request("GET", path)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {body!r}")
        return body
