"""The report's page: one self-contained HTML file without scripts.  evaluation -> [page]

`tasks.report.assembly` makes a `PageSection` for each section and calls `write_page`; `lines` draws
the plots of the section about runs.

Track drawings, styles and the content security policy are those of `pipeline.show`. Plots are
Matplotlib's SVG as images, each with a table of its numbers; dark mode inverts their lightness. The
same numbers give the same bytes.
"""

from __future__ import annotations

import io
import math
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, Final, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator
from numpy.typing import NDArray

from pipeline.show.page import templates, write

Array = NDArray[Any]
Cell = str | int | float | None  # of a table; None and NaN: unknown
Curves = Mapping[str, tuple[Array, Array]]  # label -> x (N,), y (N,)

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
MOST_ROWS: Final = 24  # of the table below a line plot

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


class Plot(NamedTuple):
    """A plot with caption and numbers, for `plot` in parts.html."""

    svg: str
    title: str
    caption: str
    header: tuple[str, ...]  # of the table; the first column names the row
    rows: list[tuple[Cell, ...]]

    @property
    def url(self) -> str:
        """The SVG as the source of an image."""
        return f"data:image/svg+xml;base64,{b64encode(self.svg.encode()).decode()}"


@dataclass(frozen=True, slots=True)
class PageSection:
    """A section of the page."""

    anchor: str  # the id of its heading: letters, digits and "-"
    title: str
    template: str  # file in report/templates/
    data: Mapping[str, Any]  # `data` in the template
    line: str = ""  # summary; a section with a summary is folded
    unfolded: bool = False  # whether the fold is open


def write_page(
    out: Path,
    sections: Iterable[PageSection],
    *,
    title: str,
    mark: str,
    facts: Mapping[str, str],
    fingerprint: str = "",
    summary: Mapping[str, Any] | None = None,
) -> None:
    """Render the sections and write the page. `out` appears when it is complete.

    Args:
        mark: Kind of demo data on the page; "" for real data.
        facts: Shown at the end.
        fingerprint: Identifies the page's sources.
        summary: Data of the lines before the sections.

    Raises:
        ValueError: two sections have the same anchor.
    """
    sections = tuple(sections)
    anchors = [section.anchor for section in sections]
    if len(set(anchors)) != len(anchors):
        raise ValueError(f"two sections of the report have the same anchor: {anchors}")
    environment = templates(Path(__file__).parent / "templates")
    environment.filters["cell_text"] = _cell_text
    page = environment.get_template("report.html")
    write(
        page.stream(
            sections=sections,
            title=title,
            mark=mark,
            facts=facts,
            summary=summary,
            fingerprint=fingerprint,
        ),
        out,
    )


def _cell_text(value: Cell) -> str:
    """Text of a table cell: integers in full, floats with four digits, a dash for unknown values.

    >>> [_cell_text(value) for value in (12000, 0.123456, 54321.0, None, "a")]
    ['12,000', '0.1235', '54,321', '–', 'a']
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, str):
        return value
    if isinstance(value, float) and math.isfinite(value) and abs(value) < 1000:
        return f"{value:.4g}"
    return f"{value:,.0f}"


def lines(
    name: str,
    title: str,
    caption: str,
    series: Mapping[str, tuple[Sequence[float] | Array, Sequence[float] | Array]],
    *,
    x_label: str,
    y_label: str,
    log_y: bool = False,
) -> Plot:
    """Curves in different colours and dashes, with a table of at most `MOST_ROWS` rows.

    name: Seed of the SVG's ids. series: Label of a curve -> (x (N,), y (N,)); values that are not
    finite are gaps. log_y: Logarithmic scale if any y is above 0; other values are gaps.
    """
    curves = {
        label: (np.asarray(x, np.float64), np.asarray(y, np.float64))
        for label, (x, y) in series.items()
    }
    is_log = log_y and any((y > 0).any() for _, y in curves.values())
    if is_log:
        curves = {label: (x, np.where(y > 0, y, np.nan)) for label, (x, y) in curves.items()}
    with mpl.rc_context():
        mpl.rcdefaults()  # ignore the user's matplotlibrc
        mpl.rcParams.update(_STYLE | {"svg.hashsalt": name})
        figure = _draw(curves)
        (axes,) = figure.axes
        axes.set(xlabel=x_label, ylabel=y_label, yscale="log" if is_log else "linear")
        if is_log:
            # 0.01, not a power of ten
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            # between few powers, too
            axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.5)))
        svg = io.StringIO()
        figure.savefig(svg, format="svg", transparent=True, metadata=NO_DATES)
    return Plot(svg.getvalue(), title, caption, (x_label, *curves), _rows_by_x(curves))


def _draw(curves: Curves) -> Figure:
    """Draw the curves on a grid, with a legend below in two columns."""
    legend_rows = math.ceil(len(curves) / 2)
    figure = Figure((WIDTH, 2.6 + 0.2 * legend_rows), layout="constrained")
    axes = figure.add_subplot()
    for (label, (x, y)), color, dash in zip(
        curves.items(), cycle(SERIES), cycle(DASHES), strict=False
    ):
        # a single point has no line
        marker = "o" if np.count_nonzero(np.isfinite(y)) == 1 else ""
        axes.plot(x, y, color=color, linestyle=dash, marker=marker, markersize=4, label=label)
    if all((x % 1 == 0).all() for x, _ in curves.values()):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=True, axis="y", linewidth=0.5)
    if curves:
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def _rows_by_x(curves: Curves) -> list[tuple[Cell, ...]]:
    """Rows (x, y of each curve) of a table, at most MOST_ROWS of them, evenly spread."""
    columns = [dict(zip(x.tolist(), y.tolist(), strict=True)) for x, y in curves.values()]
    every_x = sorted(set[float]().union(*columns))
    rows = list[tuple[Cell, ...]]()
    n_rows = min(len(every_x), MOST_ROWS)
    for i in np.unique(np.linspace(0, len(every_x) - 1, n_rows).round().astype(int)):
        values = [column.get(every_x[i]) for column in columns]
        rows.append((_cell_text(every_x[i]), *values))
    return rows
