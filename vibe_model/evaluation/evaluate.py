"""How good a model is on a split, and by which protocol.  features -> windows -> training -> [evaluation]

Protocol "default" predicts every frame that has features once, counts the frames that are valid and labelled, and takes
accelerations over neighbouring frames of one track. Protocol "published" does what the published figures were made
with, its four defects included: windows drop each track's last frames, accelerations are taken across track borders,
`valid` is ignored, and labels are rounded to float16. PVE compares neutral bodies in both.

Two stages, a track at a time: windows -> estimates (`predictions`), estimates -> bodies -> errors (`frame_errors`).
Smoothing stands between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Required, TypedDict, Unpack

import numpy as np

from vibe_model.errors import ConfigError, DataError
from vibe_model.evaluation import results
from vibe_model.evaluation.frame_errors import Means, Scorer, TrackErrors
from vibe_model.evaluation.predictions import TrackEstimate, estimate_tracks, located, save_npz
from vibe_model.evaluation.windows import select_tracks
from vibe_model.networks.generator import VIBE
from vibe_model.runs import check_stand_in

if TYPE_CHECKING:
    from cache import Split

Metrics = dict[str, Any]
TrackListener = Callable[[TrackEstimate, TrackErrors], None]

PROTOCOLS: Final = ("default", "published")
PREDICTIONS: Final = "predictions"  # a folder; below it one a split, and in it one npz a track
SIGMAS: Final = (0.0, 1.0, 2.0, 4.0, 8.0)  # frames


class Settings(TypedDict, total=False):
    """`EvalOptions` as keywords, less what each function has a say of its own in."""

    stream: Required[str]
    seqlen: int
    batch_size: int
    smooth: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalOptions:
    """How a split is predicted and what is compared."""

    stream: str  # of features
    seqlen: int = 16  # frames of a window
    tracks: str = "*"  # a pattern of track names
    batch_size: int = 16  # windows
    vertices: bool = True  # take PVE, which costs a second body
    keypoints: bool = True  # take the 2D PCK
    smooth: float = 0.0  # sigma of a Gaussian over the predictions in time, frames; 0: none
    smoothed_too: float = 0.0  # another one, whose errors stand beside; 0: none


def evaluate(
    generator: VIBE,
    splits: Mapping[str, Split],
    *,
    protocol: str = "default",
    tracks: Mapping[str, str] | None = None,
    **settings: Unpack[Settings],
) -> dict[str, Metrics]:
    """`evaluate_split` of every split, by name. `tracks`: patterns of track names, where only a part of a split counts.

    settings: stream, seqlen, batch_size, smooth, as in `EvalOptions`. Raises StandInMixed when splits and body are
    partly stand-ins, and as `evaluate_split` does.
    """
    stand_in = check_stand_in(generator.body.stand_in, splits)
    found: dict[str, Metrics] = {}
    for name, split in splits.items():
        pattern = (tracks or {}).get(name, "*")
        metrics = evaluate_split(generator, split, protocol=protocol, tracks=pattern, **settings)
        found[name] = metrics | {"stand_in": stand_in}
    return found


def evaluate_split(
    generator: VIBE,
    split: Split,
    *,
    protocol: str = "default",
    tracks: str = "*",
    vertices: bool = True,
    keypoints: bool = True,
    **settings: Unpack[Settings],
) -> Metrics:
    """Metrics of one split, the same for the constant mean body ("baseline"), and how many frames they stand for.

    mpjpe, pa_mpjpe, pve in mm, accel, accel_error in mm per frame^2, pck, auc in %: means over the counted frames;
    pck_2d in %: over the labelled keypoints of valid frames. A metric for which no frame has a label is absent. frames:
    counted, with 3D labels; frames_2d: with 2D labels; frames_total: of the selected tracks; frames_not_predicted:
    without features, or in no window; frames_not_counted: predicted, but without 3D labels or not valid.

    tracks: a pattern of track names; `vertices`: take PVE too, which costs a second body; `keypoints`: take pck_2d;
    settings: stream, seqlen, batch_size, smooth, as in `EvalOptions`. Raises ConfigError for an unknown protocol and a
    bad sigma, DataError for predictions that are not finite.
    """
    if protocol not in PROTOCOLS:
        raise ConfigError(f"protocol: expected one of {', '.join(PROTOCOLS)}, found {protocol!r}")
    options = EvalOptions(tracks=tracks, vertices=vertices, keypoints=keypoints, **settings)
    return _score(generator, split, options, (protocol,))[protocol]


def evaluate_all(
    generator: VIBE,
    splits: Mapping[str, Split],
    *,
    tracks: Mapping[str, str] | None = None,
    smoothed_too: float = 0.0,
    folder: Path | None = None,
    predictions: bool = False,
    stand_in: bool = False,
    about: Mapping[str, Any] | None = None,
    **settings: Unpack[Settings],
) -> dict[str, Metrics]:
    """Both protocols of every split, by one pass of the network: the default one's metrics, and below "published".

    tracks and settings as in `evaluate`. smoothed_too: the sigma of another Gaussian, which only adds an entry
    "smoothed" to the metrics of both protocols: its sigma, and its errors.
    Into `folder`, if there is one: results by track and the worst windows by the default protocol (`results.write`),
    and with `predictions` one npz a track below `folder`/predictions/<split>/. about: what those files are to say of
    where they come from, as the run's fingerprint. stand_in: features are a stand-in's, whatever splits and body are.
    Raises as `evaluate` does.
    """
    stand_in = check_stand_in(generator.body.stand_in, splits) | stand_in
    every = EvalOptions(smoothed_too=smoothed_too, **settings)
    said = {**(about or {}), "smooth": every.smooth}
    found: dict[str, Metrics] = {}
    collected: list[results.SplitResults] = []
    for name, split in splits.items():
        options = replace(every, tracks=(tracks or {}).get(name, "*"))
        listen: TrackListener | None = None
        if folder is not None:
            collected.append(results.SplitResults(name, split, options.seqlen))
            facts = {**said, "split": name, "stand_in": stand_in}
            listen = _keeper(generator, collected[-1], folder if predictions else None, facts)
        by_protocol = _score(generator, split, options, PROTOCOLS, listen)
        default, published = (by_protocol[protocol] | {"stand_in": stand_in} for protocol in PROTOCOLS)
        found[name] = default | {"published": published}
    if folder is not None:
        results.write(folder, collected, stand_in=stand_in, about=said)
    return found


def choose_sigma(
    generator: VIBE,
    splits: Mapping[str, Split],
    *,
    tracks: Mapping[str, str] | None = None,
    candidates: Sequence[float] = SIGMAS,
    **settings: Unpack[Settings],
) -> tuple[float, dict[float, float]]:
    """The sigma of smoothing that validation likes best, and the PA-MPJPE of each, mm: the mean over splits.

    The network runs once. Of equals the first candidate wins. settings as in `evaluate`; the candidates stand in for
    `smooth`. Raises DataError for a split without 3D labels, and
    ConfigError without a candidate and for a bad one.
    """
    if not candidates:
        raise ConfigError("candidates: expected at least one sigma, found none")
    scores: dict[float, list[float]] = {sigma: [] for sigma in candidates}
    for name, split in splits.items():
        scorers = {
            sigma: Scorer(generator, split, published=False, vertices=False, keypoints=False) for sigma in scores
        }
        means = {sigma: Means() for sigma in scores}
        options = EvalOptions(tracks=(tracks or {}).get(name, "*"), **settings)
        for (estimate,) in _estimates(generator, split, options, PROTOCOLS[:1]):
            for sigma, scorer in scorers.items():
                means[sigma].add(scorer.score(estimate.smoothed(sigma)))
        for sigma, mean in means.items():
            if not mean.counted:
                raise DataError(f"{name}: expected frames with 3D labels to choose a sigma by, found none")
            scores[sigma].append(mean.of()["pa_mpjpe"])
    by_sigma = {sigma: float(np.mean(values)) for sigma, values in scores.items()}
    return min(by_sigma, key=lambda sigma: by_sigma[sigma]), by_sigma


def _score(
    generator: VIBE,
    split: Split,
    options: EvalOptions,
    protocols: Sequence[str],
    listen: TrackListener | None = None,
) -> dict[str, Metrics]:
    """Metrics by protocol. `listen` is told of every track by the first protocol."""
    courses = [_Course(generator, split, options, protocol) for protocol in protocols]
    for ways in _estimates(generator, split, options, protocols):
        for course, raw in zip(courses, ways, strict=True):
            estimate, errors = course.add(raw)
            if listen is not None and course is courses[0]:
                listen(estimate, errors)
    total = sum(track.stop - track.start for track in select_tracks(split, options.tracks))
    return {course.protocol: course.metrics(total) for course in courses}


def _estimates(
    generator: VIBE, split: Split, options: EvalOptions, protocols: Sequence[str]
) -> Iterator[tuple[TrackEstimate, ...]]:
    """Every selected track, once for each protocol."""
    return estimate_tracks(
        generator,
        split,
        stream=options.stream,
        seqlen=options.seqlen,
        tracks=options.tracks,
        batch_size=options.batch_size,
        ways=[protocol == "published" for protocol in protocols],
    )


class _Course:
    """One protocol's way through a split."""

    def __init__(self, generator: VIBE, split: Split, options: EvalOptions, protocol: str) -> None:
        self.protocol, self.options = protocol, options
        self.sigmas = (options.smooth, options.smoothed_too) if options.smoothed_too else (options.smooth,)
        kinds = {"vertices": options.vertices, "keypoints": options.keypoints}
        self.scorers = [Scorer(generator, split, published=protocol == "published", **kinds) for _ in self.sigmas]
        self.means = [Means() for _ in self.sigmas]

    def add(self, raw: TrackEstimate) -> tuple[TrackEstimate, TrackErrors]:
        """Take in one track. Returns what counts first: the estimate after `smooth`, and its errors."""
        taken = []
        for sigma, scorer, means in zip(self.sigmas, self.scorers, self.means, strict=True):
            estimate = raw.smoothed(sigma)
            errors = scorer.score(estimate)
            means.add(errors)
            taken.append((estimate, errors))
        return taken[0]

    def metrics(self, total: int) -> Metrics:
        """What stands in metrics.json; total: frames of the selected tracks."""
        means = self.means[0]
        found: Metrics = {
            "protocol": self.protocol,
            "frames_total": total,
            "frames_not_predicted": total - means.predicted,
            "frames": means.counted,
            "frames_2d": means.counted_2d,
            "frames_not_counted": means.predicted - means.counted,
            **means.of(),
            "baseline": means.of("baseline"),
        }
        if self.options.smooth:
            found["sigma"] = self.options.smooth
        if self.options.smoothed_too:
            found["smoothed"] = {"sigma": self.options.smoothed_too, **self.means[1].of()}
        return found


def _keeper(
    generator: VIBE, collected: results.SplitResults, folder: Path | None, about: Mapping[str, Any]
) -> TrackListener:
    """Collects each track's results, and saves its prediction below `folder`, if there is one."""

    def listen(estimate: TrackEstimate, errors: TrackErrors) -> None:
        facts = {}
        if folder is not None and len(estimate.rows):
            home = folder / PREDICTIONS / Path(*collected.name.split("/"))
            path = save_npz(home, located(estimate, collected.split), generator, about=about)
            facts["predictions"] = path.relative_to(folder).as_posix()
        collected.add(estimate, errors, **facts)

    return listen
