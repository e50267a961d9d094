"""A real `git daemon` on loopback, for tests of what a remote may answer."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def git_daemon(root: Path, *options: str) -> Iterator[str]:
    """Serve the repositories below `root`; gives the URL of the root, without a '/' at its end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["git", "daemon", "--listen=127.0.0.1", f"--port={port}", "--reuseaddr", "--verbose", "--export-all"]
    with subprocess.Popen(
        [*command, f"--base-path={root}", *options, str(root)], stderr=subprocess.PIPE, text=True
    ) as daemon:
        assert daemon.stderr is not None
        try:
            assert "Ready to rumble" in daemon.stderr.readline()
            yield f"git://127.0.0.1:{port}"
        finally:
            daemon.terminate()
