"""Metrics of predictions.  features -> windows -> training -> [evaluation]

The functions to call are public: `mpjpe`, `pa_mpjpe`, `accel`, `pck`, ... Joints are `common14` in
m; MPJPE, PCK, AUC and accelerations centre both bodies on the hips. Arrays are NumPy; results are
float64, in mm (accelerations: mm per frame^2) or %.

`METRICS` is the table that evaluation protocols use. Its functions return a number for each frame,
and do not centre: evaluation gives them joints about the protocol's root (`Protocol.root`), which
need not be the hips. Public functions call the same ones, after centring.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from pipeline.errors import require_options
from pipeline.people.skeletons import (
    JOINTS,
    Array,
    Bools,
    Doubles,
    Floats,
    corners_of,
)
from vibe_model.alignment import aligned_distances
from vibe_model.alignment import normalise_13 as normalise_13
from vibe_model.alignment import procrustes_align as procrustes_align

Reads = Literal[
    "joints", "placed joints", "vertices", "vertices at rest", "keypoints", "prediction"
]
# "as labels": the best prediction has the number of its labels
Better = Literal["lower", "higher", "as labels"]


def _mean_of_parts(means: Doubles) -> float:
    """The mean (parts,) -> a number."""
    return float(means.mean())


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How to compute and show one number of a protocol.

    `of` gets predicted and true arrays of N counted frames, in m. It returns (N - span + 1,)
    numbers in `unit`, or (N - span + 1, parts); NaN: no number for this frame. The result is
    `reduce` of the means (parts,) over frames. `reads` says which arrays:

    - "joints": (N, J, 3) about the protocol's root; "placed joints": not centred
    - "vertices": (N, 6890, 3) float32, in pieces of a track; "vertices at rest": unposed
    - "keypoints": (N, 49, 2) and, with confidence, (N, 49, 3) over the crop, of frames with counted
      2D labels
    - "prediction": (N, J, 3) predicted joints, twice, of all predicted frames
    """

    title: str
    unit: str
    meaning: str  # for the report's list of columns
    of: Callable[[Floats, Floats], Floats]
    protocols: tuple[str, ...] = ("default",)  # names; "published" has those of "default"
    better: Better = "lower"
    reads: Reads = "joints"
    span: int = 1  # successive frames per number: 3 for an acceleration
    parts: int = 1  # numbers of each frame: 14 for an error of each joint
    # (parts,) -> a number: np.max for the worst joint
    reduce: Callable[[Doubles], Any] = _mean_of_parts
    by_keypoint: bool = False  # mean over labelled keypoints, not over frames
    # Tables for the terminal, which are narrow, are without it beside this metric; "": never.
    gives_way_to: str = ""
    in_ablation: bool = False  # whether VIBE's paper has it in its table of ablations

    def __post_init__(self) -> None:
        require_options(self)

    @property
    def direction(self) -> str:
        """The words for `better`."""
        return _DIRECTIONS[self.better]

    def unknown(self, n_frames: int) -> Doubles:
        """NaN in the shape of the numbers of N frames: (N,), or (N, parts)."""
        shape = (n_frames,) if self.parts == 1 else (n_frames, self.parts)
        return np.full(shape, np.nan)


_DIRECTIONS: Final[Mapping[Better, str]] = {
    "lower": "Lower is better",
    "higher": "Higher is better",
    "as labels": "It should be close to that of the labels",
}
MM_PER_FRAME2: Final = "mm per frame²"
UNITS: Final = "Mean errors over frames in mm, accelerations in mm per frame², PCK and AUC in %"
_UNITS_2D: Final = "2D keypoints alone: PCK in %. Nothing measures depth"

