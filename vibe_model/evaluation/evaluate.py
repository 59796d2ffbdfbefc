"""Evaluate a model on splits, by protocols.  features -> windows -> training -> [evaluation]

Training validates with `evaluate_split` and `choose_sigma`, and ends with `evaluate_all`, as does
`tasks evaluate`. For each track: windows -> estimates (`predict_tracks`), then smoothing, bodies
and errors (`frame_errors`). Predictions use the neutral body; each frame with features is predicted
once. With a folder, results by track are written there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pipeline import plug_ins
from pipeline.errors import DataError
from vibe_model import runs
from vibe_model.evaluation import protocols
from vibe_model.evaluation.frame_errors import Scorer
from vibe_model.evaluation.protocols import Protocol
from vibe_model.evaluation.track_errors import Means, TrackErrors
from vibe_model.networks.video_model import VideoModel
from vibe_model.prediction.predict import TrackBodies, predict_tracks, save_npz
from vibe_model.prediction.windows import select_tracks
from vibe_model.result_files import write_json
from vibe_model.settings import Reading

if TYPE_CHECKING:
    from cache import Split

Metrics = dict[str, Any]
Row = dict[str, Any]
MeasureDynamics = Callable[..., dict[str, Any]]  # see `Protocol.dynamics`

PREDICTIONS: Final = "predictions"  # a folder with one per split, which has an npz per track
SIGMAS: Final = (1.0, 2.0, 4.0, 8.0)  # frames


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
    # "smoothed"; 0: none.
    smoothed_too: float = 0.0


def evaluate_split(
    generator: VideoModel, split: Split, *, protocol: str | Protocol = "default", **options: Any
) -> Metrics:
    """Evaluate a model on one split by one protocol.

    Returns metrics, those of the constant mean body ("baseline"), and counts of frames.

    Metrics are means over the counted frames (some protocols: over tracks or videos); pck_2d is
    over the labelled keypoints of valid frames. A metric without a labelled frame is missing.
    frames: counted, with 3D labels; frames_2d: with 2D labels; frames_total: of the selected
    tracks; frames_not_predicted: without features, or in no window; frames_not_counted: predicted,
    but invalid or without 3D labels. label_body: "neutral", or the genders of the labels' bodies.

    options: fields of `EvalOptions`. Raises PipelineError for an unknown protocol, ConfigError for
    an invalid sigma, DataError for non-finite predictions and missing columns, MissingAssets if a
    gender's body is missing.
    """
    if isinstance(protocol, str):
        protocol = protocols.find(protocol)
    lacking = protocol.lacking(split)
    if lacking:
        raise DataError(f"{split.name}: {lacking}")
    return _metrics(generator, split, EvalOptions(**options), [protocol])[protocol.name]


def evaluate_all(
    generator: VideoModel,
    splits: Mapping[str, Split],
    *,
    tracks: Mapping[str, str] | None = None,
    training: Mapping[str, Split] | None = None,
    folder: Path | None = None,
    predictions: bool = False,
    stand_in: bool = False,
    about: Mapping[str, Any] | None = None,
    named: Sequence[str] | None = None,
    **options: Any,
) -> dict[str, Metrics]:
    """Evaluate a model on every split, by all protocols. The network runs once.

    Returns split -> metrics by the first protocol, with those of others nested by name
    (`protocols.by_protocol`). "left_out" has the protocols that cannot evaluate a split, with
    reasons. For a model that reads streams of 2D keypoints, "keypoints" says whether the split's
    are labels or detected. For a model of past and future, `Protocol.dynamics` adds "dynamics".
    Raises StandInMixed, DataError if no protocol can evaluate a split, and as `evaluate_split`.

    Args:
        tracks: Pattern of track names by split.
        training: Splits in which "dynamics" finds the nearest poses.
        folder: For results by track by the first protocol.
        predictions: Write one npz per track there, too, in predictions/<split>/.
        stand_in: The features are from random weights.
        about: Facts for the files, such as the run's fingerprint.
        named: Protocols in this order; None: all for the split, "default" first.
        options: Other fields of `EvalOptions`.
    """
    shared = EvalOptions(**options)
    is_demo = runs.demo_splits(splits) | {"the body": generator.body.is_stand_in}
    stand_in |= runs.require_one_kind(is_demo)
    facts = {**(about or {}), "stand_in": stand_in}
    bind_dynamics = functools.cache(lambda name: plug_ins.load(name)(generator, training or {}))

    by_split: dict[str, Metrics] = {}
    collected: list[_SplitResults] = []
    for name, split in splits.items():
        records, left_out = _choose_protocols(name, split, named)
        results = None
        if folder is not None:
            results = _SplitResults(name)
            collected.append(results)
            if predictions:
                npz_folder = folder / PREDICTIONS / name
                results.save = functools.partial(
                    save_npz, npz_folder, generator=generator, about=facts | {"split": name}
                )
        split_options = replace(shared, tracks=(tracks or {}).get(name, "*"))
        by_protocol = _metrics(generator, split, split_options, records, results)
        if generator.steps:
            _add_dynamics(by_protocol, split, split_options, records, bind_dynamics)
        for metrics in by_protocol.values():
            metrics["stand_in"] = stand_in
        by_split[name] = _nest(by_protocol, _split_facts(split, shared, left_out))
    if folder is not None:
        _write_results(folder, collected, facts)
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


def _split_facts(split: Split, options: EvalOptions, left_out: Mapping[str, str]) -> Metrics:
    """Facts about a split's results that are the same for all protocols."""
    facts: Metrics = {}
    if any(reading.of_keypoints for reading in options.extra_streams.values()):
        facts[runs.KEYPOINTS] = str(split.manifest.get(runs.KEYPOINTS, "not recorded"))
    if left_out:
        facts[protocols.LEFT_OUT] = left_out
    return facts


