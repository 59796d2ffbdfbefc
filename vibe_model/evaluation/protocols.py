"""Protocols: the rules of comparing predictions with labels.  training -> [evaluation]

A package adds one by an entry point of "vibe_pipeline.protocols": docs/adding-a-protocol.md.
Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, DataError
from pipeline.estimates import estimates_of
from pipeline.plug_ins import Records
from pipeline.skeletons import JOINTS
from vibe_model.metrics import METRICS, SCORES, Metric
from vibe_model.runs import NEUTRAL_BODY

if TYPE_CHECKING:
    from cache import Split

Bools = NDArray[np.bool_]
Floats = NDArray[np.floating[Any]]

# in a split's metrics: protocols that cannot evaluate it, with reasons
LEFT_OUT: Final = "left_out"


class Labels(NamedTuple):
    """Labels of F predicted frames of one track, in row order."""

    joints: Floats  # (F, 14, 3) m common14, the split's 3D joints; 0: none
    kp_2d: Floats  # (F, 49, 3) in the crop, [-1, 1], with confidence
    theta: Floats  # (F, 85): camera 3, pose 72 (axis times angle, rad), betas 10
    has_3d: Bools  # (F,)
    has_smpl: Bools  # (F,)
    valid: Bools  # (F,)


def _valid(labels: Labels) -> Bools:
    """The mask (F,) of frames that the dataset marks as valid for evaluation."""
    return labels.valid


def _every(labels: Labels) -> Bools:
    """The mask (F,) of all frames."""
    return np.ones_like(labels.valid)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How to compare predictions with labels. Raises ConfigError for contradictory joints."""

    name: str
    meaning: str  # one sentence, for the report's tables
    metrics: Mapping[str, Metric]  # by their names in metrics.json
    # Order of the compared joints (`Body.joints`): the split's 3D labels (common14 only), or the
    # labels' bodies.
    joints: Literal["common14", "spin49", "smpl"] = "common14"
    truth: Literal["joints", "body"] = "joints"
    # Gender of that body and of its vertices: declared by the split's reader, the track's own, or
    # neutral.
    body: Literal["declared", "own", "neutral"] = "declared"
    # joints whose middle moves to 0; none: compare positions
    root: tuple[str, ...] = ("rhip", "lhip")
    # also move vertices; else only if the label's body has another gender (another origin)
    root_vertices: bool = False
    rows: Callable[[Labels], Bools] = _valid  # frames whose 3D labels count
    rows_2d: Callable[[Labels], Bools] = _valid  # frames whose keypoints count
    # Successive frames, for metrics with a span: neighbours in time, one step apart; all counted
    # ones of a track, or of the split, across tracks.
    successive: Literal["neighbours", "track", "split"] = "neighbours"
    # tracks, videos: each has the same weight, whatever its number of frames; a video has the
    # frames of all its people.
    mean: Literal["frames", "tracks", "videos"] = "frames"
    drop_last: bool = False  # drop frames at a track's end that do not fill a window
    round_labels: bool = False  # to float16
    # "module:name" of a function that is called with (generator, training splits by name), and
    # returns one of (split, *, stream, extra_streams, tracks) that measures predicted past and
    # future.
    dynamics: str = ""
    # published evaluation with the same numbers, if there are several: printed beside them
    compares_with: str = ""
    splits: str = "*"  # pattern of the splits that it is for, unless it is named

    def __post_init__(self) -> None:
        absent = [name for name in self.root if name not in JOINTS[self.joints]]
        if absent:
            raise ConfigError(
                f"{self.name}: root: expected joints of {self.joints}, found {', '.join(absent)}"
            )
        if self.truth == "joints" and self.joints != "common14":
            raise ConfigError(
                f"{self.name}: joints: expected common14, which a split's 3D labels have, found "
                f"{self.joints}. "
                'Of bodies: truth = "body".'
            )

    @property
    def root_places(self) -> list[int]:
        return [JOINTS[self.joints].index(name) for name in self.root]

    def rooted(self, joints: Floats) -> Floats:
        """Joints (N, J, 3) m relative to the middle of the root joints, in float64."""
        joints = joints.astype(np.float64)
        if not self.root:
            return joints
        root: Floats = joints[..., self.root_places, :].mean(axis=-2, keepdims=True)
        return joints - root

    def measure(self, name: str, pred: Floats, target: Floats) -> Floats:
        """Compute the metric `name` of N frames, (N - span + 1,).

        Raises PlugInError if another package's metric fails, DataError for wrong numbers.
        """
        metric = self.metrics[name]
        shape = (max(len(pred) - self.metrics[name].span + 1, 0),)
        if not shape[0]:
            return np.zeros(0)
        with REGISTRY.calling(self.name, f"metric {name}"):
            values = np.asarray(metric.of(pred, target), np.float64)
        if values.shape != shape or np.isinf(values).any():
            found = f"an array of {values.shape}"
            if values.shape == shape:
                found = "infinite ones"
            raise DataError(
                f"{REGISTRY.label(self.name)}: metric {name}: expected {shape[0]} numbers, "
                f"found {found}"
            )
        return values

    def genders(self, split: Split) -> tuple[str, ...]:
        """Genders of the bodies with which the protocol compares predictions.

        With `body` "declared", they are those with which the reader made the 3D labels.
        """
        if self.body == "own":
            return tuple(sorted({track.gender for track in split.tracks})) or (NEUTRAL_BODY,)
        declared = None
        if self.body == "declared":
            declared = split.manifest.get("reader", {}).get("genders")
        return tuple(declared or (NEUTRAL_BODY,))

    def lacking(self, split: Split) -> str:
        """Why the protocol cannot evaluate a split; "" if it can."""
        if self.truth == "joints":
            return ""
        estimates = estimates_of(split)
        if estimates:
            return f"its bodies are {estimates}, no ground truth for protocol {self.name}"
        absent = [name for name in ("pose", "betas", "has_smpl") if name not in split.columns]
        if absent:
            return f"it has no {', '.join(absent)}, which protocol {self.name} makes its joints of"
        return ""


