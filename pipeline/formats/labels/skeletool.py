"""Skeletool's camera.calibration, as MPI-INF-3DHP has it.  [raw] -> tracks -> features -> windows

After the first line every camera has a block of 7 lines, each a name and its numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RawDataError
from pipeline.raw.files import read_regular

FIRST_LINE: Final = "Skeletool Camera Calibration File V1.0"
LARGEST: Final = 1e7


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """One camera."""

    intrinsics: NDArray[np.float32]  # (3, 3) px
    size: tuple[int, int]  # width, height px, of the pictures that the labels fit


def read_calibration(file: Path, camera: int, *, do: str) -> Calibration:
    """The camera of that name. Raises RawDataError, OSError where the file cannot be opened."""
    text = read_regular(file).decode("ascii", errors="replace")
    lines = [line.split() for line in text.splitlines()]
    start = next((i for i, words in enumerate(lines) if words == ["name", str(camera)]), None)
    if not text.startswith(FIRST_LINE) or start is None:
        raise RawDataError(file, "name", expected=f"a block of camera {camera}", found="none", do=do)
    block = {words[0]: words[1:] for words in lines[start : start + 7] if words}

    def numbers(key: str, n: int) -> list[float]:
        words = block.get(key, [])
        try:
            values = [float(word) for word in words]
        except ValueError:
            values = []
        if len(values) != n or not all(abs(value) < LARGEST for value in values):  # comparisons with NaN are false
            raise RawDataError(file, key, expected=f"{n} numbers", found=" ".join(words)[:80] or "none", do=do)
        return values

    matrix = np.array(numbers("intrinsic", 16)).reshape(4, 4)[:3, :3]
    width, height = numbers("size", 2)
    return Calibration(matrix.astype(np.float32), (int(width), int(height)))
