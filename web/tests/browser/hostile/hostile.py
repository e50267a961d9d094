"""
A plugin that says in every place what could be taken for something else than text.

Markup, escapes of terminals, characters that cannot be seen or turn the order of others, NUL: as
message, source, metadata, progress, group, exception, error and result, and in what it says of itself.
"""

from typing import Literal

from pydantic import BaseModel, Field

from taskd import Plugin, TaskContext

MARKUP = "<img src=x onerror=alert(1)>"
# CSI: clear, home, hide the cursor, colour. OSC: title, hyperlink, clipboard, never ended. DCS, APC, RIS, 8-bit CSI.
ESCAPES = (
    "\x1b[2J\x1b[1;1H\x1b[?25l\x1b[31mred\x1b[0m",
    "\x1b]0;owned\x07title",
    "\x1b]8;;javascript:alert(1)\x1b\\click\x1b]8;;\x1b\\",
    "\x1b]52;c;cm0gLXJmIC8=\x07clipboard",
    "\x1bP+q544e\x1b\\dcs \x1b_apc\x1b\\ \x1bcreset \x9b31mc1",
    "back\b\b\bspaced\rreturned\x07",
)
TURNS = "\u202aa\u202bb\u202cc\u202dd\u202etxt.exe \u2066e\u2067f\u2068g\u2069 \u200e\u200f\u061c\ufeff"
NUL = "before\x00after"
ALL = (MARKUP, "<script>window.owned=1</script>", "javascript:alert(1)", *ESCAPES, TURNS, NUL, "{{7*7}}${7*7}{@html 1}")


class Hostile(Plugin):
    __doc__ = f"{MARKUP} {TURNS}"
    name = "hostile"
    title = f"{MARKUP}{TURNS}"

    class Params(BaseModel):
        field: int = Field(1, title=f"{MARKUP}{TURNS}", description=f"{MARKUP}{ESCAPES[1]}{TURNS}", ge=1)
        words: str = f"{MARKUP}{TURNS}"
        choice: Literal["plain", "tur\u202dned"] = "plain"

    async def execute(self, params: Params, context: TaskContext) -> None:
        for text in ALL:
            logger = context.logger.with_source(text)
            logger.warning(text)
        context.logger.info("fields", **dict(zip(ALL, ALL, strict=True)), deep={text: [{text: text}] for text in ALL})
        for text in (MARKUP, ESCAPES[0], TURNS):
            with context.logger.group(text), context.logger.progress(text, total=2, unit=text) as bar:
                bar.update(1, text)
        print(MARKUP, TURNS)
        self._fail(" ".join(ALL))

    def _fail(self, text: str) -> None:
        """Raise an exception whose type, function, file and message are hostile."""
        code = compile("raise error", f"/srv/{MARKUP}{TURNS}.py", "exec").replace(co_name=f"{MARKUP}{TURNS}")
        kind = type(f"{MARKUP}{TURNS}", (Exception,), {})
        try:
            exec(code, {"error": kind(text)})
        except Exception as error:
            raise RuntimeError(text) from error


class Named(Plugin):
    """It cannot be loaded, and is told of by its name."""

    name = f"{MARKUP}{TURNS}"

    async def execute(self, params: object, context: TaskContext) -> None: ...
