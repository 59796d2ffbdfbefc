"""`python -m tasks train`: what `TrainVIBE` does, without Luigi; by torch's launcher, in several processes."""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
from typing import Final

from pipeline.cli import console
from pipeline.cli.progress import bar
from pipeline.processes import PR_SET_PDEATHSIG
from tasks.settings import settings, vibe_settings
from tasks.terminal import fact, shortened
from tasks.training import shown_by, train_config
from vibe_model.settings.variants import VARIANTS

HELP: Final = "Train by luigi.cfg on what the cache holds; under torchrun, in several processes as one."


def options(sub: argparse.ArgumentParser) -> None:
    """Which run."""
    names = ", ".join(VARIANTS)
    sub.add_argument(
        "--variant", default="", metavar="NAME", help=f"{names}, or some joined by +; default: luigi.cfg's"
    )
    sub.add_argument("--seed", type=int, default=-1, help="default: luigi.cfg's")


def kept(_: argparse.Namespace) -> str:
    """What of an interrupted training is kept."""
    return "the last checkpoint (last.pt) is kept; the same command continues from there"


def run(args: argparse.Namespace) -> int:
    """Train, or continue; of several processes, the first one prints."""
    from tasks.prediction.pictures import Pictures
    from vibe_model import training

    config, leads = train_config(args.variant, args.seed), os.environ.get("RANK", "0") == "0"
    if "RANK" in os.environ:
        end_with_parent()  # killed, torch's launcher would leave them behind
    other_seed = config.seed != vibe_settings(settings(), args.variant).seed
    what = f"VIBE, {config.name}" + (f", seed {config.seed}" if other_seed else "")
    with bar("train", console.err, unit="step", quiet=not leads) as progress:
        shown, draw = (shown_by(progress, what), Pictures(config)) if leads else (None, None)
        folder = training.run(config, progress=shown, pictures=draw)
    if leads:
        fact("run", shortened(folder))
    return 0


def end_with_parent() -> None:
    """Have the kernel end this process when its parent ends, even by SIGKILL. On Linux; elsewhere nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