def _nest(by_protocol: Mapping[str, Metrics], facts: Metrics) -> Metrics:
    """The first protocol's metrics and a split's facts, with those of other protocols by name."""
    first, *other_metrics = by_protocol.values()
    return first | facts | {metrics["protocol"]: metrics for metrics in other_metrics}


def choose_sigma(
    generator: VideoModel,
    splits: Mapping[str, Split],
    *,
    tracks: Mapping[str, str] | None = None,
    candidates: Sequence[float] = SIGMAS,
    **options: Any,
) -> tuple[float, dict[float, float]]:
    """The smoothing sigma with the best PA-MPJPE, and each sigma's mean over splits, mm.

    Of equals the first candidate wins. tracks, options: as in `evaluate_all`. Splits without 3D
    labels do not count. Raises DataError if none has any, ConfigError for an invalid candidate.
    """
    shared = EvalOptions(vertices=False, keypoints=False, **options)
    scores: dict[float, list[float]] = {sigma: [] for sigma in candidates}
    for name, split in splits.items():
        split_options = replace(shared, tracks=(tracks or {}).get(name, "*"))
        by_name = _means(generator, split, split_options, [protocols.DEFAULT], candidates)
        for sigma, means in zip(candidates, by_name[protocols.DEFAULT.name], strict=True):
            if means.counted:
                scores[sigma].append(means.by_error()["pa_mpjpe"])
    if not all(scores.values()):
        raise DataError(
            f"{', '.join(splits)}: expected frames with 3D labels to choose a sigma by, found none"
        )

    by_sigma = {sigma: float(np.mean(values)) for sigma, values in scores.items()}
    return min(by_sigma, key=by_sigma.__getitem__), by_sigma


def _metrics(
    generator: VideoModel,
    split: Split,
    options: EvalOptions,
    records: Sequence[Protocol],
    results: _SplitResults | None = None,
) -> dict[str, Metrics]:
    """Evaluate one split: protocol -> metrics.

    results: As in `_means`.
    """
    sigmas = [0.0]
    if options.smoothed_too:
        sigmas.append(options.smoothed_too)
    total = sum(track.stop - track.start for track in select_tracks(split, options.tracks))
    by_name = _means(generator, split, options, records, sigmas, results)

    by_protocol = {}
    for record in records:
        means, *smoothed_means = by_name[record.name]
        metrics: Metrics = {
            "protocol": record.name,
            runs.LABEL_BODY: ", ".join(sorted(record.genders(split))),
        }
        if record.compares_with:
            metrics[runs.COMPARES_WITH] = record.compares_with
        metrics["frames_total"] = total
        metrics["frames_not_predicted"] = total - means.predicted
        metrics["frames"] = means.counted
        metrics["frames_2d"] = means.counted_2d
        metrics["frames_not_counted"] = means.predicted - means.counted
        metrics |= means.by_error()
        metrics["baseline"] = means.by_error("baseline")
        for smoothed in smoothed_means:  # one, or none without `smoothed_too`
            metrics["smoothed"] = {"sigma": options.smoothed_too, **smoothed.by_error()}
        by_protocol[record.name] = metrics
    return by_protocol


