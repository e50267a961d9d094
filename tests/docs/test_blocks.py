"""Every block of code in the README and the documentation works as it is written."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from taskd.cli.options import settings_options
from tests.docs.blocks import PAGES, ROOT, Machine, block_called, blocks_of

PLUGINS = ROOT / "docs" / "plugins.md"
RUN = ("python", "sh")
CHECKED = {"dockerfile", "ini", "nginx", "caddy", "yaml"}
CERTIFICATE = ROOT / "tests" / "helpers" / "localhost.pem"
OPTIONS = {option.opts[0] for option in settings_options()}

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def needs(program: str) -> pytest.MarkDecorator:
    """Skip a test if the program is not installed."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def relative(page: Path) -> str:
    """Return the path of a page in the repository."""
    return page.relative_to(ROOT).as_posix()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A reader's machine without a service."""
    return Machine(tmp_path)


def run_page(machine: Machine, page: Path) -> str:
    """Write the files that a page shows, run its other blocks in order, and return their output."""
    blocks = sorted(blocks_of(page, *RUN), key=lambda block: not block.title)
    with machine:
        return "".join([machine.run(block) for block in blocks])


@needs_curl
@pytest.mark.timeout(120)
@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page, *RUN) and page != PLUGINS], ids=relative)
def test_the_blocks_of_a_page_run_one_after_the_other(machine: Machine, page: Path) -> None:
    run_page(machine, page)


def test_every_block_is_run_or_checked() -> None:
    """A block of another language would be untested. Text is not code."""
    languages = {block.language for page in PAGES for block in blocks_of(page)}
    assert languages <= {*RUN, *CHECKED, "text"}


def test_no_fence_escapes() -> None:
    """A fence that is indented or misspelt would not be found."""
    for page in PAGES:
        assert page.read_text().count("```") == 2 * len(blocks_of(page)), page


def test_the_example_for_plugin_writers_counts_words_and_runs_a_command(machine: Machine) -> None:
    output = run_page(machine, PLUGINS)
    assert '{"files":1,"words":3}' in output
    assert " du: " in output


# Blocks for other programs


@needs("systemd-analyze")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "taskd.service"
    unit.write_text(block_called("taskd.service").replace("/opt/taskd/bin/taskd", sys.executable))
    # It exits with 0 after a line that it ignores, so its output counts too.
    assert "taskd.service" not in accepted("systemd-analyze", "verify", "--man=no", unit)


@needs("nginx")
def test_nginx_accepts_its_block(tmp_path: Path) -> None:
    block = re.sub(r"/etc/ssl/tools\.example\.\w+", str(CERTIFICATE), block_called("taskd.conf"))
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in kinds)
    config = tmp_path / "nginx.conf"
    config.write_text(f"pid {tmp_path}/pid;\nevents {{}}\nhttp {{ access_log off; {paths}\n{block}}}\n")
    accepted("nginx", "-t", "-c", config, "-g", "error_log stderr;")


@needs("caddy")
def test_caddy_accepts_its_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    file = tmp_path / "Caddyfile"
    file.write_text(block_called("Caddyfile"))
    accepted("caddy", "validate", "--adapter", "caddyfile", "--config", file)


@needs("promtool")
def test_prometheus_accepts_the_alerts(tmp_path: Path) -> None:
    file = tmp_path / "alerts.yml"
    file.write_text(block_called("taskd-alerts.yml"))
    accepted("promtool", "check", "rules", file)


def test_the_alerts_ask_for_metrics_that_exist(machine: Machine) -> None:
    yaml = pytest.importorskip("yaml")
    (group,) = yaml.safe_load(block_called("taskd-alerts.yml"))["groups"]
    asked = {name for rule in group["rules"] for name in re.findall(r"taskd_\w+", rule["expr"])}
    with machine:
        machine.serve()
        shown = httpx.get(f"{machine.url}/metrics", trust_env=False).text
    assert {name for name in asked if f"# TYPE {name} " not in shown} == set()


def test_the_container_file_parses_and_serves_with_options_that_exist() -> None:
    """It is only parsed: nothing here builds an image."""
    lines = block_called("Dockerfile").replace("\\\n", " ").splitlines()
    instructions = [line.split(maxsplit=1) for line in lines if line]
    known = {"FROM", "RUN", "COPY", "USER", "VOLUME", "EXPOSE", "CMD"}
    assert {name for name, _ in instructions} <= known
    assert instructions[0][0] == "FROM"
    command = json.loads(dict(instructions)["CMD"])
    assert command[:2] == ["taskd", "serve"]
    assert {word for word in command if word.startswith("--")} <= OPTIONS


def accepted(*command: str | Path) -> str:
    """Run a command that must succeed, and return its output."""
    result = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=40, check=False, stdin=subprocess.DEVNULL
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr
