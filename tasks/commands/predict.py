"""`python -m tasks predict`: bodies in clips, which it prepares first, or in a split of a cache.

    a clip or a folder   `_predict_clips`: `pipeline prepare videos` writes splits of the cache;
                         then each is predicted, with overlays unless --no-overlay
    a split              `_predict` makes its job from the cache; overlays only with --overlay

`_write` carries out the job of one split: it writes predictions.json and the bodies, draws
overlays, and prints lines about them. The work is in `vibe_model.prediction`.
"""

from __future__ import annotations

import argparse
import glob
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import cache
from pipeline.cli import console
from pipeline.cli.command_line import Command, every_option, json_option
from pipeline.cli.console import print_json
from pipeline.cli.progress import bar
from pipeline.cli.text import FEW, count, few, from_here
from pipeline.clips import detectors
from pipeline.commands import prepare
from pipeline.commands.preparation import DetectorChoice, Preparation
from pipeline.conversion.committed import committed_split
from pipeline.datasets.videos import OwnVideos
from pipeline.errors import ConfigError, PipelineError
from pipeline.recipe.recipe import Recipe
from pipeline.settings import sections
from pipeline.settings.file import PATH, ROOT, settings_file
from tasks.base import DEMO_DATA, fact, plain, say, warn
from tasks.clip_links import clips_folder
from tasks.commands.evaluate import body_folder, model_options

if TYPE_CHECKING:
    from vibe_model.prediction.job import PredictionJob
    from vibe_model.trained import Trained

TOO_LARGE: Final = 1e6  # frames; a Gaussian's sigma must be smaller


class _PredictedSplits(NamedTuple):
    """The result of the command."""

    summaries: list[dict[str, Any]]  # content of each split's predictions.json
    # whether a video was not prepared or drawn, or a split lacks columns that a stream reads
    is_incomplete: bool


def _options(sub: argparse.ArgumentParser) -> None:
    """Add the options."""
    sub.add_argument(
        "named", metavar="CLIPS", help="A clip, a folder of clips, or DATASET/SPLIT of the cache"
    )
    sub.add_argument(
        "--cache", type=ROOT, required=True, metavar="DIR", help="Cache of tracks and features"
    )
    sub.add_argument(
        "--detector",
        help=f"Detector for clips without keypoints: {', '.join(detectors.names())}, or none",
    )
    every_option(sub)
    sub.add_argument(
        "--tracks", default="*", metavar="PATTERN", help="Names of tracks to predict (default: all)"
    )
    model = model_options(sub)
    model.add_argument(
        "--weights",
        help="Weights of the feature network, such as spin:FILE (default: from luigi.cfg)",
    )
    model.add_argument(
        "--pose-embedding",
        type=PATH,
        metavar="FILE",
        help="best.pt of TrainPrVIPE, if it has moved",
    )
    model.add_argument("--stream", help="Feature stream of a split (default: the model's)")
    model.add_argument(
        "--smooth",
        type=_positive,
        default=0.0,
        metavar="SIGMA",
        help="Smooth bodies over time (default: 0 frames)",
    )
    outputs = sub.add_argument_group("output")
    outputs.add_argument(
        "--out", type=PATH, metavar="DIR", help="Output folder (default: NAME-bodies)"
    )
    outputs.add_argument(
        "--overlay",
        action=argparse.BooleanOptionalAction,
        help="Draw videos of the bodies over the frames (default: for clips only)",
    )
    outputs.add_argument(
        "--export", action="store_true", help="Also write motion files for SMPL's Blender add-ons"
    )
    json_option(sub, ": predictions.json, and the folder")


