"""Histograms of the numbers of a split's grades, with their limits.  [tracks] -> page"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from pipeline.cli.text import count
from pipeline.grades.words import MEASURES
from pipeline.people.skeletons import Array, Doubles, Ints

MOST: Final = 8  # histograms: those with most tracks beyond their limit
BINS: Final = 12
HEIGHT: Final = 10  # of the highest bar; a bin is 1 wide
INNER: Final = (0.5, 99.5)  # percentiles between which the bins are; beyond are the first and last
UNKNOWN_BIN: Final = 255


class Histogram(NamedTuple):
    """The numbers of a measure."""

    label: str
    ends: str
    bars: str  # path; heights are logarithmic
    limits: str  # path
    bins: list[tuple[int, str]]  # those with tracks, in words
    of_tracks: Array  # (L,) uint8, the bins of tracks that were asked for, or UNKNOWN_BIN


def make_histograms(numbers: Doubles, chosen: Ints) -> list[Histogram]:
    """Histograms of the measures that have a limit, and that differ between tracks; those that
    most tracks are beyond come first.

    numbers: (N, M) of all tracks, in the order of MEASURES; nan if unknown. chosen: (L,) tracks.
    """
    made = []
    for (name, measure), values in zip(MEASURES.items(), numbers.T, strict=True):
        known = values[np.isfinite(values)]
        # the number of another track is no measure
        if name == "same_person" or np.isnan(measure.doubtful) or not len(known):
            continue
        limits = [limit for limit in (measure.doubtful, measure.bad) if not np.isnan(limit)]
        low, high = np.percentile(known, INNER)
        edges = np.linspace(min(low, *limits), max(high, *limits), BINS + 1)
        label = re.sub(r"\{.*?\}", "…", measure.text)
        n_beyond = int(np.sum(measure.is_worse(known, measure.doubtful)))
        histogram = _make_histogram(label, values, edges, limits)
        if len(histogram.bins) > 1:
            made.append((n_beyond, histogram._replace(of_tracks=histogram.of_tracks[chosen])))
    made.sort(key=lambda pair: -pair[0])
    return [histogram for _, histogram in made[:MOST]]


def _make_histogram(
    label: str, values: Doubles, edges: Doubles, limits: Sequence[float]
) -> Histogram:
    """The histogram of N values. edges: (BINS + 1,) of the bins."""
    of_tracks = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, BINS - 1)
    is_known = np.isfinite(values)
    counts = np.bincount(of_tracks[is_known], minlength=BINS)
    heights = HEIGHT * np.log1p(counts) / np.log1p(counts.max())
    bins = []
    for number in np.flatnonzero(counts).tolist():
        low = "the least" if number == 0 else f"{edges[number]:.3g}"
        high = "the most" if number == BINS - 1 else f"{edges[number + 1]:.3g}"
        bins.append((number, f"{low} to {high}: {count(int(counts[number]), 'track')}"))
    places = [BINS * (limit - edges[0]) / (edges[-1] - edges[0]) for limit in limits]
    return Histogram(
        label=label,
        ends=f"{edges[0]:.3g} to {edges[-1]:.3g}",
        bars="".join(f"M{number} 10v{-height:.2f}h1V10z" for number, height in enumerate(heights)),
        limits="".join(f"M{place:.2f} 0V10" for place in places),
        bins=bins,
        of_tracks=np.where(is_known, of_tracks, UNKNOWN_BIN).astype(np.uint8),
    )
