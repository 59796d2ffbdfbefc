"""What the commands share: where they print, how they print what is not theirs, and their options."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape

from pipeline import datasets

WIDE: Final = 100_000  # columns of what is no terminal: there, nobody wants lines folded

out: Final = Console(highlight=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDE)
err: Final = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)


def print_accounting(totals: Any) -> None:
    """found = kept + dropped by reason, in three lines."""
    frames, tracks, videos = totals["frames"], totals["tracks"], totals["videos"]
    out.print(f"  videos {videos['kept']} kept of {videos['found']}" + _reasons(videos["set_aside"]))
    out.print(f"  tracks {tracks['kept']} kept" + _reasons(tracks["dropped"]))
    out.print(f"  frames {frames['kept']} kept of {frames['found']}" + _reasons(frames["dropped"]))


def _reasons(counts: dict[str, int]) -> str:
    return "".join(f", {n} {reason}" for reason, n in counts.items())


def plain(text: str) -> str:
    """Text from elsewhere, such as names of files, on one line and without anything that a terminal would obey."""
    return escape("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text))


def cores(workers: int) -> int:
    """Processes that an option of 0 stands for: one a core."""
    return workers or len(os.sched_getaffinity(0))


def whole(least: int) -> Callable[[str], int]:
    """The type of an option that takes a whole number from `least` on."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} on, found {text!r}")
        return int(text)

    return parse


def split_options(sub: argparse.ArgumentParser) -> None:
    """DATASET SPLIT --cache: what a command about one split takes."""
    sub.add_argument("dataset", choices=datasets.names(), help="the dataset's name")
    sub.add_argument("split", help="train, val, test, ... as the dataset has them")
    sub.add_argument("--cache", type=Path, required=True, help="the cache's folder")
