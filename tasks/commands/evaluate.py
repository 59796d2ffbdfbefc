"""`python -m tasks evaluate`: a checkpoint's errors on splits of the cache."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import cache
from pipeline.cli import console
from pipeline.cli.options import json_option, whole
from pipeline.cli.progress import bar
from tasks import evaluation
from tasks.commands.predict import model_options, positive
from tasks.settings import settings
from tasks.terminal import DEMO_DATA, fact, plain, shortened
from vibe_model import runs
from vibe_model.metrics import UNITS

HELP: Final = "Evaluate a checkpoint on splits of the cache, by both protocols, beside the published figures."
WIDE: Final = 120  # columns that a table may take: a number that is cut is another number
NOTE: Final = "published figures are by the protocol of that name"


def options(sub: argparse.ArgumentParser) -> None:
    """The model, the splits, and where results go."""
    model_options(sub)
    splits = sub.add_argument_group("what it is evaluated on")
    splits.add_argument("--cache", type=cache.place_of, help="folder or URL; default: [paths] cache")
    splits.add_argument(
        "--split",
        action="append",
        default=[],
        metavar="NAME",
        help="as 3dpw/test; may be repeated; default: the evaluation splits that the model was configured with",
    )
    splits.add_argument("--stream", help="of features; default: the model's own, else [features] stream")
    splits.add_argument("--smooth", type=positive, metavar="SIGMA", help="smooth predictions over time, in frames")
    splits.add_argument("--batch-size", type=whole(1), default=16, metavar="N", help="windows at once (default 16)")
    sub.add_argument(
        "--out", type=Path, metavar="DIR", help="write metrics.json, results.csv, results by track, worst windows"
    )
    json_option(sub, ": the content of metrics.json")


def run(args: argparse.Namespace) -> int:
    """Load, evaluate, and print the table."""
    from tasks.prediction import trained  # imports torch

    model = trained.load(args.checkpoint, args.body or settings().paths.body, args.device)
    stream = args.stream or (settings().features.stream if model.config is None else model.config.stream)
    opened = cache.open(args.cache or settings().paths.cache)
    splits = evaluation.chosen_splits(model, opened, args.split, stream)
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
    with bar(f"evaluate {', '.join(splits)}", console.err):
        metrics = evaluation.evaluate(
            model, splits, stream=stream, batch_size=args.batch_size, smooth=args.smooth or 0.0, out=args.out
        )
    if args.json:
        console.show_json(metrics)
        return 0
    for split, rows in evaluation.rows_beside_published(metrics).items():
        console.show(evaluation.table_of(split, rows, protocols=True), least=WIDE)
        console.out.print()
    console.out.print(f"[dim]{UNITS}; {NOTE}[/dim]\n")
    if metrics["stand_in"]:
        console.out.print(DEMO_DATA)
    if args.out is not None:
        shown = plain(shortened(args.out))
        fact("numbers", f"{shown}/{evaluation.RESULTS}, {shown}/{runs.METRICS} (all)")
    return 0
