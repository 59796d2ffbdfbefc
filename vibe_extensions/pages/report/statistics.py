"""Numbers over sampled rows: distributions by dataset, and whether a stream's look sound.  features -> [report]"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from statistics import median
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

import cache
from pipeline.cli.text import command, count
from pipeline.features.plan import is_untrained
from pipeline.skeletons import JOINTS
from vibe_extensions.pages.report.data import UNREADABLE, OpenedCache, n_rows, problem
from vibe_extensions.pages.report.page import Cell, PageSection, histogram

Array = NDArray[Any]
Rows = NDArray[np.int64]

ROWS: Final = 2048  # of each dataset, in a sample
N_JOINTS: Final = len(JOINTS["spin49"])
BODY_JOINTS: Final = 21  # SMPL's 1 to 21: the root is the camera's matter, and few datasets know hands
# Points of the body by its parts. BODY_25 and the common joints name most of them twice; one that is visible counts.
GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "head's top": ("headtop",),
    "face": ("nose", "reye", "leye", "rear", "lear"),
    "shoulders": ("rshoulder", "lshoulder"),
    "elbows": ("relbow", "lelbow"),
    "wrists": ("rwrist", "lwrist"),
    "hips": ("rhip", "lhip"),
    "knees": ("rknee", "lknee"),
    "ankles": ("rankle", "lankle"),
    "feet": ("rbigtoe", "lbigtoe", "rsmalltoe", "lsmalltoe", "rheel", "lheel"),
}
ABOUT_LENGTH: Final = (
    "Rows of each track: frames in which its person is annotated. Of all tracks. The axis is logarithmic."
)
ABOUT_VISIBLE: Final = (
    "Of the 49 joints, those with a confidence above 0. Most points of the body have two places among the 49, of which "
    "a dataset may fill one or both: this is about what a dataset annotates as much as about what is hidden."
)
ABOUT_BOX: Final = (
    "The longer side of each person's box in its picture, before it is enlarged for the crop. The axis is logarithmic. "
    "A crop has 224 px: what is smaller is enlarged to that."
)
ABOUT_POSE: Final = (
    "How far each frame's pose is from the mean pose of its dataset: the angle between a joint's rotation and its mean "
    "rotation (the chordal L2 mean), averaged over the 21 joints of SMPL's body, without its root and its hands. "
    "Farther to the right is more varied. Of rows with SMPL poses."
)
MOST_CONSTANT: Final = 0.5  # of a stream's channels
NORM_RATIO: Final = 2.0  # of a dataset's median norm to that of the others, or the other way round


def sample(splits: Sequence[cache.Split], most: int = ROWS) -> list[tuple[cache.Split, Rows]]:
    """At most `most` rows over all the splits of a dataset, each as likely as any other, the same ones each time.

    Each split with (n,) rows of committed tracks, ascending.
    """
    ranks = spread_ranks(sum(map(n_rows, splits)), most)
    sampled, first = [], 0
    for split in splits:
        within = ranks[(ranks >= first) & (ranks < first + n_rows(split))] - first
        first += n_rows(split)
        # Between tracks, rows may belong to none.
        start, lengths = split.tracks.start, split.tracks.stop - split.tracks.start
        before = np.cumsum(lengths) - lengths
        track = np.searchsorted(before, within, side="right") - 1
        sampled.append((split, np.asarray(start[track] + within - before[track], np.int64)))
    return sampled


def spread_ranks(total: int, most: int) -> Rows:
    """(min(total, most),) ascending numbers below `total`: one drawn of each of so many equal parts."""
    if total <= most:
        return np.arange(total)
    within = np.random.default_rng(0).random(most)
    return np.floor((np.arange(most) + within) * (total / most)).astype(np.int64).clip(max=total - 1)


def _column(split: cache.Split, name: str, rows: Rows) -> Iterator[Array]:
    """A column's rows as they are stored, one after the other. Raises cache.CacheError as `Split.rows` does."""
    return (split.rows(name, row, row + 1)[0] for row in rows.tolist())


# ---------------------------------------------------------------------------------------------------- distributions


