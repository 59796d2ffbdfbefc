"""`python -m tasks predict`: bodies in clips, in a photo, or on a split of a cache."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cache
from pipeline.cli import console
from pipeline.cli.options import json_option, whole
from pipeline.cli.progress import Progress, bar
from pipeline.cli.text import FEW, count, few
from pipeline.commands.preparation.steps import converted, extracted
from pipeline.commands.settings.file import settings_file
from pipeline.errors import ConfigError, MissingAssets
from pipeline.linking import MAX_GAP
from tasks.commands.evaluate import model_options, positive
from tasks.settings import settings, settings_without
from tasks.terminal import DEMO_DATA, UP_TO_DATE, fact, plain, say, shortened, warn

if TYPE_CHECKING:
    from pipeline.detect.base import Detector
    from vibe_extensions.clips.prediction.job import PredictionJob
    from vibe_extensions.clips.prediction.sources import ClipsToPredict
    from vibe_model.prediction.trained import Trained


def options(sub: argparse.ArgumentParser) -> None:
    """What is looked at, where people are in it, the model, and what is made."""
    sub.add_argument(
        "named", nargs="+", metavar="CLIP", help="clips, photos, folders of clips; with --cache: a split of it"
    )
    sub.add_argument("--cache", type=cache.place_of, metavar="DIR", help="predict a split of it that has features")
    people = sub.add_argument_group("where people are (default: they are detected)")
    people.add_argument("--detector", metavar="NAME", help="default: luigi.cfg's, else keypoint_rcnn; demo data: demo")
    people.add_argument("--detector-weights", metavar="FILE", help="default: its own; of keypoint_rcnn pretrained")
    people.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="another option of it")
    people.add_argument(
        "--keypoints",
        type=Path,
        metavar="PATH",
        help="of one video: OpenPose's folder, or a file of keypoints or boxes in any format that `videos` reads",
    )
    people.add_argument(
        "--min-frames", type=whole(1), metavar="N", help="leave out tracks of fewer (default 5; photo 1)"
    )
    people.add_argument(
        "--max-gap",
        type=whole(0),
        default=MAX_GAP,
        metavar="N",
        help="missing frames of a person that are predicted too (default %(default)s)",
    )
    people.add_argument("--tracks", default="*", metavar="PATTERN", help="only persons of these names (default all)")
    model = model_options(sub)
    model.add_argument("--weights", help="of the features' network, as spin:FILE; default: [features]")
    model.add_argument("--pose-embedding", type=Path, metavar="FILE", help="best.pt of TrainPrVIPE, if it has moved")
    model.add_argument("--stream", help="with --cache: of features; default: the model's own")
    model.add_argument(
        "--smooth", type=positive, default=0.0, metavar="SIGMA", help="smooth bodies over time, in frames"
    )
    outputs = sub.add_argument_group("what is made")
    outputs.add_argument(
        "--out", type=Path, metavar="DIR", help="the folder to write; default: <first clip's name>-bodies"
    )
    outputs.add_argument(
        "--overlay",
        action=argparse.BooleanOptionalAction,
        help="videos of the bodies over the frames (default: yes; with --cache: no)",
    )
    outputs.add_argument("--export", action="store_true", help="motion files, as SMPL's add-ons for Blender load them")
    json_option(sub, ": predictions.json, and the folder")


def kept(_: argparse.Namespace) -> str:
    """What of an interrupted command is kept."""
    return "detections, tracks and features are kept, with all finished parts; the same command continues from there"


def run(args: argparse.Namespace) -> int:
    """Detections, tracks, features, bodies: a line each; with --json, the content of predictions.json.

    1 where a clip could not be used.
    """
    _check(args)
    name = Path(args.named[0]).resolve().stem if args.cache is None else args.named[0]
    out = args.out or Path(f"{name.replace('/', '-')}-bodies")
    steps = _Steps(name if len(args.named) == 1 else count(len(args.named), "clip"))
    with console.aside(args.json):
        summary = _predict(args, out, steps)
    if args.json:
        console.show_json({"out": str(out), **summary})
    return 1 if steps.problems else 0


def _check(args: argparse.Namespace) -> None:
    """Raise ConfigError for options that do not go together."""
    without = "--cache" if args.cache is not None else "--keypoints" if args.keypoints is not None else ""
    if args.set and without:
        raise ConfigError(f"--set {args.set[0]}: expected a detector, whose option it is; with {without} there is none")
    if args.cache is not None and (args.keypoints is not None or len(args.named) > 1):
        sources = count(len(args.named), "name") + (", --keypoints" if args.keypoints is not None else "")
        raise ConfigError(f"--cache {args.cache}: expected one split and no keypoints, found {sources}")


class _Steps:
    """A line for every step of a command."""

    def __init__(self, what: str) -> None:
        self.what, self.problems = plain(what), list[str]()

    def bar(self, verb: str, unit: str = "") -> AbstractContextManager[Progress]:
        return bar(f"  {console.line(verb, self.what, '')}", console.out, unit=unit)

    def done(self, verb: str, detail: str | None) -> None:
        """None: it was up to date."""
        say(verb, self.what, detail or UP_TO_DATE, mark=console.IDLE if detail is None else console.DONE)

    def failed(self, problems: list[str]) -> None:
        self.problems += problems
        for text in few(problems, FEW, "predictions.json"):
            warn(text)


def _predict(args: argparse.Namespace, out: Path, steps: _Steps) -> dict[str, Any]:
    """The content of predictions.json."""
    from vibe_extensions.clips.prediction import job as jobs  # imports torch
    from vibe_extensions.clips.prediction import predict
    from vibe_extensions.pages.video_file import best_format
    from vibe_model.prediction.trained import load_trained

    detector = None if args.cache is not None or args.keypoints is not None else _detector(args)
    model = load_trained(args.checkpoint, args.body or settings_without("--body DIR").paths.body, args.device)
    if args.cache is not None:
        stream = args.stream or model.stream or settings().features.stream
        job = jobs.of_cache(args.cache, args.named[0], model, stream, out)
    else:
        job = _prepared(args, model, detector, out, steps)
    out.mkdir(parents=True, exist_ok=True)
    overlay = args.cache is None if args.overlay is None else args.overlay
    chosen = predict.PredictionOptions(smooth=args.smooth, tracks=args.tracks, overlay=overlay, export=args.export)
    with steps.bar("predict", "frame") as progress:
        videos = predict.predict_videos(job, chosen, progress)
    steps.done("predict", f"{count(videos.tracks, 'track')}, {count(videos.bodies, 'body-frame')}")
    if overlay and videos.frames:
        steps.done(
            "overlay", f"{count(videos.frames, 'frame')}, {videos.frames / max(videos.drawing, 1e-9):.0f} a second"
        )
    if videos.frames and not best_format().plays:
        warn("no browser plays these overlays: H.264 needs PyAV (pip install av), VP9 another build of OpenCV")
    steps.failed(videos.problems)
    _print_places(videos.summary, out)
    return videos.summary


def _prepared(
    args: argparse.Namespace, model: Trained, detector: Detector | None, out: Path, steps: _Steps
) -> PredictionJob:
    """Detect, convert and extract into the small cache."""
    from vibe_extensions.clips.prediction import job as jobs
    from vibe_extensions.clips.prediction import sources

    streams = (*jobs.extra_streams(model, args.pose_embedding), *jobs.feature_streams(model, args.weights))
    resources = jobs.resources(model, args.weights, args.device)
    named = [Path(name) for name in args.named]
    source = sources.of_clips(named, out, keypoints=args.keypoints, min_frames=args.min_frames, max_gap=args.max_gap)
    jobs.of_source(source, model, streams, out)  # what does not fit is reported before any work
    if detector is not None:
        source = _detected(source, detector, args.device, steps)
    with steps.bar("convert", "video") as progress:
        tracks = jobs.make_tracks(source, out / jobs.CACHE, progress)
    steps.done("convert", None if tracks is None else converted(tracks))
    job = jobs.of_source(source, model, streams, out)
    split = job.split()
    steps.failed(list(jobs.without_people(source, split)))
    for video in split.videos if len(split.videos) <= FEW else ():
        for note in video.account["notes"]:
            warn(f"{video.name}: {note}")
    for text in jobs.warnings(job, streams):
        warn(text)
    with steps.bar("extract") as progress:
        features = jobs.make_features(job, streams, resources, progress)
    steps.done("extract", None if features is None else extracted(features))
    for example in features.examples if features else ():
        warn(example)
    return job


def _print_places(summary: dict[str, Any], out: Path) -> None:
    """Where everything is."""
    from vibe_extensions.clips.prediction import predict

    console.out.print()
    if summary["stand_in"]:
        console.out.print(DEMO_DATA)
    shown = plain(shortened(out))
    fact("bodies", f"{shown}/{predict.BODIES} (listed in {predict.SUMMARY})")
    if any("motion" in track for video in summary["videos"] for track in video["tracks"]):
        fact("motions", f"{shown}/{predict.MOTIONS} (under 30 frames a second: interpolated to a multiple of the rate)")
    drawn = [video["overlay"]["file"] for video in summary["videos"] if video["overlay"]]
    if drawn:
        fact("overlay", f"{shown}/{plain(drawn[0] if len(drawn) == 1 else predict.OVERLAYS)}")


def _detector(args: argparse.Namespace) -> Detector:
    """The one that is named, else luigi.cfg's where it is for such clips: demo data or not.

    Raises PipelineError for an unknown one, ConfigError for its options, MissingAssets for their files.
    """
    from pipeline import detect
    from pipeline.commands.detect import detector_of
    from pipeline.commands.settings.commands import effective, value
    from pipeline.files.raw.stand_in import is_stand_in
    from vibe_extensions.clips.detectors.keypoint_rcnn import KeypointRCNN
    from vibe_extensions.clips.prediction.sources import raw_folder

    source = effective(settings_file(), args.detector)
    with _of_detector():
        demo = is_stand_in(raw_folder(Path(args.named[0], "clip")))
        name = args.detector or value(source, "detect.detector")
        if name is None or (not args.detector and detect.find(name).stand_in != demo):
            name = "demo" if demo else KeypointRCNN.name
        detector = detector_of(name, args.detector_weights, args.set, source)
        if not detector.downloads:
            detect.identity(detector)  # its files are there
    return detector


@contextmanager
def _of_detector() -> Iterator[None]:
    """Have errors of a detector name this command's options."""
    try:
        yield
    except (ConfigError, MissingAssets) as error:
        instead = " Or name who is where: --keypoints PATH." if isinstance(error, MissingAssets) else ""
        raise type(error)(str(error).replace("--weights", "--detector-weights") + instead) from error


def _detected(source: ClipsToPredict, detector: Detector, device: str, steps: _Steps) -> ClipsToPredict:
    from vibe_extensions.clips.prediction import sources

    with _of_detector(), steps.bar("detect", "frame") as progress:
        source, report = sources.detected(source, detector, device=device, progress=progress)
    detections = f"{count(report.persons, 'detection')} in {count(report.frames, 'frame')} by {detector.name}"
    if detector.stand_in:
        detections += ", a stand-in for demo data"
    steps.done("detect", detections if report.done else None)
    return source
