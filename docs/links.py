"""
Links from a page to files of the repository that are not pages, such as tests and pictures.

On GitHub and in an editor they lead to the file. The built site has no such file: a picture is copied,
and any other link becomes the path of the file. A link to a missing file fails the build.
"""

import importlib
import logging
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ("web/pictures/light.png", "web/pictures/dark.png")
OUTWARD = re.compile(r"(?<!!)\[([^\]]+)\]\(\.\./([^)#]+)(?:#[^)]*)?\)")
PICTURE = re.compile(r"\.\./(web/pictures/[\w.]+)")
log = logging.getLogger("mkdocs.hooks.links")


def on_files(files: Any, config: Any) -> Any:
    """Add the pictures to the files of the site."""
    file = importlib.import_module("mkdocs.structure.files").File
    for picture in PICTURES:
        files.append(file.generated(config, picture, abs_src_path=str(ROOT / picture)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return the page's text without links that lead out of the site."""
    return PICTURE.sub(r"\1", OUTWARD.sub(_as_path, markdown))


def _as_path(link: re.Match[str]) -> str:
    text, path = link.groups()
    if not (ROOT / path).exists():
        log.warning("a page links to %s, which does not exist", path)
    return text if text.strip("`") == path else f"{text} (`{path}`)"
