"""
`make demo`: a taskd that runs, with three real tasks to look at.

It works on the checkout it is started in and writes under `demo-data/` alone: an archive of the
checkout, a small database brought to its newest version, and a clone of the checkout's own
history. All of it may be done again and again; what is there is gone on from.
"""

import argparse
import asyncio
import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import orjson

from taskd.cli.client import Client
from taskd.cli.tables import lasted
from taskd.errors import TaskdError
from taskd.tasks import SHORT_ID

READY_WAIT_S = 30.0
STOP_WAIT_S = 15.0
NOT_BACKED_UP = [
    ".git",
    ".venv",
    "demo-data",
    "taskd-data",
    "node_modules",
    "dist",
    "__pycache__",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".hypothesis",
]

# A small lending library, as it may have grown: tables, then data, then a column and an index.
MIGRATIONS = {
    "0001_books_and_readers.sql": """\
CREATE TABLE books (
  id     INTEGER PRIMARY KEY,
  isbn   TEXT NOT NULL UNIQUE,
  title  TEXT NOT NULL,
  author TEXT NOT NULL,
  year   INTEGER CHECK (year BETWEEN 1450 AND 2100)
);
CREATE TABLE readers (
  id     INTEGER PRIMARY KEY,
  name   TEXT NOT NULL,
  joined TEXT NOT NULL DEFAULT CURRENT_DATE
);
""",
    "0002_loans.sql": """\
CREATE TABLE loans (
  id        INTEGER PRIMARY KEY,
  book_id   INTEGER NOT NULL REFERENCES books (id),
  reader_id INTEGER NOT NULL REFERENCES readers (id),
  lent      TEXT NOT NULL,
  returned  TEXT,
  CHECK (returned IS NULL OR returned >= lent)
);
CREATE UNIQUE INDEX loans_open ON loans (book_id) WHERE returned IS NULL;
""",
    "0003_first_books.sql": """\
INSERT INTO books (isbn, title, author, year) VALUES
  ('9780141439518', 'Pride and Prejudice', 'Jane Austen', 1813),
  ('9780140449136', 'Crime and Punishment', 'Fyodor Dostoevsky', 1866),
  ('9783150000014', 'Faust I', 'Johann Wolfgang von Goethe', 1808),
  ('9780156027328', 'Invisible Cities', 'Italo Calvino', 1972);
INSERT INTO readers (name, joined) VALUES ('Ada', '2024-01-09'), ('Émile', '2024-02-17');
INSERT INTO loans (book_id, reader_id, lent) SELECT id, 1, '2024-03-01' FROM books WHERE year = 1972;
""",
    "0004_overdue.sql": """\
ALTER TABLE loans ADD COLUMN due TEXT;
UPDATE loans SET due = date(lent, '+28 days');
CREATE INDEX loans_due ON loans (due) WHERE returned IS NULL;
CREATE VIEW overdue AS
  SELECT readers.name, books.title, loans.due
  FROM loans JOIN books ON books.id = loans.book_id JOIN readers ON readers.id = loans.reader_id
  WHERE loans.returned IS NULL AND loans.due < date('now');
""",
}


def main() -> None:
    """Run the demonstration until Ctrl-C; exit code 0 then, and 1 where it could not start."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--port", type=int, default=8642, help="port to serve on (default 8642)")
    port = parser.parse_args().port
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(demonstrate(Path.cwd(), port))


def demonstrate(checkout: Path, port: int) -> int:
    """Serve with data under `checkout`/demo-data, run the three tasks, and go on serving; the exit code."""
    data = checkout / "demo-data"
    with _server(data, port) as (server, url):
        if url is None:
            return 1
        print("\nThree tasks on this checkout:", flush=True)
        try:
            asyncio.run(_run_tasks(Client(url), tasks_of(checkout, data)))
            _tell(url)
        except TaskdError as error:
            print(f"taskd demo: {error}", file=sys.stderr)
        server.wait()
    print(f"taskd demo: the server ended with exit code {server.returncode}", file=sys.stderr)
    return 1


def tasks_of(checkout: Path, data: Path) -> dict[str, dict[str, Any]]:
    """The params of each plugin's task; writes the migrations that one of them applies."""
    migrations = data / "migrations"
    migrations.mkdir(parents=True, exist_ok=True)
    for name, sql in MIGRATIONS.items():
        (migrations / name).write_text(sql, encoding="utf-8")
    return {
        "backup": {
            "source": str(checkout),
            "destination": str(data / "backups"),
            "exclude": NOT_BACKED_UP,
            "keep": 3,
        },
        "migration": {"database": f"sqlite:///{data / 'library.db'}", "directory": str(migrations)},
        "git": {
            "action": "clone",
            "repository": str(checkout),
            "directory": str(data / time.strftime("clone-%Y%m%d-%H%M%S")),
        },
    }


