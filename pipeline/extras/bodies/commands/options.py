"""Options of the commands about bodies without SMPL."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Final

from pipeline.settings.options import cache_option, path, split_arguments

ADULT: Final = 0.67


def bodies(sub: argparse.ArgumentParser) -> None:
    split_arguments(sub)
    cache_option(sub)
    sub.add_argument(
        "--stream",
        default="blaze_joints",
        help="Stream of BlazePose's 33 joints (default: blaze_joints)",
    )
    sub.add_argument(
        "--out", type=path, metavar="DIR", help="Output folder (default: DATASET-SPLIT-anny)"
    )
    sub.add_argument(
        "--raw", type=path, metavar="DIR", help="The dataset's raw folder, if it has moved"
    )
    help_ = (
        f"Age of all people, 0 to 1: 0 a baby, 0.33 a child, {ADULT} an adult, 1 old (default: "
        f"{ADULT})"
    )
    sub.add_argument("--age", type=_age, default=ADULT, help=help_)
    sub.add_argument(
        "--device",
        default="auto",
        help="Device: auto (a GPU if there is one), cpu, cuda, cuda:1, ... (default: auto)",
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


def try_clip(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--out",
        type=path,
        metavar="DIR",
        default=Path("data/try"),
        help="Folder (default: data/try)",
    )
