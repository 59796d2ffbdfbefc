"""`python -m pipeline bodies`: Anny's body, fitted to a stream of joints in metres."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pipeline.cli.command_line import WORK_KEPT, Command
from pipeline.cli.console import DOUBT, STAND_IN, err, out, plain
from pipeline.cli.progress import bar
from pipeline.cli.text import FEW, count, few, from_here
from pipeline.files.outputs import OutputRule, inputs_of
from pipeline.settings.file import PATH
from pipeline.settings.options import cache_option, split_arguments

if TYPE_CHECKING:
    from pipeline.extras.bodies.writing import TrackSummary

ADULT: Final = 0.67


def options(sub: argparse.ArgumentParser) -> None:
    split_arguments(sub)
    cache_option(sub)
    sub.add_argument(
        "--stream",
        default="blaze_joints",
        help="Stream of BlazePose's 33 joints (default: blaze_joints)",
    )
    sub.add_argument(
        "--out", type=PATH, metavar="DIR", help="Output folder (default: DATASET-SPLIT-anny)"
    )
    sub.add_argument(
        "--raw", type=PATH, metavar="DIR", help="The dataset's raw folder, if it has moved"
    )
    help_ = f"Age of all people: 0 a baby, 0.33 a child, {ADULT} an adult, 1 old (default: {ADULT})"
    sub.add_argument("--age", type=_age, default=ADULT, help=help_)
    sub.add_argument(
        "--device",
        default="auto",
        help="Device: auto (a GPU if there is one), cpu, cuda, cuda:1, ...",
    )
    sub.add_argument(
        "--overlay",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="Draw videos of the bodies over the frames (default: if there are 2D joints to "
        "place them by)",
    )


def _age(text: str) -> float:
    """Parse Anny's age. Raises ArgumentTypeError, also for years."""
    try:
        age = float(text)
    except ValueError:
        age = math.nan
    if not 0 <= age <= 1:
        scale = f"0 a baby, 0.33 a child, {ADULT} an adult, 1 old"
        raise argparse.ArgumentTypeError(
            f"expected Anny's age from 0 to 1 ({scale}), found {text!r}"
        )
    return age


def _run(args: argparse.Namespace) -> int:
    """Fit bodies, or find them up to date."""
    import torch

    from pipeline.extras.bodies.writing import SUMMARY, BodiesJob
    from pipeline.features.networks.base import chosen_device

    # many small operations take longer on several threads, and much longer on busy cores
    torch.set_num_threads(1)
    name = f"{args.dataset}/{args.split}"
    rule = OutputRule("bodies", inputs_of(args.cache, args.raw), args.overwrite)
    folder = args.out or Path(f"{args.dataset}-{args.split}-anny")
    device = str(chosen_device(args.device))
    job = BodiesJob(
        root=args.cache,
        name=name,
        stream=args.stream,
        out=folder,
        age=args.age,
        device=device,
        raw=args.raw,
        overlay=args.overlay,
        rule=rule,
    )
    with bar(f"bodies {name}", err, unit="row") as progress:
        written = job.write(progress)
    tracks = written.tracks
    rows = sum(track.rows for track in tracks)
    distance = sum(track.rows * track.mean_distance_mm for track in tracks) / rows
    out.print(
        plain(
            f"{name}: {count(len(tracks), 'track')}, {count(rows, 'row')}, {distance:.1f} mm "
            "from the joints"
        )
    )
    if written.left_out:
        out.print(f"  {DOUBT} {count(written.left_out, 'row')} without joints left out")
    for line in few([*map(_track_text, tracks)], FEW, str(from_here(folder / SUMMARY))):
        out.print(plain(f"  {line}"))
    if written.stand_in:
        out.print(f"  {STAND_IN} demo data, not the dataset itself")
    state = "in" if written.is_written else "up to date in"
    out.print(plain(f"{state} {from_here(folder)} (listed in {SUMMARY})"))
    return 0


def _track_text(track: TrackSummary) -> str:
    """A track in a line: its height, and its grade."""
    reasons = ", ".join(track.grade_reasons)
    verdict = ": ".join(filter(None, (track.grade, reasons)))
    return f"{track.name}: {_height_text(track)}, {verdict}"


def _height_text(track: TrackSummary) -> str:
    """The estimated height of a track as text, with its uncertainty."""
    if track.height_m is None:
        return "no height, since legs are not seen"
    spread = track.height_spread_m
    return f"{track.height_m:.2f} m +- {spread:.2f} tall (estimated, mostly the average person)"


COMMAND: Final = Command(_run, kept=WORK_KEPT)
