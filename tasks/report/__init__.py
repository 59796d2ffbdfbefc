"""The page about data, training and results.  raw -> ... -> evaluation ->
[report]

`assembly` reads everything and writes one HTML file of `PageSection`s, which the other modules
make.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tasks import settings as settings  # before Luigi: it refuses what Luigi could not read

DEMO: Final = "demo data"  # marks of a page
UNTRAINED: Final = "random weights"


@dataclass(frozen=True, slots=True)
class PageSection:
    """A section of the page."""

    anchor: str  # the id of its heading: letters, digits and "-"
    title: str
    data: Mapping[str, Any]  # `data` in the template report/templates/<anchor>.html
    line: str = ""  # summary; a section with a summary is folded
    unfolded: bool = False  # whether the fold is open
