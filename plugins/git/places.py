"""
Where a repository's own files are, judged before git is let near them.

A repository may have been made by an attacker. Git follows a link in it and writes to the file
outside, waits for a FIFO, and takes another repository for its own if a `.git` file or `commondir`
leads there. So everything git would open is looked at first, without git, in a thread: only
directories and regular files are accepted, and a pointer to another place is accepted if that place
points back.

Whoever can change the repository between this look and git's own reading is trusted.
"""

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from taskd import PluginError

from .texts import NAME_CHARACTERS_MAX

CONFIG_BYTES_MAX = 1_048_576
POINTER_BYTES_MAX = 8_192
ALTERNATES_BYTES_MAX = 65_536
# git opens nothing here: hooks are off, and repositories of submodules are not entered.
PASSED_OVER = ("hooks", "modules")
# git never writes these in place, so that a second name for the file (a hard link) is harmless.
SHARED = ("objects", "info", "description")
KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True, slots=True)
class Place:
    """The directory of a repository, its git directory, and the one that its working trees share."""

    directory: Path
    git_dir: Path
    common_dir: Path

    @property
    def bare(self) -> bool:
        return self.directory == self.git_dir

    @property
    def embedded(self) -> bool:
        """Whether the git directory is in the directory, or is it."""
        return self.git_dir in (self.directory, self.directory / ".git")


def find_place(path: str, roots: Sequence[Path], cancelled: Callable[[], bool]) -> Place:
    """
    Return where the repository in the directory `path` is. Raises `PluginError` if there is none, or if
    something in it is refused; `roots` are where its objects may also be. Once `cancelled`, ends early.
    """
    try:
        directory = Path(path).resolve()
        there = directory.is_dir()
    except (OSError, RuntimeError) as error:  # a name that is too long, links in a circle
        raise PluginError(f"The directory {path[:NAME_CHARACTERS_MAX]} cannot be opened: {error}.") from error
    if not there:
        raise PluginError(f"There is no directory {directory}. Give that of a repository, or clone one first.")
    try:
        place = _place(directory)
        _check_files(place, cancelled)
        _check_sizes(place)
        _check_alternates(place.common_dir / "objects", roots, set())
    except OSError as error:
        raise PluginError(f"The repository {directory} cannot be read: {error.strerror} ({error.filename}).") from error
    return place


def read_regular(path: Path, bytes_max: int) -> bytes:
    """Read a file that another user may have made: never a link, and never waiting for a FIFO."""
    if os.path.islink(path):
        raise _refusal(path, "is a symbolic link")
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise _refusal(path, f"is {KINDS.get(stat.S_IFMT(status.st_mode), 'a directory')}")
        content = file.read(bytes_max + 1)
    if len(content) > bytes_max:
        raise _refusal(path, f"has more than {bytes_max:,} bytes")
    return content


def configuration_files(place: Place) -> list[Path]:
    """Return the files of the repository's own configuration."""
    paths = (place.common_dir / "config", place.git_dir / "config.worktree")
    return [path for path in paths if os.path.lexists(path)]


def hooks_in(place: Place) -> list[str]:
    """Return the names of the hooks that git would run if it were not kept from it."""
    hooks = place.common_dir / "hooks"
    if hooks.is_symlink():
        return ["hooks"]  # not followed: the names there are not the repository's
    if not hooks.is_dir():
        return []
    return sorted(file.name for file in hooks.iterdir() if "." not in file.name and os.access(file, os.X_OK))


def _place(directory: Path) -> Place:
    dot_git = directory / ".git"
    if not os.path.lexists(dot_git):
        if not all(os.path.lexists(directory / name) for name in ("HEAD", "objects", "refs")):
            raise PluginError(f"{directory} is not a git repository. Give the directory of a repository.")
        dot_git = directory
    git_dir = dot_git
    if not stat.S_ISDIR(os.lstat(dot_git).st_mode):
        git_dir = _pointed(dot_git, b"gitdir: ")
    return Place(directory, git_dir, _common_dir(git_dir, dot_git))


def _common_dir(git_dir: Path, dot_git: Path) -> Path:
    """Follow `commondir` of a linked working tree, which lies in `worktrees/` there and points back to `.git`."""
    if not os.path.lexists(git_dir / "commondir"):
        return git_dir
    common_dir = _pointed(git_dir / "commondir")
    if git_dir.parent != common_dir / "worktrees" or _pointed(git_dir / "gitdir") != dot_git:
        raise _refusal(git_dir / "commondir", f"leads to {common_dir}, which has no such working tree")
    return common_dir


def _pointed(pointer: Path, prefix: bytes = b"") -> Path:
    content = read_regular(pointer, POINTER_BYTES_MAX)
    if not content.startswith(prefix) or b"\0" in content:
        raise _refusal(pointer, "is not one of git's pointers to a directory")
    return (pointer.parent / os.fsdecode(content.removeprefix(prefix).rstrip(b"\r\n"))).resolve()


def _check_files(place: Place, cancelled: Callable[[], bool]) -> None:
    """Refuse what git would follow, wait for, or write to although it has another name elsewhere."""
    tops = {place.common_dir} if place.git_dir.is_relative_to(place.common_dir) else {place.common_dir, place.git_dir}
    for top in map(str, tops):
        folders = [top]
        while folders and not cancelled():
            folder = folders.pop()
            with os.scandir(folder) as entries:
                for entry in entries:
                    if folder == top and entry.name in PASSED_OVER:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        _check(entry, top)


def _check(entry: os.DirEntry[str], top: str) -> None:
    status = entry.stat(follow_symlinks=False)
    kind = stat.S_IFMT(status.st_mode)
    if kind in KINDS:
        raise _refusal(entry.path, f"is {KINDS[kind]}")
    if status.st_nlink > 1 and not entry.path.startswith(tuple(f"{top}/{name}" for name in SHARED)):
        raise _refusal(entry.path, "has a second name (a hard link), under which git would write to it")


def _check_sizes(place: Place) -> None:
    for path in configuration_files(place):
        if os.lstat(path).st_size > CONFIG_BYTES_MAX:
            raise _refusal(path, f"has more than {CONFIG_BYTES_MAX:,} bytes")


def _check_alternates(objects: Path, roots: Sequence[Path], seen: set[Path]) -> None:
    """
    Refuse the objects of other repositories outside the roots, which a push may then send anywhere.

    Git reads the alternates of alternates too. It removes `..` before it follows links, a NUL ends the
    file, and a quoted path is another one.
    """
    alternates = objects / "info/alternates"
    if objects in seen or not os.path.lexists(alternates):
        return
    seen.add(objects)
    content, nul, _ = read_regular(alternates, ALTERNATES_BYTES_MAX).partition(b"\0")
    for line in filter(None, content.split(b"\n")):
        if line.startswith(b"#"):
            continue
        real = Path(os.path.normpath(objects / os.fsdecode(line))).resolve()
        if nul or line.startswith(b'"') or not any(real.is_relative_to(root.resolve()) for root in roots):
            raise _refusal(
                alternates,
                f"has git read the objects of {real}, which is not below one of git_file_roots",
                "Run `git repack -a -d` and remove the file, or let the operator add the directory to the setting.",
            )
        _check_alternates(real, roots, seen)


def _refusal(path: str | Path, why: str, advice: str = "") -> PluginError:
    return PluginError(f"{path} {why}: that is refused. {advice or 'Remove it, or clone the repository again.'}")
