"""`python -m tasks train`: the Luigi task `Train` by itself, or in several processes of torch's
launcher.

The launcher starts the same command in each process, and sets RANK. The process of rank 0 shows
the progress.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
from typing import Final

from pipeline.cli import console, text
from pipeline.cli.command_line import Command
from pipeline.cli.progress import bar
from pipeline.features.committed import MissingRows, fill_command
from pipeline.processes import PR_SET_PDEATHSIG
from pipeline.steps.run_state import record_run
from tasks.base import fact, warn
from tasks.settings import settings
from tasks.training import model_config
from tasks.training_run import TrainingView, warn_of_doubts
from vibe_model import models, runs
from vibe_model.settings import VideoConfig


def _run(args: argparse.Namespace) -> int:
    """Train, or in a further process of torch's launcher train with the first one. Returns 0."""
    from vibe_model import training

    config = _config(args)
    if "RANK" in os.environ:
        _end_with_parent()  # else processes survive a killed launcher
    if os.environ.get("RANK", "0") != "0":
        training.run(config, progress=None)
        return 0

    warn_of_doubts(config)
    _warn_of_missing_rows(config)
    title = f"{models.find(args.model).title}, {config.name}, seed {config.seed}"
    with bar(f"train {title}", console.err, unit="step") as progress:
        folder = training.run(config, progress=TrainingView(progress, title))
    fact("run", text.from_here(folder))
    args.folder = folder
    return 0


def _config(args: argparse.Namespace) -> VideoConfig:
    return model_config(models.find(args.model), args.variant, args.seed)


def _warn_of_missing_rows(config: VideoConfig) -> None:
    """Warn of rows without features, which are not trained on."""
    for name, split in runs.open_run(config).items():
        for stream in config.streams.get(name, ()):
            n_rows = MissingRows.find(split, stream).rows
            if n_rows:
                rows = text.count(n_rows, "row")
                do = fill_command(split, stream)
                warn(f"{name}: {rows} not extracted yet, and so not trained on: {do}")


def _end_with_parent() -> None:
    """On Linux, have the kernel end this process when its parent ends, even by SIGKILL."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _describe_progress(args: argparse.Namespace) -> str:
    last = runs.run_folder(_config(args)) / runs.LAST
    if last.is_file():
        return f"the last checkpoint ({text.from_here(last)}) is kept; the same command continues"
    return "nothing is kept yet: no checkpoint was written; the same command starts again"


def _record(args: argparse.Namespace, code: int, seconds: float) -> None:
    """Write the state of a run that has ended: once, by the first process."""
    folder = getattr(args, "folder", None)
    if folder is not None:
        known = settings()
        splits = list(_config(args).streams)
        root = known.paths.cache
        record_run(known, root, "train", folder.name, splits, code=code, seconds=seconds)


COMMAND: Final = Command(_run, kept=_describe_progress, record=_record)
