"""Evaluate a model on splits, by protocols.  features -> windows -> training -> [evaluation]

Training validates with `evaluate_split` and `choose_sigma`, and ends with `evaluate_all`, as does
`tasks evaluate`. For each track: windows -> estimates (`predict_tracks`), then smoothing, bodies
and errors (`frame_errors`). Predictions use the neutral body; each frame with features is predicted
once. With an `EvalOutput`, results by track are written too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from pipeline import plug_ins
from pipeline.errors import DataError
from vibe_model import runs
from vibe_model.evaluation import protocols
from vibe_model.evaluation.frame_errors import Scorer
from vibe_model.evaluation.protocols import Protocol
from vibe_model.evaluation.track_errors import BASELINE, Means, TrackErrors
from vibe_model.files import write_json
from vibe_model.networks.video_model import VideoModel
from vibe_model.prediction.predict import TrackBodies, predict_tracks
from vibe_model.prediction.windows import ModelStreams, select_tracks
from vibe_model.reading import Reading
from vibe_model.stand_in import require_one_kind

if TYPE_CHECKING:
    from cache import Split

Metrics = dict[str, Any]

PREDICTIONS: Final = "predictions"  # a folder with one per split, which has an npz per track
SIGMAS: Final = (1.0, 2.0, 4.0, 8.0)  # frames
UNSMOOTHED: Final = 0.0  # sigma of the predictions themselves


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalOptions:
    """How to predict a split, and what to compare."""

    stream: str  # of features
    extra_streams: Mapping[str, Reading] = field(default_factory=dict)
    seqlen: int = 16  # frames per window; 0: one window for each stretch without a gap
    tracks: str = "*"  # pattern of track names
    batch_size: int = 16  # windows
    vertices: bool = True  # measure PVE, which costs a second body
    keypoints: bool = True  # measure the 2D PCK
    # Sigma in frames of a Gaussian over the predictions in time, whose errors are added as
    # "smoothed".
    smoothed_too: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalOutput:
    """Files of results by track: by each split's first protocol, without smoothing."""

    folder: Path  # for sequences.json
    predictions: bool = False  # write one npz per track, too, in predictions/<split>/
    # facts for the files, such as the run's fingerprint
    about: Mapping[str, Any] = field(default_factory=dict)


def evaluate_split(
    generator: VideoModel,
    split: Split,
    options: EvalOptions,
    *,
    protocol: str | Protocol = "default",
) -> Metrics:
    """Evaluate a model on one split by one protocol. Writes nothing.

    Returns metrics, those of the constant mean body ("baseline"), and counts of frames.

    Metrics are means over the counted frames (some protocols: over tracks or videos); pck_2d is
    over the labelled keypoints of valid frames. A metric without a labelled frame is missing.
    frames: counted, with 3D labels; frames_2d: with 2D labels; frames_total: of the selected
    tracks; frames_not_predicted: without features, or in no window; frames_not_counted: predicted,
    but invalid or without 3D labels. label_body: "neutral", or the genders of the labels' bodies.

    Raises PipelineError for an unknown protocol, ConfigError for an invalid sigma, DataError for
    non-finite predictions and missing columns, MissingAssets if a gender's body is missing.
    """
    if isinstance(protocol, str):
        protocol = protocols.find(protocol)
    lacking = protocol.lacking(split)
    if lacking:
        raise DataError(f"{split.name}: {lacking}")
    return _metrics(_EvaluationJob(generator, split.name, split, [protocol], options))[
        protocol.name
    ]