HIPS: Final = [JOINTS["common14"].index(name) for name in ("rhip", "lhip")]
PCK_THRESHOLD_MM: Final = 150.0
AUC_THRESHOLDS_MM: Final = np.arange(0.0, 151.0, 5.0)
PCK_2D_SHARE: Final = 0.05  # of the larger side of the tight box
FEWEST_VISIBLE: Final = 6  # keypoints per frame for the aligned PCK
# Share of the person's diagonal. HMMR's authors allow 0.05 of their crop of 224 px, in which the
# person's diagonal is 150 px.
PCK_ALIGNED_SHARE: Final = 0.05 * 224 / 150
_MM: Final = 1000.0


def units_of(errors: Iterable[Container[str]]) -> str:
    """The text on units below a table. errors: the names of the metrics in each row."""
    has_3d = any("mpjpe" in row for row in errors)
    return UNITS if has_3d else _UNITS_2D


def describe_directions(metrics: Iterable[Metric]) -> str:
    """Which numbers are better, in a sentence for each direction.

    >>> describe_directions([METRICS["pve"], METRICS["mpjpe"], METRICS["pck"]])
    'Lower is better: PVE, MPJPE. Higher is better: PCK.'
    """
    known = list(metrics)
    sentences = []
    for better, words in _DIRECTIONS.items():
        titles = [metric.title for metric in known if metric.better == better]
        if titles:
            sentences.append(f"{words}: {', '.join(titles)}.")
    return " ".join(sentences)


def mpjpe(pred: Floats, target: Floats) -> Doubles:
    """Mean per-joint position error after centring on the hips. (N, 14, 3) m -> (N,) mm."""
    return _position_error(_centre_on_hips(pred), _centre_on_hips(target))


def _position_error(pred: Floats, target: Floats) -> Doubles:
    """Mean distance of joints, not centred. (N, J, 3) m -> (N,) mm."""
    return _mean(_joint_errors(pred, target))


def pa_mpjpe(pred: Floats, target: Floats) -> Doubles:
    """Mean per-joint position error after the best similarity alignment. (N, J, 3) m -> (N,) mm."""
    return _mean(_joint_errors(procrustes_align(pred, target), target))


def np_mpjpe(pred: Floats, target: Floats) -> Doubles:
    """Normalised Procrustes-aligned MPJPE (Sun et al., ECCV 2020): (N, 13, 3) in any unit -> (N,)
    in torso sizes.

    Joints are KEYPOINTS_13. Both poses are normalised (`normalise_13`), then `pred` is aligned by
    the best similarity; the error is not symmetric.
    """
    source = normalise_13(pred)
    goal = normalise_13(target)
    aligned = procrustes_align(source, goal)
    return _mean(np.linalg.norm(aligned - goal, axis=-1))


def pve(pred: Floats, target: Floats) -> Doubles:
    """Mean per-vertex error, not centred. (N, V, 3) m -> (N,) mm. Distances have the arrays'
    precision.
    """
    apart = pred - target
    squared = np.einsum("...c,...c->...", apart, apart)
    errors: Doubles = _MM * np.sqrt(squared).mean(-1, dtype=np.float64)
    return errors


def accel(pred: Floats, target: Floats | None = None) -> Doubles:
    """Mean norm of the prediction's second differences, about the hips. (N, 14, 3) m -> (N - 2,) mm
    per frame^2.

    Frames must be neighbours. `target` is ignored: all metrics have the same arguments.
    """
    return _accel_in_place(_centre_on_hips(pred), target)


def accel_error(pred: Floats, target: Floats) -> Doubles:
    """Mean distance of predicted and true acceleration, about the hips. (N, 14, 3) m -> (N - 2,) mm
    per frame^2.
    """
    return _acceleration_error(_centre_on_hips(pred), _centre_on_hips(target))


def _accel_in_place(joints: Floats, target: Floats | None = None) -> Doubles:
    """Mean norm of second differences, not centred, as HMMR is evaluated. (N, J, 3) m -> (N - 2,)
    mm per frame^2.
    """
    del target
    acceleration = np.linalg.norm(_second_difference(joints), axis=-1)
    return _mean(_MM * acceleration)