async def _run_tasks(client: Client, tasks: dict[str, dict[str, Any]]) -> None:
    """Start the tasks, all at once, and say how each ended as it does."""
    ids = [client.post("/api/tasks", {"plugin": plugin, "params": params})["id"] for plugin, params in tasks.items()]
    await asyncio.gather(*(_tell_end(client, task_id) for task_id in ids))


async def _tell_end(client: Client, task_id: str) -> None:
    async with contextlib.aclosing(client.follow(task_id, [("tail", "1")], on_notice=print)) as frames:
        async for frame in frames:
            if frame["type"] == "end":
                task = frame["task"]
                took = f"after {lasted(task)}, {task['last_seq']} entries"
                print(f"  {task_id[-SHORT_ID:]}  {task['plugin']:<10} {task['status']:<10} {took}", flush=True)
                print(f"            {task['error'] or orjson.dumps(task['result']).decode()}", flush=True)


def _tell(url: str) -> None:
    """Say where to look."""
    command = os.path.relpath(Path(sys.executable).parent / "taskd")
    server = "" if url.endswith("127.0.0.1:8642") else f"--server {url} "
    print(f"""
The page:        {url}/
The newest log:  {command} {server}logs @last
All of them:     {command} {server}tasks
What there is:   {command} {server}plugins

Ctrl-C stops it; demo-data/ keeps what was done.""", flush=True)  # fmt: skip


@contextlib.contextmanager
def _server(data: Path, port: int) -> Iterator[tuple[subprocess.Popen[str], str | None]]:
    """A server of our own and its address, None where it did not start; it is stopped at the end."""
    command = [sys.executable, "-m", "taskd", "serve", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--data-dir", str(data)]
    # Nobody's own settings, and not the terminal's Ctrl-C, which would come twice.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TASKD_")}
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    try:
        yield server, _ready_url(server)
    finally:
        _stop(server)


def _ready_url(server: subprocess.Popen[str]) -> str | None:
    """The address in the server's ready line; None where it ended or took too long."""
    assert server.stderr is not None
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_forward, args=(server.stderr, lines), name="server's words", daemon=True).start()
    deadline = time.monotonic() + READY_WAIT_S
    with contextlib.suppress(queue.Empty):
        while (line := lines.get(timeout=max(0, deadline - time.monotonic()))) is not None:
            if " ready on " in line:
                return line.rsplit(" ", 1)[-1].strip()
        return None
    print(f"taskd demo: the server was not ready within {READY_WAIT_S:.0f} s", file=sys.stderr)
    return None


def _forward(stream: IO[str], lines: "queue.SimpleQueue[str | None]") -> None:
    """Pass the server's words on as they come, until it ends."""
    for line in stream:
        sys.stderr.write(line)
        sys.stderr.flush()
        lines.put(line)
    lines.put(None)


def _stop(server: subprocess.Popen[str]) -> None:
    """Let the server stop in order; a second Ctrl-C hurries it, and it may not take for ever."""
    for _ in range(2):
        if server.poll() is None:
            server.terminate()
        try:
            server.wait(STOP_WAIT_S)
            return
        except KeyboardInterrupt:
            continue
        except subprocess.TimeoutExpired:
            break
    server.kill()
    server.wait()


if __name__ == "__main__":
    main()
