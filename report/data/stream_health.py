"""Whether a feature stream's numbers look as they should, dataset by dataset.  features -> [report]"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Final, NamedTuple

import numpy as np

import cache
from pipeline.cli.text import command, count
from report.data.splits import UNREADABLE, Array, Opened, Rows, is_untrained, n_rows, problem, sample
from report.figures import Cell, histogram
from report.page import Section

MOST_CONSTANT: Final = 0.5  # of the channels
NORM_RATIO: Final = 2.0
FAR: Final = 1.0  # in units of the spread within
TIMES_OWN: Final = 3.0  # the diagonal of the table of drift
LIMITS: Final = {"constant": MOST_CONSTANT, "norm": NORM_RATIO, "far": FAR, "times_own": TIMES_OWN}
LOOK: Final = "look at its crops under Example tracks: colours, size, what is in them"
ABOUT_NORM: Final = (
    "The Euclidean norm of a row's features, of the rows whose numbers are all finite and not all 0. The axis is "
    "logarithmic. A dataset far from the others is worth a look at its crops."
)


class Moments(NamedTuple):
    """Mean and variance of each channel, over so many rows of features."""

    n: int
    mean: Array  # (channels,)
    variance: Array

    @classmethod
    def of(cls, rows: Array) -> Moments:
        """rows (N, channels), all finite."""
        if not len(rows):
            return NO_ROWS
        return cls(len(rows), rows.mean(axis=0, dtype=np.float64), rows.var(axis=0, dtype=np.float64))


NO_ROWS: Final = Moments(0, np.empty(0), np.empty(0))


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of one dataset's features: counts over all its rows, and numbers of the sampled ones."""

    missing: int = 0  # rows without features
    lost: int = 0  # rows with ok = 0
    rows: int = 0  # sampled rows with features
    not_finite: int = 0  # sampled rows with a NaN or an infinity among them
    nans: int = 0  # numbers
    infinities: int = 0
    zeros: int = 0  # sampled rows whose numbers are all 0
    norms: Array = field(default_factory=lambda: np.empty(0))  # of the others, where finite
    whole: Moments = NO_ROWS
    halves: tuple[Moments, Moments] = (NO_ROWS, NO_ROWS)  # every other track

    @classmethod
    def of(cls, features: Array, track: Array) -> Health:
        """features (N, channels) of sampled rows of these tracks (N,)."""
        finite = np.isfinite(features).all(axis=1)
        norms = np.linalg.norm(features[finite].astype(np.float64), axis=1)
        first, second = (Moments.of(features[finite & (track % 2 == half)]) for half in (0, 1))
        return cls(
            rows=len(features),
            not_finite=int((~finite).sum()),
            nans=int(np.isnan(features).sum()),
            infinities=int(np.isinf(features).sum()),
            zeros=int((norms == 0).sum()),
            norms=norms[norms > 0],
            whole=Moments.of(features[finite]),
            halves=(first, second),
        )

    @property
    def norm(self) -> float:
        """The median; NaN where no row has one."""
        return float(np.median(self.norms)) if len(self.norms) else math.nan

    @property
    def constant(self) -> float:
        """Share of the channels that are the same in all rows; 0 where fewer than two rows can tell."""
        of = self.whole
        return float(np.mean(of.variance <= 1e-12 * np.square(of.mean))) if of.n > 1 else 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong with a dataset's features, and what to do about each; nothing: sound."""

    dataset: str
    faults: Sequence[tuple[str, str]]

    @property
    def found(self) -> str:
        return "; ".join(what for what, _ in self.faults)

    @property
    def row(self) -> tuple[str, str, str, str]:
        """Of the table."""
        if not self.faults:
            return self.dataset, "✓", "nothing found", "nothing"
        return self.dataset, "!", self.found, "; ".join(dict.fromkeys(do for _, do in self.faults))


