"""`python -m pipeline copy`: splits and their streams into another cache, without the rows of replaced videos."""

from __future__ import annotations

import argparse

import cache
from pipeline.cli.console import DOUBT, WRONG, err, out, plain
from pipeline.cli.options import KEPT
from pipeline.cli.progress import bar
from pipeline.cli.text import command, count
from pipeline.errors import PipelineError
from pipeline.settings.arguments import CACHE, cache_option, chosen, splits_argument


def options(sub: argparse.ArgumentParser) -> None:
    splits_argument(sub)
    cache_option(sub)
    sub.add_argument("--to", type=cache.place_of, required=True, help=f"the other cache: {CACHE.removeprefix('the ')}")
    help_ = "only these streams, with commas; '' for none; default: all that a split has"
    sub.add_argument("--tag", metavar="NAME", help="the state of this tag; default: what is committed now")
    sub.add_argument("--streams", metavar="NAMES", help=help_)


def kept(_: argparse.Namespace) -> str:
    """What of an interrupted copy is kept."""
    return KEPT


def run(args: argparse.Namespace) -> int:
    """A line for each split, and for each stream that has not all of its rows; then the copies are checked."""
    opened = cache.open(args.cache, args.tag)
    names = chosen(args.splits, opened.splits)
    streams = None if args.streams is None else [name for name in args.streams.split(",") if name]
    stored = sorted({stream for name in names for stream in opened[name].streams})
    if unknown := [name for name in streams or () if name not in stored]:
        raise PipelineError(f"--streams {unknown[0]}: none of these splits has it; there are: {', '.join(stored)}")
    for name in names:
        own = None if streams is None else [stream for stream in streams if stream in opened[name].streams]
        with bar(f"copy {name}", err, unit="row") as progress:
            copied = cache.copy_split(args.cache, name, args.to, streams=own, progress=progress, tag=args.tag)
        _print(copied, args)
    with bar("verify", err) as progress:
        report = cache.verify(args.to, fast=True, progress=progress, splits=names)
    for problem in report.problems:
        out.print(f"{WRONG} {plain(problem)}")
    return 0 if report.ok else 1


def _print(done: cache.Copied, args: argparse.Namespace) -> None:
    wrote = [count(done.rows, "row")] if done.wrote_rows else []
    wrote += [", ".join(done.streams)] if done.streams else []
    out.print(plain(f"{done.split}: copied {' with '.join(wrote)}" if wrote else f"{done.split}: up to date"))
    for stream, rows in done.missing.items():
        extract = command("extract", done.split, "--cache", str(args.cache), "--stream", stream)
        missing = f"{stream} has not all rows of {done.split} in {args.cache}: the copy lacks {count(rows, 'row')}"
        out.print(f"{DOUBT} {plain(f'{missing}. To have them: {extract}')}, then copy again")
