"""Arguments that name a split, a cache and a raw folder, for all commands."""

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

CACHE: Final = "Folder or URL (s3://bucket/prefix) of the cache"


class _SplitName(argparse.Action):
    """Parse DATASET SPLIT, or DATASET/SPLIT without the second argument."""

    def __call__(
        self, parser: argparse.ArgumentParser, args: argparse.Namespace, value: Any, _option: str | None = None
    ) -> None:
        if self.dest == "split":
            if args.split is not None:
                named = f"{args.dataset}/{args.split}"
                raise argparse.ArgumentError(self, f"{named} already names the split, found {value!r}")
            args.split = value
            return
        args.dataset, slash, split = value.partition("/")
        if unknown := datasets.unknown(args.dataset):
            raise argparse.ArgumentError(self, unknown)
        if slash:
            args.split = split
            next(action for action in parser._actions if action.dest == "split").required = False


def split_arguments(sub: argparse.ArgumentParser) -> None:
    """Add DATASET SPLIT, or DATASET/SPLIT."""
    help_ = f"{', '.join(datasets.names())}, or DATASET/SPLIT"
    sub.add_argument("dataset", action=_SplitName, help=help_)
    sub.add_argument("split", action=_SplitName, help="Split of the dataset: train, val, test, ...")


def split_options(sub: argparse.ArgumentParser, *, new_rows: bool = False) -> None:
    """Add DATASET SPLIT --cache.

    new_rows: require --cache for commands that add rows; the cache of luigi.cfg is for the datasets of luigi.cfg.
    """
    split_arguments(sub)
    if new_rows:
        sub.add_argument("--cache", type=cache.place_of, required=True, help=CACHE)
    else:
        cache_option(sub)


def cache_option(sub: argparse.ArgumentParser) -> None:
    """Add `--cache`, with [paths] cache as its default."""
    sub.add_argument("--cache", type=cache.place_of, help=CACHE)
    from_settings(sub, cache="paths.cache")


def join_split_name(names: Sequence[str]) -> list[str]:
    """Join DATASET SPLIT into one name, unless both are names.

    >>> join_split_name(["3dpw", "train"]), join_split_name(["3dpw", "amass"])
    (['3dpw/train'], ['3dpw', 'amass'])
    """
    dataset_names = datasets.names()
    two = len(names) == 2 and names[0] in dataset_names and names[1] not in dataset_names and "/" not in names[1]
    return ["/".join(names)] if two else list(names)


def splits_argument(sub: argparse.ArgumentParser) -> None:
    """Add SPLIT..., for `choose_splits`."""
    help_ = "DATASET/SPLIT, or DATASET for all its splits (default: all splits)"
    sub.add_argument("splits", nargs="*", metavar="SPLIT", help=help_)


def choose_splits(names: Sequence[str], splits: Sequence[str]) -> list[str]:
    """The splits that `names` name, in the cache's order; without names, all. Raises PipelineError for an unknown name.

    >>> choose_splits(["3dpw"], ["3dpw/test", "amass/train"])
    ['3dpw/test']
    """
    words = ["/".join(names)] if len(names) == 2 and "/".join(names) in splits else names
    if unknown := [word for word in words if not any(name == word or name.startswith(f"{word}/") for name in splits)]:
        raise PipelineError(f"no split {unknown[0]!r} in the cache; there are: {', '.join(splits) or 'none'}")
    return [name for name in splits if not words or name in words or name.partition("/")[0] in words]


def check_own_folder(raw: Path, dataset: Dataset) -> None:
    """Raise PipelineError if --raw is one level off: the folder above the dataset's, or one in it."""
    patterns = globs([pattern for part in dataset.parts for pattern in part.patterns])
    if not listing.is_folder_there(raw) or listing.any_fits(raw, patterns):
        return
    for near in (raw / dataset.name, raw.absolute().parent):
        if listing.is_folder_there(near) and listing.any_fits(near, patterns):
            first = dataset.parts[0]
            what = f"--raw {raw}: found no files of {dataset.name} ({first.what}: {first.patterns[0]})"
            raise PipelineError(f"{what}. Did you mean --raw {from_here(near)}?")
