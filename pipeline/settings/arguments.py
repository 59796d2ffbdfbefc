"""Arguments that name a split, a cache and a raw folder, the same for all commands; and the printed accounting."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cache
from pipeline import datasets
from pipeline.cli.text import from_here
from pipeline.datasets.base import Dataset, globs
from pipeline.errors import PipelineError
from pipeline.files.raw import listing
from pipeline.settings.commands import from_settings

CACHE: Final = "the cache's folder, or its URL as s3://bucket/prefix"


class _SplitName(argparse.Action):
    """DATASET SPLIT, or DATASET/SPLIT: then SPLIT is no argument of its own."""

    def __call__(
        self, parser: argparse.ArgumentParser, args: argparse.Namespace, value: Any, _option: str | None = None
    ) -> None:
        if self.dest == "split":
            if args.split is not None:
                named = f"{args.dataset}/{args.split}"
                raise argparse.ArgumentError(self, f"{named} names the split already, found {value!r}")
            args.split = value
            return
        args.dataset, slash, split = value.partition("/")
        if unknown := datasets.unknown(args.dataset):
            raise argparse.ArgumentError(self, unknown)
        if slash:
            args.split = split
            next(action for action in parser._actions if action.dest == "split").required = False


def split_arguments(sub: argparse.ArgumentParser) -> None:
    """DATASET SPLIT, or both in one word: DATASET/SPLIT."""
    help_ = f"{', '.join(datasets.names())}; or DATASET/SPLIT in one word"
    sub.add_argument("dataset", action=_SplitName, help=help_)
    sub.add_argument("split", action=_SplitName, help="train, val, test, ... as the dataset has them")


def split_options(sub: argparse.ArgumentParser, *, new_rows: bool = False) -> None:
    """DATASET SPLIT --cache: what a command about one split takes.

    new_rows: it brings rows into the cache, which must be named then: luigi.cfg's is for the datasets of luigi.cfg.
    """
    split_arguments(sub)
    if new_rows:
        sub.add_argument("--cache", type=cache.place_of, required=True, help=CACHE)
    else:
        cache_option(sub)


def cache_option(sub: argparse.ArgumentParser) -> None:
    """`--cache`; where it is not given, that of luigi.cfg is used, and printed."""
    sub.add_argument("--cache", type=cache.place_of, help=CACHE)
    from_settings(sub, cache="paths.cache")


def joined(names: Sequence[str]) -> list[str]:
    """DATASET SPLIT as the one name that it is, where it cannot mean two.

    >>> joined(["3dpw", "train"]), joined(["3dpw", "amass"]), joined(["3dpw/train", "amass/test"]), joined(["3dpw"])
    (['3dpw/train'], ['3dpw', 'amass'], ['3dpw/train', 'amass/test'], ['3dpw'])
    """
    dataset_names = datasets.names()
    two = len(names) == 2 and names[0] in dataset_names and names[1] not in dataset_names and "/" not in names[1]
    return ["/".join(names)] if two else list(names)


def splits_argument(sub: argparse.ArgumentParser) -> None:
    """SPLIT...: which splits of a cache, for `chosen`."""
    help_ = "DATASET/SPLIT, DATASET SPLIT, or all splits of DATASET; default: all of the cache"
    sub.add_argument("splits", nargs="*", metavar="SPLIT", help=help_)


def chosen(names: Sequence[str], splits: Sequence[str]) -> list[str]:
    """Those of a cache's splits that `names` name, in the cache's order; all where there are no names.

    Raises PipelineError for a name that is none of them.

    >>> chosen(["3dpw", "train"], ["3dpw/test", "3dpw/train"]), chosen(["3dpw"], ["3dpw/test", "amass/train"])
    (['3dpw/train'], ['3dpw/test'])
    """
    words = ["/".join(names)] if len(names) == 2 and "/".join(names) in splits else names
    if unknown := [word for word in words if not any(name == word or name.startswith(f"{word}/") for name in splits)]:
        raise PipelineError(f"no split {unknown[0]!r} in the cache; there are: {', '.join(splits) or 'none'}")
    return [name for name in splits if not words or name in words or name.partition("/")[0] in words]


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
