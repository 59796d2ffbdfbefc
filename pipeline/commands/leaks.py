"""`python -m pipeline leaks`: what training and test splits share."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import cache
from pipeline.cli.console import DONE, DOUBT, IDLE, WRONG, err, out, plain, show_json
from pipeline.cli.options import cores, json_option, whole, workers_option
from pipeline.cli.progress import bar
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

HELP: Final = (
    "Show which people, recordings and pictures training splits (called train) share with all others; exit code 1 "
    "when they share any."
)


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
    found = compare_names(splits)
    if args.pictures is not None:
        pictures = {}
        for split in splits:
            raw = None if args.raw is None else args.raw / split.name.partition("/")[0]
            with bar(f"pictures   {split.name}", err, unit="video") as progress:
                pictures[split.name] = sample_pictures(split, raw, args.pictures, cores(args.workers), progress)
        found += compare_pictures(pictures)
    if args.json:
        show_json([as_dict(one) for one in found])
    else:
        for line in lines(found, None if args.all else FEW):
            out.print(line)
        if args.pictures is None:
            out.print(f"{IDLE} pictures were not compared: --pictures 3")
    return 1 if any(one.leaks for one in found) else 0


def lines(found: Sequence[Comparison], most: int | None) -> Iterator[str]:
    """As text, ready to be printed: what is shared first. `most`: so many things by name; None: all, and why others
    cannot be determined."""
    if not any(one.first != one.second for one in found):
        yield "nothing to compare: there is no split called train, or none beside it"
    for one in found:
        if not one.common:
            continue
        which = f"{one.first} has twice" if one.first == one.second else f"{one.first} and {one.second} share"
        yield f"{WRONG if one.leaks else DOUBT} {plain(which)} {count(len(one.common), one.what)}:"
        named = [f"{c.name}: {', '.join(c.first)} | {', '.join(c.second)}" for c in one.common]
        yield from (f"    {plain(text)}" for text in few(named, len(named) if most is None else most, "leaks --all"))
    clean, unknown = defaultdict[str, list[str]](list), defaultdict[tuple[str, str], list[str]](list)
    for one in found:
        if one.unknown:
            unknown[one.what, one.unknown].append(f"{one.first} and {one.second}")
        elif not one.common:
            clean[f"{one.first} and {one.second}"].append(one.what)
    for pair, whats in clean.items():
        yield f"{DONE} {plain(pair)} share no {' and no '.join(whats)}"
    if most is not None:
        if unknown:
            yield f"{DOUBT} cannot be determined: {plain(_folded(unknown))} (leaks --all gives the reasons)"
        return
    for (what, why), pairs in unknown.items():
        where = count(len(pairs), "pair") + " of splits of two datasets" if why == NOT_COMPARABLE else ", ".join(pairs)
        yield f"{DOUBT} {plain(f'{what}s of {where}: cannot be determined: {why}')}"


def _folded(unknown: Mapping[tuple[str, str], Sequence[str]]) -> str:
    """`subjects of 12 pairs of splits, recordings of a/train and b/test`"""
    by_what = defaultdict[str, list[str]](list)
    for (what, _), pairs in unknown.items():
        by_what[what] += pairs
    places = {
        what: pairs[0] if len(pairs) == 1 else f"{len(pairs):,} pairs of splits" for what, pairs in by_what.items()
    }
    return ", ".join(f"{what}s of {place}" for what, place in places.items())


def as_dict(one: Comparison) -> dict[str, Any]:
    """For --json."""
    common = [common._asdict() for common in one.common]
    return {"first": one.first, "second": one.second, "what": one.what, "common": common, "unknown": one.unknown}