def evaluate_all(
    generator: VideoModel,
    splits: Mapping[str, Split],
    options: EvalOptions,
    *,
    tracks: Mapping[str, str] | None = None,
    named: Sequence[str] | None = None,
    training: Mapping[str, Split] | None = None,
    stand_in: bool = False,
    output: EvalOutput | None = None,
) -> dict[str, Metrics]:
    """Evaluate a model on every split, by all protocols. The network runs once.

    Returns split -> metrics by the first protocol, with those of others nested by name
    (`protocols.by_protocol`). "left_out" has the protocols that cannot evaluate a split, with
    reasons. For a model that reads streams of 2D keypoints, "keypoints" says whether the split's
    are labels or detected. For a model of past and future, `Protocol.dynamics` adds "dynamics".
    Raises StandInMixed, DataError if no protocol can evaluate a split, and as `evaluate_split`.

    Args:
        tracks: Pattern of track names by split; for other splits that of the options.
        named: Protocols in this order; None: all for the split, "default" first.
        training: Splits in which "dynamics" finds the nearest poses.
        stand_in: The features are from random weights.
        output: Results by track to write; None: write nothing.
    """
    stand_in |= require_one_kind({"the body": generator.body.is_stand_in}, splits)
    bind_dynamics = functools.cache(lambda name: plug_ins.load(name)(generator, training or {}))
    chosen = {name: _choose_protocols(name, split, named) for name, split in splits.items()}
    results = None
    if output is not None:
        results = _TrackResults(generator, output, {**output.about, "stand_in": stand_in})

    by_split: dict[str, Metrics] = {}
    for name, (records, left_out) in chosen.items():
        split_options = replace(options, tracks=(tracks or {}).get(name, options.tracks))
        job = _EvaluationJob(generator, name, splits[name], records, split_options, results)
        metrics = _metrics(job)
        nested: list[Metrics] = []  # as `protocols.by_protocol` reads them
        for record in records:
            dynamics = _dynamics(job, record, bind_dynamics)
            nested.append(metrics[record.name] | dynamics | {"stand_in": stand_in})
        first, *others = nested
        by_name = {numbers["protocol"]: numbers for numbers in others}
        by_split[name] = first | _split_facts(job, left_out) | by_name
    if results is not None:
        results.write()
    return by_split


def _choose_protocols(
    name: str, split: Split, named: Sequence[str] | None
) -> tuple[list[Protocol], dict[str, str]]:
    """`protocols.choose`. Raises DataError if no protocol can evaluate the split."""
    records, left_out = protocols.choose(split, named)
    if not records:
        reasons = "; ".join(left_out.values())
        raise DataError(f"{name}: {reasons or 'no protocol is for this split: name one'}")
    return records, left_out


def _split_facts(job: _EvaluationJob, left_out: Mapping[str, str]) -> Metrics:
    """Facts about a split's results that are the same for all protocols."""
    facts: Metrics = {}
    if any(reading.of_keypoints for reading in job.options.extra_streams.values()):
        facts[protocols.KEYPOINTS] = str(
            job.split.manifest.get(protocols.KEYPOINTS, "not recorded")
        )
    if left_out:
        facts[protocols.LEFT_OUT] = left_out
    return facts


def choose_sigma(
    generator: VideoModel,
    splits: Mapping[str, Split],
    options: EvalOptions,
    *,
    tracks: Mapping[str, str] | None = None,
    candidates: Sequence[float] = SIGMAS,
) -> float:
    """The smoothing sigma with the best PA-MPJPE, the mean over splits.

    Of equals the first candidate wins. options: vertices, keypoints and smoothed_too do not matter.
    tracks: as in `evaluate_all`. Splits without 3D labels do not count. Raises DataError if none
    has any, ConfigError for an invalid candidate.
    """
    scores: dict[float, list[float]] = {sigma: [] for sigma in candidates}
    for name, split in splits.items():
        pattern = (tracks or {}).get(name, options.tracks)
        split_options = replace(options, tracks=pattern, vertices=False, keypoints=False)
        job = _EvaluationJob(generator, name, split, [protocols.DEFAULT], split_options)
        for (_, sigma), means in _means(job, candidates).items():
            if means.counted:
                scores[sigma].append(means.by_error()["pa_mpjpe"])
    if not all(scores.values()):
        raise DataError(
            f"{', '.join(splits)}: expected frames with 3D labels to choose a sigma by, found none"
        )

    return min(scores, key=lambda sigma: float(np.mean(scores[sigma])))


class _EvaluationJob(NamedTuple):
    """A split to evaluate."""

    generator: VideoModel
    name: str  # of the split, in results
    split: Split
    records: Sequence[Protocol]
    options: EvalOptions  # with the pattern of this split's tracks
    # gets each track with its errors by the first protocol, without smoothing
    results: _TrackResults | None = None


def _metrics(job: _EvaluationJob) -> dict[str, Metrics]:
    """Evaluate one split: protocol -> metrics."""
    smoothed_too = job.options.smoothed_too
    sigmas = [UNSMOOTHED]
    if smoothed_too is not None:
        sigmas.append(smoothed_too)
    total = sum(track.stop - track.start for track in select_tracks(job.split, job.options.tracks))
    all_means = _means(job, sigmas)

    by_protocol = {}
    for record in job.records:
        means = all_means[record.name, UNSMOOTHED]
        metrics: Metrics = {
            "protocol": record.name,
            protocols.LABEL_BODY: ", ".join(sorted(record.genders(job.split))),
        }
        if record.compares_with:
            metrics[protocols.COMPARES_WITH] = record.compares_with
        metrics |= {
            "frames_total": total,
            "frames_not_predicted": total - means.predicted,
            "frames": means.counted,
            "frames_2d": means.counted_2d,
            "frames_not_counted": means.predicted - means.counted,
            **means.by_error(),
            BASELINE: means.by_error(BASELINE),
        }
        if smoothed_too is not None:
            smoothed = all_means[record.name, smoothed_too]
            metrics["smoothed"] = {"sigma": smoothed_too, **smoothed.by_error()}
        by_protocol[record.name] = metrics
    return by_protocol


