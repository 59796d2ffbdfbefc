"""`python -m pipeline export`: tracks and features -> a database file that other code reads."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from pipeline.cli.console import DOUBT, STAND_IN, err, out, plain, size
from pipeline.cli.progress import bar
from pipeline.cli.text import count
from pipeline.commands.settings.arguments import split_options

FORMATS: Final = ("vibe",)


def options(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    split_options(sub)
    add("--format", required=True, choices=FORMATS, help="the layout of the file")
    add("--out", type=Path, required=True, help="the file, or a folder: then the file has its usual name in it")
    add("--stream", default="resnet50", help="the stream with the features (default resnet50)")
    add("--replace", action="store_true", help="overwrite a file that is there")


def run(args: argparse.Namespace) -> int:
    """Tracks and features -> a database file."""
    from pipeline.exchange.vibe_db.export import export  # imports h5py and joblib

    name = f"{args.dataset}/{args.split}"
    with bar(f"export {name}", err, unit="row") as progress:
        exported = export(args.cache, name, args.out, stream=args.stream, replace=args.replace, progress=progress)
    n_bytes = exported.file.stat().st_size
    what = f"{count(exported.rows, 'row')} under {count(exported.names, 'name')} in {exported.file} ({size(n_bytes)})"
    out.print(plain(f"{name}: {what}"))
    for field, why in exported.absent.items():
        out.print(f"  {DOUBT} {plain(f'without {field}: {why}')}")
    for what, rows in exported.left_out.items():
        out.print(f"  {DOUBT} {count(rows, 'row')} not exported, with {plain(what)}")
    if exported.stand_in:
        out.print(f"  {STAND_IN} demo data or an untrained network: for trying the pipeline only")
    return 0
