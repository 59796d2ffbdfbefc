"""A track's labels by one protocol, the errors of its frames, and their means.  features -> windows
-> [evaluation]

`frame_errors.Scorer` makes one `Truth` and one `TrackErrors` for each track and protocol, and adds
the errors to the protocol's `Means` of the split.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Final, Self

import numpy as np

from pipeline.people.skeletons import Bools, Doubles, Floats
from vibe_model.evaluation.protocols import Labels, Protocol
from vibe_model.metrics import Metric

# error -> (F,), or (F, parts) by `Metric.parts`; nan where a frame has none
ByFrame = Mapping[str, Doubles]

OWN: Final = "own"  # errors of the prediction
BASELINE: Final = "baseline"  # errors of the constant mean body
MODELS: Final = (OWN, BASELINE)
ROUNDED: Final = ("joints", "kp_2d", "theta")  # labels to round, for `Protocol.round_labels`


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """Labels of F frames by a protocol."""

    protocol: Protocol
    labels: Labels
    kp_2d: Floats  # (F, 49, 3) in the crop, confidence; 0 for keypoints that do not count
    counted: Bools  # (F,) frames with counted 3D labels

    @property
    def reads_keypoints(self) -> Bools:
        """Whether each frame has a keypoint that counts, (F,)."""
        return np.asarray((self.kp_2d[..., 2] > 0).any(axis=1))

    @property
    def reads_joints(self) -> Bools:
        """Whether each frame's predicted joints are read, (F,): where labels count, or everywhere
        if a metric reads the prediction alone.
        """
        reads = [metric.reads for metric in self.protocol.metrics.values()]
        return self.counted | ("prediction" in reads)

    @classmethod
    def from_labels(cls, protocol: Protocol, labels: Labels) -> Self:
        """Apply a protocol's rules to labels."""
        if protocol.round_labels:
            for name in ROUNDED:
                rounded = getattr(labels, name).astype(np.float16).astype(np.float32)
                labels = labels._replace(**{name: rounded})
        rows = protocol.rows(labels)
        rows_2d = protocol.rows_2d(labels)
        kp_2d = np.where(rows_2d[:, None, None], labels.kp_2d, np.float32(0))
        if protocol.truth == "smplx":
            return cls(protocol, labels._replace(joints=labels.smplx_joints), kp_2d, rows)
        counted = rows & (labels.has_smpl if protocol.truth == "body" else labels.has_3d)
        return cls(protocol, labels, kp_2d, counted)


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
    metrics: Mapping[str, Metric]  # by error


@dataclass(slots=True)
class Means:
    """Running means over frames, or over the means of groups (tracks, videos).

    Example: {("own", "mpjpe"): {"S9": (81230.0, 1021.0), "S11": (60110.0, 901.0)}} has two groups.
    Sums of errors in parts are arrays (parts,).
    """

    metrics: Mapping[str, Metric]  # by error

    predicted: int = 0  # frames
    counted: int = 0  # frames with counted 3D labels
    counted_2d: int = 0  # frames with counted 2D labels
    # by (model, error) and group: weighted sum, sum of weights
    sums: dict[tuple[str, str], dict[str, tuple[Any, float]]] = field(default_factory=dict)

    def add(self, errors: TrackErrors, group: str = "") -> Self:
        """Add frames of a track to a group. All groups have the same weight."""
        keypoints = errors.keypoints
        self.predicted += len(keypoints)
        self.counted += int(errors.counted.sum())
        self.counted_2d += int((keypoints > 0).sum())
        for model, by_frame in errors.models.items():
            for name, by_name in by_frame.items():
                metric = self.metrics[name]
                is_nan = np.isnan(by_name).reshape(len(by_name), metric.parts)
                has_value = ~is_nan.any(axis=1)
                values = by_name[has_value]
                weights = np.ones(len(values))
                if metric.by_keypoint:
                    weights = keypoints[has_value]
                groups = self.sums.setdefault((model, name), {})
                total, weight = groups.get(group, (0.0, 0.0))
                total = total + (weights * values.T).sum(axis=-1)  # (parts,)
                weight += float(weights.sum())
                groups[group] = (total, weight)
        return self

    def by_error(self, model: str = OWN) -> dict[str, float]:
        """Each error of a model, as `Metric.reduce` makes it of the means; errors without any value
        are missing.
        """
        by_error = {}
        for (summed_model, name), groups in self.sums.items():
            group_means = [np.ravel(total / weight) for total, weight in groups.values() if weight]
            if summed_model == model and group_means:
                means = np.array([fmean(of_part) for of_part in np.transpose(group_means)])
                by_error[name] = float(self.metrics[name].reduce(means))
        return by_error
