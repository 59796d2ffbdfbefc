"""`python -m tasks predict`: bodies on a new video."""

from __future__ import annotations

import argparse
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from pipeline.cli import console
from pipeline.cli.options import json_option, whole
from pipeline.cli.progress import Progress, bar
from pipeline.cli.text import count
from pipeline.errors import ConfigError
from tasks.data import converted, extracted
from tasks.settings import settings
from tasks.terminal import DEMO_DATA, UP_TO_DATE, fact, plain, say, shortened, warn

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
    """What of an interrupted command is kept."""
    return "tracks and features are kept, with all finished shards; the same command continues from there"


def run(args: argparse.Namespace) -> int:
    """Tracks, features, bodies, overlay: a line each; with --json, the content of predictions.json."""
    if (args.keypoints is None) == (args.boxes is None):
        found = "neither" if args.keypoints is None else "both"
        raise ConfigError(
            f"{args.video}: expected --keypoints or --boxes, found {found}. No detector is built in: run OpenPose "
            "(--write_json DIR) on the video and name --keypoints DIR, or write a CSV with the columns "
            "track,frame,x,y,w,h from your own detector or tracker and name --boxes FILE."
        )
    with console.aside(args.json):
        out, summary = _predict(args)
    if args.json:
        console.show_json({"out": str(out), **summary})
    return 0


def _predict(args: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """The folder that was written, and its summary."""
    from tasks.prediction import predict  # imports torch
    from tasks.prediction.overlay import rate_of
    from vibe_model.prediction.trained import load_trained

    what, smooth = args.video.resolve().stem, args.smooth or 0.0
    model = load_trained(args.checkpoint, args.body or settings().paths.body, args.device)
    out = args.out or Path(f"{what}-bodies")
    streams = predict.named_streams(args.weights, args.precision, args.device)
    labels = {name: getattr(args, name) for name in ("keypoints", "boxes", "min_frames", "max_gap", "box_scale")}
    job = predict.job(args.video, model, streams, out, {name: v for name, v in labels.items() if v is not None})
    out.mkdir(parents=True, exist_ok=True)

    def progress_of(verb: str, unit: str = "") -> AbstractContextManager[Progress]:
        return bar(f"  {console.line(verb, plain(what), '')}", console.out, unit=unit)

    def done(verb: str, detail: str | None) -> None:
        idle = detail is None
        say(verb, plain(what), detail or UP_TO_DATE, mark=console.IDLE if idle else console.DONE)

    for text in predict.warnings(job):
        warn(text)
    with progress_of("convert", "video") as progress:
        tracks = predict.make_tracks(job, progress)
    done("convert", None if tracks is None else converted(tracks))
    for note in job.split().videos[0].account["notes"]:
        warn(note)
    with progress_of("extract") as progress:
        features = predict.make_features(job, progress)
    done("extract", None if features is None else extracted(features))
    for example in features.examples if features else ():
        warn(example)
    with progress_of("predict", "frame") as progress:
        made = predict.make_bodies(job, smooth=smooth, batch_size=args.batch_size, progress=progress)
    done("predict", f"{count(len(made.tracks), 'track')}, {count(len(made.bodies), 'body-frame')}")
    fps = None
    if not args.no_overlay:
        began, fps = time.monotonic(), args.fps or rate_of(job.source())
        with progress_of("overlay", "frame") as progress:
            n_frames = predict.make_overlay(job, made, fps=fps, progress=progress)
        rate = n_frames / max(time.monotonic() - began, 1e-9)
        done("overlay", f"{count(n_frames, 'frame')} at {fps:g} a second ({rate:.0f} a second made)")
    summary = predict.write_summary(job, made, smooth=smooth, overlay_fps=fps)
    console.out.print()
    if job.stand_in:
        console.out.print(DEMO_DATA)
    shown = plain(shortened(out))
    fact("bodies", f"{shown}/{predict.BODIES} (listed in {predict.SUMMARY})")
    if fps is not None:
        fact("overlay", f"{shown}/{predict.OVERLAY}")
    return out, summary


def positive(text: str) -> float:
    """The type of an option that takes a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"expected a number above 0, found {text!r}")
    return value
