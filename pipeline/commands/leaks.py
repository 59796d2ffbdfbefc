"""`python -m pipeline leaks`: what training and test splits share."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import cache
from pipeline.cli.console import DONE, DOUBT, IDLE, WRONG, err
from pipeline.cli.options import cores, json_option, whole, workers_option
from pipeline.cli.progress import bar
from pipeline.cli.results import CommandResult, print_result
from pipeline.cli.text import FEW, count, few
from pipeline.commands.maintenance.leaks import (
    NOT_COMPARABLE,
    Comparison,
    compare_names,
    compare_pictures,
    sample_pictures,
)
from pipeline.commands.settings.arguments import cache_option
from pipeline.errors import PipelineError


def options(sub: argparse.ArgumentParser) -> None:
    cache_option(sub)
    add = sub.add_argument
    add("--pictures", type=whole(1), metavar="N", help="compare N pictures of every video, too: they are decoded")
    add("--raw", type=Path, help="with --pictures: the folder of <dataset>/, where it is not that of the conversion")
    add("--all", action="store_true", help="name everything that is shared or cannot be determined")
    workers_option(sub, "processes that decode")
    json_option(sub, "; always names everything")


def run(args: argparse.Namespace) -> int:
    """By pair of splits: what is shared, what is not, and what cannot be determined."""
    if args.raw is not None and args.pictures is None:
        raise PipelineError("--raw goes with --pictures")
    opened = cache.open(args.cache)
    splits = [opened[name] for name in opened.splits]
    compared = compare_names(splits)
    if args.pictures is not None:
        pictures = {}
        for split in splits:
            raw = None if args.raw is None else args.raw / split.name.partition("/")[0]
            with bar(f"pictures   {split.name}", err, unit="video") as progress:
                pictures[split.name] = sample_pictures(split, raw, args.pictures, cores(args.workers), progress)
        compared += compare_pictures(pictures)
    result = CommandResult(compared, exit_code=int(any(pair.leaks for pair in compared)))
    _add_text(result, compared, every=args.all)
    if args.pictures is None:
        result.line("pictures were not compared: --pictures 3", IDLE)
    return print_result(result, as_json=args.json)


def _add_text(result: CommandResult, compared: Sequence[Comparison], *, every: bool) -> None:
    """What is shared first. every: all things by name, and why others cannot be determined."""
    if not any(pair.is_of_training for pair in compared):
        result.line("nothing to compare: there is no split called train, or none beside it")
    clean, unknown = defaultdict[str, list[str]](list), defaultdict[tuple[str, str], list[str]](list)
    for pair in compared:
        both = f"{pair.first} and {pair.second}"
        if pair.common:
            which = f"{pair.first} has twice" if pair.first == pair.second else f"{both} share"
            result.line(f"{which} {count(len(pair.common), pair.what)}:", WRONG if pair.leaks else DOUBT)
            named = [f"{c.name}: {', '.join(c.first)} | {', '.join(c.second)}" for c in pair.common]
            result.lines(few(named, len(named) if every else FEW, "leaks --all"), indent=4)
        if pair.unknown:
            unknown[pair.what, pair.unknown].append(both)
        elif not pair.common:
            clean[both].append(pair.what)
    result.lines((f"{both} share no {' and no '.join(whats)}" for both, whats in clean.items()), DONE)
    if not every:
        if unknown:
            result.line(f"cannot be determined: {_folded(unknown)} (leaks --all gives the reasons)", DOUBT)
        return
    for (what, why), pairs in unknown.items():
        where = count(len(pairs), "pair") + " of splits of two datasets" if why == NOT_COMPARABLE else ", ".join(pairs)
        result.line(f"{what}s of {where}: cannot be determined: {why}", DOUBT)


def _folded(unknown: Mapping[tuple[str, str], Sequence[str]]) -> str:
    """`subjects of 12 pairs of splits, recordings of a/train and b/test`"""
    by_what = defaultdict[str, list[str]](list)
    for (what, _), pairs in unknown.items():
        by_what[what] += pairs
    places = {
        what: pairs[0] if len(pairs) == 1 else f"{len(pairs):,} pairs of splits" for what, pairs in by_what.items()
    }
    return ", ".join(f"{what}s of {place}" for what, place in places.items())
