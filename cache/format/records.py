"""What goes into a split and comes out of its tables.  raw -> [tracks] -> features -> windows"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # eq=False: == of arrays is ambiguous
class TrackRows:
    """One person through one video, T rows, as the cache takes it. Columns that the track lacks are left out."""

    name: str  # <video>/<person>, unique within the split
    video: str
    step: int  # frames of the video from one row to the next, gaps aside
    fps: float  # of the video's own frames; nan where not known
    crop_scale: float  # crop side / box side
    gender: str = "neutral"
    intrinsics: NDArray[Any] | None = None  # (3, 3) px
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # name in COLUMNS -> (T, *trailing)


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoEntry:
    """One raw video: where its pixels are, what it was made from, and what became of its frames."""

    name: str  # unique within the split
    source: str = ""  # the pixel source below the raw folder, in one line; "" without pixels
    pixels: str = ""  # hex; changes when the pixels do, and not when only labels do; "" without pixels
    width: int = 0  # px; 0 without pixels
    height: int = 0
    fingerprint: str = ""  # hex; of the raw files
    account: Mapping[str, Any] = field(default_factory=dict)  # found, kept, dropped by reason, ...: anything JSON holds


class _TrackFields(NamedTuple):
    name: str
    video: str
    start: int
    stop: int
    fps: float
    step: int
    crop_scale: float


class TrackRecord(_TrackFields):
    """One committed track: rows [start, stop) of its split.

    As a tuple it is (name, video, start, stop, fps, step, crop_scale), which compares; `gender` and `intrinsics`
    ((3, 3) float64 px, or None where not known) come beside it, since an array in a tuple does not compare.
    """

    gender: str
    intrinsics: NDArray[np.float64] | None
