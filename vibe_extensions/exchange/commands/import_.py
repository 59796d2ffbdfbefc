"""`python -m pipeline import`: a database file of VIBE or TCMR -> tracks and features."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.cli.console import DOUBT, STAND_IN, UNTRAINED, err, out, plain
from pipeline.cli.progress import bar
from pipeline.cli.text import count
from pipeline.commands.convert import accounting_lines
from pipeline.settings.arguments import split_options
from pipeline.skeletons import JOINTS


def options(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("file", type=Path, help="database file, joblib (.pt) or HDF5 (.h5); no code in it is run")
    split_options(sub, new_rows=True)
    add("--format", required=True, choices=("vibe",), help="layout of the file")
    add("--stream", default="resnet50", help="stream name of its features (default: resnet50)")
    add("--weights-of", metavar="TEXT", help="network that computed the features, for the manifest")
    orders = sorted({*JOINTS, "common13"} - {"smpl54"})
    add("--joints-2d", choices=orders, metavar="ORDER", help=f"joint order of joints2D: {', '.join(orders)}")
    add("--crop-scale", type=float, help="crop side / box side of the features (default: the dataset's)")


def run(args: argparse.Namespace) -> int:
    """Import the file's tracks and features."""
    from vibe_extensions.exchange.vibe_db.importing import Options, import_database  # imports h5py

    name = f"{args.dataset}/{args.split}"
    chosen = Options(args.stream, args.weights_of, args.joints_2d, args.crop_scale)
    with bar(f"import {name}", err, unit="row") as progress:
        imported = import_database(args.file, args.cache, name, chosen, progress=progress)
    if not imported.why:
        out.print(plain(f"{name}: up to date, imported from {args.file.name}"))
        return 0
    streams = f"with the stream {imported.stream}" if imported.stream else "without features (the file has none)"
    out.print(plain(f"{name}: imported {count(imported.rows, 'row')} in {count(imported.tracks, 'track')}, {streams}"))
    for text in accounting_lines(imported.totals):
        out.print(f"  {text}")
    if imported.ignored:
        out.print(f"  {DOUBT} not imported: {plain(', '.join(imported.ignored))}")
    if imported.without_features:
        rows = count(imported.without_features, "row")
        out.print(f"  {DOUBT} {rows} without features (not finite in float16)")
    if imported.mark:
        what = f"{UNTRAINED} features of random weights" if imported.mark == "untrained" else f"{STAND_IN} demo data"
        out.print(f"  {what}: use only to try the pipeline")
    return 0