def distributions_section(opened: OpenedCache) -> PageSection:
    """Track length, visible joints, box size and pose variety by dataset, over all its splits."""
    problems: list[str] = []
    samples = {dataset: sample(splits) for dataset, splits in opened.datasets.items()}
    lengths = {
        dataset: np.concatenate([split.tracks.stop - split.tracks.start for split in splits])
        for dataset, splits in opened.datasets.items()
    }

    def by_dataset(column: str, measure: Callable[[Array], Array]) -> dict[str, Array]:
        return {dataset: _measured(sampled, column, measure, problems) for dataset, sampled in samples.items()}

    visible = by_dataset("kp_2d", lambda kp_2d: kp_2d[..., 2] > 0)
    sides = by_dataset("bbox", lambda bbox: bbox[..., 2:].max(axis=-1))
    variety = {dataset: distances_from_mean(pose) for dataset, pose in by_dataset("pose", np.asarray).items()}
    counts = {dataset: joints.sum(axis=-1) if len(joints) else joints for dataset, joints in visible.items()}
    each_joint = np.arange(N_JOINTS + 2) - 0.5
    data = {
        "plots": [
            histogram("track-length", "Track length", ABOUT_LENGTH, lengths, unit="frames", log=True),
            histogram("visible", "Visible joints in a frame", ABOUT_VISIBLE, counts, unit="joints", bins=each_joint),
            histogram("box-size", "Box size", ABOUT_BOX, sides, unit="px", log=True),
            histogram("pose-variety", "Pose variety", ABOUT_POSE, variety, unit="degrees"),
        ],
        "group_header": ("dataset", *GROUPS),
        "group_rows": [
            (dataset, *(round(visible_share(joints, points), 1) for points in GROUPS.values()))
            for dataset, joints in visible.items()
            if len(joints)
        ],
        "samples": {
            dataset: f"{sum(len(rows) for _, rows in of_splits):,} of {sum(n_rows(s) for s, _ in of_splits):,} rows"
            for dataset, of_splits in samples.items()
        },
        "without": {
            what: [name for name, splits in opened.datasets.items() if not any(column in s.columns for s in splits)]
            for what, column in {"2D keypoints": "kp_2d", "boxes": "bbox", "SMPL poses": "pose"}.items()
        },
        "problems": list(dict.fromkeys(problems)),
    }
    line = "track lengths, visible joints, box sizes, pose variety"
    return PageSection("distributions", "Distributions", "distributions.html", data, line)


def distances_from_mean(pose: Array) -> NDArray[np.float64]:
    """pose (N, 72) rad -> (N,) degrees: the angle of each body joint from its mean rotation, averaged over the joints.

    The mean is the rotation with the least sum of squared chordal distances (Hartley et al. 2013, section 5.3).
    """
    if not len(pose):
        return np.empty(0)
    joints = pose.reshape(len(pose), 24, 3)[:, 1 : BODY_JOINTS + 1].astype(np.float64)
    rotations = [Rotation.from_rotvec(joints[:, joint]) for joint in range(BODY_JOINTS)]
    angles = [(rotation.mean().inv() * rotation).magnitude() for rotation in rotations]
    return np.asarray(np.rad2deg(np.mean(angles, axis=0)))


def visible_share(visible: Array, points: Sequence[str]) -> float:
    """visible (N, 49) bool -> % of the points, over all rows, that are visible at one of their places."""
    places = [
        [j for j, name in enumerate(JOINTS["spin49"]) if name.removeprefix("OP ").lower() == point] for point in points
    ]
    return float(100 * np.mean([visible[:, place].any(axis=1).mean() for place in places]))


def _measured(
    sampled: list[tuple[cache.Split, Rows]], column: str, measure: Callable[[Array], Array], problems: list[str]
) -> Array:
    """A measure of a column at the sampled rows where it is known. What cannot be read goes to `problems`."""
    values: list[Array] = []
    for split, rows in sampled:
        if column in split.columns:
            try:
                values += [measure(row) for row in _known_rows(split, column, rows)]
            except UNREADABLE as error:
                problems.append(problem(split.name, error))
    return np.stack(values) if values else np.empty(0)


def _known_rows(split: cache.Split, column: str, rows: Rows) -> Iterator[Array]:
    """Poses by their flag, boxes that have a size; keypoints have their confidence."""
    flags = _column(split, "has_smpl", rows) if column == "pose" else repeat(np.uint8(1))
    for row, flag in zip(_column(split, column, rows), flags, strict=False):
        if column == "kp_2d" or (flag == 1 and np.isfinite(row).all() and (column != "bbox" or row[2:].max() > 0)):
            yield row


# --------------------------------------------------------------------------------------------------- stream health


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of one dataset's features: counts over all its rows, and numbers of the sampled ones."""

    rows: int = 0
    missing: int = 0  # rows without features
    lost: int = 0  # rows with ok = 0
    sampled: int = 0
    not_finite: int = 0  # sampled rows with a NaN or an infinity among them
    zeros: int = 0  # sampled rows whose numbers are all 0
    constant: float = 0.0  # share of the channels that are the same in all finite rows, of two at least
    norm: float | None = None  # median of the rows that are finite and not all 0; None without any

    @classmethod
    def of(cls, features: Array, *, rows: int = 0, missing: int = 0, lost: int = 0) -> Health:
        """features (N, channels) of the sampled rows."""
        finite = features[np.isfinite(features).all(axis=1)].astype(np.float64)
        norms = np.linalg.norm(finite, axis=1)
        still = finite.var(axis=0) <= 1e-12 * np.square(finite.mean(axis=0)) if len(finite) > 1 else np.zeros(1)
        return cls(
            *(rows, missing, lost, len(features), len(features) - len(finite)),
            zeros=int((norms == 0).sum()),
            constant=float(np.mean(still)),
            norm=float(np.median(norms[norms > 0])) if norms.any() else None,
        )


