"""`python -m pipeline gc`: remove files that no manifest refers to."""

from __future__ import annotations

import argparse
from typing import Final

import cache
from pipeline.cli.console import DOUBT, out, plain, show_json, size
from pipeline.cli.options import json_option
from pipeline.cli.text import count
from pipeline.commands.settings.arguments import cache_option

HELP: Final = "Remove the files that killed runs and replaced data left, and that no manifest refers to."


def options(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    cache_option(sub)
    add("--dry-run", action="store_true", help="only list what would be removed")
    add("--unfinished", action="store_true", help="also what unfinished runs have kept, which then start from zero")
    add(
        "--older-than",
        type=float,
        metavar="SECONDS",
        help="leave younger files; default 0, and in an object store, which has no locks, a day",
    )
    json_option(sub)


def run(args: argparse.Namespace) -> int:
    """Removed files, and what was left, with the reason."""
    found = cache.gc(args.cache, dry_run=args.dry_run, unfinished=args.unfinished, older_than=args.older_than)
    if args.json:
        show_json({"dry_run": args.dry_run, "removed": found.removed, "bytes": found.bytes, "left": found.skipped})
        return 0
    for text in found.removed:
        out.print(f"[dim]{'would be removed' if args.dry_run else 'removed'}[/dim] {plain(text)}")
    for text in found.skipped:
        out.print(f"{DOUBT} left: {plain(text)}")
    verb = "would be removed" if args.dry_run else "removed"
    out.print(f"{count(len(found.removed), 'path')} {verb}, {size(found.bytes)}")
    return 0
