"""`python -m pipeline copy`: copy splits and their streams into another cache, without rows of
replaced videos.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Final

import cache
from pipeline.cli.command_line import SHARDS_KEPT, Command
from pipeline.cli.console import err, out, plain
from pipeline.cli.progress import bar
from pipeline.cli.text import count
from pipeline.conversion.refusals import refuse_mixed_cache
from pipeline.errors import PipelineError
from pipeline.features.committed import fill_command
from pipeline.settings.arguments import (
    cache_option,
    choose_splits,
    splits_argument,
)
from pipeline.settings.file import ROOT
from pipeline.settings.new_cache import is_new_cache


def _options(sub: argparse.ArgumentParser) -> None:
    splits_argument(sub)
    cache_option(sub)
    sub.add_argument("--to", type=ROOT, required=True, help="Folder or URL of the new cache")
    help_ = "Comma-separated streams to copy; '' for none (default: all)"
    sub.add_argument("--streams", metavar="NAMES", help=help_)


def _run(args: argparse.Namespace) -> int:
    """Copy splits, check the copies, and print a line for each split and each incomplete stream.

    Returns 1 for damaged or unreadable data.
    """
    problems: list[str] = []
    if os.path.realpath(args.cache) == os.path.realpath(args.to):
        raise PipelineError(f"--to {args.to}: this is the cache itself. Name a new folder.")
    if is_new_cache(args.to):
        _refuse_other_files(args.to)
    names = _copy_splits(args, problems)
    with bar("verify", err) as progress:
        if names:
            problems += cache.verify(args.to, fast=True, progress=progress, splits=names).problems
    for problem in problems:
        out.show_problem(problem)
    return int(bool(problems))


def _refuse_other_files(to: cache.Root) -> None:
    """Raise PipelineError for a folder with files that is no cache."""
    folder = cache.local_folder(to)
    if folder is None or not folder.is_dir():
        return
    names = [file.name for file in folder.iterdir() if not file.name.startswith(".")]
    others = sorted({*names} - {"lost+found"})  # of a mount point
    if others:
        problem = f"--to {to}: holds other files, such as {others[0]}."
        raise PipelineError(f"{problem} Name a new folder, or a cache.")


def _copy_splits(args: argparse.Namespace, problems: list[str]) -> Sequence[str]:
    cached = cache.open(args.cache)
    opened = {}
    stored: set[str] = set()
    for name in choose_splits(args.splits, cached.splits):
        try:
            opened[name] = cached[name]
        except (cache.AccessDenied, cache.MissingSplit) as error:
            problems.append(str(error))
        else:
            stored.update(opened[name].streams)

    named = [name for name in (args.streams or "").split(",") if name]
    for stream in named:
        if opened and stream not in stored:
            has = ", ".join(sorted(stored)) or "no streams"
            raise PipelineError(f"--streams {stream}: these splits have {has}")

    for name, split in opened.items():
        refuse_mixed_cache(args.to, name, stand_in=bool(split.manifest.get("stand_in")))
    for name, split in opened.items():
        streams = split.streams
        if args.streams is not None:
            streams = tuple(stream for stream in named if stream in split.streams)
        with bar(f"copy {name}", err, unit="row") as progress:
            copied = cache.copy_split(args.cache, name, args.to, streams=streams, progress=progress)
        rows = count(copied.rows, "row")
        wrote = [rows] if copied.wrote_rows else []
        if copied.streams:
            wrote.append(", ".join(copied.streams))
        text = f"copied {' with '.join(wrote)}" if wrote else "up to date"
        out.print(plain(f"{name}: {text}"))

        in_copy = cache.FeatureCache(args.to)[name]
        for stream, missing in copied.missing.items():
            text = f"{stream} of {name}: {missing:,} of {rows} missing"
            if stream in in_copy.streams:
                text += f". Compute them in the copy: {fill_command(in_copy, stream)}"
            out.warn(text)
    return [*opened]


COMMAND: Final = Command(_options, _run, kept=SHARDS_KEPT)