def _means(
    generator: VideoModel,
    split: Split,
    options: EvalOptions,
    records: Sequence[Protocol],
    sigmas: Sequence[float],
    results: _SplitResults | None = None,
) -> dict[str, list[Means]]:
    """Protocol -> the mean errors for each sigma of smoothing, in their order.

    results: Gets each track with its errors by the first protocol and the first sigma.
    """
    # Protocols with the same windows (`Protocol.drop_last`) share predictions, and one Scorer for
    # each sigma.
    by_drop_last: dict[bool, list[Protocol]] = {}
    for record in records:
        by_drop_last.setdefault(record.drop_last, []).append(record)
    create = functools.partial(
        Scorer, generator, split, vertices=options.vertices, keypoints=options.keypoints
    )
    scorers = {}  # drop_last -> one for each sigma; first those of the first protocol
    for drop_last, same in by_drop_last.items():
        scorers[drop_last] = [create(same, sigma) for sigma in sigmas]

    tracks = predict_tracks(
        generator,
        split,
        stream=options.stream,
        extra_streams=options.extra_streams,
        seqlen=options.seqlen,
        tracks=options.tracks,
        batch_size=options.batch_size,
        drop_last=list(scorers),
        around=results is not None and results.save is not None,
    )
    for predictions in tracks:  # of one track, by `drop_last`
        scored = []
        for drop_last, bodies in zip(scorers, predictions, strict=True):
            scored += [scorer.add(bodies) for scorer in scorers[drop_last]]
        if results is not None:
            results.add(*scored[0])  # by the first protocol and the first sigma

    means = {}
    for record in records:
        means[record.name] = [scorer.means[record.name] for scorer in scorers[record.drop_last]]
    return means


def _add_dynamics(
    by_protocol: Mapping[str, Metrics],
    split: Split,
    options: EvalOptions,
    records: Sequence[Protocol],
    bind_dynamics: Callable[[str], MeasureDynamics],
) -> None:
    """Add the errors of past and future bodies to the metrics of protocols that measure them.

    bind_dynamics: `Protocol.dynamics` -> the function that measures these errors. It is cached,
        since that function holds the poses of all training splits.
    """
    for record in records:
        if not record.dynamics:
            continue
        measure = bind_dynamics(record.dynamics)
        table = measure(
            split,
            stream=options.stream,
            extra_streams=options.extra_streams,
            tracks=options.tracks,
        )
        if table:
            by_protocol[record.name]["dynamics"] = table


@dataclass(slots=True)
class _SplitResults:
    """Results of one split: a row per track.

    first_frame, last_frame: the source's own frames, counted from 0, the last one included. frames,
    frames_2d: numbers of frames with 3D and 2D labels that count.
    """

    name: str  # of the split
    # saves a track's predictions, past and future ones too; returns the file
    save: Callable[[TrackBodies], Path] | None = None
    sequences: list[Row] = field(default_factory=list)

    def add(self, bodies: TrackBodies, errors: TrackErrors) -> None:
        """Add one track."""
        if not len(bodies):
            return
        means = Means().add(errors)
        row = {
            "split": self.name,
            "track": bodies.track.name,
            "video": bodies.track.video,
            "first_frame": int(bodies.frame_index[0]),
            "last_frame": int(bodies.frame_index[-1]),
            **means.by_error(),
            "frames_predicted": means.predicted,
            "frames": means.counted,
            "frames_2d": means.counted_2d,
        }
        if self.save is not None:
            row["predictions"] = f"{PREDICTIONS}/{self.name}/{self.save(bodies).name}"
        self.sequences.append(row)


def _write_results(
    folder: Path, collected: Sequence[_SplitResults], facts: Mapping[str, Any]
) -> None:
    """Write results by track, as JSON with the facts."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for results in collected:
        rows += results.sequences
    for row in rows:
        row["stand_in"] = facts["stand_in"]
    write_json(folder / f"{runs.SEQUENCES}.json", {**facts, runs.SEQUENCES: rows})
