"""Compute features of rendered crops, to standardise them, or to compare fast with exact ones."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from cache import CropPolicy
from cache.arrays import Doubles
from pipeline.errors import ConfigError
from pipeline.features.networks.backbones import fold_batch_norms
from pipeline.features.networks.base import Loaded, Network
from pipeline.features.networks.calibration_crops import CALIBRATION_CROPS, calibration_crops
from pipeline.features.networks.cpu import CpuNetwork
from pipeline.features.streams.base import Machine, Standardisation

COMPARED_CROPS: Final = 4  # rendered crops that compare fast features with exact ones
LEAST_DEVIATION: Final = 0.1  # a guess; of the median one: some are 0 in these crops alone
LEAST_COSINE: Final = 0.9999  # between fast and exact features


def statistics(loaded: Loaded) -> Standardisation:
    """Mean and standard deviation of each feature of a ResNet-50 over rendered crops, rounded so
    that JSON stores them exactly.
    """
    exact = CpuNetwork(fold_batch_norms(loaded), Machine(), "exact")
    crops = _crops_of_size(CALIBRATION_CROPS, loaded.region)
    features = exact.compute_crops(crops).astype(np.float64)
    std = features.std(axis=0, ddof=1)
    std = std.clip(min=LEAST_DEVIATION * np.median(std))
    return Standardisation(_round(features.mean(axis=0)), _round(std))


def _round(numbers: Doubles) -> tuple[float, ...]:
    return tuple(float(f"{number:.6g}") for number in numbers)


def require_close(exact: Network, fast: Network, name: str) -> None:
    """Raise ConfigError if fast features of some rendered crop differ too much from exact ones."""
    crops = _crops_of_size(COMPARED_CROPS, exact.region)
    exact_features = exact.compute_crops(crops).astype(np.float64)
    fast_features = fast.compute_crops(crops).astype(np.float64)
    lengths = np.linalg.norm(exact_features, axis=1) * np.linalg.norm(fast_features, axis=1)
    cosines = (exact_features * fast_features).sum(axis=1) / lengths
    lowest = float(cosines.min())
    if not lowest >= LEAST_COSINE:  # also if it is NaN
        raise ConfigError(
            f"precision fast: {name} in bf16 differs too much from fp32: the smallest cosine "
            f"over {COMPARED_CROPS} rendered crops is {lowest:.6f}, expected at least "
            f"{LEAST_COSINE}. Set precision = exact."
        )


def _crops_of_size(n: int, region: tuple[int, int]) -> NDArray[np.uint8]:
    """The first n crops of people (n, height, width, 3), with the size of `region`: they are
    resized to its longer side, and the centre is cut out.
    """
    side = max(region)
    crops = calibration_crops(n)
    if side != crops.shape[1]:
        crops = np.stack([cv2.resize(crop, (side, side)) for crop in crops]).astype(np.uint8)
    rows, columns = CropPolicy(size=side, region=region).slices
    return np.ascontiguousarray(crops[:, rows, columns])
