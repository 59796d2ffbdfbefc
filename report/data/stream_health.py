"""Whether a feature stream's numbers look as they should.  features -> [report]"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import cache
from pipeline.cli.text import command
from pipeline.features.plan import missing_rows
from report.data import health_verdicts
from report.data.health_verdicts import Seen
from report.data.opened import UNREADABLE, Opened, problem
from report.data.samples import Rows, sample
from report.figures import Cell, histogram
from report.page import Section

Array = NDArray[Any]

UNTRAINED: Final = "untrained"  # how the column of weights begins
BATCH: Final = 256  # rows of features that are in memory at once
ABOUT_NORM: Final = (
    "The Euclidean norm of a row's features, of the rows whose numbers are all finite and not all 0. The axis is "
    "logarithmic. A dataset far from the others is worth a look at its crops."
)


@dataclass(slots=True)
class Moments:
    """Sums over rows of features, from which mean and variance of each channel follow."""

    n: int = 0
    total: Array = field(default_factory=lambda: np.zeros(1))
    squares: Array = field(default_factory=lambda: np.zeros(1))

    def add(self, rows: Array) -> None:
        """(N, channels), all finite."""
        doubles = rows.astype(np.float64)
        self.n += len(rows)
        self.total = self.total + doubles.sum(axis=0)
        self.squares = self.squares + np.square(doubles).sum(axis=0)

    def both(self, other: Moments) -> Moments:
        """Of the rows of both."""
        return Moments(self.n + other.n, self.total + other.total, self.squares + other.squares)

    @property
    def mean(self) -> Array:
        return np.asarray(self.total / self.n)

    @property
    def variance(self) -> Array:
        return np.asarray((self.squares / self.n - np.square(self.mean)).clip(min=0))


@dataclass(slots=True)
class Health:
    """What is seen at the sampled rows of one dataset."""

    rows: int = 0  # with features
    not_finite: int = 0  # rows with a NaN or an infinity among them
    nans: int = 0  # numbers
    infinities: int = 0
    zeros: int = 0  # rows whose numbers are all 0
    norms: list[Array] = field(default_factory=list)
    halves: tuple[Moments, Moments] = field(default_factory=lambda: (Moments(), Moments()))  # every other track

    def add(self, features: Array, track: Array) -> None:
        """features (N, channels) of rows of these tracks (N,)."""
        finite = np.isfinite(features).all(axis=1)
        self.rows += len(features)
        self.not_finite += int((~finite).sum())
        self.nans += int(np.isnan(features).sum())
        self.infinities += int(np.isinf(features).sum())
        norms = np.linalg.norm(features[finite].astype(np.float64), axis=1)
        self.zeros += int((norms == 0).sum())
        self.norms.append(norms[norms > 0])
        for half, moments in enumerate(self.halves):
            moments.add(features[finite & (track % 2 == half)])

    @property
    def constant(self) -> float:
        """Share of the channels that are the same in all rows; 0 where fewer than two rows can tell."""
        of = self.halves[0].both(self.halves[1])
        return float(np.mean(of.variance <= 1e-12 * np.square(of.mean))) if of.n > 1 else 0.0


def stream_section(opened: Opened, stream: str | None) -> Section:
    """Rows without features, numbers that are none, norms, and how far datasets lie apart. None: no stream."""
    problems: list[str] = []
    having = Opened(opened.root, [s for s in opened.splits if stream is not None and stream in s.streams])
    coverage = [row for split in having.splits if (row := _coverage_row(split, stream or "", problems))]
    health = {name: _health(splits, stream or "", problems) for name, splits in having.datasets.items()}
    seen = {name: one for name, one in health.items() if one.rows}
    drift = _drift_rows({name: one.halves for name, one in seen.items()})
    norms = {name: np.concatenate(one.norms) for name, one in seen.items()}
    trained = not any(str(row[4]).startswith(UNTRAINED) for row in coverage)
    verdicts = health_verdicts.judge(_judged(health, norms, drift, coverage), trained=trained)
    data = {
        "stream": stream,
        "none": [s.name for s in opened.splits if s not in having.splits and "bbox" in s.columns],
        "motion": [s.name for s in opened.splits if "bbox" not in s.columns],
        "coverage_header": ("split", "rows", "rows that it lacks", "rows with ok = 0", "weights"),
        "coverage": coverage,
        "verdicts": verdicts,
        "verdict_rows": [verdict.row for verdict in verdicts],
        "rule": f"{health_verdicts.RULE} {health_verdicts.RULE_TRAINED if trained else health_verdicts.UNTRAINED}",
        "trained": trained,
        "finite_header": ("dataset", "rows looked at", "rows all 0", "rows with NaN or infinity", "NaN", "infinities"),
        "finite": [(name, one.rows, one.zeros, one.not_finite, one.nans, one.infinities) for name, one in seen.items()],
        "norms": histogram("feature-norm", "Norm of the features", ABOUT_NORM, norms, unit="norm", log=True)
        if seen
        else None,
        "drift_header": ("", *seen),
        "drift": drift,
        "drift_largest": max(
            (d for _, *row in drift for d in row if isinstance(d, float) and math.isfinite(d)), default=0
        ),
        "verify": command("verify", "--cache", str(opened.root)),
        "problems": list(dict.fromkeys(problems)),
    }
    return Section("stream", "Health of the feature stream", "stream.html", data)


def _judged(
    health: Mapping[str, Health],
    norms: Mapping[str, Array],
    drift: Sequence[tuple[Cell, ...]],
    coverage: Sequence[tuple[Cell, ...]],
) -> dict[str, Seen]:
    """What the verdicts are about, by dataset."""
    names = [str(row[0]) for row in drift]
    found = {}
    for name, one in health.items():
        rows = [row for row in coverage if str(row[0]).partition("/")[0] == name]
        apart_from = dict(zip(names, drift[names.index(name)][1:], strict=True)) if name in names else {}
        own = apart_from.pop(name, math.nan)
        others = [far for far in apart_from.values() if isinstance(far, float) and not math.isnan(far)]
        found[name] = Seen(
            lacking=sum(row[2] for row in rows if isinstance(row[2], int)),
            lost=sum(row[3] for row in rows if isinstance(row[3], int)),
            not_finite=one.not_finite,
            zeros=one.zeros,
            constant=one.constant,
            norm=float(np.median(norms[name])) if len(norms.get(name, ())) else math.nan,
            own_drift=float(own) if isinstance(own, float) else math.nan,
            nearest=min(others, default=math.nan),
        )
    return found


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


def _drift_rows(halves: Mapping[str, tuple[Moments, Moments]]) -> list[tuple[Cell, ...]]:
    """Each dataset with each; with itself, one half of its tracks with the other."""
    whole = {name: first.both(second) for name, (first, second) in halves.items()}
    return [
        (name, *(apart(*halves[name]) if name == other else apart(one, whole[other]) for other in whole))
        for name, one in whole.items()
    ]


def _coverage_row(split: cache.Split, stream: str, problems: list[str]) -> tuple[Cell, ...] | None:
    try:
        manifest = split.stream_manifest(stream)
        lacking, lost = missing_rows(split, stream).rows, split.undecodable(stream)
    except UNREADABLE as error:
        problems.append(problem(split.name, error))
        return None
    backbone = manifest.get("backbone", {})
    weights = (
        f"{UNTRAINED}: a stand-in" if backbone.get("stand_in") else str(backbone.get("sha256", "not recorded"))[:16]
    )
    return split.name, int((split.tracks.stop - split.tracks.start).sum()), lacking, lost, weights


def _health(splits: list[cache.Split], stream: str, problems: list[str]) -> Health:
    found = Health()
    for split, rows in sample(splits).of:
        try:
            for some in _batches(_with_features(split, stream, rows)):
                windows = np.stack([some, some + 1], axis=1)
                features = split.read(windows, stream, ["features"])["features"][:, 0]
                found.add(features, split.track_of(some))
        except UNREADABLE as error:
            problems.append(problem(split.name, error))
    return found


def _with_features(split: cache.Split, stream: str, rows: Rows) -> Rows:
    """Those of the rows that the stream has, with a picture that was readable."""
    per_shard = int(split.manifest["geometry"]["rows_per_shard"])
    held = rows[np.isin(rows // per_shard, split.stream_shards(stream))]
    ok = [split.rows(f"features/{stream}_ok", row, row + 1)[0] == 1 for row in held.tolist()]
    return np.asarray(held[np.array(ok, bool)], np.int64)


def _batches(rows: Rows) -> Iterator[Rows]:
    return (rows[i : i + BATCH] for i in range(0, len(rows), BATCH))
