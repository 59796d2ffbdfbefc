"""What the commands of `python -m pipeline` share: where they print, and their options."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import cache
from pipeline import datasets
from pipeline.cli.console import err as err
from pipeline.cli.console import out as out
from pipeline.cli.console import plain as plain
from pipeline.cli.text import command as command
from pipeline.cli.text import count as count
from pipeline.cli.text import from_here, not_counted
from pipeline.datasets.base import Dataset
from pipeline.datasets.release import globs
from pipeline.errors import PipelineError
from pipeline.raw import listing
from pipeline.settings import sections
from pipeline.settings.places import settings_file

FEW: Final = 5  # of a long list, so many are told
CACHE: Final = "the cache's folder, or its URL as s3://bucket/prefix"
KEPT: Final = "finished shards (8,192 rows each) are kept; the same command goes on from there"


def print_accounting(totals: Any, uncounted: int = 0) -> None:
    """found = kept + dropped by reason, in three lines. `uncounted`: videos that were set aside unread."""
    for what, dropped in (("videos", "set_aside"), ("tracks", "dropped"), ("frames", "dropped")):
        counts = totals[what]
        known = f" ({totals['known'][what]:,} in the release)" if what in totals["known"] else ""
        unread = not_counted(uncounted) if what == "frames" else ""
        told = f"  {what} {counts['kept']:,} kept of {counts['found']:,}{known}"
        out.print(told + _reasons(counts[dropped]) + unread)


def few(lines: Sequence[str], most: int, where: str) -> list[str]:
    """The first `most` lines, and `where` all of them are to be had when there are more.

    >>> few(["a", "b", "c"], 2, "status --all")
    ['a', 'b', 'and 1 more: status --all']
    """
    more = len(lines) - most
    return [*lines[:most], *([f"and {more:,} more: {where}"] if more > 0 else [])]


def _reasons(counts: dict[str, int]) -> str:
    return "".join(f", {n:,} {reason}" for reason, n in counts.items())


def shards_kept(_: argparse.Namespace) -> str:
    """What of an interrupted conversion or extraction is kept."""
    return KEPT


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


class _InOneWord(argparse.Action):
    """DATASET, or DATASET/SPLIT: then SPLIT is no argument of its own."""

    def __call__(
        self, parser: argparse.ArgumentParser, args: argparse.Namespace, value: Any, _option: str | None = None
    ) -> None:
        dataset, slash, split = value.partition("/")
        if dataset not in datasets.names():
            raise argparse.ArgumentError(self, f"{dataset!r} is no dataset; known: {', '.join(datasets.names())}")
        args.dataset = dataset
        if slash:
            args.split = split
            for action in parser._actions:  # argparse has no other way to say it
                if action.dest == "split":
                    action.required = False


class _Split(argparse.Action):
    """SPLIT, unless DATASET/SPLIT has said it."""

    def __call__(
        self, _parser: argparse.ArgumentParser, args: argparse.Namespace, value: Any, _option: str | None = None
    ) -> None:
        if value is None:
            return
        if args.split is not None:
            raise argparse.ArgumentError(self, f"{args.dataset}/{args.split} has said it already, found {value!r} too")
        args.split = value


def split_arguments(sub: argparse.ArgumentParser) -> None:
    """DATASET SPLIT, or both in one word: DATASET/SPLIT."""
    help_ = f"{', '.join(datasets.names())}; or DATASET/SPLIT in one word"
    sub.add_argument("dataset", action=_InOneWord, help=help_)
    sub.add_argument("split", action=_Split, help="train, val, test, ... as the dataset has them")


def split_options(sub: argparse.ArgumentParser, *, brings: bool = False) -> None:
    """DATASET SPLIT --cache: what a command about one split takes.

    brings: it puts rows from elsewhere into the cache, which must be named then: luigi.cfg's holds those of luigi.cfg.
    """
    split_arguments(sub)
    if brings:
        sub.add_argument("--cache", type=cache.place_of, required=True, help=CACHE)
    else:
        cache_option(sub)


def cache_option(sub: argparse.ArgumentParser) -> None:
    """`--cache`; where it is not given, `command_line` takes that of luigi.cfg by `complete`, and says so."""
    sub.add_argument("--cache", type=cache.place_of, help=f"{CACHE}; else [paths] cache of luigi.cfg")
    sub.set_defaults(complete=_complete)


def _complete(args: argparse.Namespace) -> None:
    """Raises ConfigError where there is no luigi.cfg, or no cache in it."""
    if args.cache is None:
        file = settings_file()
        args.cache = sections.load(file, "Run from the project's folder, or name the cache: --cache DIR.").paths.cache
        err.print(plain(f"cache      {from_here(args.cache)} ({file.name}, [paths] cache)"))


def joined(names: Sequence[str]) -> list[str]:
    """DATASET SPLIT as the one name that it is, where it cannot mean two.

    >>> joined(["3dpw", "train"]), joined(["3dpw", "amass"]), joined(["3dpw/train", "amass/train"])
    (['3dpw/train'], ['3dpw', 'amass'], ['3dpw/train', 'amass/train'])
    """
    known = datasets.names()
    two = len(names) == 2 and names[0] in known and names[1] not in known and "/" not in names[1]
    return ["/".join(names)] if two else list(names)


def check_own_folder(raw: Path, dataset: Dataset) -> None:
    """Raise PipelineError where --raw is one level off: the folder above the dataset's own, or one within it."""
    patterns = globs([pattern for part in dataset.parts for pattern in part.patterns])
    if not listing.is_folder_there(raw) or listing.any_fits(raw, patterns):
        return
    for near in (raw / dataset.name, raw.absolute().parent):
        if listing.is_folder_there(near) and listing.any_fits(near, patterns):
            first = dataset.parts[0]
            what = f"--raw {raw} has nothing of {dataset.name} ({first.what}: {first.patterns[0]})"
            raise PipelineError(f"{what}; did you mean --raw {from_here(near)}?")


def json_option(sub: argparse.ArgumentParser, more: str = "") -> None:
    """For a machine to read."""
    sub.add_argument("--json", action="store_true", help=f"one JSON document instead, for a machine to read{more}")


def scheduler_option(sub: argparse.ArgumentParser) -> None:
    """Where else than here the work is done."""
    sub.add_argument("--scheduler", metavar="ADDRESS", help="a Dask cluster's (tcp://node:8786); else this machine")
