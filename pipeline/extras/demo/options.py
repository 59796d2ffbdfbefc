"""Options of `synthesize`."""

from __future__ import annotations

import argparse

from pipeline.cli.command_line import whole
from pipeline.settings.options import path


def synthesize(sub: argparse.ArgumentParser) -> None:
    """Add the options."""
    sub.add_argument(
        "--out", type=path, required=True, help="output folder, for raw/<dataset>/ and body/"
    )
    sub.add_argument(
        "--seed", type=whole(0), default=0, help="random seed, at least 0 (default: 0)"
    )
    sub.add_argument(
        "--size",
        default="default",
        help="amount of data: tiny, default or large (default: default)",
    )
    sub.add_argument(
        "--workers", type=whole(0), default=0, help="Number of processes (default: one per core)"
    )
