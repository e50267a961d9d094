"""
File descriptors: as many as the system allows, and never more connections than there are of them.

A process that has none left can open no database, no file and no pipe, and cannot even refuse a
connection. So connections are kept below what there is, and the rest is for everything else.
"""

import logging
import resource

from taskd.settings import Settings

# For the database, and for what tasks open: files, pipes, subprocesses.
KEPT = 1_000
# Children inherit the limit, and some go through all descriptors that it allows.
ENOUGH = 65_536

_log = logging.getLogger("taskd.descriptors")


def raise_limit(wanted: int) -> int:
    """Raise the soft limit of descriptors towards the hard one; what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(wanted, ENOUGH)
    raised = most if hard == resource.RLIM_INFINITY else min(hard, most)
    if soft == resource.RLIM_INFINITY or soft >= raised:
        return most if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    return raised


def fitted(settings: Settings) -> Settings:
    """The settings, with no more connections and viewers than there are descriptors for."""
    limit = raise_limit(settings.connections_max + KEPT)
    connections_max = max(limit - KEPT, limit // 2)
    if settings.connections_max <= connections_max:
        return settings
    viewers_max = min(settings.viewers_max, connections_max * 3 // 4)
    _log.warning(
        "The system allows %d open files: at most %d connections, %d of them viewers, instead of %d (ulimit -n)",
        limit, connections_max, viewers_max, settings.connections_max,
    )  # fmt: skip
    return settings.model_copy(update={"connections_max": connections_max, "viewers_max": viewers_max})
