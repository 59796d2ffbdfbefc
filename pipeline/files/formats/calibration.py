"""MPI-INF-3DHP's camera.calibration: text, a block of 7 lines a camera.  [raw] -> tracks ->
features -> windows
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.cameras import is_rigid
from pipeline.errors import RawDataError
from pipeline.files.raw.files import read_regular

FIRST_LINE: Final = "Skeletool Camera Calibration File V1.0"
LARGEST: Final = 1e7
AGAIN: Final = "Download it again, with the release's get_dataset.sh."


def read_calibration(
    file: Path, camera: int
) -> tuple[tuple[int, int], NDArray[np.float32], NDArray[np.float32] | None]:
    """Width and height (px) of the images that the labels fit, (3, 3) intrinsics (px), (4, 4) world
    to camera (m).

    The last is None if it is invalid. Raises RawDataError, and OSError if the file cannot be
    opened.
    """
    text = read_regular(file).decode("ascii", errors="replace")
    lines = [line.split() for line in text.splitlines()]
    start = next((i for i, words in enumerate(lines) if words == ["name", str(camera)]), None)
    if not text.startswith(FIRST_LINE) or start is None:
        raise RawDataError(file, "name", f"a block of camera {camera}", "none", AGAIN)
    block = {words[0]: words[1:] for words in lines[start : start + 7] if words}

    def values_of(key: str, n: int) -> list[float]:
        words = block.get(key, [])
        try:
            values = [float(word) for word in words]
        except ValueError:
            values = []
        # comparisons with NaN are false
        if len(values) != n or not (np.abs(values) < LARGEST).all():
            raise RawDataError(file, key, f"{n} numbers", " ".join(words)[:80] or "none", AGAIN)
        return values

    matrix = np.array(values_of("intrinsic", 16)).reshape(4, 4)[:3, :3]
    width, height = values_of("size", 2)
    extrinsics = np.array(values_of("extrinsic", 16)).reshape(4, 4)
    extrinsics[:3, 3] /= 1000
    rigid = is_rigid(extrinsics[None])[0]
    return (
        (int(width), int(height)),
        matrix.astype(np.float32),
        extrinsics.astype(np.float32) if rigid else None,
    )
