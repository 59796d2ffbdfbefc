"""`python -m tasks predict`: bodies on a new video."""

from __future__ import annotations

import argparse
import json
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pipeline.cli.console import IDLE, aside, line, show_json
from pipeline.cli.options import json_option, whole
from pipeline.cli.progress import Progress, bar
from pipeline.errors import ConfigError
from tasks import terminal
from tasks.settings import settings

if TYPE_CHECKING:
    from tasks.prediction.predict import Job

HELP: Final = "Predict bodies on a video that is no dataset's: an npz for each person, and the bodies over the frames."


def options(sub: argparse.ArgumentParser) -> None:
    """The video, who is where in it, and the model."""
    sub.add_argument("video", type=Path, metavar="VIDEO", help="a video file, or a folder of numbered pictures")
    people = sub.add_argument_group("where people are (one of the two)")
    people.add_argument(
        "--keypoints",
        type=Path,
        metavar="DIR",
        help="OpenPose's --write_json folder, a file for every frame; or AlphaPose's JSON file",
    )
    people.add_argument("--boxes", type=Path, metavar="FILE", help="CSV: track,frame,x,y,w,h (frames from 0, px)")
    people.add_argument("--min-frames", type=whole(1), metavar="N", help="leave out tracks of fewer (default 5)")
    people.add_argument(
        "--max-gap", type=whole(0), metavar="N", help="missing frames of a person that are predicted too (default 5)"
    )
    people.add_argument("--box-scale", type=positive, metavar="X", help="of --boxes: crop side / box side (1.1)")
    model = model_options(sub)
    model.add_argument("--weights", help="of the features' network, as spin:FILE; default: [features]")
    model.add_argument("--precision", choices=["exact", "fast"], help="of the features; default: [features]")
    model.add_argument("--batch-size", type=whole(1), default=16, metavar="N", help="windows at once (default 16)")
    model.add_argument("--smooth", type=positive, metavar="SIGMA", help="smooth bodies over time, in frames")
    made = sub.add_argument_group("what is made")
    made.add_argument("--out", type=Path, metavar="DIR", help="the folder to write; default: <video's name>-bodies")
    made.add_argument("--no-overlay", action="store_true", help="no video of the bodies over the frames")
    made.add_argument("--fps", type=positive, help="of the overlay; default: the video's own, else 25")
    json_option(sub, ": predictions.json, and the folder")


def model_options(sub: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Which model, and on which device: what all commands that use one share."""
    model = sub.add_argument_group("the model (what is not named is taken from luigi.cfg)")
    model.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="FILE",
        help="best.pt of a run, or VIBE's or SPIN's published file",
    )
    model.add_argument("--body", type=Path, metavar="DIR", help="SMPL's files; default: [paths] body")
    model.add_argument("--device", default="auto", help="auto (cuda when there is one), cpu, cuda, cuda:1, ...")
    return model


def kept(_: argparse.Namespace) -> str:
    """What of an interrupted run is kept."""
    return "tracks and features are kept, with all finished shards; the same command goes on from there"


def run(args: argparse.Namespace) -> int:
    """Tracks, features, bodies, overlay: a line each; or, for a machine, what predictions.json says."""
    with aside(args.json):
        out, summary = _predict(args)
    if args.json:
        show_json({"out": str(out), **json.loads(summary.read_text())})
    return 0


def _predict(args: argparse.Namespace) -> tuple[Path, Path]:
    """The folder that was written, and its predictions.json."""
    if (args.keypoints is None) == (args.boxes is None):
        found = "neither" if args.keypoints is None else "both"
        raise ConfigError(
            f"{args.video}: expected --keypoints or --boxes, found {found}. No detector is built in: run OpenPose "
            "(--write_json DIR) on the video and name --keypoints DIR, or write a CSV with the columns "
            "track,frame,x,y,w,h from your own detector or tracker and name --boxes FILE."
        )
    from tasks.prediction import predict, trained  # import torch

    model = trained.load(args.checkpoint, args.body or settings().paths.body, args.device)
    out = args.out or Path(f"{args.video.resolve().stem}-bodies")
    streams = predict.named_streams(args.weights, args.precision, args.device)
    job = predict.job(args.video, model, streams, out, _labels(args))
    out.mkdir(parents=True, exist_ok=True)
    what = args.video.resolve().stem
    for text in predict.doubts(job):
        terminal.warn(text)
    _make_rows(job, what)
    with _bar("predict", what, "frame") as progress:
        smooth = args.smooth or 0.0
        made = predict.make_bodies(job, smooth=smooth, batch_size=args.batch_size, progress=progress)
    found = f"{terminal.count(len(made.tracks), 'track')}, {terminal.count(len(made.bodies), 'body-frame')}"
    _say("predict", what, found)
    fps = None
    if not args.no_overlay:
        began, fps = time.monotonic(), predict.overlay_rate(job, args.fps)
        with _bar("overlay", what, "frame") as progress:
            n_frames = predict.make_overlay(job, made, fps=fps, progress=progress)
        rate = n_frames / max(time.monotonic() - began, 1e-9)
        _say("overlay", what, f"{terminal.count(n_frames, 'frame')} at {fps:g} a second ({rate:.0f} a second made)")
    summary = predict.write_summary(job, made, smooth=smooth, overlay_fps=fps)
    _tell_where(out, overlay=fps is not None, stand_in=job.stand_in)
    return out, summary


def _make_rows(job: Job, what: str) -> None:
    """Tracks and features in the small cache, where they are not there."""
    from tasks.prediction import predict  # imports torch

    with _bar("convert", what, "video") as progress:
        converted = predict.make_tracks(job, progress)
    _say("convert", what, None if converted is None else terminal.conversion(converted))
    for note in job.split().videos[0].account["notes"]:
        terminal.warn(note)
    with _bar("extract", what) as progress:
        extracted = predict.make_features(job, progress)
    _say("extract", what, terminal.extraction(extracted[-1]) if extracted else None)
    for example in extracted[-1].examples if extracted else ():
        terminal.warn(example)


def _labels(args: argparse.Namespace) -> dict[str, object]:
    given = {name: getattr(args, name) for name in ("keypoints", "boxes", "min_frames", "max_gap", "box_scale")}
    return {name: value for name, value in given.items() if value is not None}


def _tell_where(out: Path, *, overlay: bool, stand_in: bool) -> None:
    terminal.console.print()
    if stand_in:
        terminal.console.print(terminal.STAND_IN)
    shown = terminal.shortened(out)
    terminal.fact("bodies", f"{terminal.plain(str(shown / 'bodies'))} (listed in predictions.json)")
    if overlay:
        terminal.fact("overlay", terminal.plain(str(shown / "overlay.mp4")))


def _bar(verb: str, what: str, unit: str = "") -> AbstractContextManager[Progress]:
    return bar(f"  {line(verb, terminal.plain(what), '')}", terminal.console, unit=unit)


def _say(verb: str, what: str, detail: str | None) -> None:
    if detail is None:
        terminal.say(verb, terminal.plain(what), "[dim]up to date, nothing to do[/dim]", mark=IDLE)
    else:
        terminal.say(verb, terminal.plain(what), detail)


def positive(text: str) -> float:
    """The type of an option that takes a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"expected a number above 0, found {text!r}")
    return value
