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

from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.cameras import is_rigid
from pipeline.errors import RawDataError
from pipeline.files.raw.files import read_regular

FIRST_LINE: Final = "Skeletool Camera Calibration File V1.0"
LARGEST: Final = 1e7  # all numbers of a camera are smaller
AGAIN: Final = "Download it again, with the release's get_dataset.sh."


class Calibration(NamedTuple):
    """One camera."""

    size: tuple[int, int]  # width and height (px) of the images that the labels fit
    intrinsics: NDArray[np.float32]  # (3, 3), px
    extrinsics: NDArray[np.float32] | None  # (4, 4), world to camera, m; None if they are invalid

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
        block = {words[0]: words[1:] for words in lines[start : start + 7] if words}

        def values_of(key: str, n: int) -> list[float]:
            words = block.get(key, [])
            try:
                values = [float(word) for word in words]
            except ValueError:
                values = []
            are_small = (np.abs(values) < LARGEST).all()  # comparisons with NaN are false
            if len(values) != n or not are_small:
                raise RawDataError(file, key, f"{n} numbers", f"{len(words)} words", AGAIN)
            return values

        intrinsics = np.array(values_of("intrinsic", 16)).reshape(4, 4)[:3, :3]
        width, height = values_of("size", 2)
        extrinsics = np.array(values_of("extrinsic", 16)).reshape(4, 4)
        extrinsics[:3, 3] /= 1000
        world_to_camera = None
        if is_rigid(extrinsics[None])[0]:
            world_to_camera = extrinsics.astype(np.float32)
        size = int(width), int(height)
        return cls(size, intrinsics.astype(np.float32), world_to_camera)
