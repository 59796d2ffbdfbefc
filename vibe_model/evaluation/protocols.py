"""Protocols: the rules of comparing predictions with labels.  training -> [evaluation]

A package adds one by an entry point of "vibe_pipeline.protocols": docs/adding-a-protocol.md. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.plug_ins import Registry
from pipeline.skeletons import JOINTS
from vibe_model.errors import ConfigError, DataError
from vibe_model.metrics import METRICS, Metric

if TYPE_CHECKING:
    from cache import Split

Bools = NDArray[np.bool_]
Floats = NDArray[np.floating[Any]]

LEFT_OUT: Final = "left_out"  # of a split's metrics: protocols that cannot evaluate it, and why


class Labels(NamedTuple):
    """Labels of F predicted frames of one track, in row order."""

    joints: Floats  # (F, 14, 3) m common14, the split's 3D joints; 0 where there are none
    kp_2d: Floats  # (F, 49, 3) in the crop, [-1, 1], with confidence
    theta: Floats  # (F, 85): camera 3, pose 72 (axis times angle, rad), betas 10
    has_3d: Bools  # (F,)
    has_smpl: Bools  # (F,)
    valid: Bools  # (F,)


def valid(labels: Labels) -> Bools:
    """(F,) the frames that the dataset calls fit for evaluation."""
    return labels.valid


def every(labels: Labels) -> Bools:
    """(F,) all frames, valid or not."""
    return np.ones_like(labels.valid)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How predictions are compared with labels. Raises ConfigError for joints that contradict one another."""

    name: str
    meaning: str  # in a sentence, as the report's tables have it
    metrics: Mapping[str, Metric]  # by their names in metrics.json
    # Order of the compared joints (`Body.joints`): the split's 3D labels (common14 only), or the labels' bodies.
    joints: Literal["common14", "spin49", "smpl"] = "common14"
    truth: Literal["joints", "body"] = "joints"
    # The gender of that body and of its vertices: as the split's reader declares, the track's own, or neutral.
    body: Literal["declared", "own", "neutral"] = "declared"
    root: tuple[str, ...] = ("rhip", "lhip")  # the joints whose middle is at 0; none: positions are compared
    root_vertices: bool = False  # of vertices, too; else only where the label's body has another origin: another gender
    rows: Callable[[Labels], Bools] = valid  # the frames whose 3D labels count, where there are any
    rows_2d: Callable[[Labels], Bools] = valid  # likewise of keypoints
    # Which frames follow one another, for metrics with a span: neighbours in time, one step apart; all that count of a
    # track, closed up; or of the split, across tracks.
    successive: Literal["neighbours", "track", "split"] = "neighbours"
    # tracks, videos: each has the same weight, however many frames it has; a video has those of all its people.
    mean: Literal["frames", "tracks", "videos"] = "frames"
    drop_last: bool = False  # is what does not fill a window at a track's end left out?
    round_labels: bool = False  # to float16
    # "module:name" of what is called with (generator, training splits by name), and its result with (split, *, stream,
    # extra_streams, tracks): measures the past and future that a model predicts.
    dynamics: str = ""
    # Which published evaluation its numbers are of, where there are several of one name: printed beside them.
    compares_with: str = ""
    splits: str = "*"  # a pattern of the splits that it is for, unless it is named

    def __post_init__(self) -> None:
        if absent := [name for name in self.root if name not in JOINTS[self.joints]]:
            raise ConfigError(f"{self.name}: root: expected joints of {self.joints}, found {', '.join(absent)}")
        if self.truth == "joints" and self.joints != "common14":
            raise ConfigError(
                f"{self.name}: joints: expected common14, which a split's 3D labels have, found {self.joints}. "
                'Of bodies: truth = "body".'
            )

    @property
    def root_places(self) -> list[int]:
        return [JOINTS[self.joints].index(name) for name in self.root]

    def rooted(self, joints: Floats) -> Floats:
        """(N, J, 3) m -> the same in float64 about the root."""
        joints = joints.astype(np.float64)
        return joints - joints[..., self.root_places, :].mean(axis=-2, keepdims=True) if self.root else joints

    def measure(self, name: str, pred: Floats, target: Floats) -> Floats:
        """One metric, (N - span + 1,). Raises PlugInError if a package's metric fails, DataError for wrong numbers."""
        metric, shape = self.metrics[name], (max(len(pred) - self.metrics[name].span + 1, 0),)
        if not shape[0]:
            return np.zeros(0)
        with REGISTRY.calling(self.name, f"metric {name}"):
            values = np.asarray(metric.of(pred, target), np.float64)
        if values.shape != shape or np.isinf(values).any():
            found = "infinite ones" if values.shape == shape else f"an array of {values.shape}"
            raise DataError(f"{REGISTRY.label(self.name)}: metric {name}: expected {shape[0]} numbers, found {found}")
        return values

    def lacking(self, split: Split) -> str:
        """Why a split cannot be evaluated by it, in words; empty where it can."""
        needed = ("pose", "betas", "has_smpl") if self.truth == "body" else ()
        absent = [name for name in needed if name not in split.columns]
        return f"it has no {', '.join(absent)}, which protocol {self.name} makes its joints of" if absent else ""


