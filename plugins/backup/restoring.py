"""A restore: look at all of the archive, then write all of it under a hidden name, then rename."""

import contextlib
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from taskd import PluginError, TaskLogger

from . import attributes
from .failures import check, why
from .frames import is_zeros
from .params import BackupParams
from .plan import Plan
from .reader import Reader
from .temporary import is_still, made, remove_leftovers, temporary
from .tree import Tree


def restore(params: BackupParams, log: TaskLogger, stop: threading.Event) -> dict[str, object]:
    """The whole restore, in a thread. Raises `Stopped` soon after `stop` is set, and leaves nothing then."""
    archive, destination = Path(params.archive or ""), Path(os.path.abspath(params.destination))
    _check_free(destination)
    with _archive_opened(archive) as file:
        size = os.fstat(file.fileno()).st_size
        log.info(f"restoring {archive} into {destination}")
        with log.group("check"), log.progress("checked", total=size, unit="bytes") as bar:
            plan = _planned(Reader(file, stop, bar.update), Plan(params, size, log), log)
            plan.finish(stop)
            _check_room(destination, plan.room)
        file.seek(0)
        with log.group("write"), log.progress("restored", total=plan.size, unit="bytes") as bar:
            write_tree(Reader(file, stop), plan, destination, stop, bar.advance, log)
    what = "file or link" if plan.files == 1 else "files and links"
    log.info(f"restored {plan.files:,} {what}, {plan.size:,} bytes")
    return {"files": plan.files, "bytes": plan.size}


def _planned(reader: Reader, plan: Plan, log: TaskLogger) -> Plan:
    """Read the archive to its end, for the plan."""
    for member in reader.members():
        plan.add(member)
        for _, data in reader.content():
            plan.room += 0 if is_zeros(data) else len(data)
    if reader.unchecked:
        log.warning(
            "The archive was compressed without checksums: damage to the contents of files cannot be noticed. "
            "Archives of this plugin and of the zstd command have them"
        )
    return plan


@contextlib.contextmanager
def _archive_opened(archive: Path) -> Iterator[IO[bytes]]:
    try:
        # Without waiting for the other end of a pipe.
        fd = os.open(archive, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise PluginError(f"The archive {archive} cannot be read: {why(error)}. Give a .tar.zst file.") from error
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise PluginError(f"The archive {archive} is not a regular file. Give a .tar.zst file.")
        yield file


def _check_free(destination: Path) -> None:
    """Refuse a destination with files in it: a restore would mix two trees, and could not be undone."""
    if not os.path.lexists(destination):
        return
    if destination.is_symlink() or not destination.is_dir() or any(destination.iterdir()):
        raise PluginError(f"The destination {destination} is not an empty directory. Give a new or an empty one.")
    if destination.is_mount():
        raise PluginError(
            f"The destination {destination} is a mount point and cannot be replaced. Give a directory in it."
        )


def _check_room(destination: Path, size: int) -> None:
    there = next(path for path in (destination, *destination.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if size > free:
        raise PluginError(f"The archive holds {size:,} bytes and {there} has room for {free:,}. Make room first.")


def write_tree(
    reader: Reader,
    plan: Plan,
    destination: Path,
    stop: threading.Event,
    advance: Callable[[int], None],
    log: TaskLogger,
) -> None:
    """Write all below a hidden directory beside the destination, which then takes its name."""
    with made(destination.parent) as (_, parent):
        remove_leftovers(parent, log)
        with temporary(parent, destination.name, "restoring", log, directory=True) as (name, root):
            attributes.remove_acls(root)
            try:
                with contextlib.closing(Tree(root, plan, reader, stop, advance)) as tree:
                    _fill(tree, reader, plan, stop)
                    tree.report(log)
                if not is_still(name, root, parent):
                    raise PluginError(f"The tree for {destination} was moved while it was written. Run again.")
                os.rename(name, destination.name, src_dir_fd=parent, dst_dir_fd=parent)
            except OSError as error:
                raise PluginError(f"The tree cannot be written at {destination}: {why(error)}.") from error
            os.fsync(parent)


def _fill(tree: Tree, reader: Reader, plan: Plan, stop: threading.Event) -> None:
    for member in reader.members():
        place = plan.confirm(member)
        if place not in plan.skipped:
            tree.add(place, member)
    tree.finish()
    os.sync()
    check(stop)
    # Last: a kill while the disk was busy would leave a directory that its owner might not be able to open.
    tree.finish_root()