def _acceleration_error(pred: Floats, target: Floats) -> Doubles:
    """Mean distance of second differences, not centred. (N, J, 3) m -> (N - 2,) mm per frame^2."""
    return _mean(_joint_errors(_second_difference(pred), _second_difference(target)))


def pck(pred: Floats, target: Floats, threshold_mm: float = PCK_THRESHOLD_MM) -> float:
    """Share of joints with an error below the threshold, about the hips, in %. (N, 14, 3) m; nan
    for N = 0.
    """
    return _mean_or_nan(_pck_by_frame(_centre_on_hips(pred), _centre_on_hips(target), threshold_mm))


def auc(pred: Floats, target: Floats) -> float:
    """Mean PCK over thresholds of 0, 5, ..., 150 mm, in %. (N, 14, 3) m; nan for N = 0."""
    return _mean_or_nan(_auc_by_frame(_centre_on_hips(pred), _centre_on_hips(target)))


def _pck_by_frame(pred: Floats, target: Floats, threshold_mm: float = PCK_THRESHOLD_MM) -> Doubles:
    """Each frame's share of joints with an error below the threshold, not centred. (N, J, 3) m ->
    (N,) %.
    """
    return 100 * _mean(_joint_errors(pred, target) < threshold_mm)


def _auc_by_frame(pred: Floats, target: Floats) -> Doubles:
    """Each frame's mean PCK over thresholds of 0, 5, ..., 150 mm, not centred. (N, J, 3) m -> (N,)
    %.
    """
    errors = _joint_errors(pred, target)
    shares: Doubles = np.mean(
        [100 * _mean(errors < threshold) for threshold in AUC_THRESHOLDS_MM], axis=0
    )
    return shares


def hits_2d(pred: Floats, target: Floats, share: float = PCK_2D_SHARE) -> tuple[Doubles, Doubles]:
    """Numbers of correct and of counted keypoints by frame: (N, J, 2), (N, J, 3) -> (N,), (N,).

    pred, target: in the same unit. Labelled keypoints (confidence above 0) count. They are correct
    within `share` of the larger side of the tight box about the frame's labelled keypoints, bound
    included. No keypoint counts in a frame whose box has no extent.
    """
    points = target[..., :2].astype(np.float64)
    labelled = target[..., 2] > 0
    side = _extents(points, labelled).max(axis=-1)  # (N,)
    labelled &= (side > 0)[:, None]
    distance = np.linalg.norm(pred.astype(np.float64) - points, axis=-1)  # (N, J)
    is_correct = labelled & (distance <= share * side[:, None])
    hits = is_correct.sum(-1).astype(np.float64)
    counted = labelled.sum(-1).astype(np.float64)
    return hits, counted


def _pck_2d_by_frame(pred: Floats, target: Floats) -> Doubles:
    """Each frame's share of correct keypoints (`hits_2d`): (N, J, 2), (N, J, 3) -> (N,) %; nan for
    none.
    """
    hits, counted = hits_2d(pred, target)
    return _divide_or_nan(100 * hits, counted)


def _error_2d(pred: Floats, target: Floats) -> Doubles:
    """Each frame's mean distance of labelled keypoints over the crop: (N, J, 2), (N, J, 3) -> (N,)
    % of its side.
    """
    labelled = target[..., 2] > 0
    apart = pred.astype(np.float64) - target[..., :2]
    distance = 50 * np.linalg.norm(apart, axis=-1)  # %: the side is 2
    total = np.where(labelled, distance, 0).sum(-1)
    return _divide_or_nan(total, labelled.sum(-1))


def pck_aligned(
    pred_2d: Floats,
    target_2d: Floats,
    visible: Array,
    alpha: float = 0.05,
    size: float = 224,
) -> float:
    """Mean of `_pck_aligned_by_frame` over frames with at least 6 visible points, %; nan without
    any.
    """
    share = _pck_aligned_by_frame(pred_2d, target_2d, visible, alpha, size)
    return _mean_or_nan(share[~np.isnan(share)])


