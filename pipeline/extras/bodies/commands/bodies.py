"""`python -m pipeline bodies`: Anny's body, fitted to a stream of joints in metres."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pipeline.cli.command_line import WORK_KEPT, Command
from pipeline.cli.console import DOUBT, STAND_IN, err, out, plain
from pipeline.cli.progress import bar
from pipeline.cli.text import FEW, count, few, from_here
from pipeline.files.outputs import OutputRule, inputs_of

if TYPE_CHECKING:
    from pipeline.extras.bodies.writing import TrackSummary


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
