"""
Memory that was freed goes back to the system.

The C library keeps what a crowd of viewers or a flood of entries has used and let go: among what is
still in use it is in pieces, which only `malloc_trim` gives back. That takes a millisecond where there
is nothing, and a fifth of one for each megabyte; it is done beside the loop.
"""

import asyncio
import ctypes
from functools import partial

from taskd.system.threads import in_thread

TRIM_INTERVAL_S = 10.0


async def give_back() -> None:
    """Do so again and again, until it is cancelled; nothing if the C library is one that cannot."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
    while True:
        await asyncio.sleep(TRIM_INTERVAL_S)
        if trim is not None:
            await in_thread(partial(trim, 0), name="memory")
