"""The report's page: one HTML file without a script, that opens from disk and fetches nothing.  evaluation -> [report]

Sections come from the modules beside this one; each names its template and the data for it. The drawing of tracks, the
styles and the policy that forbids scripts and addresses are those of `pipeline.exchange.show`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.exchange.show.page import templates, write
from report.figures import cell_text


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the page. Its template, a file of report/templates/, finds `data` under that name."""

    anchor: str  # the id of its heading: letters, digits and "-"
    title: str
    template: str
    data: Mapping[str, Any]
    line: str = ""  # what it comes to; with one, the section is folded
    unfolded: bool = False  # there is something to look at: the fold is open


def write_page(
    out: Path,
    sections: Iterable[Section],
    *,
    title: str,
    stand_in: bool,
    facts: Mapping[str, str],
    summary: Section | None = None,
) -> None:
    """Render and write the sections in their order. `out` appears when it is whole.

    stand_in: whether anything on it comes from demo data, which its first line reports. facts: shown at its top.
    summary: a section that comes before the table of contents. Raises ValueError for two sections with one anchor.
    """
    shown = tuple(sections)
    anchors = [section.anchor for section in (*shown, summary) if section is not None]
    if len(set(anchors)) != len(anchors):
        raise ValueError(f"two sections of the report have one anchor: {anchors}")
    made = templates(Path(__file__).parent / "templates")
    made.filters["cell_text"] = cell_text
    page = made.get_template("report.html")
    write(page.stream(sections=shown, title=title, stand_in=stand_in, facts=facts, summary=summary), out)