def _means(job: _EvaluationJob, sigmas: Sequence[float]) -> dict[tuple[str, float], Means]:
    """The mean errors by protocol and sigma. Adds each track to the job's results."""
    options = job.options
    results = job.results
    # Protocols with the same windows (`Protocol.drop_last`) share predictions, and one Scorer for
    # each sigma.
    by_drop_last: dict[bool, list[Protocol]] = {}
    for record in job.records:
        by_drop_last.setdefault(record.drop_last, []).append(record)
    scorers = {}  # by drop_last and sigma
    for drop_last, same in by_drop_last.items():
        for sigma in sigmas:
            scorers[drop_last, sigma] = Scorer(
                job.generator,
                job.split,
                same,
                sigma,
                vertices=options.vertices,
                keypoints=options.keypoints,
            )

    predicted_tracks = predict_tracks(
        job.generator,
        job.split,
        select_tracks(job.split, options.tracks),
        streams=ModelStreams(options.stream, options.extra_streams),
        seqlen=options.seqlen,
        batch_size=options.batch_size,
        drop_last=list(by_drop_last),
        around=results is not None and results.output.predictions,
    )
    for predictions in predicted_tracks:  # of one track, by `drop_last`
        bodies = dict(zip(by_drop_last, predictions, strict=True))
        scored = {
            (drop_last, sigma): scorer.add(bodies[drop_last])
            for (drop_last, sigma), scorer in scorers.items()
        }
        if results is not None:
            results.add(job.name, *scored[job.records[0].drop_last, UNSMOOTHED])

    return {
        (record.name, sigma): scorers[record.drop_last, sigma].means[record.name]
        for record in job.records
        for sigma in sigmas
    }


def _dynamics(
    job: _EvaluationJob, record: Protocol, bind_dynamics: Callable[[str], Callable[..., Metrics]]
) -> Metrics:
    """{"dynamics": errors of past and future bodies}; empty if the protocol measures none.

    bind_dynamics: `Protocol.dynamics` -> the function that measures these errors. It is cached,
        since that function holds the poses of all training splits.
    """
    if not (job.generator.steps and record.dynamics):
        return {}
    measure = bind_dynamics(record.dynamics)
    options = job.options
    table = measure(
        job.split,
        stream=options.stream,
        extra_streams=options.extra_streams,
        tracks=options.tracks,
    )
    return {"dynamics": table} if table else {}


@dataclass(frozen=True, slots=True)
class _TrackResults:
    """Results by track: a row each in sequences.json, and the files of their predictions.

    first_frame, last_frame: the source's own frames, counted from 0, the last one included. frames,
    frames_2d: numbers of frames with 3D and 2D labels that count.
    """

    generator: VideoModel
    output: EvalOutput
    facts: dict[str, Any]  # in every file
    rows: list[Metrics] = field(default_factory=list)

    def add(self, split: str, bodies: TrackBodies, errors: TrackErrors) -> None:
        """Add one track, and write its predictions, past and future ones too."""
        if not len(bodies):
            return
        means = Means(errors.metrics).add(errors)
        row = {
            "split": split,
            "track": bodies.track.name,
            "video": bodies.track.video,
            "first_frame": int(bodies.frame_index[0]),
            "last_frame": int(bodies.frame_index[-1]),
            **means.by_error(),
            "frames_predicted": means.predicted,
            "frames": means.counted,
            "frames_2d": means.counted_2d,
            "stand_in": self.facts["stand_in"],
        }
        if self.output.predictions:
            folder = f"{PREDICTIONS}/{split}"
            about = self.facts | {"split": split}
            path = bodies.save(self.output.folder / folder, self.generator, about=about)
            row["predictions"] = f"{folder}/{path.name}"
        self.rows.append(row)

    def write(self) -> None:
        """Write sequences.json: the rows and the facts."""
        folder = self.output.folder
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{runs.SEQUENCES}.json", {**self.facts, runs.SEQUENCES: self.rows})
