"""Protocols: the rules of comparing predictions with labels.  training -> [evaluation]

A `Protocol` says which frames count, which joints are compared, and by which metrics; `PROTOCOLS`
lists them.

`choose` finds the protocols for a split, and `evaluation.evaluate` applies them. Tables and reports
read the results by `by_protocol` and `table_metrics`. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np

from pipeline.errors import PipelineError, did_you_mean, require_options
from pipeline.people.estimates import estimates_of
from pipeline.people.skeletons import JOINTS, Bools, Doubles, Floats, correspondence
from vibe_model.metrics import FEWEST_VISIBLE, METRICS, SCORES, Metric

if TYPE_CHECKING:
    from cache import Split


KEYPOINTS: Final = "keypoints"  # in a split's manifest and metrics: `LabelRules.keypoints_from`
# in a split's metrics: published evaluation with the same numbers
COMPARES_WITH: Final = "compares_with"
LABEL_BODY: Final = "label_body"  # in a split's metrics: genders of the bodies of its 3D labels

NEUTRAL_BODY: Final = "neutral"  # gender of every model's body

# in a split's metrics: protocols that cannot evaluate it, with reasons
LEFT_OUT: Final = "left_out"


# column of splits with SMPL-X bodies: SMPL-X's first 22 joints, which are named as SMPL's
SMPLX_JOINTS: Final = "smplx_joints"


class Labels(NamedTuple):
    """Labels of F predicted frames of one track, in row order."""

    joints: Floats  # (F, 14, 3) m common14, the split's 3D joints; 0: none
    kp_2d: Floats  # (F, 49, 3) in the crop, [-1, 1], with confidence
    theta: Floats  # (F, 85): camera 3, pose 72 (axis times angle, rad), betas 10
    has_3d: Bools  # (F,)
    has_smpl: Bools  # (F,)
    valid: Bools  # (F,)
    smplx_joints: Floats  # (F, 22, 3) m in camera axes; `joints` in a split without SMPLX_JOINTS


def _valid(labels: Labels) -> Bools:
    """The mask (F,) of frames that the dataset marks as valid for evaluation."""
    return labels.valid


def _every(labels: Labels) -> Bools:
    """The mask (F,) of all frames."""
    return np.ones_like(labels.valid)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How to compare predictions with labels."""

    name: str
    meaning: str  # one sentence, for the report's tables
    metrics: Mapping[str, Metric]  # by their names in metrics.json
    # the compared joints and their order, a key of `JOINTS`
    joints: Literal["common14", "smpl"] = "common14"
    # Ground truth of the joints. joints: the split's 3D labels, which are common14. body: joints of
    # the label's body, an SMPL body with the pose and betas of the labels. smplx: the split's
    # column SMPLX_JOINTS, compared with as many of the first joints of `joints`.
    truth: Literal["joints", "body", "smplx"] = "joints"
    # Gender of the label's body, for its joints and its vertices. declared: as the dataset's reader
    # made the 3D labels; own: the track's. The predicted body is always neutral.
    body: Literal["declared", "own"] = "declared"
    # Both bodies are moved so that the middle of these joints is at 0. Empty: they stay in place,
    # and absolute positions are compared.
    root: tuple[str, ...] = ("rhip", "lhip")
    # Whether vertices are moved like the joints. If not, they are moved only where the label's body
    # is not neutral: bodies of different genders have different origins.
    root_vertices: bool = False
    rows: Callable[[Labels], Bools] = _valid  # mask (F,) of the frames whose 3D labels count
    rows_2d: Callable[[Labels], Bools] = _valid  # mask (F,) of the frames whose keypoints count
    # Which frames follow one another, for metrics of several frames (`Metric.span`), such as an
    # acceleration. neighbours: frames that are one step apart in time. track: all counted frames of
    # a track, whatever lies between them. split: those of all tracks, as if they were one track.
    successive: Literal["neighbours", "track", "split"] = "neighbours"
    # What has the same weight in the mean: each frame; each video, whatever its number of frames. A
    # video has the frames of all its people.
    mean: Literal["frames", "videos"] = "frames"
    drop_last: bool = False  # drop frames at a track's end that do not fill a window
    round_labels: bool = False  # to float16
    # For models that predict past and future bodies: "module:name" of a function that makes the
    # function that measures them, as `vibe_model.hmmr.dynamics.bind_dynamics` does.
    dynamics: str = ""
    # A sentence that is printed below the tables: the published evaluation to compare with.
    compares_with: str = ""
    # Pattern of the splits that are evaluated by it. A protocol that is asked for by name evaluates
    # any split.
    splits: str = "*"

    def __post_init__(self) -> None:
        require_options(self)

    @property
    def root_places(self) -> list[int]:
        """Indices of the root joints among `joints`."""
        return [JOINTS[self.joints].index(name) for name in self.root]

    def subtract_root(self, joints: Floats) -> Floats:
        """Joints (N, J, 3) m relative to the middle of the root joints, in float64."""
        joints = joints.astype(np.float64)
        if not self.root:
            return joints
        root: Floats = joints[..., self.root_places, :].mean(axis=-2, keepdims=True)
        return joints - root

    def measure(self, name: str, pred: Floats, target: Floats) -> Doubles:
        """Compute the metric `name` of N frames, (N - span + 1,) or (N - span + 1, parts)."""
        metric = self.metrics[name]
        if len(pred) < metric.span:
            return metric.unknown(0)
        return np.asarray(metric.of(pred, target), np.float64)

    def genders(self, split: Split) -> tuple[str, ...]:
        """Genders of the bodies with which the protocol compares predictions.

        With `body` "declared", they are those with which the reader made the 3D labels.
        """
        if self.body == "own":
            return tuple(sorted({track.gender for track in split.tracks})) or (NEUTRAL_BODY,)
        declared = split.manifest.get("reader", {}).get("genders")
        return tuple(declared or (NEUTRAL_BODY,))

    def lacking(self, split: Split) -> str:
        """Why the protocol cannot evaluate a split; "" if it can."""
        if self.truth == "joints":
            return ""
        estimates = estimates_of(split)
        if estimates:
            return f"its bodies are {estimates}, no ground truth for protocol {self.name}"
        needed = [SMPLX_JOINTS] if self.truth == "smplx" else ["pose", "betas", "has_smpl"]
        absent = [name for name in needed if name not in split.columns]
        if absent:
            return f"it has no {', '.join(absent)}, which protocol {self.name} makes its joints of"
        return ""


