"""What the pages name exists: links, files, options; and the README stays short."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import click
import pytest

from taskd.cli.main import cli
from taskd.cli.options import settings_options
from taskd.persistence.sqlite.schema import SCHEMA_VERSION
from tests.docs.blocks import PAGES, ROOT, blocks_of

README_WORDS_MAX = 1_200
GENERATED = re.compile(r"^reference/(settings|commands|http|python)\.md$")
SOURCE = re.compile(r"(?<![\w/.-])((?:[\w.]+/)+[\w.]+\.(?:py|sql|md))\b(?!\.)")
EXAMPLES = ("DIR/", "my-plugins/", "reference/", "../")
ALSO = {"--strict", "--shutdown", "--no-install-recommends", "--no-cache-dir", "--create-home"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_has_one(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", page.read_text())
    targets = [target.partition("#")[0] for target in chain(*links) if target and "://" not in target]
    missing = [each for each in targets if each and not (page.parent / each).exists() and not GENERATED.match(each)]
    assert missing == []


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/architecture.md", "docs/operating.md", "docs/plugins.md"])
def test_every_source_file_that_a_page_names_exists(name: str) -> None:
    """A map that names a file of yesterday costs more than none."""
    page = (ROOT / name).read_text()
    named = {each for each in SOURCE.findall(page) if not each.startswith(("DIR/", "my-plugins/", "reference/", "../"))}
    assert {each for each in named if not ((ROOT / each).exists() or (ROOT / "taskd" / each).exists())} == set()


def test_every_component_that_contributing_names_exists() -> None:
    named = re.findall(r"`(\w+\.svelte)`", (ROOT / "CONTRIBUTING.md").read_text())
    assert [name for name in named if not [*(ROOT / "web" / "src").rglob(name)]] == []


def test_every_option_that_a_page_names_exists() -> None:
    """Those of `taskd`, of its commands, and the few of other programs."""
    known = {*all_options(cli), *(option.opts[0] for option in settings_options()), *ALSO}
    for page in PAGES:
        named = set(re.findall(r"(?<![\w-])--[a-z]+(?:-[a-z]+)*", page.read_text()))
        assert named - known == set(), page


def all_options(command: click.Command) -> Iterator[str]:
    """Yield the options of a command and of those below it."""
    context = click.Context(command)
    for parameter in command.get_params(context):
        yield from parameter.opts
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None:
                yield from all_options(below)


def test_every_command_is_in_the_table_of_commands() -> None:
    table = (ROOT / "docs" / "commands.md").read_text()
    names = cli.list_commands(click.Context(cli))
    assert [name for name in names if f"| `taskd {name}" not in table] == []


def test_a_file_that_two_pages_show_is_the_same_on_both() -> None:
    files = {(block.title, block.text) for page in PAGES for block in blocks_of(page) if block.title}
    titles = [title for title, _ in files]
    assert sorted(titles) == sorted(set(titles))


def test_the_changelog_names_the_schema_of_the_newest_version() -> None:
    """A downgrade across a change of it needs a backup."""
    newest = (ROOT / "CHANGELOG.md").read_text().split("\n## ")[1]
    assert f"Schema {SCHEMA_VERSION}." in newest


def test_the_readme_is_read_in_three_minutes() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= README_WORDS_MAX


@pytest.mark.skipif(find_spec("mkdocs") is None or find_spec("material") is None, reason="`make docs` installs MkDocs")
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Strict: a broken link, a missing anchor and a page outside of the navigation fail it."""
    mkdocs = shutil.which("mkdocs", path=str(Path(sys.executable).parent))
    assert mkdocs is not None
    with (ROOT / "docs" / "mkdocs.yml").open() as config:
        result = subprocess.run(
            [mkdocs, "build", "--strict", "-d", str(tmp_path / "site"), "-f", "-"],
            stdin=config, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False,
        )  # fmt: skip
    assert result.returncode == 0, result.stderr
    settings = (tmp_path / "site" / "reference" / "settings.html").read_text()
    assert "--flush-interval-s" in settings
