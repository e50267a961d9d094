"""
One process at a time: whoever holds a file keeps every other taskd from what belongs to it.

With flock, which SQLite does not use. It ends with the process, however that ends, and with the
children that it has forked: `taskd.system.fork` sees to those.
"""

import fcntl
import os

from taskd.errors import DataDirHeld, StoreError
from taskd.system.fork import keep_file_from_children


def hold(descriptor: int, what: str, option: str) -> None:
    """
    Hold an open file for this process until it is closed. `option` is the flag that names another.

    Raises `DataDirHeld`, and `StoreError` where the file system cannot lock.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise DataDirHeld(
            f"{what} is in use by another taskd (process {_holder_of(descriptor)}); "
            f"stop that one, or give another {option}."
        ) from error
    except OSError as error:
        raise StoreError(f"{what} cannot be locked ({error.strerror}); give another {option}.") from error
    keep_file_from_children(descriptor)


def _holder_of(descriptor: int) -> str:
    """Which process has the lock, as the kernel tells it; 'unknown' where it does not."""
    inode = f":{os.fstat(descriptor).st_ino}"
    try:
        with open("/proc/locks") as locks:
            fields = [line.split() for line in locks]
    except OSError:
        return "unknown"
    return next((one[4] for one in fields if one[1] == "FLOCK" and one[5].endswith(inode)), "unknown")
