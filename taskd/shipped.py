"""
Where the files are that come with taskd and are not Python modules of it.

In a wheel they lie in `taskd/_shipped/`; in a checkout at its top level. Nothing else
needs to know which of the two this is. The page is there once it has been built
(`web/build.py`), and not before.
"""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_IN_WHEEL = _PACKAGE / "_shipped"
_ROOT = _IN_WHEEL if _IN_WHEEL.is_dir() else _PACKAGE.parent

SCHEMA = _ROOT / "schema.sql"
PLUGINS = _ROOT / "plugins"
PAGE = _ROOT / "web" / "dist"
