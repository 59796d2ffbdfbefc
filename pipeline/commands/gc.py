"""`python -m pipeline gc`: delete files that no manifest references."""

from __future__ import annotations

import argparse
from typing import Final

import cache
from cache.format.pins import pins_of_runs
from pipeline.cli.command_line import Command, json_option, whole
from pipeline.cli.console import DOUBT, IDLE, CommandResult, print_result
from pipeline.cli.text import count, size
from pipeline.settings.arguments import cache_option, from_settings


def _options(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    cache_option(sub)
    from_settings(sub, runs="paths.runs")  # no option
    add("--dry-run", action="store_true", help="List what would be deleted, and stop")
    add("--unfinished", action="store_true", help="Also delete checkpoints of unfinished runs")
    help_ = "Leave younger files (default: 0; in an object store, one day)"
    add("--older-than", type=whole(0), metavar="SECONDS", help=help_)
    help_ = "Delete only what gc with this option has found unused, without a break, for DAYS days"
    add("--unused-for", type=whole(0), default=0, metavar="DAYS", help=help_)
    json_option(sub)


def _run(args: argparse.Namespace) -> int:
    """Delete files, and print them; also print files that were left, with the reason."""
    collected = cache.gc(
        args.cache,
        dry_run=args.dry_run,
        unfinished=args.unfinished,
        older_than=args.older_than,
        unused_for=args.unused_for * 86400,
        pins=lambda: pins_of_runs(args.runs) if args.runs else [],
    )
    result = CommandResult(
        {
            "dry_run": args.dry_run,
            "removed": collected.removed,
            "bytes": collected.bytes,
            "left": collected.skipped,
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
    result.add_line(f"{count(len(collected.removed), 'path')} {verb}, {size(collected.bytes)}")
    result.problems = collected.problems
    return print_result(result, as_json=args.json)


COMMAND: Final = Command(_options, _run)
