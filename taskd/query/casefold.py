"""
Case folding turned round: what a message may hold where a folded text is to be found.

`str.casefold` of a whole log is slow and holds the interpreter's lock. RE2 is several times
faster and holds nothing, so a search asks it first, of many messages at once, whether the text
can be in any of them (`may_contain`), and folds only what it says yes to. The tables are made
from `str.casefold` itself, so the two cannot differ.
"""

import functools
from collections import defaultdict

# Nothing above folds, which a test looks at.
FOLDING_MAX = 0x1_FFFF


@functools.cache
def _tables() -> tuple[dict[str, str], dict[str, str]]:
    """For each folded character: all that fold to it alone; and all that fold to it and others."""
    alone: dict[str, str] = defaultdict(str)
    among: dict[str, str] = defaultdict(str)
    for character in map(chr, range(FOLDING_MAX + 1)):
        folded = character.casefold()
        if len(folded) > 1:
            for part in set(folded):
                among[part] += character
        elif folded != character:
            alone[folded] += character
    return dict(alone), dict(among)


@functools.lru_cache(64)
def may_contain(folded: str) -> str:
    """A pattern that matches every text whose folded form contains `folded`, and few others."""
    alone, among = _tables()
    exact = "".join(_class(character + alone.get(character, "")) for character in folded)
    # "ß" folds to "ss", of which the text may begin or end with one: any such counts as a maybe.
    spread = "".join(sorted({one for character in folded for one in among.get(character, "")}))
    return f"(?-i){exact}|{_class(spread)}" if spread else f"(?-i){exact}"


@functools.cache
def folds_to_ascii() -> str:
    """A pattern of the characters outside ASCII whose folded form has one of ASCII."""
    alone, among = _tables()
    found = {one for table in (alone, among) for part, many in table.items() if part.isascii() for one in many}
    return f"(?-i){_class(''.join(sorted(one for one in found if not one.isascii())))}"


def _class(characters: str) -> str:
    return "[" + "".join(rf"\x{{{ord(character):x}}}" for character in characters) + "]"
