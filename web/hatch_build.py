"""
Puts the built page into what `pip` and `build` make of taskd; hatchling runs this.

Without the page taskd still installs: its API and commands are whole, `taskd serve` and `/` say
how to build it. `TASKD_REQUIRE_WEB=1` makes a page that cannot be built an error.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from web.build import BuildFailed, build, is_fresh, needs

# Where the page lies in each kind of archive; an editable installation reads it from the tree.
PLACES = {"wheel": "taskd/_shipped/web/dist", "sdist": "web/dist"}


class PageHook(BuildHookInterface[BuilderConfig]):
    """Builds the page where it is missing or older than its sources, and adds it."""

    _web: Path
    _page: Path | None = None

    def dependencies(self) -> list[str]:
        """Node, where a build is due and the machine has none."""
        return [] if is_fresh(Path(self.root) / "web") else needs()

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Before the files are chosen: build, and have the page be one of them."""
        self._web = Path(self.root) / "web"
        try:
            self._page = build(self._web)
        except (BuildFailed, OSError) as error:
            self._go_without(error)
            return
        if version == "editable" and self._page != self._web / "dist":
            self._go_without(OSError(f"{self._web} cannot be written"))
        elif version != "editable":
            build_data["force_include"][str(self._page)] = PLACES[self.target_name]

    def _go_without(self, error: Exception) -> None:
        if os.environ.get("TASKD_REQUIRE_WEB", "") not in ("", "0"):
            raise SystemExit(f"taskd: the page was not built, and TASKD_REQUIRE_WEB asks for it: {error}")
        self.app.display_warning(f"taskd: going on without the page, which was not built: {error}")

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """After the archive is written: a page that could not be put into the tree is removed."""
        if self._page and self._page != self._web / "dist":
            shutil.rmtree(self._page.parent, ignore_errors=True)