def _pck_aligned_by_frame(
    pred_2d: Floats,
    target_2d: Floats,
    visible: Array,
    alpha: float,
    size: float | Floats,
) -> Doubles:
    """Each frame's share of correct keypoints, after a 2D scale and translation: (N,) %, nan for
    skipped frames.

    pred_2d, target_2d: (N, J, 2) px; visible: (N, J), points above 0 count. The scale is half the
    trace of the best 2 x 2 map. Correct: closer than alpha * size px (of all frames, or (N,) of
    each), as HMMR is evaluated (Kanazawa et al., CVPR 2019, section 6.1, and eval_util.py of
    human_dynamics). Frames with fewer than 6 visible points: skipped.
    """
    labelled = visible > 0  # (N, J)
    distance = aligned_distances(pred_2d, target_2d, labelled)
    bound = alpha * np.reshape(size, (-1, 1))
    is_correct = (distance < bound) & labelled
    return _divide_or_nan(100 * is_correct.sum(-1), labelled.sum(-1), fewest=FEWEST_VISIBLE)


def _pck_aligned_to_person(pred: Floats, target: Floats) -> Doubles:
    """`_pck_aligned_by_frame` within 7.5 % of each person's own diagonal: (N, J, 2), (N, J, 3) ->
    (N,) %.
    """
    points = target[..., :2]
    labelled = target[..., 2] > 0
    sides = _extents(points.astype(np.float64), labelled)
    sides = np.maximum(sides, 0.0)  # -inf without a labelled point
    diagonal = np.linalg.norm(sides, axis=-1)
    return _pck_aligned_by_frame(pred, points, labelled, PCK_ALIGNED_SHARE, diagonal)


def _centre_on_hips(joints: Floats) -> Doubles:
    """(..., 14, 3) -> (..., 14, 3) about the midpoint of both hips. Raises ValueError for other
    joints.
    """
    if joints.shape[-2:] != (14, 3):
        raise ValueError(f"joints: expected common14, (..., 14, 3), found {joints.shape}")
    joints = joints.astype(np.float64)
    middle = joints[..., HIPS, :].mean(axis=-2, keepdims=True)
    centred: Doubles = joints - middle
    return centred


def _extents(points: Doubles, labelled: Bools) -> Doubles:
    """Sides of the tight box about each frame's labelled points: (N, J, 2), (N, J) -> (N, 2); -inf
    without any.
    """
    corners = corners_of(points, labelled)
    return corners[:, 1] - corners[:, 0]


def _second_difference(joints: Floats) -> Doubles:
    """Second difference over frames: (N, J, 3) -> (N - 2, J, 3); (0, J, 3) if N is below 3."""
    return np.diff(joints.astype(np.float64), n=2, axis=0)


def _joint_errors(pred: Floats, target: Floats) -> Doubles:
    """Distance of each joint: (N, J, 3) m -> (N, J) mm."""
    apart = pred.astype(np.float64) - target.astype(np.float64)
    errors: Doubles = _MM * np.linalg.norm(apart, axis=-1)
    return errors


def _divide_or_nan(sums: Array, counts: Array, *, fewest: int = 1) -> Doubles:
    """Quotients (N,); nan for counts below `fewest`."""
    unknown = np.full(len(sums), np.nan)
    quotients: Doubles = np.divide(sums, counts, out=unknown, where=counts >= fewest)
    return quotients


def _mean(values: Doubles | Bools) -> Doubles:
    mean: Doubles = values.mean(-1)
    return mean


def _mean_or_nan(values: Doubles) -> float:
    return float(values.mean()) if len(values) else float("nan")


