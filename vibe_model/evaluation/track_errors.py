"""The errors of a track's frames, and their means.  features -> windows -> [evaluation]

`frame_errors.Scorer` makes one `TrackErrors` for each track and protocol, and adds it to the
protocol's `Means` of the split.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Final, Self

import numpy as np

from pipeline.skeletons import Bools, Doubles

ByFrame = Mapping[str, Doubles]  # error -> (F,), nan where a frame has none

OWN: Final = "own"  # errors of the prediction
BASELINE: Final = "baseline"  # errors of the constant mean body


@dataclass(frozen=True, slots=True, eq=False)
class TrackErrors:
    """Errors of F predicted frames of one track by one protocol, in row order.

    An acceleration belongs to the middle of its three frames; with `successive` "track" or "split",
    to the last one.
    """

    counted: Bools  # (F,) frames with counted 3D labels
    keypoints: Doubles  # (F,) numbers of counted 2D keypoints
    # by model (OWN, BASELINE) and error, such as {"own": {"mpjpe": (F,)}, "baseline": {...}}
    models: Mapping[str, ByFrame]
    by_keypoint: frozenset[str] = frozenset({"pck_2d"})  # errors with a mean over keypoints


@dataclass(slots=True)
class Means:
    """Running means over frames, or over the means of groups (tracks, videos).

    Example: {("own", "mpjpe"): {"S9": (81230.0, 1021.0), "S11": (60110.0, 901.0)}} has two groups.
    """

    predicted: int = 0  # frames
    counted: int = 0  # frames with counted 3D labels
    counted_2d: int = 0  # frames with counted 2D labels
    # by (model, error) and group: weighted sum, sum of weights
    sums: dict[tuple[str, str], dict[str, tuple[float, float]]] = field(default_factory=dict)

    def add(self, errors: TrackErrors, group: str = "") -> Self:
        """Add frames of a track to a group. All groups have the same weight."""
        keypoints = errors.keypoints
        self.predicted += len(keypoints)
        self.counted += int(errors.counted.sum())
        self.counted_2d += int((keypoints > 0).sum())
        for model, by_frame in errors.models.items():
            for name, by_name in by_frame.items():
                has_value = ~np.isnan(by_name)
                values = by_name[has_value]
                weights = np.ones(len(values))
                if name in errors.by_keypoint:
                    weights = keypoints[has_value]
                groups = self.sums.setdefault((model, name), {})
                total, weight = groups.get(group, (0.0, 0.0))
                total += float((weights * values).sum())
                weight += float(weights.sum())
                groups[group] = (total, weight)
        return self

    def by_error(self, model: str = OWN) -> dict[str, float]:
        """Mean of each error of a model; errors without any value are missing."""
        means = {}
        for (summed_model, name), groups in self.sums.items():
            group_means = [total / weight for total, weight in groups.values() if weight]
            if summed_model == model and group_means:
                means[name] = fmean(group_means)
        return means
