"""The page in a real browser, with a real server; the tests are in web/tests/browser."""

import os
import shutil

import pytest

from tests.web.conftest import require, run_npm

# As in web/tests/browser/chromium.mjs, for whoever runs the tests without pytest.
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WITHIN_S = 900


@pytest.fixture(scope="module")
def chromium() -> str:
    """The path of the browser."""
    named = os.environ.get("CHROMIUM")
    found = next(filter(None, map(shutil.which, [named] if named else NAMES)), None)
    if found is None:
        require(f"CHROMIUM={named} is not there" if named else "there is no Chromium here; CHROMIUM= names one")
    return str(found)


@pytest.mark.timeout(WITHIN_S + 30)
@pytest.mark.usefixtures("built")
def test_the_page_in_a_browser(chromium: str) -> None:
    """All files at once: they share what it takes to begin, and wait for one another's pauses."""
    run_npm("run", "--silent", "test:browser", within_s=WITHIN_S, CHROMIUM=chromium)