def _metrics_of(protocol: str) -> dict[str, Metric]:
    return {name: metric for name, metric in METRICS.items() if protocol in metric.protocols}


DEFAULT: Final = Protocol(
    name="default",
    meaning="Every frame that is valid, labelled and has features counts once.",
    metrics=_metrics_of("default"),
)
# Rates epochs of a training whose validation splits have no 3D labels.
VALIDATION_2D: Final = replace(
    DEFAULT, metrics={"error_2d": SCORES["error_2d"], "pck_2d": METRICS["pck_2d"]}
)
PUBLISHED: Final = replace(
    DEFAULT,
    name="published",
    meaning="As the published figures were made: each track's last frames are dropped, "
    "accelerations cross from one "
    "track into the next, frames that are not valid count too, labels are rounded to float16.",
    rows=_every,
    rows_2d=_every,
    successive="split",
    drop_last=True,
    round_labels=True,
)

_MM: Final = 1000.0  # per m
_FPS: Final = 30.0  # at which accelerations are given


def _inner_accel_error(pred: Floats, target: Floats) -> Floats:
    """Acceleration error at _FPS without the first and last (WHAM). (N, J, 3) m -> (N - 4,)
    m/s^2.
    """
    return METRICS["accel_error"].of(pred, target)[1:-1] * (_FPS**2 / _MM)


# WHAM (Shin et al., CVPR 2024)
EMDB: Final = Protocol(
    name="emdb",
    meaning="WHAM's evaluation on EMDB: SMPL's 24 joints of the body of the actor's gender, "
    "relative to the middle of the hips; accelerations at 30 frames per second over the "
    "evaluated frames of a sequence without gaps, except its first and last.",
    metrics={
        **_metrics_of("emdb"),
        "accel_error_m_s2": Metric(
            title="accel error, m/s²",
            unit="m/s²",
            meaning="mean distance of the prediction's acceleration from that of the labels.",
            of=_inner_accel_error,
            span=5,
        ),
    },
    joints="smpl",
    truth="body",
    body="own",
    root=("smpl_lhip", "smpl_rhip"),
    root_vertices=True,
    successive="track",
    compares_with="WHAM's numbers (lib/eval/evaluate_emdb.py). GVHMR's differ: they use the "
    "neutral body's regressor for all labels, and all accelerations. Both use every frame of "
    "good_frames_mask; here frames without a valid box are not evaluated",
    splits="emdb/*",
)

