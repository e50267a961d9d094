"""The page's modules and components, each alone; the tests are in web/tests/unit and web/tests/components."""

import pytest

from tests.web.conftest import run_npm

WITHIN_S = 150


@pytest.mark.timeout(WITHIN_S + 30)
def test_the_modules_and_components_of_the_page() -> None:
    run_npm("run", "--silent", "test", within_s=WITHIN_S)
