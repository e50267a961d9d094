"""The output of git commands with `-z`: names of files, which may be any bytes."""

NAME_CHARACTERS_MAX = 4_096


def fields_of(output: bytes) -> list[bytes]:
    return output.split(b"\0")[:-1]


def text_of(name: bytes) -> str:
    """Return a name as text; bytes that are not UTF-8 as `\\xff`."""
    return name.decode(errors="backslashreplace")


def readable(name: str) -> str:
    """
    Return a name on one line: characters that would break it, or move a terminal's cursor, are escaped.
    An index may have names that are longer than a file's can be: only their begin is returned.
    """
    shown = name[:NAME_CHARACTERS_MAX]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