RICH: Final = replace(
    EMDB,
    name="rich",
    meaning="SMPL-X's first 22 joints of the body of the actor's gender, compared with SMPL's of "
    "the same names, relative to the middle of the hips; accelerations as for EMDB.",
    metrics={name: metric for name, metric in EMDB.metrics.items() if name != "pve"},
    truth="smplx",
    root_vertices=False,
    compares_with="No published numbers: WHAM and GVHMR convert RICH's bodies to SMPL first",
    splits="rich/*",
)


_COMMON_14: Final = correspondence("spin49", "common14")[0]
# OpenPose's joints in common14's order, -1 for the top of the head.
_OPENPOSE_14: Final = np.array(
    [JOINTS["spin49"].index(f"OP {name[:2].upper()}{name[2:]}") for name in JOINTS["common14"][:12]]
    + [JOINTS["spin49"].index("OP Neck"), -1]
)


def _enough_seen(labels: Labels) -> Bools:
    """(F,) whether more than 6 of the 14 joints are visible; always true for tracks without 2D
    labels.
    """
    visible = (labels.kp_2d[..., 2] > 0) & labels.valid[:, None]  # (F, 49)
    by_openpose = visible[:, _OPENPOSE_14] & (_OPENPOSE_14 >= 0)
    n_visible = (visible[:, _COMMON_14] | by_openpose).sum(-1)
    is_enough = n_visible > FEWEST_VISIBLE
    counted: Bools = labels.valid & (is_enough | (not visible.any()))
    return counted


def _enough_keypoints(labels: Labels) -> Bools:
    """(F,) whether at least 6 keypoints are visible."""
    n_visible = (labels.kp_2d[..., 2] > 0).sum(-1)
    counted: Bools = labels.valid & (n_visible >= FEWEST_VISIBLE)
    return counted


# Kanazawa et al., CVPR 2019
HMMR: Final = replace(
    DEFAULT,
    name="hmmr",
    meaning="HMMR's evaluation: frames with enough visible joints, and the mean over videos of "
    "each video's mean.",
    metrics={**_metrics_of("hmmr"), "accel": replace(METRICS["accel"], reads="prediction")},
    rows=_enough_seen,
    rows_2d=_enough_keypoints,
    mean="videos",
    dynamics="vibe_model.hmmr.dynamics:bind_dynamics",
)
# in the order of tables
PROTOCOLS: Final = {record.name: record for record in (DEFAULT, PUBLISHED, EMDB, RICH, HMMR)}


def find(name: str) -> Protocol:
    """The protocol of this name. Raises PipelineError if there is none."""
    if name not in PROTOCOLS:
        similar = did_you_mean(name, PROTOCOLS) or ";"
        names = ", ".join(PROTOCOLS)
        raise PipelineError(f"no protocol is called {name!r}{similar} known: {names}")
    return PROTOCOLS[name]


def choose(
    split: Split, named: Sequence[str] | None = None
) -> tuple[list[Protocol], dict[str, str]]:
    """Choose the protocols that evaluate a split.

    Returns them, and name -> reason for those that cannot. named: Names of protocols; None: all
    that are meant for this split. Raises what `find` raises for a name.
    """
    if named is None:
        records = [
            record for record in PROTOCOLS.values() if fnmatchcase(split.name, record.splits)
        ]
    else:
        records = [find(name) for name in dict.fromkeys(named)]
    left_out: dict[str, str] = {}
    for record in records:
        reason = record.lacking(split)
        if reason:
            left_out[record.name] = reason
    return [record for record in records if record.name not in left_out], left_out


def by_protocol(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Protocol -> a split's numbers, from its entry in metrics.json.

    The entry has the first protocol's numbers, in which those of the others are nested by name:

        {"protocol": "default", "mpjpe": 80.1, "baseline": {"mpjpe": 190.2, ...}, "left_out": {...},
         "hmmr": {"protocol": "hmmr", "mpjpe": 78.4, "baseline": {...}, ...}}

    Numbers by a protocol always include "baseline", the errors of the constant mean body, and no
    other mapping in the entry does.
    """
    nested = {
        name: value
        for name, value in result.items()
        if isinstance(value, Mapping) and "baseline" in value
    }
    first = str(result.get("protocol", DEFAULT.name))
    numbers: dict[str, Mapping[str, Any]] = {first: result}
    for name in PROTOCOLS:
        if name in nested:
            numbers[name] = nested[name]
    return numbers


def table_metrics(rows: Iterable[Mapping[str, Any]]) -> dict[str, Metric]:
    """Metrics by name, in the order of tables; those of EMDB alone if a row has them."""
    metrics = {**METRICS}
    for row in rows:
        metrics |= {name: metric for name, metric in EMDB.metrics.items() if name in row}
    return metrics
