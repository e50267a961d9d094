"""Any name of a logger is a name of a source, and the same name in a filter finds its entries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskd.entries import Level, LogEntry
from taskd.query.parameters import LOGS, parse_query
from taskd.text.sources import KEPT_CHARACTERS, SOURCE_CHARACTERS_MAX, clean_source

LONG = "my.company.services.integrations.external.providers.salesforce.client"
NAMES = st.text(min_size=1, max_size=200) | st.text("ab.,* ", min_size=1, max_size=100)
MODULE = "taskd_plugin_0123456789ab_reindex"


def finds(value: str, name: str) -> bool:
    """Whether the filter `source=value` finds an entry of the logger `name`."""
    entry = LogEntry.make(1, "", Level.INFO, clean_source(name), "m", None)
    return parse_query([("source", value)], LOGS).filter.matches(entry)


@given(NAMES)
def test_a_source_is_one_short_visible_line(name: str) -> None:
    """A name never breaks a line, is never empty and never longer than its column."""
    source = clean_source(name)
    assert source.isprintable()
    assert 1 <= len(source) <= SOURCE_CHARACTERS_MAX
    assert clean_source(source) == source


@given(NAMES)
def test_every_name_finds_its_own_entries(name: str) -> None:
    """As the logger has it, and as the list of sources shows it."""
    assert finds(name, name)
    assert finds(clean_source(name), name)


@pytest.mark.parametrize(
    ("value", "name", "found"),
    [
        ("a,b", "a,b", True),
        ("a,b", "a", True),
        (" a , b ", "b", True),
        ("a,b.*", "a,b.*", True),
        ("a,b.*", "b.c", True),
        ("a,b.*", "a,b.c", False),
        ("a,,b", "b", True),
        (",", ",", True),
        (" ", " ", True),
        ("a", "A", False),
        ("a.*", "a.*", True),
        ("tab\t", "tab\t", True),
        (LONG, LONG, True),
        (LONG, f"{LONG}2", False),
        (f"{LONG}.*", f"{LONG}.deep", True),
        (f"{LONG[:60]}.*", f"{LONG[:60]}.{'x' * 9}", True),
        (f"{LONG[:40]}.*", f"{LONG[:40]}.{'x' * 90}", True),
        (f"{LONG[:40]}.*", f"{LONG[:40]}x{'x' * 90}", False),
    ],
)
def test_a_value_names_one_source_or_several(value: str, name: str, found: bool) -> None:
    """Separated by commas, or as a whole; `name.*` with all below it, however long."""
    assert finds(value, name) is found


def test_names_that_differ_only_after_the_cut_are_two_sources() -> None:
    """A shortened name begins as the whole one does."""
    assert clean_source(f"{LONG}.one") != clean_source(f"{LONG}.two")
    assert clean_source(LONG).startswith(LONG[:KEPT_CHARACTERS])


@pytest.mark.parametrize(("name", "source"), [(MODULE, "reindex"), (f"{MODULE}.sub", "reindex.sub")])
def test_a_module_of_a_plugin_is_called_as_its_author_knows_it(name: str, source: str) -> None:
    """In the entry and in the filter, though it is loaded under a name with a digest."""
    assert clean_source(name) == source
    assert finds(source, name)
    assert finds(name, name)
