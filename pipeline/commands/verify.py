"""`python -m pipeline verify`: is a cache intact? And, if it is not: put right what can be."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import cache
from cache.repair import QUARANTINE
from pipeline import repair
from pipeline.commands.console import FEW, cores, count, err, few, out, plain, whole
from pipeline.errors import PipelineError
from pipeline.progress import bar

HELP: Final = "Check every byte of a cache against its manifests; exit 1 when something is wrong."
INTERRUPTED: Final = 130


def options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("splits", nargs="*", metavar="DATASET/SPLIT", help="only these; else all of the cache")
    sub.add_argument("--cache", type=cache.place_of, required=True, help="the cache's folder, or its URL")
    sub.add_argument("--fast", action="store_true", help="sizes, indexes and small files only: seconds")
    sub.add_argument("--anew", action="store_true", help="do not go on where an interrupted verification was")
    sub.add_argument(
        "--repair",
        action="store_true",
        help="mend what is damaged: from copies, and by reading and computing anew just the rows that are lost",
    )
    sub.add_argument("--raw", type=Path, help="with --repair: where the dataset's own raw folder lies now")
    sub.add_argument("--body", type=Path, help="with --repair: where SMPL's files lie now")
    sub.add_argument("--workers", type=whole(0), default=0, help="with --repair: processes; 0: one a core")


def run(args: argparse.Namespace) -> int:
    """Every problem that a cache has, and what a killed run left; with --repair, what was done about it."""
    if not args.repair and (alone := [f"--{name}" for name in ("raw", "body") if getattr(args, name)]):
        raise PipelineError(f"{alone[0]} goes with --repair")
    refused: list[str] = []
    try:
        report = _verify(args, hold=args.repair)
        _tell(report)
        if args.repair:
            done = repair.repair(
                args.cache,
                report,
                raw=args.raw,
                body=args.body,
                workers=cores(args.workers),
                told=lambda what: bar(what, err),
            )
            refused = done.refused
            if not done.anything:
                out.print("nothing to repair")
            else:
                _tell_repair(done, args.cache)
                args.anew = False
                report = _verify(args, hold=False)
                _tell(report)
    except KeyboardInterrupt:
        kept = "what was checked" if cache.interrupted(args.cache) else "nothing"
        err.print(f"interrupted: {kept} is remembered; the same command goes on from there (--anew starts over)")
        return INTERRUPTED
    return 0 if report.ok and not refused else 1


def _verify(args: argparse.Namespace, *, hold: bool) -> cache.Report:
    known = 0 if args.fast or args.anew else cache.interrupted(args.cache)
    if known:
        out.print(f"going on: {count(known, 'shard')} were found intact before (--anew starts over)")
    with bar("verify", err) as progress:
        return cache.verify(
            args.cache, fast=args.fast, resume=not args.anew, hold=hold, progress=progress, splits=args.splits or None
        )


def _tell(report: cache.Report) -> None:
    for problem in report.problems:
        out.print(f"[red]✗[/red] {plain(problem)}")
    for note in report.notes:
        out.print(f"[dim]·[/dim] {plain(note)}")
    summary = f"{count(report.shards, 'shard')}, {report.bytes / 2**20:.1f} MiB"
    if report.fast:
        summary += ", sizes and indexes only"
    out.print(
        f"[green]✓[/green] intact: {summary}" if report.ok else f"{count(len(report.problems), 'problem')} in {summary}"
    )


def _tell_repair(done: repair.Repair, root: cache.Root) -> None:
    """What was mended, taken out, read and computed anew, and what could not be."""
    if done.cache.mended:
        out.print(f"mended {count(len(done.cache.mended), 'small file')} from what was intact of them:")
        for key in few(done.cache.mended, FEW, "all below the cache"):
            out.print(f"  {plain(key)}")
    if done.cache.quarantined:
        folder = cache.store_at(root).where(QUARANTINE)
        n_files = count(len(done.cache.quarantined), "file")
        out.print(plain(f"{n_files} of damaged shards taken out, to be found in {folder}"))
        for key in few([key.removeprefix(f"{QUARANTINE}/") for key in done.cache.quarantined.values()], FEW, folder):
            out.print(f"  {plain(key)}")
    for read in done.read:
        out.print(f"{read.split}: {count(len(read.videos), 'video')} read anew, {count(read.rows, 'row')}")
    for made in done.extracted:
        name = f"{made.plan.split}, {made.plan.spec.name}"
        out.print(f"{plain(name)}: {count(made.computed, 'row')} computed anew, {made.carried:,} carried over")
    for refused in done.refused:
        err.print(f"[red]error:[/red] {plain(refused)}")
