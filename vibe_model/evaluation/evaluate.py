"""How good a model is on a split, and by which protocol.  features -> windows -> training -> [evaluation]

Protocol "default" predicts every frame that has features once, counts the frames that are valid and labelled, and takes
accelerations over neighbouring frames of one track. Protocol "published" does what the published figures were made
with, its four defects included: windows drop each track's last frames, accelerations are taken across track borders,
`valid` is ignored, and labels are rounded to float16. Protocol "hmmr" is that of Kanazawa et al., CVPR 2019: the frames
of the default one of which enough joints can be seen, and means over tracks of each track's mean. In all of them PVE
compares with the body that the split's 3D joints are of: neutral, or where its reader declares genders, of the person's
own gender; then about the midpoint of the hips. Predictions are of the neutral body.

Two stages, a track at a time: windows -> estimates (`predictions`), estimates -> bodies -> errors (`frame_errors`).
Smoothing is done between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vibe_model import runs
from vibe_model.errors import ConfigError, DataError
from vibe_model.evaluation import results
from vibe_model.evaluation.dynamics import KnownPoses, dynamics
from vibe_model.evaluation.frame_errors import Means, Scorer, TrackErrors, label_genders
from vibe_model.metrics import PROTOCOLS
from vibe_model.networks.video_model import VideoModel
from vibe_model.prediction.predict import TrackBodies, predict_tracks, save_npz
from vibe_model.prediction.windows import select_tracks
from vibe_model.settings.run_config import Reading

if TYPE_CHECKING:
    from cache import Split

Metrics = dict[str, Any]
Collect = Callable[[TrackBodies, TrackErrors], None]

PREDICTIONS: Final = "predictions"  # a folder; below it one a split, and in it one npz a track
SIGMAS: Final = (0.0, 1.0, 2.0, 4.0, 8.0)  # frames


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalOptions:
    """How a split is predicted and what is compared."""

    stream: str  # of features
    extra_streams: Mapping[str, Reading] = field(default_factory=dict)  # what the model reads beside them
    seqlen: int = 16  # frames of a window
    tracks: str = "*"  # a pattern of track names
    batch_size: int = 16  # windows
    vertices: bool = True  # measure PVE, which costs a second body
    keypoints: bool = True  # measure the 2D PCK
    smooth: float = 0.0  # sigma of a Gaussian over the predictions in time, frames; 0: none
    smoothed_too: float = 0.0  # sigma of another one, whose errors are added as "smoothed"; 0: none


def evaluate_split(generator: VideoModel, split: Split, *, protocol: str = "default", **options: Any) -> Metrics:
    """Metrics of one split, the same for the constant mean body ("baseline"), and how many frames they are means of.

    mpjpe, pa_mpjpe, pve in mm, accel, accel_error in mm per frame^2, pck, auc in %: means over the counted frames;
    pck_2d in %: over the labelled keypoints of valid frames. By protocol "hmmr", means over tracks instead, and
    pve_unposed in mm: of the shape alone; accel: of 25 joints, not centred; pck_aligned in %: of each frame's visible
    keypoints after 2D alignment, within 7.5 % of their box's diagonal. A metric for which no frame has a label is
    absent. frames: counted, with 3D labels; frames_2d: with 2D labels; frames_total: of the selected tracks;
    frames_not_predicted: without features, or in no window; frames_not_counted: predicted, but without 3D labels or not
    valid. label_body: "neutral", or the genders of the bodies that joints and vertices of the labels are of.

    options: the fields of `EvalOptions`. Raises ConfigError for an unknown protocol and a bad sigma, DataError for
    predictions that are not finite, MissingAssets without the body of a gender whose vertices are compared.
    """
    if protocol not in PROTOCOLS:
        raise ConfigError(f"protocol: expected one of {', '.join(PROTOCOLS)}, found {protocol!r}")
    return _metrics(generator, split, EvalOptions(**options), (protocol,))[protocol]


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
    **options: Any,
) -> dict[str, Metrics]:
    """All protocols of every split, by one pass of the network: the default one's metrics; below, "published", "hmmr".

    Of a model that reads what is computed from 2D keypoints, "keypoints": whether the split's are labels, which may be
    projections of the truth, or detected. Of a model of past and future, "hmmr" has "dynamics" (`dynamics.dynamics`),
    with the nearest poses of the `training` splits with 3D labels.
    tracks: by split, a pattern of track names; options: the other fields of `EvalOptions`. `smoothed_too` only adds an
    entry "smoothed" to the metrics of all protocols: its sigma, and its errors.
    Into `folder`, if there is one: results by track and the worst windows by the default protocol (`results.write`),
    and with `predictions` one npz a track below `folder`/predictions/<split>/. about: what those files record of where
    they come from, as the run's fingerprint. stand_in: features are an untrained network's, even if splits and
    body are real. Raises StandInMixed when splits and body are partly demo data, and as `evaluate_split` does.
    """
    stand_in = runs.check_stand_in(splits, the_body=generator.body.is_stand_in) | stand_in
    about = {**(about or {}), "smooth": EvalOptions(**options).smooth}
    by_split: dict[str, Metrics] = {}
    collected: list[results.SplitResults] = []
    poses = KnownPoses(training, generator) if training and generator.steps else None
    for name, split in splits.items():
        chosen = EvalOptions(tracks=(tracks or {}).get(name, "*"), **options)
        collected.append(of_split := results.SplitResults(name, chosen.seqlen))

        def collect(bodies: TrackBodies, errors: TrackErrors, of_split: results.SplitResults = of_split) -> None:
            facts: dict[str, Any] = {}
            if folder is not None and predictions and len(bodies):
                recorded = {**about, "split": of_split.name, "stand_in": stand_in}
                path = save_npz(folder / PREDICTIONS / of_split.name, bodies, generator, about=recorded)
                facts["predictions"] = path.relative_to(folder).as_posix()
            of_split.add(bodies, errors, **facts)

        by_protocol = _metrics(
            generator, split, chosen, PROTOCOLS, None if folder is None else collect, around=predictions
        )
        if table := dynamics(
            generator,
            split,
            stream=chosen.stream,
            extra_streams=chosen.extra_streams,
            tracks=chosen.tracks,
            known=poses,
        ):
            by_protocol["hmmr"]["dynamics"] = table
        default, *others = (by_protocol[protocol] | {"stand_in": stand_in} for protocol in PROTOCOLS)
        if any(reading.of_keypoints for reading in chosen.extra_streams.values()):
            default[runs.KEYPOINTS] = str(split.manifest.get(runs.KEYPOINTS, "not recorded"))
        by_split[name] = default | dict(zip(PROTOCOLS[1:], others, strict=True))
    if folder is not None:
        results.write(folder, collected, stand_in=stand_in, about=about)
    return by_split


def choose_sigma(
    generator: VideoModel,
    splits: Mapping[str, Split],
    *,
    tracks: Mapping[str, str] | None = None,
    candidates: Sequence[float] = SIGMAS,
    **options: Any,
) -> tuple[float, dict[float, float]]:
    """The sigma of smoothing that is best in validation, and the PA-MPJPE of each, mm: the mean over splits.

    The network runs once. Of equals the first candidate wins. tracks and options as in `evaluate_all`; the candidates
    take the place of `smooth`. Raises DataError for a split without 3D labels, and ConfigError without a candidate and
    for a bad one.
    """
    if not candidates:
        raise ConfigError("candidates: expected at least one sigma, found none")
    scores: dict[float, list[float]] = {sigma: [] for sigma in candidates}
    for name, split in splits.items():
        chosen = EvalOptions(tracks=(tracks or {}).get(name, "*"), vertices=False, keypoints=False, **options)
        for sigma, means in zip(
            candidates, _means(generator, split, chosen, ("default",), candidates)["default"], strict=True
        ):
            if not means.counted:
                raise DataError(f"{name}: expected frames with 3D labels to choose a sigma by, found none")
            scores[sigma].append(means.of()["pa_mpjpe"])
    by_sigma = {sigma: float(np.mean(values)) for sigma, values in scores.items()}
    return min(by_sigma, key=lambda sigma: by_sigma[sigma]), by_sigma


def _metrics(
    generator: VideoModel,
    split: Split,
    options: EvalOptions,
    protocols: Sequence[str],
    collect: Collect | None = None,
    *,
    around: bool = False,
) -> dict[str, Metrics]:
    """Metrics by protocol. `collect` is called with every track, as the first protocol has it; `around`: with past and
    future bodies, where the model has them."""
    sigmas = (options.smooth, options.smoothed_too) if options.smoothed_too else (options.smooth,)
    total = sum(track.stop - track.start for track in select_tracks(split, options.tracks))
    by_protocol = {}
    for protocol, (means, *of_other_sigmas) in _means(
        generator, split, options, protocols, sigmas, collect, around=around
    ).items():
        by_protocol[protocol] = {
            "protocol": protocol,
            runs.LABEL_BODY: ", ".join(label_genders(split)),
            "frames_total": total,
            "frames_not_predicted": total - means.predicted,
            "frames": means.counted,
            "frames_2d": means.counted_2d,
            "frames_not_counted": means.predicted - means.counted,
            **means.of(),
            "baseline": means.of("baseline"),
        }
        if options.smooth:
            by_protocol[protocol]["sigma"] = options.smooth
        for smoothed in of_other_sigmas:
            by_protocol[protocol]["smoothed"] = {"sigma": options.smoothed_too, **smoothed.of()}
    return by_protocol


def _means(
    generator: VideoModel,
    split: Split,
    options: EvalOptions,
    protocols: Sequence[str],
    sigmas: Sequence[float],
    collect: Collect | None = None,
    *,
    around: bool = False,
) -> dict[str, list[Means]]:
    """Mean errors by protocol, for each sigma, by one pass of the network."""
    compared = {"vertices": options.vertices, "keypoints": options.keypoints}
    by_cut: dict[bool, list[str]] = {}  # does a protocol drop each track's last frames? -> those that do
    for protocol in protocols:
        by_cut.setdefault(protocol == "published", []).append(protocol)
    scorers = {
        drop_last: [Scorer(generator, split, protocols=names, smooth=sigma, **compared) for sigma in sigmas]
        for drop_last, names in by_cut.items()
    }
    chosen = {name: getattr(options, name) for name in ("stream", "extra_streams", "seqlen", "tracks", "batch_size")}
    for of_cuts in predict_tracks(generator, split, drop_last=list(scorers), around=around, **chosen):
        for (drop_last, of_sigmas), bodies in zip(scorers.items(), of_cuts, strict=True):
            scored = [scorer.add(bodies) for scorer in of_sigmas]
            if collect is not None and protocols[0] in by_cut[drop_last]:
                collect(*scored[0])
    return {name: [scorer.means[name] for scorer in scorers[cut]] for cut, names in by_cut.items() for name in names}
