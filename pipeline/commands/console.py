"""What the commands share: where they print, how they print what is not theirs, and their options."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from rich.console import Console
from rich.markup import escape

import cache
from pipeline import datasets
from pipeline.wording import command as command
from pipeline.wording import count as count

FEW: Final = 5  # of a long list, so many are told
WIDE: Final = 100_000  # columns of what is no terminal: there, nobody wants lines folded

out: Final = Console(highlight=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDE)
err: Final = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)


def print_accounting(totals: Any) -> None:
    """found = kept + dropped by reason, in three lines."""
    for what, dropped in (("videos", "set_aside"), ("tracks", "dropped"), ("frames", "dropped")):
        counts = totals[what]
        known = f" ({totals['known'][what]:,} in the release)" if what in totals["known"] else ""
        out.print(f"  {what} {counts['kept']:,} kept of {counts['found']:,}{known}" + _reasons(counts[dropped]))


def few(lines: Sequence[str], most: int, where: str) -> list[str]:
    """The first `most` lines, and `where` all of them are to be had when there are more.

    >>> few(["a", "b", "c"], 2, "status --all")
    ['a', 'b', 'and 1 more: status --all']
    """
    more = len(lines) - most
    return [*lines[:most], *([f"and {more:,} more: {where}"] if more > 0 else [])]


def _reasons(counts: dict[str, int]) -> str:
    return "".join(f", {n:,} {reason}" for reason, n in counts.items())


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
    sub.add_argument(
        "--cache", type=cache.place_of, required=True, help="the cache's folder, or its URL as s3://bucket/prefix"
    )


def scheduler_option(sub: argparse.ArgumentParser) -> None:
    """Where else than here the work is done."""
    sub.add_argument("--scheduler", metavar="ADDRESS", help="a Dask cluster's (tcp://node:8786); else this machine")
