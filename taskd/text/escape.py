"""
Text that a terminal would obey, made visible: what is shown to a person may have come from anywhere.
"""

import re

# C0 and C1 controls but tab, and what reorders or breaks text (Unicode, UAX 9 and UAX 14).
_UNSAFE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def shown(text: str) -> str:
    """`text` in one line, with everything that a terminal would obey made visible."""
    return _UNSAFE.sub(_escaped, text)


def shown_json(text: str) -> str:
    """The same for JSON in one line, which stays the same JSON: there, such characters are in strings alone."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return {10: "\\n", 13: "\\r"}.get(code) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")
