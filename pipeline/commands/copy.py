"""`python -m pipeline copy`: copy splits and their streams into another cache, without rows of
replaced videos.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cache
from pipeline.cli.command_line import SHARDS_KEPT, Command
from pipeline.cli.console import DOUBT, WRONG, err, out, plain
from pipeline.cli.progress import bar
from pipeline.cli.text import command, count
from pipeline.errors import PipelineError
from pipeline.settings.arguments import cache_option, choose_splits, splits_argument
from pipeline.settings.file import ROOT


def _options(sub: argparse.ArgumentParser) -> None:
    splits_argument(sub)
    cache_option(sub)
    sub.add_argument("--to", type=ROOT, required=True, help="Folder or URL of the new cache")
    help_ = "Comma-separated streams to copy; '' for none (default: all)"
    sub.add_argument("--streams", metavar="NAMES", help=help_)


def _run(args: argparse.Namespace) -> int:
    """Copy and check splits; print a line for each, and for each incomplete stream. Returns 1 for
    damage.
    """
    problems = list[str]()
    if os.path.realpath(args.cache) == os.path.realpath(args.to):
        raise PipelineError(f"--to {args.to}: this is the cache itself. Name a new folder.")
    _refuse_other_files(args.to)
    names = _copy_splits(args, problems)
    with bar("verify", err) as progress:
        problems += (
            cache.verify(args.to, fast=True, progress=progress, splits=names).problems
            if names
            else ()
        )
    for problem in problems:
        out.print(f"{WRONG} {plain(problem)}")
    return 1 if problems else 0


def _refuse_other_files(to: cache.Root) -> None:
    """Raise PipelineError for a folder with files that is no cache."""
    if (
        isinstance(to, Path)
        and to.is_dir()
        and not (to / "zarr.json").exists()
        and not cache.FeatureCache(to)
    ):
        names = [
            file.name
            for file in to.iterdir()
            if file.name != "lost+found" and not file.name.startswith(".")
        ]
        if names:
            raise PipelineError(
                f"--to {to}: holds other files, such as {min(names)}. Name a new folder, or a "
                "cache."
            )


def _copy_splits(args: argparse.Namespace, problems: list[str]) -> Sequence[str]:
    cached = cache.open(args.cache)
    opened = dict[str, cache.Split]()
    for name in choose_splits(args.splits, cached.splits):
        try:
            opened[name] = cached[name]
        except (cache.AccessDenied, cache.MissingSplit) as error:
            problems.append(str(error))
    names = [*opened]
    streams = None if args.streams is None else [name for name in args.streams.split(",") if name]
    stored = sorted({stream for name in names for stream in opened[name].streams})
    if unknown := [name for name in streams or () if name not in stored]:
        raise PipelineError(
            f"--streams {unknown[0]}: these splits have {', '.join(stored) or 'no streams'}"
        )
    for name in names:
        own = (
            None
            if streams is None
            else [stream for stream in streams if stream in opened[name].streams]
        )
        with bar(f"copy {name}", err, unit="row") as progress:
            copied = cache.copy_split(args.cache, name, args.to, streams=own, progress=progress)
        wrote = [count(copied.rows, "row")] if copied.wrote_rows else []
        wrote += [", ".join(copied.streams)] if copied.streams else []
        out.print(
            plain(f"{name}: copied {' with '.join(wrote)}" if wrote else f"{name}: up to date")
        )
        for stream, rows in copied.missing.items():
            extract = command("extract", name, "--cache", str(args.cache), "--stream", stream)
            missing = (
                f"{stream} of {name} is incomplete: {copied.rows - rows:,} of "
                f"{count(copied.rows, 'row')} copied, "
            )
            missing += f"{rows:,} missing in {args.cache}, too"
            out.print(f"{DOUBT} {plain(f'{missing}. To add them: {extract}')}, then copy again")
    return names


COMMAND: Final = Command(_options, _run, kept=SHARDS_KEPT)
