"""Plots as inline SVG, each with its numbers as a table.  training -> evaluation -> report: [figures] -> page

Matplotlib draws in colours that stand for the page's: they become CSS variables, so that a plot follows light and
dark. Texts stay texts. The same numbers give the same bytes.
"""

from __future__ import annotations

import io
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator
from numpy.typing import NDArray

Array = NDArray[Any]
Cell = str | int | float | None  # of a table; None and NaN: not known

# What Matplotlib is told -> what the page shows.
INK: Final = "#0a0a01"
FAINT: Final = "#0a0a02"
RULE: Final = "#0a0a03"
SERIES: Final = tuple(f"#0b0b0{i}" for i in range(1, 9))  # tell series apart: eight of them
DASHES: Final = ("-", "--", ":", "-.")  # and without colours, lines
_CSS: Final = {
    INK: "currentColor",
    FAINT: "var(--faint)",
    RULE: "var(--rule)",
    **{color: f"var(--series-{i})" for i, color in enumerate(SERIES, 1)},
}
_COLOR: Final = re.compile("|".join(_CSS))

WIDTH: Final = 4.6  # inches, of 72 units of the SVG: as wide as a phone, where texts are about 11 px high
MOST_ROWS: Final = 24  # of the table below a plot of lines
QUANTILES: Final = (5, 25, 50, 75, 95)  # %, told of each distribution

_STYLE: Final[Any] = {  # Matplotlib types its keys, in some versions
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
    "text.parse_math": False,  # names come from strangers' files
    "xtick.color": FAINT,
    "ytick.color": FAINT,
}
_SVG: Final = "http://www.w3.org/2000/svg"
_HREF: Final = "{http://www.w3.org/1999/xlink}href"


@dataclass(frozen=True, slots=True)
class Plot:
    """What `plot` of parts.html draws: a picture, what it shows, and its numbers."""

    svg: Markup
    title: str
    caption: str  # what is measured, in which unit, of how many
    header: tuple[str, ...]  # of the table; the first column names the row
    rows: list[tuple[Cell, ...]] = field(default_factory=list)


def figure(height: float, width: float = WIDTH) -> tuple[Figure, Axes]:
    """An empty figure of so many inches in the page's style, and its axes. Draw within `style()`."""
    with style():
        made = Figure((width, height), layout="constrained")
        return made, made.add_subplot()


@contextmanager
def style() -> Iterator[None]:
    """Within it, Matplotlib draws in the page's style."""
    with mpl.rc_context():
        mpl.rcdefaults()  # whatever this machine's matplotlibrc says
        mpl.rcParams.update(_STYLE)
        yield


def svg(figure: Figure, name: str) -> Markup:
    """The figure as an SVG for the page. `name` is the figure's own on it: it makes ids that no other figure has."""
    written = io.StringIO()
    with style(), mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(
            written, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    root = ET.fromstring(written.getvalue())  # noqa: S314
    _drop_styles(root)
    _own_ids(root, re.sub(r"\W+", "-", name))
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{_SVG}}}")
        if "style" in element.attrib:
            element.set("style", _COLOR.sub(lambda found: _CSS[found[0]], _without_family(element.attrib["style"])))
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    root.attrib |= {"xmlns": _SVG, "aria-hidden": "true"}
    return Markup(ET.tostring(root, encoding="unicode"))  # noqa: S704  ElementTree has escaped it


def brief(names: Sequence[str], most: int = 28) -> list[str]:
    """Names that a legend or an axis has room for, all different.

    >>> brief(["vibe", "embedded-per-frame-093a0bc1a3f8fe92"])
    ['vibe', 'embedded-per-f…bc1a3f8fe92']
    """
    shown: list[str] = []
    for name in names:
        short = name if len(name) <= most else f"{name[: most // 2]}…{name[-(most // 2 - 3) :]}"
        shown.append(f"{short} ({len(shown) + 1})" if short in shown else short)
    return shown


