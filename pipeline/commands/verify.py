"""`python -m pipeline verify`: is a cache intact?"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import cache
from pipeline.commands.console import count, out, plain

HELP: Final = "Check every shard of a cache against its manifest; exit 1 when something is wrong."


def options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--cache", type=Path, required=True)


def run(args: argparse.Namespace) -> int:
    """Every problem that a cache has, and what a killed run left."""
    report = cache.verify(args.cache)
    for problem in report.problems:
        out.print(f"[red]✗[/red] {plain(problem)}")
    for note in report.notes:
        out.print(f"[dim]·[/dim] {plain(note)}")
    summary = f"{count(report.shards, 'shard')}, {report.bytes / 2**20:.1f} MiB"
    out.print(
        f"[green]✓[/green] intact: {summary}" if report.ok else f"{count(len(report.problems), 'problem')} in {summary}"
    )
    return 0 if report.ok else 1
