"""
Backup: a directory, a file or an SQLite database into one `.tar.zst`, and back again.

These hold:

- An archive has its name only when it is complete, on disk and (with `verify`) read back:
  until then it is a `.partial` file beside it, which a failure or a cancellation removes.
  The next backup into the same directory removes the files that a killed service left.
- Memory holds no more than a piece of a file and the names of the directories above it. Entries are
  in the order of their names, so two archives of the same tree list alike.
- A file that cannot be read, vanishes or changes meanwhile does not stop a backup: a WARNING names it.
- Trees are read and written by descriptor (`taskd.system.trees`), to any depth and without following a link, so
  no exchange of names by another process leads out of the root.
- A restore reads the whole archive first and writes nothing unless all of it is whole and harmless. It
  builds the tree under a hidden name beside the destination and renames it when complete. Links
  are made last. Whatever an archive is restored from, a damaged one is never taken for a shorter one.
- Modes, times, hard links, holes, `user.*` attributes and POSIX ACLs are restored. Owners, setuid bits
  and other attributes are not: a restored tree belongs to the user who runs taskd. A WARNING counts them.

The work is done in a thread, because a disk may be slow and the loop must not wait for it.
"""

import threading

from taskd import Plugin, TaskContext

from .archiving import backup
from .params import BackupParams
from .restoring import restore


class Backup(Plugin):
    """Writes a directory, a file or an SQLite database to a compressed archive, and restores it."""

    name = "backup"
    title = "Backup and restore"
    Params = BackupParams

    async def execute(self, params: BackupParams, context: TaskContext) -> object:
        stop = threading.Event()
        work = backup if params.action == "backup" else restore
        return await context.run_in_thread(work, params, context.logger, stop, stop=stop.set)
