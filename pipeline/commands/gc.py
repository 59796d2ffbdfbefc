"""`python -m pipeline gc`: delete files that no manifest references, with `--erase` also rows of
removed videos.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Final

import cache
from cache.format.manifest import Commit
from cache.format.pins import pins_of_runs
from cache.format.tags import tag_pins
from pipeline.cli import pages
from pipeline.cli.command_line import Command
from pipeline.cli.console import DOUBT, IDLE, CommandResult, err, plain, print_result
from pipeline.cli.progress import bar
from pipeline.cli.text import count, size
from pipeline.steps.grading import copy_grades


def _run(args: argparse.Namespace) -> int:
    """Delete files, and print them; also print files that were left, with the reason."""
    if args.erase:
        _erase(args)
    collected = cache.gc(
        args.cache,
        dry_run=args.dry_run,
        unfinished=args.unfinished or args.erase,
        older_than=args.older_than,
        unused_for=args.unused_for * 86400,
        pins=None if args.erase else lambda: _pins_of_runs(args),
    )
    result = CommandResult(
        {
            "dry_run": args.dry_run,
            "removed": collected.removed,
            "bytes": collected.bytes,
            "left": collected.skipped,
            "waiting": collected.waiting,
            "problems": collected.problems,
            "forgotten": collected.forgotten,
        }
    )
    verb = "removed"
    if args.dry_run:
        verb = "would be removed"
    result.add_lines(collected.removed, f"[dim]{verb}[/dim]")
    for name in collected.forgotten:
        result.add_line(f"{name}: its folder was deleted: forgotten", IDLE)
    for text in collected.skipped:
        result.add_line(f"left: {text}", DOUBT)
    if collected.waiting:
        waiting = count(collected.waiting, "unused path")
        result.add_line(f"{waiting} left: not found unused for long enough (--unused-for)", IDLE)
    result.add_line(f"{count(len(collected.removed), 'path')} {verb}, {size(collected.bytes)}")
    result.problems = collected.problems
    if args.erase:  # what is left may have removed rows
        result.problems += collected.skipped
    return print_result(result, as_json=args.json)


def _pins_of_runs(args: argparse.Namespace) -> list[Path]:
    return pins_of_runs(args.runs) if args.runs else []


def _erase(args: argparse.Namespace) -> None:
    """Print what is written again of each split, and who loses rows; do it, unless `dry_run`."""
    err.warn(f"copies, snapshots and runs keep their rows: see {pages.REMOVE_A_PERSON}")
    opened = cache.open(args.cache)
    pins = [*tag_pins(opened.store), *map(cache.store_at, _pins_of_runs(args))]
    for name, split in opened.items():
        erasure = cache.erase_rows(split, dry_run=True)
        err.print(
            f"{plain(name)}: {count(erasure.removed, 'row')} of removed tracks; written again: "
            f"{count(erasure.moved, 'row')}, {size(erasure.moved * erasure.row_bytes)} "
            f"(by copy: {size(split.manifest['rows'] * erasure.row_bytes)})"
        )
        staying = split.commit.shards.keys() - erasure.going
        for pin in pins:
            pinned = Commit.load_manifest(replace(split.place(None), pin=pin))
            if pinned is not None and not pinned.shards.keys() <= staying:
                err.warn(
                    f"{pin.root} loses rows of {name}: a training cannot be resumed, a tag not be "
                    "read. Delete it: its tables have names"
                )
        if not args.dry_run:
            with bar(f"erase {name}", err, unit="row") as progress:
                cache.erase_rows(split, progress=progress)
            copy_grades(split, opened[name])


COMMAND: Final = Command(_run)
