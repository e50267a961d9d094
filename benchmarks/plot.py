"""
An SVG of a run, written by hand: latency of the tails, and throughput beside the yardstick.

Bars on a logarithmic scale, each with its value; a line marks its bar (the promise), and what
does not hold is red. The colours are readable on light and on dark.
"""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from benchmarks.table import Result, Skipped, shown

WIDTH = 900
LABELS = 300
LINE = 22
HEAD = 34
COLOURS = {None: "#7a8599", True: "#2f9e6e", False: "#d64545"}


def write_svg(path: Path, lines: Sequence[Result | Skipped]) -> None:
    """Both panels, of what there is of them."""
    results = [line for line in lines if isinstance(line, Result)]
    latency = [one for one in results if one.part == "tail" and one.unit == "ms" and "lag" not in one.what]
    throughput = [one for one in results if one.unit == "entries/s"]
    panels = [("emit to received, ms", latency), ("throughput, entries/s", throughput)]
    y, drawn = 0, []
    for title, panel in panels:
        if panel:
            drawn += _panel(title, panel, y)
            y += HEAD + LINE * len(panel) + LINE
    body = "\n".join(drawn)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}" '
        f'font-family="system-ui, sans-serif" font-size="13" fill="#7a8599">\n{body}\n</svg>\n'
    )


def _panel(title: str, panel: Sequence[Result], top: int) -> list[str]:
    values = [value for one in panel for value in (one.low, one.value, one.high) if value > 0]
    lowest, highest = min(values) / 2, max(values)

    def x(value: float) -> float:
        share = math.log(max(value, lowest) / lowest) / math.log(highest / lowest)
        return LABELS + share * (WIDTH - LABELS - 90)

    drawn = [f'<text x="0" y="{top + 20}" font-weight="bold">{escape(title)}</text>']
    for number, one in enumerate(panel):
        y = top + HEAD + LINE * number
        end, middle = x(one.value), y + LINE / 2 - 2
        drawn += [
            f'<text x="0" y="{y + 13}">{escape(one.what)}</text>',
            f'<rect x="{LABELS}" y="{y}" width="{end - LABELS:.1f}" height="{LINE - 6}" rx="3" '
            f'fill="{COLOURS[one.holds]}"/>',
            f'<line x1="{x(one.low):.1f}" x2="{x(one.high):.1f}" y1="{middle}" y2="{middle}" stroke="#1a1f2b"/>',
            f'<text x="{max(end, x(one.high)) + 6:.1f}" y="{y + 13}">{shown(one.value)}</text>',
        ]
    return drawn
