"""Running what is tested with Node: its words are shown where it fails, and it leaves nothing running."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.helpers.served import ENVIRONMENT
from web.build import find_node, is_fresh

ROOT = Path(__file__).resolve().parent.parent.parent
WEB = ROOT / "web"


def require(missing: str) -> None:
    """Skip for what is missing, or fail where TASKD_REQUIRE_WEB says that nothing may be, as in CI."""
    if os.environ.get("TASKD_REQUIRE_WEB", "") not in ("", "0"):
        pytest.fail(f"{missing} (TASKD_REQUIRE_WEB is set)", pytrace=False)
    pytest.skip(missing)


def run_npm(*arguments: str, within_s: float, **variables: str) -> None:
    """Run npm in `web/`; the test fails with what it said unless it exits 0."""
    node = find_node()
    if node is None:
        require("there is no npm; make test installs one")
    elif not (WEB / "node_modules" / "vitest").is_dir():
        require("web/node_modules is missing; make test installs it")
    else:
        environment = ENVIRONMENT | node.environment | {"PYTHON": sys.executable, "NO_COLOR": "1", **variables}
        code, said = _run([*node.command, *arguments], environment, within_s)
        assert code == 0, said


def _run(command: list[str], environment: Mapping[str, str], within_s: float) -> tuple[int, str]:
    process = subprocess.Popen(
        command,
        cwd=WEB,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # so that all it starts can be ended with it
    )
    try:
        said, _ = process.communicate(timeout=within_s)
        return process.returncode, said
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        return -signal.SIGKILL, f"{said}\nkilled after {within_s} s"
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise


@pytest.fixture
def built() -> None:
    """The page of these very sources is built."""
    if not is_fresh(WEB):
        require("web/dist is missing or older than web/; make page builds it")