def stream_section(opened: Opened, stream: str | None) -> Section:
    """Rows without features, numbers that are none, norms, and how far datasets are apart. None: no stream."""
    name = stream or ""
    problems: list[str] = []
    coverage: list[tuple[Cell, ...]] = []
    having = Opened(opened.root, [split for split in opened.splits if name in split.streams])
    trained = not any(is_untrained(split, name) for split in having.splits)
    health: dict[str, Health] = {}
    for dataset, splits in having.datasets.items():
        read: list[tuple[Array, Array]] = []  # features and their tracks
        n_missing = n_lost = 0
        for split, rows in sample(splits).of:
            backbone, missing = split.stream_manifest(name).get("backbone", {}), opened.missing[split.name, name]
            weights = "untrained" if is_untrained(split, name) else str(backbone.get("sha256", "not recorded"))[:16]
            try:
                lost = split.undecodable(name)
                if len(some := _with_features(split, name, rows)):
                    found = split.read(np.stack([some, some + 1], axis=1), name, ["features"])["features"][:, 0]
                    read.append((found, split.track_of(some)))
            except UNREADABLE as error:
                problems.append(problem(split.name, error))
                continue
            n_missing, n_lost = n_missing + missing, n_lost + lost
            coverage.append((split.name, n_rows(split), missing, lost, weights))
        sampled = Health.of(*map(np.concatenate, zip(*read, strict=True))) if read else Health()
        health[dataset] = replace(sampled, missing=n_missing, lost=n_lost)
    seen = {dataset: one for dataset, one in health.items() if one.rows}
    drift = {
        name: {other: apart(*one.halves) if name == other else apart(one.whole, seen[other].whole) for other in seen}
        for name, one in seen.items()
    }
    verdicts = [Verdict(dataset, list(faults(dataset, health, drift if trained else None))) for dataset in health]
    norms = {dataset: one.norms for dataset, one in seen.items()}
    data = {
        "stream": stream,
        "none": [s.name for s in opened.splits if s not in having.splits and "bbox" in s.columns],
        "motion": [s.name for s in opened.splits if "bbox" not in s.columns],
        "coverage_header": ("split", "rows", "rows without features", "rows with ok = 0", "weights"),
        "coverage": coverage,
        "verdicts": verdicts,
        "limits": LIMITS,
        "trained": trained,
        "finite_header": ("dataset", "rows sampled", "rows all 0", "rows with NaN or infinity", "NaN", "infinities"),
        "finite": [(of, one.rows, one.zeros, one.not_finite, one.nans, one.infinities) for of, one in seen.items()],
        "norms": histogram("feature-norm", "Norm of the features", ABOUT_NORM, norms, unit="norm", log=True)
        if seen
        else None,
        "drift_header": ("", *seen),
        "drift": [(of, *row.values()) for of, row in drift.items()],
        "drift_largest": max((d for row in drift.values() for d in row.values() if math.isfinite(d)), default=0),
        "verify": command("verify", "--cache", str(opened.root)),
        "problems": list(dict.fromkeys(problems)),
    }
    bad = [one.dataset for one in verdicts if one.faults]
    sound = f"{stream}: sound in {count(len(verdicts), 'dataset')}" if verdicts else f"{stream}: in no split"
    line = f"to look at: {', '.join(bad)}" if bad else sound
    return Section("stream", "Health of the feature stream", "stream.html", data, line, bool(bad or problems))


def faults(
    dataset: str, health: Mapping[str, Health], drift: Mapping[str, Mapping[str, float]] | None
) -> Iterator[tuple[str, str]]:
    """(what is wrong, what to do), by the rule that the page states. drift: None where the network is untrained."""
    one = health[dataset]
    if one.missing:
        yield f"{count(one.missing, 'row')} without features", "python -m pipeline extract computes them"
    if one.lost:
        do = "get these pictures again (python -m pipeline extract names the problems), or go without these rows: "
        yield f"{count(one.lost, 'row')} with ok = 0", f"{do}training leaves them out"
    if one.not_finite:
        do = "python -m pipeline verify, then extract the stream again"
        yield f"NaN or infinity in {count(one.not_finite, 'sampled row')}", do
    if one.zeros:
        yield f"only zeros in {count(one.zeros, 'sampled row')}", LOOK
    if one.constant > MOST_CONSTANT:
        yield f"{one.constant:.0%} of the channels never change", LOOK
    if drift is None:
        return
    norms = [other.norm for name, other in health.items() if name != dataset and math.isfinite(other.norm)]
    if norms and math.isfinite(one.norm):
        of_others = median(norms)
        if not of_others / NORM_RATIO <= one.norm <= of_others * NORM_RATIO:
            yield f"median norm {one.norm:.3g}, of the other datasets {of_others:.3g}", LOOK
    row = {name: far for name, far in drift.get(dataset, {}).items() if not math.isnan(far)}
    own = row.pop(dataset, math.nan)
    own, nearest = own if math.isfinite(own) else 0.0, min(row.values(), default=0.0)
    if nearest > max(FAR, TIMES_OWN * own):
        yield f"drift of {nearest:.2f} even to the nearest dataset, {own:.2f} within", LOOK


def apart(a: Moments, b: Moments) -> float:
    """sqrt(mean over channels of (mean_a - mean_b)^2 / ((variance_a + variance_b) / 2)); NaN without rows.

    Channels that are constant in both count when their means differ, as infinitely far, and are left out otherwise.
    """
    if not a.n or not b.n:
        return math.nan
    between, within = np.square(a.mean - b.mean), (a.variance + b.variance) / 2
    floor = 1e-12 * np.maximum(np.square(a.mean), np.square(b.mean))  # rounding of sums of squares
    varies = within > floor
    if (~varies & (between > floor)).any():
        return math.inf
    return float(np.sqrt(np.mean(between[varies] / within[varies]))) if varies.any() else 0.0


def _with_features(split: cache.Split, stream: str, rows: Rows) -> Rows:
    """Those of the rows that the stream has, with a picture that was readable."""
    per_shard = int(split.manifest["geometry"]["rows_per_shard"])
    held = rows[np.isin(rows // per_shard, split.stream_shards(stream))]
    ok = [split.rows(f"features/{stream}_ok", row, row + 1)[0] == 1 for row in held.tolist()]
    return np.asarray(held[np.array(ok, bool)], np.int64)
