"""
Backup: a directory, a file or an SQLite database into one `.tar.zst`, and back again.

What is true of it:

- An archive has its name only when it is complete, on disk and (with `verify`) read back:
  until then it is a `.partial` file beside it, which a failure or a cancellation removes.
  What a killed service left behind, the next backup into the same directory removes.
- Nothing is held in memory but a piece of a file and the names of one directory. Entries are
  in the order of their names, so two archives of the same tree list alike.
- What cannot be read, vanishes or changes meanwhile does not stop a backup: a WARNING says so.
- A restore reads the whole archive first and writes nothing unless all of it is harmless. It
  builds the tree under a hidden name beside the destination and renames it when complete.
  Owners are not restored, nor setuid bits: what is restored belongs to whoever runs taskd.

The work is done in a thread, for a disk may be slow and the loop must not wait for it.
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
