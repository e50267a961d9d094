"""
Progress bars in a program's output: whether a text is one, and whether two texts are the same line.

A program redraws a line to show another number. Two texts are the same line if their words are
the same: digits, amounts with their units, punctuation that bars are made of and the characters of
bars and spinners do not count.
"""

import re

# No bar is longer. The patterns below take quadratic time at worst.
CHARACTERS_MAX = 1_024

# Colours and cursor movements (ECMA-48, section 5.4).
CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,3})?) ?%")
OF = re.compile(r"(\d[\d,]{0,20}(?:\.\d{1,9})?) ?(?:/|of) ?(\d[\d,]{0,20}(?:\.\d{1,9})?)")

# An amount with its unit: `3.4 MB/s`, `12k`, `1m`, `9.90it/s`, and `?it/s` before the first is done.
_AMOUNT = re.compile(
    r"(?:\d[\d.,:]{0,30}|\?)\s?"
    r"(?:[kKMGTPE]?i?(?:[bB](?:ytes|its?)?)?(?:/s|ps)?|[a-z]{1,8}/s|s/[a-z]{1,8}|[dhms]|ms|min|it)(?![^\W\d_])"
)
_BAR = re.compile(
    r"[\d\s#=><\-.*+|/\\_~:,;()\[\]{}%?\u00b7\u2010-\u2015\u2022\u2026\u2190-\u21ff\u2500-\u25ff\u2800-\u28ff]+"
)
_DRAWN = re.compile(r"[\u2501\u2578\u257a\u2580-\u259f]{2}|[\[(|](?=[^\])|]*[#=>*])[#=>.*\- ]{4,}[\])|]")
# tqdm's own: `10%|`, `1/3 [00:01<00:02, …`, and `7it [00:01, …` when the total is not known.
_TQDM = re.compile(r"\d%\||\d/\S{1,20} \[[\d:]+<|\d\w{0,20} \[\d\d:\d\d, ")


def words_of(text: str) -> str:
    """Return the text without what may change while the line stays the same; a text too long for a bar as it is."""
    if len(text) > CHARACTERS_MAX:
        return text
    return _BAR.sub(" ", _AMOUNT.sub(" ", CONTROL.sub("", text))).strip()


def is_blank(text: str) -> bool:
    """Whether nothing is to be seen: the line was only erased."""
    return not CONTROL.sub("", text).strip()


def is_bar(text: str) -> bool:
    """Whether a text is surely a progress bar, although it is drawn once."""
    if len(text) > CHARACTERS_MAX:
        return False
    return bool(_TQDM.search(text)) or bool(_DRAWN.search(text) and (PERCENT.search(text) or OF.search(text)))
