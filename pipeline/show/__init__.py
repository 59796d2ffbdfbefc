"""Draw tracks on HTML pages and in clips, so that wrong labels show at a glance.  raw -> [tracks,
pixels, crops] -> features -> windows

`tracks` reads tracks from the cache or from raw files; `drawing` turns joints into lines; `player`
writes the page of a video, `split` that of a split; `clip` writes all frames of a video;
`bodies` poses and draws bodies.
"""

from typing import Final

CLIP: Final = ".mp4"  # suffix of --out for a clip