_OF_VIBE: Final = {
    name: METRICS[name]
    for name in ("pa_mpjpe", "mpjpe", "pve", "accel", "accel_error", "pck", "auc", "pck_2d")
}
DEFAULT: Final = Protocol(
    name="default",
    meaning="Every frame that is valid, labelled and has features counts once.",
    metrics=_OF_VIBE,
)
# Of epochs, for splits without 3D labels.
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
REGISTRY: Final[Records[Protocol]] = Records(
    "protocol", "vibe_pipeline.protocols", Protocol, "name"
)
names = REGISTRY.names
find = REGISTRY.find


def choose(
    split: Split, named: Sequence[str] | None = None
) -> tuple[list[Protocol], dict[str, str]]:
    """Choose the protocols that evaluate a split.

    Returns them, and name -> reason for those that cannot. named: Names of protocols; None: all
    that are meant for this split. Raises what `find` raises for a name.
    """
    left_out: dict[str, str] = {}
    if named is None:
        left_out = REGISTRY.broken(names())
        loaded = (find(name) for name in names() if name not in left_out)
        records = [record for record in loaded if fnmatchcase(split.name, record.splits)]
    else:
        records = [find(name) for name in dict.fromkeys(named)]
    for record in records:
        reason = record.lacking(split)
        if reason:
            left_out[record.name] = reason
    return [record for record in records if record.name not in left_out], left_out


def by_protocol(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Protocol -> a split's numbers, from its entry in metrics.json.

    The entry has the first protocol's numbers, in which those of the others are nested.
    """
    nested = {
        name: value
        for name, value in result.items()
        if isinstance(value, Mapping) and "baseline" in value
    }
    order = dict.fromkeys((*(name for name in names() if name in nested), *sorted(nested)))
    return {
        str(result.get("protocol", DEFAULT.name)): result,
        **{name: nested[name] for name in order},
    }


def table_metrics(rows: Iterable[Mapping[str, Any]]) -> dict[str, Metric]:
    """Metrics by name, in the order of tables.

    First come all built-in metrics, then those of other packages with a number in any row.
    """
    others = set[str]()
    for row in rows:
        others.update(name for name, value in row.items() if isinstance(value, float))
    others.difference_update(METRICS)
    metrics = {**METRICS}
    if others:
        for record in REGISTRY.every():
            metrics |= {name: of for name, of in record.metrics.items() if name in others}
    return metrics


def meaning(name: str) -> str:
    """A sentence on what a protocol compares, or why it cannot be loaded."""
    return REGISTRY.not_installed(name) or REGISTRY.broken([name]).get(name) or find(name).meaning
