"""Log random entries, and compute pages of them from the contract alone."""

import random

from taskd.entries import Level, LogEntry
from taskd.query.filters import LogFilter
from taskd.query.parameters import LogQuery
from taskd.reading.pages import read_page
from tests.helpers.live_log import LiveLog

FILTERS = [
    LogFilter(),
    LogFilter(levels=frozenset({Level.ERROR, Level.DEBUG})),
    LogFilter(sources=("b.*",)),
    LogFilter(search=("1",)),
    LogFilter(search=("nobody says this",)),
]


def naive(entries: list[LogEntry], query: LogQuery) -> list[LogEntry]:
    """Return the page that the contract asks for, from a list of all entries."""
    matches = [entry for entry in entries if query.filter.matches(entry)]
    if query.tail is not None:
        return matches[-query.tail :]
    before = query.before or len(entries) + 1
    matches = [entry for entry in matches if query.after < entry.seq < before]
    matches = matches[::-1] if query.order == "desc" else matches
    return matches[query.offset : query.offset + query.limit]


def emit(log: LiveLog, rng: random.Random, count: int) -> None:
    """Log random entries without a pause."""
    for number in range(count):
        logger = log.logger.with_source(rng.choice(["a", "b", "b.c"]))
        logger.log(rng.choice(list(Level)), f"said {number}")


async def whole(log: LiveLog) -> list[LogEntry]:
    """Return every entry that is published so far."""
    page = await read_page(log, log.task_id, LogQuery(limit=5_000))
    return page.entries
