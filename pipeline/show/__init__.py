"""A page on which a wrong joint order is seen at a glance.  raw -> [tracks, pixels, crops] -> features -> windows

`tracks` holds what is shown, `from_cache` and `from_raw` fill it; `views` decodes, crops and poses through the very
functions that training's data comes from; `drawing` turns joints into lines; `page` writes the HTML.
"""

from __future__ import annotations

from pipeline.show.from_cache import from_cache
from pipeline.show.from_raw import from_raw
from pipeline.show.page import write_page
from pipeline.show.tracks import Choice, Shown, ShownTrack

__all__ = ["Choice", "Shown", "ShownTrack", "from_cache", "from_raw", "write_page"]