def _positive(text: str) -> float:
    """Type of an option that takes a number above 0 and below TOO_LARGE."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < TOO_LARGE:
        limits = f"above 0 and below {TOO_LARGE:,.0f}"
        raise argparse.ArgumentTypeError(f"expected a number {limits}, found {text!r}")
    return value


def _default_folder(named: str) -> Path:
    """Folder for the bodies of a clip, a folder of clips or a split, in the working folder.

    >>> _default_folder("3dpw/test")
    PosixPath('3dpw-test-bodies')
    """
    clips = Path(named)
    name = named.replace("/", "-")
    if clips.exists():
        clips = clips.resolve()
        name = clips.name if clips.is_dir() else clips.stem
    return Path(f"{name}-bodies")


def _run(args: argparse.Namespace) -> int:
    """Prepare clips, then predict their bodies; with --json, print predictions.json. Returns 1 if a
    video failed.
    """
    out = args.out or _default_folder(args.named)
    with console.text_to_stderr(args.json):
        predicted = _predict(args, out)
    if args.json:
        document: dict[str, Any] = {"out": str(out)}
        if len(predicted.summaries) == 1:
            document |= predicted.summaries[0]
        else:
            document["splits"] = predicted.summaries
        print_json(document)
    return int(predicted.is_incomplete)


def _predict(args: argparse.Namespace, out: Path) -> _PredictedSplits:
    """Predict a split of the cache, or clips."""
    named = Path(args.named)
    if not named.exists() and args.named not in cache.FeatureCache(args.cache):
        expected = f"a clip, a folder of clips, or a split of the cache {args.cache}"
        raise ConfigError(f"{named}: expected {expected}, found no such file, folder or split")
    from vibe_model.prediction.job import PredictionJob  # imports torch
    from vibe_model.trained import Trained

    loaded = sections.load(settings_file(), tolerant=True, optional=True)
    body = body_folder(args, loaded)
    raw = None
    if named.exists():
        raw = clips_folder(named, args.cache, out)  # before the model: it refuses other files
    model = Trained.load(args.checkpoint, body, args.device)
    if raw is not None:
        return _predict_clips(args, model, loaded, raw, out)

    stream = args.stream or model.stream or loaded.stream.name
    job = PredictionJob.open(args.cache, args.named, model, stream, out)
    return _write(args, job, tracks=args.tracks, overlay=bool(args.overlay))


def _predict_clips(
    args: argparse.Namespace, model: Trained, loaded: sections.Settings, raw: Path, out: Path
) -> _PredictedSplits:
    """Prepare the clips in a raw folder, and predict their splits.

    A split without the columns that a stream reads gets a warning. out: The folder of the bodies,
    or for several splits, of a folder for each.
    """
    from vibe_model.prediction import job as jobs

    streams = jobs.streams_to_prepare(model, loaded, raw, args.weights, args.pose_embedding)
    settings = loaded.use_device(None if args.device == "auto" else args.device)
    recipe = Recipe.by_options(settings, OwnVideos.name, raw=raw, root=args.cache, named_body=None)
    detector = args.detector or loaded.detect.detector
    choice = DetectorChoice(name=detector, every=args.every)
    streams_of = dict.fromkeys(OwnVideos.splits, streams)
    preparation = Preparation.resolve(recipe, choice, streams_of)
    is_incomplete = bool(prepare.run(preparation))
    summaries = []
    tracks = args.tracks
    clip = Path(args.named)
    if clip.is_file() and tracks == "*":  # not those of clips of earlier commands
        tracks = f"{glob.escape(clip.name)}/*"
    overlay = args.overlay is not False  # None: neither --overlay nor --no-overlay
    splits = _prepared_splits(args, loaded)
    for name, split in splits.items():
        messages = [spec.missing_columns(split) for spec in streams]
        refusals = list(filter(None, messages))
        if refusals:
            warn(refusals[0])
            is_incomplete = True
            continue
        folder = out
        if len(splits) > 1:
            folder /= name.rpartition("/")[2]
        job = jobs.PredictionJob.open(args.cache, name, model, streams[-1].name, folder, raw)
        doubt = job.doubt(streams)
        if doubt is not None:
            warn(doubt)
        predicted = _write(args, job, tracks=tracks, overlay=overlay)
        summaries += predicted.summaries
        is_incomplete |= predicted.is_incomplete
    return _PredictedSplits(summaries, is_incomplete)


def _prepared_splits(args: argparse.Namespace, loaded: sections.Settings) -> dict[str, cache.Split]:
    """The splits of the clips that have tracks, by name. Raises PipelineError if there is none."""
    splits = dict[str, cache.Split]()
    for part in OwnVideos.splits:
        name = f"{OwnVideos.name}/{part}"
        split = committed_split(args.cache, name)
        if split is not None and len(split.tracks):
            splits[name] = split
    if not splits:
        fewest = loaded.dataset(OwnVideos.name).parameters()["min_frames"]
        do = (
            f"Tracks of fewer than {fewest} frames are dropped; --set videos.min_frames=5 "
            "keeps more."
        )
        raise PipelineError(f"{args.named}: no clip has a track to predict (see above). {do}")
    return splits


def _write(
    args: argparse.Namespace, job: PredictionJob, *, tracks: str, overlay: bool
) -> _PredictedSplits:
    """Carry out the job of a split, for the tracks whose names match the pattern `tracks`.

    Prints lines about the bodies and the overlays.
    """
    from vibe_model.prediction import videos

    job.out.mkdir(parents=True, exist_ok=True)
    job = replace(job, tracks=tracks, overlay=overlay, smooth=args.smooth, export=args.export)
    name = job.split.name
    with bar(f"  {console.task_line('predict', name, '')}", console.out, unit="frame") as progress:
        predicted = videos.predict_videos(job, progress)
    say(
        "predict",
        name,
        f"{count(predicted.tracks, 'track')}, {count(predicted.bodies, 'body-frame')}",
    )
    if overlay and predicted.frames:
        say("overlay", name, count(predicted.frames, "frame"))
    for text in few(predicted.problems, FEW, "predictions.json"):
        warn(text)
    _print_places(job, [video.overlay.file for video in predicted.videos if video.overlay])
    return _PredictedSplits([predicted.summary], bool(predicted.problems))


def _print_places(job: PredictionJob, overlays: Sequence[str]) -> None:
    """Print where the output files are. overlays: within the output folder."""
    from vibe_model.prediction import videos

    console.out.print()
    if job.stand_in:
        console.out.print(DEMO_DATA)
    shown = plain(from_here(job.out))
    fact("bodies", f"{shown}/{videos.BODIES} (listed in {videos.SUMMARY})")
    if job.export:
        fact("motions", f"{shown}/{videos.MOTIONS} (interpolated to at least 30 frames per second)")
    if len(overlays) == 1:
        fact("overlay", f"{shown}/{plain(overlays[0])}")
    elif overlays:
        fact("overlay", f"{shown}/{videos.OVERLAYS}")


COMMAND: Final = Command(_options, _run)