def histogram(
    name: str,
    title: str,
    caption: str,
    samples: Mapping[str, Array],
    *,
    unit: str,
    bins: Array | None = None,
    log: bool = False,
) -> Plot:
    """Distributions of one quantity below each other, each as high as any, with a line at the median.

    samples: what it is of -> (N,) finite values, or none at all. bins: (B + 1,) edges; None: 40 from the smallest to
    the largest, in equal steps, or in equal ratios with `log`, for which values are above 0.
    """
    values = {of: np.asarray(sample, np.float64).ravel() for of, sample in samples.items()}
    edges = (
        _edges(np.concatenate([np.empty(0), *values.values()]), log) if bins is None else np.asarray(bins, np.float64)
    )
    made, axes = figure(0.7 + 0.36 * max(len(values), 1))
    with style():
        for row, sample in enumerate(reversed(values.values())):
            axes.axhline(row, color=RULE, linewidth=0.5)
            if len(sample):
                counts = np.histogram(sample, edges)[0]
                axes.stairs(
                    row + 0.8 * counts / max(counts.max(), 1),
                    edges,
                    baseline=row,
                    fill=True,
                    color=SERIES[0],
                    alpha=0.55,
                )
                axes.plot(2 * [np.median(sample)], [row, row + 0.8], color=INK, linewidth=1.5)
            else:
                axes.text(0.01, row + 0.1, "none", color=FAINT, transform=axes.get_yaxis_transform())
        axes.set(
            xlim=(edges[0], edges[-1]),
            ylim=(-0.05, max(len(values), 1)),
            xlabel=unit,
            xscale="log" if log else "linear",
        )
        axes.set_yticks(range(len(values)), brief([*reversed(values)]), color=INK)
        axes.tick_params(left=False)
        axes.spines.left.set_visible(False)
        if log:
            _plain_numbers(axes.xaxis)
    rows: list[tuple[Cell, ...]] = [(of, len(sample), *_quantiles(sample)) for of, sample in values.items()]
    header = ("of", "values", *(f"{q} %" if q != 50 else "median" for q in QUANTILES))
    return Plot(svg(made, name), title, caption, header, rows)


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
    """Curves, told apart by colour and by dashes. series: name -> (x (N,), y (N,)); a y that is not finite is a gap.

    Curves that are the same in every point are one, with all their names. The table has at most `MOST_ROWS` of the x,
    from the first to the last.
    """
    points = _distinct({of: (np.asarray(x, np.float64), np.asarray(y, np.float64)) for of, (x, y) in series.items()})
    made, axes = figure(2.6 + 0.2 * math.ceil(len(points) / 2))
    with style():
        for (of, (x, y)), color, dash in zip(points.items(), cycle(SERIES), cycle(DASHES), strict=False):
            alone = np.count_nonzero(np.isfinite(y)) == 1  # no line leads to it
            axes.plot(x, y, color=color, linestyle=dash, marker="o" if alone else "", markersize=4, label=of)
        axes.set(xlabel=x_label, ylabel=y_label, yscale="log" if log_y else "linear")
        if log_y:
            _plain_numbers(axes.yaxis)
        if all(float(x).is_integer() for xs, _ in points.values() for x in xs):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(visible=True, axis="y", linewidth=0.5)
        if points:
            made.legend(loc="outside lower center", ncols=2)
    return Plot(svg(made, name), title, caption, (x_label, *points), _rows_by_x(points))


def told(value: Cell) -> str:
    """A table's cell: whole numbers in full, others to four digits, what is not known as a dash.

    >>> told(12000), told(0.123456), told(54321.0), told(None), told("a")
    ('12,000', '0.1235', '54,321', '–', 'a')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, str):
        return value
    if isinstance(value, float) and math.isfinite(value) and abs(value) < 1000:
        return f"{value:.4g}"
    return f"{value:,.0f}"


def duration(seconds: float) -> str:
    """
    >>> duration(0.04), duration(75), duration(9000), duration(7_200_000)
    ('0.04 s', '75 s', '2 h 30 min', '2,000 h')
    """
    if seconds < 120:
        return f"{seconds:.1g} s" if 0 < seconds < 0.95 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    hours = f"{minutes // 60:,} h" + (f" {minutes % 60} min" if minutes % 60 else "")
    return f"{minutes} min" if minutes < 120 else hours


def _distinct(points: Mapping[str, tuple[Array, Array]]) -> dict[str, tuple[Array, Array]]:
    names: dict[bytes, list[str]] = {}
    for of, (x, y) in points.items():
        names.setdefault(x.tobytes() + b"|" + y.tobytes(), []).append(of)
    return {" = ".join(same): points[same[0]] for same in names.values()}


def _edges(values: Array, log: bool, n: int = 40) -> Array:
    """n + 1 edges that hold all values."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (1.0, 2.0)
    if low == high:
        low, high = (low / 1.5, high * 1.5) if log else (low - 0.5, high + 0.5)
    return np.geomspace(low, high, n + 1) if log else np.linspace(low, high, n + 1)


def _plain_numbers(axis: Axis) -> None:
    """Of a logarithmic axis: 0.01 instead of a formula, and numbers between the powers where there are few of them."""
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.5)))


def _quantiles(sample: Array) -> list[Cell]:
    return [float(q) for q in np.percentile(sample, QUANTILES)] if len(sample) else [None] * len(QUANTILES)


def _rows_by_x(points: Mapping[str, tuple[Array, Array]]) -> list[tuple[Cell, ...]]:
    at = {of: dict(zip(x.tolist(), y.tolist(), strict=True)) for of, (x, y) in points.items()}
    every = sorted({x for of in at.values() for x in of})
    few = np.unique(np.linspace(0, len(every) - 1, min(len(every), MOST_ROWS)).round().astype(int)) if every else ()
    return [(told(every[i]), *(of.get(every[i]) for of in at.values())) for i in few]


def _drop_styles(root: ET.Element) -> None:
    """Without what would hold for the whole page, or says nothing to it."""
    for element in [*root.iter()]:
        for child in [*element]:
            if child.tag in (f"{{{_SVG}}}style", f"{{{_SVG}}}metadata"):
                element.remove(child)


def _own_ids(root: ET.Element, name: str) -> None:
    """Ids that something refers to get the figure's name before them; the others go."""
    text = ET.tostring(root, encoding="unicode")
    used = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', text))
    wanted = {one or other for one, other in used}
    for element in root.iter():
        if (own := element.attrib.pop("id", None)) in wanted and own is not None:
            element.set("id", f"{name}-{own}")
        if _HREF in element.attrib:
            element.set("href", f"#{name}-{element.attrib.pop(_HREF).removeprefix('#')}")
        for key, value in _referring(element.attrib.items()):
            element.set(key, value.replace("url(#", f"url(#{name}-"))


def _referring(attributes: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(key, value) for key, value in attributes if "url(#" in value]


def _without_family(declared: str) -> str:
    """The page's own letters."""
    return "; ".join(part for part in declared.split("; ") if not part.startswith("font-family"))