def stream_section(opened: OpenedCache, stream: str) -> PageSection:
    """One table: rows without features, numbers that are none, norms, and what looks wrong."""
    problems: list[str] = []
    health: dict[str, Health] = {}
    splits = [split for split in opened.splits if stream in split.streams]
    trained = not any(is_untrained(split, stream) for split in splits)
    for dataset, of_dataset in OpenedCache(opened.root, splits).datasets.items():
        counts, features = np.zeros(3, np.int64), [np.empty((0, 1))]
        for split, rows in sample(of_dataset):
            try:
                counts += n_rows(split), opened.missing[split.name, stream], split.undecodable(stream)
                if len(held := _with_features(split, stream, rows)):
                    windows = np.stack([held, held + 1], axis=1)
                    features.append(split.read(windows, stream, ["features"])["features"][:, 0])
            except UNREADABLE as error:
                problems.append(problem(split.name, error))
        total, missing, lost = counts.tolist()
        numbers = np.concatenate(features[1:] or features)
        health[dataset] = Health.of(numbers, rows=total, missing=missing, lost=lost)
    verdicts = {dataset: "; ".join(faults(dataset, health, trained=trained)) for dataset in health}
    table: list[tuple[Cell, ...]] = [
        (
            *(
                dataset,
                of.rows,
                of.missing,
                of.lost,
                of.sampled,
                of.not_finite,
                of.zeros,
                round(100 * of.constant),
                of.norm,
            ),
            f"! {verdicts[dataset]}" if verdicts[dataset] else "✓ nothing found",
        )
        for dataset, of in health.items()
    ]
    sampled = ("sampled", "with NaN or infinity", "all 0", "constant channels, %", "median norm")
    data = {
        "stream": stream,
        "none": [s.name for s in opened.splits if s not in splits and "bbox" in s.columns],
        "motion": [s.name for s in opened.splits if "bbox" not in s.columns],
        "header": ("dataset", "rows", "without features", "ok = 0", *sampled, "verdict"),
        "table": table,
        "verdicts": verdicts,
        "most_constant": MOST_CONSTANT,
        "norm_ratio": NORM_RATIO,
        "trained": trained,
        "verify": command("verify", "--cache", str(opened.root)),
        "problems": list(dict.fromkeys(problems)),
    }
    wrong = [dataset for dataset, verdict in verdicts.items() if verdict]
    sound = f"sound in {count(len(verdicts), 'dataset')}" if verdicts else "in no split"
    line = f"to look at: {', '.join(wrong)}" if wrong else f"{stream}: {sound}"
    return PageSection("stream", "Health of the feature stream", "stream.html", data, line, bool(wrong or problems))


def faults(dataset: str, health: Mapping[str, Health], *, trained: bool) -> Iterator[str]:
    """What is wrong with a dataset's features, by the rule that the page states."""
    of = health[dataset]
    if of.missing:
        yield f"{count(of.missing, 'row')} without features: python -m pipeline extract computes them"
    if of.lost:
        yield f"{count(of.lost, 'row')} with ok = 0: get these pictures again, or train without them"
    if of.not_finite:
        yield f"NaN or infinity in {count(of.not_finite, 'sampled row')}: extract the stream again"
    if of.zeros:
        yield f"only zeros in {count(of.zeros, 'sampled row')}: look at its crops"
    if of.constant > MOST_CONSTANT:
        yield f"{of.constant:.0%} of the channels never change: look at its crops"
    norms = [other.norm for name, other in health.items() if name != dataset and other.norm is not None]
    if trained and norms and of.norm is not None:
        usual = median(norms)
        if not usual / NORM_RATIO <= of.norm <= usual * NORM_RATIO:
            yield f"median norm {of.norm:.3g}, of the other datasets {usual:.3g}: look at its crops"


def _with_features(split: cache.Split, stream: str, rows: Rows) -> Rows:
    """Those of the rows that the stream has, with a picture that was readable."""
    per_shard = int(split.manifest["geometry"]["rows_per_shard"])
    held = rows[np.isin(rows // per_shard, split.stream_shards(stream))]
    ok = [int(flag) == 1 for flag in _column(split, f"features/{stream}_ok", held)]
    return np.asarray(held[np.array(ok, bool)], np.int64)
