"""The load benchmark runs and tells: its table, its JSON and its plot, from parts that take seconds."""

import json
from pathlib import Path

import pytest

from benchmarks import load, tail, viewers
from benchmarks.plot import write_svg
from benchmarks.table import Result, Skipped, quantile, result, table, write_json

LINES: list[Result | Skipped] = [
    result("ingest", "1 task", "entries/s", [90, 100, 120], yardstick="Y 125/s", ratio=0.8, bar="≥ 0.75 Y", holds=True),
    result("tail", "p99", "ms", [70.0], bar="≤ 50 ms", holds=False),
    Skipped("emit", "structlog", "not installed"),
]


def test_a_line_has_the_median_and_the_spread_of_its_rounds() -> None:
    line = LINES[0]
    assert isinstance(line, Result)
    assert (line.value, line.low, line.high) == (100.0, 90.0, 120.0)


def test_the_table_says_what_holds_what_does_not_and_what_was_not_measured() -> None:
    heading, _, ingest, late, skipped = table(LINES).splitlines()
    assert heading.split("|")[1].strip() == "part"
    assert "100 entries/s" in ingest
    assert "0.80" in ingest
    assert "yes" in ingest
    assert "NO" in late
    assert "not installed" in skipped


def test_the_json_and_the_plot_have_every_line(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run.json"
    write_json(path, LINES, {"seed": 1})
    told = json.loads(path.read_text())
    assert [line["what"] for line in told["results"] + told["skipped"]] == ["1 task", "p99", "structlog"]
    assert told["machine"]["cores"] >= 1
    write_svg(path.with_suffix(".svg"), LINES)
    drawn = path.with_suffix(".svg").read_text()
    assert "1 task" in drawn
    assert "p99" in drawn


def test_a_quantile_of_nothing_is_0() -> None:
    assert quantile([], 0.99) == 0
    assert quantile([3, 1, 2], 0.5) == 2


def test_viewers_see_where_an_entry_is_missing() -> None:
    seen = viewers.Seen()
    frame = b'{"type":"entries","entries":[{"seq":4,"metadata":{"t":5}},{"seq":5,"metadata":{"t":6}}]}'
    assert seen.take(frame, 1_000_000_007, whole=True) == 5
    assert seen.ordered
    assert seen.delivered == 2
    seen.take(frame.replace(b'"seq":5', b'"seq":6'), 1_000_000_008, whole=True)
    assert not seen.ordered


def test_parts_run_from_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real path, with a server, a task and two viewers."""
    monkeypatch.setattr(tail, "QUICK_LOADS", ((200, 2),))
    path = tmp_path / "run.json"
    assert load.main(["tail", "--quick", "--json", str(path)]) == 0
    assert "200/s, 2 viewers: p99" in capsys.readouterr().out
    told = json.loads(path.read_text())
    assert not told["skipped"]
    assert all(line["value"] > 0 for line in told["results"] if line["unit"] == "ms")
    assert path.with_suffix(".svg").exists()
