"""Read MPI-INF-3DHP's camera.calibration, a text with a block of 7 lines for each camera.  [raw] ->
tracks -> features -> windows

    name          0
      sensor      10 10
      size        2048 2048                      px
      animated    0
      intrinsic   1497.693 0 1024.704 0 ...      (4, 4), px
      extrinsic   0.9650164 0.00488022 ...       (4, 4), world to camera, mm
      radial      0
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from pipeline.cameras import is_rigid
from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import StoredArrays
from pipeline.files.raw.files import read_regular
from pipeline.skeletons import Float32s

FIRST_LINE: Final = "Skeletool Camera Calibration File V1.0"
AGAIN: Final = "Download it again, with the release's get_dataset.sh."


class Calibration(NamedTuple):
    """One camera."""

    size: tuple[int, int]  # width and height (px) of the images that the labels fit
    intrinsics: Float32s  # (3, 3), px
    extrinsics: Float32s | None  # (4, 4), world to camera, m; None if they are invalid

    @classmethod
    def read(cls, file: Path, camera: int) -> Calibration:
        """Read one camera, by its number. Raises RawDataError for a missing or invalid block, and
        OSError if the file cannot be opened.
        """
        text = read_regular(file).decode("ascii", errors="replace")
        lines = [line.split() for line in text.splitlines()]
        name = ["name", str(camera)]
        if not text.startswith(FIRST_LINE) or name not in lines:
            raise RawDataError(file, "name", f"a block of camera {camera}", "none", AGAIN)
        start = lines.index(name)
        block = {words[0]: _numbers(words[1:]) for words in lines[start : start + 7] if words}
        stored = StoredArrays(file, block, AGAIN)
        intrinsics = stored.take("intrinsic", 16, finite=True).reshape(4, 4)[:3, :3]
        width, height = stored.take("size", 2, finite=True)
        extrinsics = stored.take("extrinsic", 16, finite=True).reshape(4, 4)
        extrinsics[:3, 3] /= 1000
        world_to_camera = None
        if is_rigid(extrinsics[None])[0]:
            world_to_camera = extrinsics.astype(np.float32)
        size = int(width), int(height)
        return cls(size, intrinsics.astype(np.float32), world_to_camera)


def _numbers(words: Sequence[str]) -> list[float]:
    """The numbers of a line; none if one of its words is no number."""
    try:
        return [float(word) for word in words]
    except ValueError:
        return []
