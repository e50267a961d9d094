"""
What the benchmark says: messages, levels and sources as a program has them, from a seed.

Made beforehand, once, and repeated, so that no measurement contains the making of them, nor the
memory that a thousand tasks with words of their own would need beside what is measured.
"""

import functools
import random

LINES = 1_024  # a power of two: line n is `lines[n & LINES - 1]`
SOURCES = 4
LEVELS = ("debug", "info", "warning", "error")
SHARES = (30, 60, 9, 1)

TEXT = """
alpha beta gamma delta connect timeout request worker queue retry batch upload parse token cache index
shard commit flush stream socket frame header payload latency budget
"""
WORDS = TEXT.split()


@functools.cache
def lines(seed: int) -> list[tuple[int, str]]:
    """`LINES` lines: which of `len(LEVELS) * SOURCES` voices says it (source by source), and the message."""
    said = zip(sources(seed), levels(seed), messages(seed), strict=True)
    return [(source * len(LEVELS) + LEVELS.index(level), message) for source, level, message in said]


def messages(seed: int) -> list[str]:
    """`LINES` messages of 40 to 80 characters."""
    rng = random.Random(seed)
    return [f"{' '.join(rng.choices(WORDS, k=rng.randint(5, 9)))} took {rng.randrange(9_999)} ms" for _ in range(LINES)]


def levels(seed: int) -> list[str]:
    """`LINES` names of levels, most of them info and few errors."""
    return random.Random(seed + 1).choices(LEVELS, SHARES, k=LINES)


def sources(seed: int) -> list[int]:
    """`LINES` numbers of sources, all as frequent."""
    rng = random.Random(seed + 2)
    return [rng.randrange(SOURCES) for _ in range(LINES)]
