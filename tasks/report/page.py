"""The report's page: one self-contained HTML file without scripts.  evaluation -> [page]

`tasks.report.assembly` makes a `PageSection` for each section and calls `write_page`. Styles and
the content security policy are those of `pipeline.show`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.show.page import templates, write


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
