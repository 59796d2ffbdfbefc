"""The report's page: one self-contained HTML file without scripts.  evaluation -> [page]

`tasks.report.assembly` makes a `PageSection` for each section and calls `write_page`. A `Plot` is
drawn when the page is rendered.

Styles and the content security policy are those of `pipeline.show`. Plots are Matplotlib's SVG as
images; dark mode inverts their lightness. The same numbers give the same bytes.
"""

from __future__ import annotations

import io
import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, Final, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator

from pipeline.show.page import templates, write

INK: Final = "#16181d"
FAINT: Final = "#565d69"
RULE: Final = "#c9ced6"
SERIES: Final = (
    "#1a6fe8",
    "#c2410c",
    "#15803d",
    "#a21caf",
    "#6b7280",
    "#b45309",
    "#0e7490",
    "#be123c",
)
DASHES: Final = ("-", "--", ":", "-.")
# entries that would differ from run to run are left out of an SVG
NO_DATES: Final = dict.fromkeys(("Date", "Creator", "Format", "Type"))

# Width of a plot in inches, each 72 SVG units: about that of a phone, on which texts of 11 points
# are then about 11 px high
WIDTH: Final = 4.6

_STYLE: Final[Any] = {  # Any: some versions of Matplotlib type the keys
    "axes.edgecolor": RULE,
    "axes.facecolor": "none",
    "axes.labelcolor": FAINT,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "font.size": 11,
    "grid.color": RULE,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,  # names come from untrusted files
    "xtick.color": FAINT,
    "ytick.color": FAINT,
}


class Series(NamedTuple):
    """A curve of N points; a y that is not finite is a gap."""

    x: Sequence[float]
    y: Sequence[float]

    @property
    def is_alone(self) -> bool:
        """Whether it has a single point, through which there is no line."""
        return sum(map(math.isfinite, self.y)) == 1

    def above_zero(self) -> Series:
        """The curve with gaps in place of the values that a logarithmic scale cannot show."""
        return Series(self.x, [y if y > 0 else math.nan for y in self.y])


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """Curves in different colours and dashes, with a title."""

    name: str  # seed of the SVG's ids
    title: str
    caption: str = ""  # more than the title
    series: Mapping[str, Series]  # by label
    x_label: str
    y_label: str
    log_y: bool = False  # logarithmic scale if any y is above 0; other values are gaps

    @property
    def url(self) -> str:
        """The SVG as the source of an image."""
        return f"data:image/svg+xml;base64,{b64encode(self.svg().encode()).decode()}"

    def svg(self) -> str:
        """Draw the plot."""
        series = self.series
        is_log = self.log_y and any((np.array(curve.y) > 0).any() for curve in series.values())
        if is_log:
            series = {label: curve.above_zero() for label, curve in series.items()}
        with mpl.rc_context():
            mpl.rcdefaults()  # ignore the user's matplotlibrc
            mpl.rcParams.update(_STYLE | {"svg.hashsalt": self.name})
            figure = _draw(series)
            (axes,) = figure.axes
            axes.set(xlabel=self.x_label, ylabel=self.y_label)
            if is_log:
                axes.set_yscale("log")
                # 0.01, not a power of ten
                axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
                # between few powers, too
                axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.5)))
            svg = io.StringIO()
            figure.savefig(svg, format="svg", transparent=True, metadata=NO_DATES)
        return svg.getvalue()


def _draw(series: Mapping[str, Series]) -> Figure:
    """Draw the curves on a grid, with a legend below in two columns."""
    legend_rows = math.ceil(len(series) / 2)
    figure = Figure((WIDTH, 2.6 + 0.2 * legend_rows), layout="constrained")
    axes = figure.add_subplot()
    for (label, curve), color, dash in zip(
        series.items(), cycle(SERIES), cycle(DASHES), strict=False
    ):
        marker = "o" if curve.is_alone else ""
        axes.plot(*curve, color=color, linestyle=dash, marker=marker, markersize=4, label=label)
    if all((np.mod(curve.x, 1) == 0).all() for curve in series.values()):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=True, axis="y", linewidth=0.5)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@dataclass(frozen=True, slots=True)
class PageSection:
    """A section of the page."""

    anchor: str  # the id of its heading: letters, digits and "-"
    title: str
    data: Mapping[str, Any]  # `data` in the template report/templates/<anchor>.html
    line: str = ""  # summary; a section with a summary is folded
    unfolded: bool = False  # whether the fold is open


def write_page(
    out: Path,
    sections: Sequence[PageSection],
    *,
    mark: str,
    summary: Mapping[str, Any],
    facts: Mapping[str, str],
    fingerprint: str,
) -> None:
    """Render the sections and write the page. `out` appears when it is complete.

    Args:
        mark: Kind of demo data on the page; "" for real data.
        summary: `line` and `problems` before the sections.
        facts: Shown at the end.
        fingerprint: Identifies the page's sources.
    """
    page = templates(Path(__file__).parent / "templates").get_template("report.html")
    write(
        page.stream(
            sections=sections, mark=mark, summary=summary, facts=facts, fingerprint=fingerprint
        ),
        out,
    )