_OF_VIBE: Final = {
    name: METRICS[name] for name in ("pa_mpjpe", "mpjpe", "pve", "accel", "accel_error", "pck", "auc", "pck_2d")
}
DEFAULT: Final = Protocol(
    name="default",
    meaning="Every frame that is valid, labelled and has features counts once.",
    metrics=_OF_VIBE,
)
PUBLISHED: Final = replace(
    DEFAULT,
    name="published",
    meaning="As the published figures were made: each track's last frames are dropped, accelerations cross from one "
    "track into the next, frames that are not valid count too, labels are rounded to float16.",
    rows=every,
    rows_2d=every,
    successive="split",
    drop_last=True,
    round_labels=True,
)
_OURS: Final = {name: f"{__name__}:{name.upper()}" for name in ("default", "published")}
REGISTRY: Final[Registry[Protocol]] = Registry(
    "protocol", "vibe_pipeline.protocols", _OURS, Protocol, "name", records=True
)
names = REGISTRY.names


def find(name: str) -> Protocol:
    """The protocol of that name. Raises PipelineError for an unknown name, PlugInError for one that does not load."""
    return cast("Protocol", REGISTRY.find(name))


def choose(split: Split, named: Sequence[str] | None = None) -> tuple[list[Protocol], dict[str, str]]:
    """The protocols that evaluate a split, and the reasons of the others by name.

    named: these; None: all that are for this split. Raises as `find` does for those that are named.
    """
    left_out = {} if named is not None else REGISTRY.broken(names())
    records = [find(name) for name in (names() if named is None else dict.fromkeys(named)) if name not in left_out]
    if named is None:
        records = [record for record in records if fnmatchcase(split.name, record.splits)]
    left_out |= {record.name: reason for record in records if (reason := record.lacking(split))}
    return [record for record in records if record.name not in left_out], left_out


def by_protocol(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """A split's numbers in metrics.json by protocol; the first one's contain the others'."""
    nested = {
        name: numbers for name, numbers in result.items() if isinstance(numbers, Mapping) and "baseline" in numbers
    }
    order = [name for name in names() if name in nested]
    order += sorted(nested.keys() - {*order})
    return {str(result.get("protocol", DEFAULT.name)): result, **{name: nested[name] for name in order}}


def table_metrics(rows: Iterable[Mapping[str, Any]]) -> dict[str, Metric]:
    """By name, in the order of tables: ours, then those of packages that any of the rows has a number of."""
    numbers = {name for row in rows for name, value in row.items() if name not in METRICS and isinstance(value, float)}
    broken = REGISTRY.broken(names()) if numbers else {}
    records = [find(name) for name in names() if name not in broken] if numbers else []
    of_packages = {name: metric for record in records for name, metric in record.metrics.items() if name in numbers}
    return {**METRICS, **of_packages}


def meaning(name: str) -> str:
    """What a protocol does, in a sentence, or why it does not load."""
    return REGISTRY.not_installed(name) or REGISTRY.broken([name]).get(name) or find(name).meaning
