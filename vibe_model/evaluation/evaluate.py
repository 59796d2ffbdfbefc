"""Evaluate a model on splits, by protocols.  features -> windows -> training -> [evaluation]

For each track: windows -> estimates (`predict_tracks`), then smoothing, bodies and errors (`frame_errors`). Predictions
use the neutral body; each frame with features is predicted once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pipeline import plug_ins
from vibe_model import runs
from vibe_model.errors import DataError
from vibe_model.evaluation import protocols, results
from vibe_model.evaluation.frame_errors import Means, Scorer, TrackErrors
from vibe_model.evaluation.meshes import genders_of
from vibe_model.evaluation.protocols import Protocol
from vibe_model.networks.video_model import VideoModel
from vibe_model.prediction.predict import TrackBodies, predict_tracks, save_npz
from vibe_model.prediction.windows import select_tracks
from vibe_model.settings import Reading

if TYPE_CHECKING:
    from cache import Split

Metrics = dict[str, Any]
Collect = Callable[[TrackBodies, TrackErrors], None]

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
    smooth: float = 0.0  # sigma of a Gaussian over the predictions in time, frames; 0: none
    smoothed_too: float = 0.0  # another sigma, whose errors are added as "smoothed"; 0: none


def evaluate_split(
    generator: VideoModel, split: Split, *, protocol: str | Protocol = "default", **options: Any
) -> Metrics:
    """Metrics of one split, those of the constant mean body ("baseline"), and counts of frames.

    Metrics are means over the counted frames (some protocols: over tracks or videos); pck_2d is over the labelled
    keypoints of valid frames. A metric without a labelled frame is missing. frames: counted, with 3D labels; frames_2d:
    with 2D labels; frames_total: of the selected tracks; frames_not_predicted: without features, or in no window;
    frames_not_counted: predicted, but invalid or without 3D labels. label_body: "neutral", or the genders of the
    labels' bodies.

    options: fields of `EvalOptions`. Raises PipelineError for an unknown protocol, ConfigError for an invalid sigma,
    DataError for non-finite predictions and missing columns, MissingAssets if a gender's body is missing.
    """
    record = protocols.find(protocol) if isinstance(protocol, str) else protocol
    if lacking := record.lacking(split):
        raise DataError(f"{split.name}: {lacking}")
    return _metrics(generator, split, EvalOptions(**options), [record])[record.name]


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
    """Metrics of every split by the first protocol, and nested in them those of the other protocols by name.

    The network runs once. "left_out" has the protocols that cannot evaluate a split, with reasons. For a model that
    reads streams of 2D keypoints, "keypoints" says whether the split's are labels or detected. For a model of past and
    future, protocols such as "hmmr" add "dynamics" (`Protocol.dynamics`), with the nearest poses of the `training`
    splits.

    tracks: pattern of track names by split. folder: for results by track and worst windows by the first protocol
    (`results.write`), and with `predictions` one npz per track in predictions/<split>/. about: facts for these files,
    such as the run's fingerprint. stand_in: the features are from random weights. named: protocols in this order;
    None: all for the split, "default" first. options: other fields of `EvalOptions`.

    Raises StandInMixed if splits and body are partly demo data, DataError for a split that no protocol can evaluate,
    and as `evaluate_split` does.
    """
    stand_in = runs.require_one_kind(splits, the_body=generator.body.is_stand_in) | stand_in
    about = {**(about or {}), "smooth": EvalOptions(**options).smooth}
    by_split: dict[str, Metrics] = {}
    collected: list[results.SplitResults] = []
    dynamics_of = functools.cache(lambda name: plug_ins.load(name)(generator, training or {}))
    for name, split in splits.items():
        chosen = EvalOptions(tracks=(tracks or {}).get(name, "*"), **options)
        recorded = {**about, "split": name, "stand_in": stand_in}
        saved = folder if predictions else None
        collected.append(results.SplitResults(name, chosen.seqlen))
        collect = None if folder is None else functools.partial(_collect, collected[-1], generator, saved, recorded)
        records, left_out = protocols.choose(split, named)
        if not records:
            raise DataError(f"{name}: {'; '.join(left_out.values()) or 'no protocol is for this split: name one'}")
        by_protocol = _metrics(generator, split, chosen, records, collect, around=predictions)
        read = {"stream": chosen.stream, "extra_streams": chosen.extra_streams, "tracks": chosen.tracks}
        for record in records if generator.steps else ():
            if record.dynamics and (table := dynamics_of(record.dynamics)(split, **read)):
                by_protocol[record.name]["dynamics"] = table
        first, *others = (by_protocol[record.name] | {"stand_in": stand_in} for record in records)
        if any(reading.of_keypoints for reading in chosen.extra_streams.values()):
            first[runs.KEYPOINTS] = str(split.manifest.get(runs.KEYPOINTS, "not recorded"))
        if left_out:
            first[protocols.LEFT_OUT] = left_out
        by_split[name] = first | {metrics["protocol"]: metrics for metrics in others}
    if folder is not None:
        results.write(folder, collected, stand_in=stand_in, about=about)
    return by_split


def _collect(
    of_split: results.SplitResults,
    generator: VideoModel,
    folder: Path | None,
    about: Mapping[str, Any],
    bodies: TrackBodies,
    errors: TrackErrors,
) -> None:
    facts: dict[str, Any] = {}
    if folder is not None and len(bodies):
        path = save_npz(folder / PREDICTIONS / of_split.name, bodies, generator, about=about)
        facts["predictions"] = path.relative_to(folder).as_posix()
    of_split.add(bodies, errors, **facts)


def choose_sigma(
    generator: VideoModel,
    splits: Mapping[str, Split],
    *,
    tracks: Mapping[str, str] | None = None,
    candidates: Sequence[float] = SIGMAS,
    **options: Any,
) -> tuple[float, dict[float, float]]:
    """The smoothing sigma with the best PA-MPJPE, and each sigma's mean over splits, mm.

    Of equals the first candidate wins. tracks, options: as in `evaluate_all`. Splits without 3D labels do not count.
    Raises DataError if none has any, ConfigError for an invalid candidate.
    """
    scores: dict[float, list[float]] = {sigma: [] for sigma in candidates}
    for name, split in splits.items():
        chosen = EvalOptions(tracks=(tracks or {}).get(name, "*"), vertices=False, keypoints=False, **options)
        of_protocols = _means(generator, split, chosen, [protocols.DEFAULT], candidates)
        for sigma, means in zip(candidates, of_protocols[protocols.DEFAULT.name], strict=True):
            scores[sigma] += [means.by_error()["pa_mpjpe"]] if means.counted else []
    if not all(scores.values()):
        raise DataError(f"{', '.join(splits)}: expected frames with 3D labels to choose a sigma by, found none")
    by_sigma = {sigma: float(np.mean(values)) for sigma, values in scores.items()}
    return min(by_sigma, key=lambda sigma: by_sigma[sigma]), by_sigma


def _metrics(
    generator: VideoModel,
    split: Split,
    options: EvalOptions,
    records: Sequence[Protocol],
    collect: Collect | None = None,
    *,
    around: bool = False,
) -> dict[str, Metrics]:
    """Metrics by protocol. collect: gets every track by the first protocol; around: predict past and future bodies."""
    sigmas = (options.smooth, options.smoothed_too) if options.smoothed_too else (options.smooth,)
    total = sum(track.stop - track.start for track in select_tracks(split, options.tracks))
    by_protocol = {}
    by_name = _means(generator, split, options, records, sigmas, collect, around=around)
    for record in records:
        means, *of_other_sigmas = by_name[record.name]
        metrics = by_protocol[record.name] = {
            "protocol": record.name,
            runs.LABEL_BODY: ", ".join(sorted(genders_of(record, split))),
            **({runs.COMPARES_WITH: record.compares_with} if record.compares_with else {}),
            "frames_total": total,
            "frames_not_predicted": total - means.predicted,
            "frames": means.counted,
            "frames_2d": means.counted_2d,
            "frames_not_counted": means.predicted - means.counted,
            **means.by_error(),
            "baseline": means.by_error("baseline"),
        }
        if options.smooth:
            metrics["sigma"] = options.smooth
        for smoothed in of_other_sigmas:
            metrics["smoothed"] = {"sigma": options.smoothed_too, **smoothed.by_error()}
    return by_protocol


def _means(
    generator: VideoModel,
    split: Split,
    options: EvalOptions,
    records: Sequence[Protocol],
    sigmas: Sequence[float],
    collect: Collect | None = None,
    *,
    around: bool = False,
) -> dict[str, list[Means]]:
    """By protocol, the means of each sigma. Protocols with the same windows share the predictions."""
    compared = {"vertices": options.vertices, "keypoints": options.keypoints}
    cuts = list(dict.fromkeys(record.drop_last for record in records))  # the first record's windows first
    scorers = []
    for cut in cuts:
        sharing = [record for record in records if record.drop_last == cut]
        scorers.append([Scorer(generator, split, protocols=sharing, smooth=sigma, **compared) for sigma in sigmas])
    chosen = {name: getattr(options, name) for name in ("stream", "extra_streams", "seqlen", "tracks", "batch_size")}
    for of_cuts in predict_tracks(generator, split, drop_last=cuts, around=around, **chosen):
        scored = [[scorer.add(b) for scorer in of_cut] for of_cut, b in zip(scorers, of_cuts, strict=True)]
        if collect is not None:
            collect(*scored[0][0])
    return {
        record.name: [scorer.means[record.name] for scorer in scorers[cuts.index(record.drop_last)]]
        for record in records
    }
