"""Crops of rendered people, to calibrate networks with random weights.

They are in a file, so that features do not depend on how demo data are rendered today.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

CALIBRATION_CROPS: Final = 96  # in the file, 12 in each row
COLUMNS: Final = 12
CROP_PX: Final = 224


def calibration_crops(n: int) -> NDArray[np.uint8]:
    """The first n of 96 crops (n, 224, 224, 3) RGB of people with random shapes and poses.

    Raises ValueError for more than 96.
    """
    if n > CALIBRATION_CROPS:
        raise ValueError(f"expected at most {CALIBRATION_CROPS} calibration crops, found {n}")
    data = np.fromfile(Path(__file__).with_suffix(".png"), np.uint8)
    sheet = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), np.uint8)
    rows = sheet.reshape(-1, CROP_PX, COLUMNS, CROP_PX, 3)
    crops = rows.swapaxes(1, 2).reshape(-1, CROP_PX, CROP_PX, 3)
    return crops[:n]
