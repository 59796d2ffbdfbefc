"""`python -m pipeline copy`: copy splits and their streams into another cache, without rows of
replaced videos.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Final

import cache
from cache.format.folders import refuse_unmounted_stream
from cache.write.base import SHARED
from pipeline.cli.command_line import Command
from pipeline.cli.console import err, out, plain
from pipeline.cli.progress import bar
from pipeline.cli.text import count
from pipeline.errors import PipelineError
from pipeline.features.committed import fill_command
from pipeline.files.raw.files import is_litter
from pipeline.settings.arguments import choose_splits
from pipeline.settings.new_cache import is_new_cache
from pipeline.show.split.card import CARD, card
from pipeline.steps import sharing
from pipeline.steps.conversion.refusals import refuse_mixed_cache
from pipeline.steps.conversion_record import ConversionRecord
from pipeline.steps.grading import copy_grades
from pipeline.steps.uncommitted import describe_kept


def _run(args: argparse.Namespace) -> int:
    """Copy splits, check the copies, and print a line for each split and each incomplete stream.

    Returns 1 for damaged, unreadable or missing data.
    """
    problems: list[str] = []
    if os.path.realpath(args.cache) == os.path.realpath(args.to):
        raise PipelineError(f"--to {args.to}: this is the cache itself. Name a new folder.")
    if is_new_cache(args.to):
        _refuse_other_files(args.to)
    if args.share:
        _refuse_private(args.to)
    opened = cache.open(args.cache)
    splits = []
    for name in choose_splits(args.splits, opened.splits):
        try:
            splits.append(opened[name])
        except (cache.AccessDenied, cache.MissingSplit) as error:
            problems.append(str(error))
    named = _named_streams(args.streams, splits)
    for split in splits:
        is_stand_in = ConversionRecord(split).is_stand_in
        refuse_mixed_cache(args.to, split.name, stand_in=is_stand_in)
    for split in splits:
        streams = None
        if named is not None:
            streams = [name for name in named if name in split.streams]
        problems += _copy(split, args.to, streams, args.share)
    if args.share:
        _write_card(args.to)
    with bar("verify", err) as progress:
        if splits:
            names = [split.name for split in splits]
            problems += cache.verify(args.to, fast=True, progress=progress, splits=names).problems
    for problem in problems:
        out.show_problem(problem)
    return int(bool(problems))


def _refuse_other_files(to: cache.Root) -> None:
    """Raise PipelineError for a folder with files that is no cache."""
    folder = cache.local_folder(to)
    if folder is None or not folder.is_dir():
        return
    others = sorted(file.name for file in folder.iterdir() if not is_litter(file.name))
    if others:
        problem = f"--to {to}: holds other files, such as {others[0]}."
        raise PipelineError(f"{problem} Name a new folder, or a cache.")


def _named_streams(option: str | None, splits: Sequence[cache.Split]) -> list[str] | None:
    """The streams that --streams names; None: all. Raises PipelineError for one that no split
    has, and CacheError for one whose disk seems to be unmounted.
    """
    if option is None:
        return None
    named = [name for name in option.split(",") if name]
    stored = {stream for split in splits for stream in split.streams}
    for stream in named:
        for split in splits:
            refuse_unmounted_stream(split.place(stream))
        if splits and stream not in stored:
            has = ", ".join(sorted(stored)) or "no streams"
            raise PipelineError(f"--streams {stream}: these splits have {has}")
    return named


def _refuse_private(to: cache.Root) -> None:
    """Raise PipelineError if a cache has commits that are no copies for others: their notes have
    folders and hosts.
    """
    if is_new_cache(to):
        return
    opened = cache.open(to)
    for split in map(opened.__getitem__, opened.splits):
        streams = [split.open_stream(name).commit for name in split.streams]
        for commit in (split.commit, *streams):
            notes = commit.notes().values()
            if not notes or not all(SHARED in note for note in notes):
                raise PipelineError(
                    f"--to {to}: {split.name} was not written by `copy --share`: its files have "
                    "folders and names of machines. Name a new folder."
                )


def _write_card(to: cache.Root) -> None:
    """Write the card of a copy for others, and print whether its rows may be passed on."""
    opened = cache.open(to)
    splits = [opened[name] for name in opened.splits]
    cache.store_at(to).put_small({CARD: card(splits).encode()}, "")
    for line in sharing.private_lines(sharing.licences_of(splits)):
        out.warn(line)


def _copy(
    split: cache.Split, to: cache.Root, streams: Sequence[str] | None, share: bool
) -> Sequence[str]:
    """Copy a split, and print a line about it and each incomplete stream. Returns messages about
    streams that are left out.
    """
    name = split.name
    clean = sharing.text_cleaner(split) if share else None
    with bar(f"copy {name}", err, unit="row") as progress:
        copied = cache.copy_split(
            split.root, name, to, streams=streams, clean=clean, progress=progress
        )
    rows = count(copied.rows, "row")
    wrote = [rows] if copied.wrote_rows else []
    if copied.streams:
        wrote.append(", ".join(copied.streams))
    text = f"copied {' with '.join(wrote)}" if wrote else "up to date"
    out.print(plain(f"{name}: {text}"))

    in_copy = cache.FeatureCache(to)[name]
    copy_grades(split, in_copy)
    for stream, missing in copied.missing.items():
        text = f"{stream} of {name}: {missing:,} of {rows} missing"
        if stream in in_copy.streams:
            text += f". Compute them in the copy: {fill_command(in_copy, stream)}"
        out.warn(text)
    return copied.left_out


COMMAND: Final = Command(_run, kept=lambda args: describe_kept(args.to))
