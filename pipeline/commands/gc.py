"""`python -m pipeline gc`: remove what no manifest names."""

from __future__ import annotations

import argparse
from typing import Final

import cache
from pipeline.cli.console import DOUBT, show_json, size
from pipeline.commands.options import cache_option, count, json_option, out, plain

HELP: Final = "Remove what killed and replaced runs have left and no manifest names."


def options(sub: argparse.ArgumentParser) -> None:
    cache_option(sub)
    sub.add_argument("--dry-run", action="store_true", help="only tell what would go")
    sub.add_argument(
        "--unfinished", action="store_true", help="also what an unfinished run has finished: it will start anew"
    )
    sub.add_argument(
        "--older-than",
        type=float,
        metavar="SECONDS",
        help="leave what is younger; 0 where nothing is said, and a day in an object store, which knows no locks",
    )
    json_option(sub)


def run(args: argparse.Namespace) -> int:
    """Left-overs, removed or told; and what was left, with the reason."""
    found = cache.gc(args.cache, dry_run=args.dry_run, unfinished=args.unfinished, older_than=args.older_than)
    if args.json:
        show_json({"dry_run": args.dry_run, "removed": found.removed, "bytes": found.bytes, "left": found.skipped})
        return 0
    for text in found.removed:
        out.print(f"[dim]{'would go' if args.dry_run else 'removed'}[/dim] {plain(text)}")
    for text in found.skipped:
        out.print(f"{DOUBT} left: {plain(text)}")
    verb = "would be removed" if args.dry_run else "removed"
    out.print(f"{count(len(found.removed), 'left-over')} {verb}, {size(found.bytes)}")
    return 0
