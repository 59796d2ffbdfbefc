"""Metrics of trained models, and the rows that are made of them.  evaluation -> [tables]

Training has written metrics.json into a run's folder (`RunMetrics`), with an entry for each split:

    {"stand_in": false, "3dpw/test": {"protocol": "default", "frames": 35515, "mpjpe": 93.5,
     "baseline": {"mpjpe": 190.2, ...}, "published": {...}}, ...}

`by_protocol` divides a split's entry. Two models are there to compare with, and both are called
baseline somewhere:

- the mean body: the same constant body in every frame. The key "baseline" of an entry has its
  errors
- the per-frame model: trained like the model itself, but without temporal context. `Model.baseline`
  is its variant, and `baseline` in luigi.cfg switches it on. It has a run and a metrics.json of its
  own, with the key "smoothed" for its predictions after smoothing in time

The tables call them "mean body" and "per frame".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from vibe_model import runs
from vibe_model.evaluation import published
from vibe_model.evaluation.protocols import (
    KEYPOINTS,
    LABEL_BODY,
    NEUTRAL_BODY,
    by_protocol,
    table_metrics,
)

SplitMetrics = Mapping[str, Any]  # a split's entry in metrics.json, or its numbers by one protocol
MEAN_BODY: Final = "mean body"


@dataclass(frozen=True, slots=True)
class RunMetrics:
    """metrics.json of a finished run, or what `evaluate` writes like it."""

    content: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the file of a finished run."""
        return cls(json.loads((folder / runs.METRICS).read_text()))

    @property
    def splits(self) -> dict[str, SplitMetrics]:
        """The entry of each evaluated split; the other keys are facts of the run."""
        return {name: entry for name, entry in self.content.items() if "/" in name}

    @property
    def stand_in(self) -> bool:
        """Whether the model was trained on demo data."""
        return bool(self.content.get("stand_in"))

    @property
    def best(self) -> Mapping[str, Any] | None:
        """The best epoch: its number from 0 ("epoch"), and its score by the score's name.

        None for metrics of the command `evaluate`, which does not know it.
        """
        return self.content.get("best")

    @property
    def estimates(self) -> Mapping[str, str]:
        """Training splits with estimated bodies -> what these are."""
        return dict(self.content.get("estimates", {}))

    def rows(self, split: str, title: str) -> Iterator[ResultRow]:
        """Yield the rows of a split by each protocol: the model, its smoothed predictions (no
        smoothing may be the best on validation), and the mean body.
        """
        for protocol, numbers in by_protocol(self.splits[split]).items():
            if not numbers:
                continue
            # without frames with 3D labels, the errors are of those with 2D labels
            frames = int(numbers.get("frames") or numbers.get("frames_2d") or 0)
            row = ResultRow(split, protocol, title, _errors_of(numbers), frames)
            yield row
            smoothed = numbers.get("smoothed")
            if smoothed:
                width = f"Gaussian of {smoothed['sigma']:g} frames"
                errors = _errors_of(smoothed)
                yield row._replace(model=f"{title}, smoothed", errors=errors, about=width)
            yield row._replace(model=MEAN_BODY, errors=_errors_of(numbers["baseline"]))

    def label_notes(self, split: str) -> dict[str, str]:
        """Protocol -> whose bodies the labels of a split are, unless they are the neutral body."""
        notes = {}
        for protocol, numbers in by_protocol(self.splits[split]).items():
            genders = numbers.get(LABEL_BODY, NEUTRAL_BODY)
            if genders != NEUTRAL_BODY:
                notes[protocol] = (
                    f"labels by gendered bodies ({genders}), predictions by the neutral one"
                )
        return notes


class ResultRow(NamedTuple):
    """A row of a table: one model on one split, by one protocol."""

    split: str
    protocol: str
    model: str
    errors: Mapping[str, float]  # by metric of metrics.json; without metrics that lack labels
    frames: int | None  # number of evaluated frames; None: unknown
    # below the model's name on a page: source of published figures, or width of smoothing
    about: str = ""


def rows_by_split(
    metrics: Mapping[str, RunMetrics], *, with_published: bool = False
) -> dict[str, list[ResultRow]]:
    """Make the rows of each split: by each protocol those of all models, then the mean body's.

    metrics: by the model's name. The keypoints that a model reads are part of its name.
    with_published: whether rows of published models follow. They do not beside demo data.
    """
    by_split: dict[str, list[ResultRow]] = {}
    for name, of_model in metrics.items():
        for split, entry in of_model.splits.items():
            title = name
            if entry.get(KEYPOINTS):
                title += f", keypoints {entry[KEYPOINTS]}"
            by_split.setdefault(split, []).extend(of_model.rows(split, title))
    by_split = {split: _sort(split, rows) for split, rows in by_split.items()}
    if with_published:
        for split, rows in by_split.items():
            rows += _published_rows(split)
    return by_split


def _sort(split: str, rows: Sequence[ResultRow]) -> list[ResultRow]:
    """Sort a split's rows by protocol; the mean body is last, once.

    A protocol made for the dataset, such as emdb, comes first.
    """
    dataset = split.partition("/")[0]
    protocols = list(dict.fromkeys(row.protocol for row in rows))
    protocols.sort(key=lambda name: name != dataset)  # False sorts before True
    unique = {(row.protocol, row.model): row for row in rows}  # the mean body's are equal
    return sorted(
        unique.values(), key=lambda row: (protocols.index(row.protocol), row.model == MEAN_BODY)
    )


def _published_rows(split: str) -> Iterator[ResultRow]:
    """Yield the rows of published models on a split."""
    for figures in published.FIGURES:
        if figures.split == split:
            key = (split, figures.protocol, figures.model)
            yield ResultRow(*key, figures.errors, None, figures.source)


def _errors_of(numbers: SplitMetrics) -> dict[str, float]:
    """The numbers of an entry of metrics.json that tables show."""
    return {name: float(numbers[name]) for name in table_metrics([numbers]) if name in numbers}
