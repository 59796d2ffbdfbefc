"""`python -m tasks train`: what `TrainVIBE` does, without Luigi; by torch's launcher, in several processes."""

from __future__ import annotations

import argparse
import os
from typing import Final

from pipeline.cli.progress import bar
from tasks import terminal
from tasks.children import end_with_parent
from vibe_model.settings.variants import VARIANTS

HELP: Final = "Train by luigi.cfg on what the cache holds; under torchrun, in several processes as one."


def options(sub: argparse.ArgumentParser) -> None:
    """Which run."""
    names = ", ".join(VARIANTS)
    sub.add_argument(
        "--variant", default="", metavar="NAME", help=f"{names}, or some joined by +; default: luigi.cfg's"
    )
    sub.add_argument("--seed", type=int, help="default: luigi.cfg's")


def kept(_: argparse.Namespace) -> str:
    """What of an interrupted training is kept."""
    return "the last checkpoint (last.pt) is kept; the same command goes on from there"


def run(args: argparse.Namespace) -> int:
    """Train, or go on with it; of several processes, the first one speaks."""
    from tasks.prediction.pictures import pictures
    from tasks.training import telling, train_config
    from vibe_model import training

    config, leads = train_config(args.variant, args.seed), os.environ.get("RANK", "0") == "0"
    if "RANK" in os.environ:
        end_with_parent()  # killed, torch's launcher would leave them behind
    with bar("train", terminal.err, unit="step", quiet=not leads) as progress:
        draw = pictures(config) if leads else None
        other = args.seed is not None and args.seed != train_config(args.variant).seed
        what = f"VIBE, {config.name}" + (f", seed {config.seed}" if other else "")
        folder = training.run(config, progress=telling(progress, what) if leads else None, pictures=draw)
    if leads:
        terminal.fact("run", str(terminal.shortened(folder)))
    return 0
