"""A page on which a wrong joint order is seen at a glance.  raw -> [tracks, pixels, crops] -> features -> windows

`tracks` collects what is shown, from the cache or from raw files; `drawing` turns joints into lines; `page` decodes and
crops with the functions that training uses, and writes the HTML. `clip` writes all frames of a video; `bodies`
poses labels and shades bodies over pictures.
"""

from __future__ import annotations

from vibe_extensions.pages.show.page import split_of, write_page
from vibe_extensions.pages.show.tracks import Choice, Shown, ShownTrack, from_cache, from_raw

__all__ = ["Choice", "Shown", "ShownTrack", "from_cache", "from_raw", "split_of", "write_page"]