# By their names in metrics.json, in the order of tables. Joints are about the protocol's root, so
# that MPJPE is the `_position_error` of these.
METRICS: Final[Mapping[str, Metric]] = {
    "pa_mpjpe": Metric(
        title="PA-MPJPE",
        unit="mm",
        meaning="mean distance of 14 joints (both ankles, knees, hips, wrists, elbows and "
        "shoulders, the neck and the top of the head) from the labels, after the best rotation, "
        "scale and translation of each frame: the error of the pose only.",
        of=pa_mpjpe,
        protocols=("default", "emdb", "hmmr"),
        reads="placed joints",
        in_ablation=True,
    ),
    "mpjpe": Metric(
        title="MPJPE",
        unit="mm",
        meaning="the same distance with both bodies centred on the midpoint of their hips, without "
        "rotation or scale.",
        of=_position_error,
        protocols=("default", "emdb", "hmmr"),
        in_ablation=True,
    ),
    "pve": Metric(
        title="PVE",
        unit="mm",
        meaning="mean distance of all vertices of the body's surface, not centred.",
        of=pve,
        protocols=("default", "emdb", "hmmr"),
        reads="vertices",
        in_ablation=True,
    ),
    "pve_unposed": Metric(
        title="PVE unposed",
        unit="mm",
        meaning="the same distance of both bodies at rest: the error of the shape only.",
        of=pve,
        protocols=("hmmr",),
        reads="vertices at rest",
    ),
    "accel": Metric(
        title="accel",
        unit=MM_PER_FRAME2,
        meaning="acceleration of the prediction: the second difference of the joints over frames. "
        "It should be close to that of the labels; a body that never moves has 0.",
        of=_accel_in_place,
        better="as labels",
        span=3,
        in_ablation=True,
    ),
    "accel_error": Metric(
        title="accel error",
        unit=MM_PER_FRAME2,
        meaning="mean distance of the prediction's acceleration from that of the labels. Jitter "
        "increases it.",
        of=_acceleration_error,
        protocols=("default", "hmmr"),
        span=3,
        in_ablation=True,
    ),
    "pck": Metric(
        title="PCK",
        unit="%",
        meaning=f"share of joints within {PCK_THRESHOLD_MM:.0f} mm, with both bodies centred on "
        "the hips.",
        of=_pck_by_frame,
        better="higher",
        gives_way_to="pve",
    ),
    "auc": Metric(
        title="AUC",
        unit="%",
        meaning=f"mean of that share over thresholds of 0, 5, ..., {AUC_THRESHOLDS_MM[-1]:.0f} mm.",
        of=_auc_by_frame,
        better="higher",
        gives_way_to="pve",
    ),
    "pck_2d": Metric(
        title="PCK 2D",
        unit="%",
        meaning=f"share of labelled 2D keypoints within {PCK_2D_SHARE:g} of the longer side of the "
        "keypoints' tight box.",
        of=_pck_2d_by_frame,
        better="higher",
        reads="keypoints",
        by_keypoint=True,
        gives_way_to="mpjpe",
    ),
    "pck_aligned": Metric(
        title="PCK aligned",
        unit="%",
        meaning=f"share of labelled 2D keypoints within {PCK_ALIGNED_SHARE:.3f} of the diagonal of "
        "their tight box, after the best scale and translation of each frame.",
        of=_pck_aligned_to_person,
        protocols=("hmmr",),
        better="higher",
        reads="keypoints",
    ),
}
# metrics by which epochs are compared, by their names in metrics.json: on 3D labels, or on 2D
# labels if there are none
SCORES: Final[Mapping[str, Metric]] = {
    "pa_mpjpe": METRICS["pa_mpjpe"],
    "error_2d": Metric(
        title="2D error",
        unit="%",
        meaning="mean distance of labelled 2D keypoints, in % of the crop's side.",
        of=_error_2d,
        reads="keypoints",
        by_keypoint=True,
    ),
}


def score_text(numbers: Mapping[str, Any]) -> str:
    """The score of an epoch, for messages.

    >>> score_text({"epoch": 3, "error_2d": 4.25})
    '2D error 4.2 %'
    """
    scores = [
        f"{score.title} {numbers[name]:.1f} {score.unit}"
        for name, score in SCORES.items()
        if name in numbers
    ]
    return ", ".join(scores)
