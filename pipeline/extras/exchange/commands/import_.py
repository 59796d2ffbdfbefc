"""`python -m pipeline import`: a database file -> tracks and features; an array -> a stream of an
existing split.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from pipeline.cli.command_line import Command
from pipeline.cli.console import DOUBT, STAND_IN, UNTRAINED, err, out, plain
from pipeline.cli.progress import bar
from pipeline.cli.text import count, first_few
from pipeline.errors import ConfigError
from pipeline.steps.sentences import accounting_lines
from pipeline.steps.uncommitted import describe_kept

_RANDOM_WEIGHTS: Final = f"{UNTRAINED} of the features' network: use only to try the pipeline"


# Options that only some formats have.
_OF_FORMAT: Final = {
    "vibe": ("stream", "joints_2d", "crop_scale"),
    "arrays": ("stream", "array"),
    "bodies": ("clips", "body", "smplx"),
}


def _run(args: argparse.Namespace) -> int:
    """Import the files. Returns 1 if rows of an array have none, as their videos were replaced."""
    _refuse_other_options(args)
    if args.format == "bodies":
        return _import_bodies(args)
    if len(args.file) > 1:
        raise ConfigError(f"{args.file[1]}: --format {args.format} imports one file")

    if args.format == "arrays":
        return _import_array(args, args.file[0])
    return _import_database(args, args.file[0])


def _refuse_other_options(args: argparse.Namespace) -> None:
    """Raise ConfigError for an option that the format does not have."""
    for options in _OF_FORMAT.values():
        for key in options:
            if key not in _OF_FORMAT[args.format] and getattr(args, key) is not None:
                option = "as" if key == "stream" else key.replace("_", "-")
                raise ConfigError(f"--{option}: --format {args.format} has no such option")


def _import_bodies(args: argparse.Namespace) -> int:
    """Import estimated bodies as labels."""
    from pipeline.extras.exchange.bodies.estimate import BodyModels
    from pipeline.extras.exchange.bodies.importing import import_bodies
    from pipeline.people.body import Body  # imports torch

    name = f"{args.dataset}/{args.split}"
    if args.clips is None or args.body is None:
        raise ConfigError("--format bodies: name the clips' cache and SMPL's body: --clips, --body")
    bodies = BodyModels.load(Body.load(args.body), args.smplx)
    result = import_bodies(args.file, args.clips, args.cache, name, bodies)
    if not result.is_written:
        out.print(plain(f"{name}: up to date"))
        return 0
    why = f"{count(result.clips, 'clip')} new or changed"
    rows = f"{count(result.with_body, 'row')} with an estimate ({why})"
    out.print(plain(f"{name}: imported estimates, no ground truth: {rows}"))
    for video, notes in result.notes.items():
        for note in notes:
            out.print(plain(f"  {video}: {note}"))
    return 0


def _import_array(args: argparse.Namespace, file: Path) -> int:
    """Import an array as a stream. Returns 1 if videos were replaced since the first import."""
    from pipeline.extras.exchange.arrays import import_array

    name = f"{args.dataset}/{args.split}"
    if args.stream is None:
        raise ConfigError("--format arrays: name the new stream: --as NAME")
    with bar(f"import {name}", err, unit="shard") as progress:
        result = import_array(
            file,
            args.cache,
            name,
            args.stream,
            array=args.array,
            progress=progress,
        )
    if result.replaced:
        note = (
            f"{name}: no features for videos that were replaced since the first import of "
            f"{file.name}, whose numbers are of the old images: {first_few(result.replaced)}. "
            "Import another file, with numbers of all videos' images."
        )
        err.print(f"  {DOUBT} {plain(note)}")
    if not result.is_written:
        out.print(plain(f"{name}: {args.stream} is up to date, imported from {file.name}"))
        return 1 if result.replaced else 0
    rows = f"{result.covered:,} of {count(result.rows, 'row')}, matched by {result.matched_by}"
    out.print(plain(f"{name}: imported {args.stream} from {file.name}: {rows}"))
    if result.without_features:
        lost = count(result.without_features, "row")
        why = "missing in the file, or not finite"
        out.print(f"  {DOUBT} {lost} without features ({why}): windows leave them out")
    if result.stand_in:
        out.print(f"  {_RANDOM_WEIGHTS}")
    return 1 if result.replaced else 0


def _import_database(args: argparse.Namespace, file: Path) -> int:
    """Import the file's tracks and features."""
    from pipeline.extras.exchange.vibe_db.importing import import_database  # imports h5py

    name = f"{args.dataset}/{args.split}"
    with bar(f"import {name}", err, unit="row") as progress:
        imported = import_database(
            file,
            args.cache,
            name,
            stream=args.stream or "resnet50",
            joints_2d=args.joints_2d,
            crop_scale=args.crop_scale,
            progress=progress,
        )
    if not imported.is_written:
        out.print(plain(f"{name}: up to date, imported from {file.name}"))
        return 0
    content = f"{count(imported.rows, 'row')} in {count(imported.tracks, 'track')}"
    features = "without features (the file has none)"
    if imported.stream:
        features = f"with the stream {imported.stream}"
    out.print(plain(f"{name}: imported {content}, {features}"))
    for text in accounting_lines(imported.totals):
        out.print(f"  {text}")
    if imported.ignored:
        out.print(f"  {DOUBT} not imported: {plain(', '.join(imported.ignored))}")
    if imported.without_features:
        rows = count(imported.without_features, "row")
        out.print(f"  {DOUBT} {rows} without features (not finite in float16)")
    if imported.is_demo:
        out.print(f"  {STAND_IN} demo data: use only to try the pipeline")
    if imported.is_untrained:
        out.print(f"  {_RANDOM_WEIGHTS}")
    return 0


def _describe_progress(args: argparse.Namespace) -> str:
    return describe_kept(args.cache, f"{args.dataset}/{args.split}")


COMMAND: Final = Command(_run, kept=_describe_progress)
