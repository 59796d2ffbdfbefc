"""`python -m pipeline verify`: is a cache intact? With --repair, read and compute again what is not."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import cache
from cache.verification.repair import QUARANTINE
from pipeline.cli.console import DONE, ERROR, IDLE, WRONG, err, out, plain, show_json, size
from pipeline.cli.options import FEW, cores, few, json_option, whole
from pipeline.cli.progress import bar
from pipeline.cli.text import count
from pipeline.commands.arguments import cache_option, joined
from pipeline.errors import PipelineError
from pipeline.maintenance.repair import Repair, repair

HELP: Final = "Check every byte of a cache against its manifests; exit code 1 when something is damaged."


def options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("splits", nargs="*", metavar="DATASET/SPLIT", help="only these; default: all of the cache")
    cache_option(sub)
    sub.add_argument("--fast", action="store_true", help="sizes, indexes and small files only: seconds")
    sub.add_argument("--anew", action="store_true", help="do not continue an interrupted verification")
    sub.add_argument(
        "--repair", action="store_true", help="remove damaged shards, and read and compute just their rows again"
    )
    sub.add_argument("--raw", type=Path, help="with --repair: the dataset's own raw folder, when it has moved")
    sub.add_argument("--body", type=Path, help="with --repair: SMPL's files, when they have moved")
    sub.add_argument("--workers", type=whole(0), default=0, help="with --repair: processes; 0: one for each core")
    json_option(sub)


def kept(args: argparse.Namespace) -> str:
    """What an interrupted verification has found intact is remembered, where the cache is a folder."""
    what = "what was checked" if cache.interrupted(args.cache) else "nothing"
    return f"{what} is remembered; the same command goes on from there (--anew starts over)"


def run(args: argparse.Namespace) -> int:
    """Every problem of a cache, and what a killed run left; with --repair, what was done about it."""
    if not args.repair and (alone := [f"--{name}" for name in ("raw", "body") if getattr(args, name)]):
        raise PipelineError(f"{alone[0]} goes with --repair")
    done, report = None, _verify(args, hold=args.repair)
    if not args.json:
        _print(report)
    if args.repair:
        done = repair(
            args.cache,
            report,
            raw=args.raw,
            body=args.body,
            workers=cores(args.workers),
            bars=lambda what: bar(what, err, unit="video" if what.startswith("read") else ""),
        )
        for refused in done.refused:
            err.print(f"{ERROR} {plain(refused)}")
        if done.anything:
            args.anew = False
            report = _verify(args, hold=False)
            if not args.json:
                _print_repair(done, args.cache)
                _print(report)
        elif not args.json:
            out.print("nothing to repair")
    if args.json:
        show_json(_as_dict(report, done))
    return 0 if report.ok and not (done and done.refused) else 1


def _verify(args: argparse.Namespace, *, hold: bool) -> cache.Report:
    known = 0 if args.fast or args.anew else cache.interrupted(args.cache)
    if known and not args.json:
        out.print(f"going on: {count(known, 'shard')} were found intact before (--anew starts over)")
    with bar("verify", err) as progress:
        return cache.verify(
            args.cache,
            fast=args.fast,
            resume=not args.anew,
            hold=hold,
            progress=progress,
            splits=joined(args.splits) or None,
        )


def _as_dict(report: cache.Report, done: Repair | None) -> dict[str, Any]:
    """For --json; after a repair, `problems` are those that are left."""
    return {
        "ok": report.ok,
        "fast": report.fast,
        "splits": report.splits,
        "shards": report.shards,
        "bytes": report.bytes,
        "problems": report.problems,
        "notes": report.notes,
        "damaged": [asdict(damage) for damage in report.damaged],
        "repair": None
        if done is None
        else {
            "mended": done.cache.mended,
            "quarantined": done.cache.quarantined,
            "read": [again._asdict() for again in done.read],
            "extracted": [
                {
                    "split": made.plan.split,
                    "stream": made.plan.spec.name,
                    "rows": made.computed,
                    "carried": made.carried,
                }
                for made in done.extracted
            ],
            "refused": done.refused,
        },
    }


def _print(report: cache.Report) -> None:
    for problem in report.problems:
        out.print(f"{WRONG} {plain(problem)}")
    for note in report.notes:
        out.print(f"{IDLE} {plain(note)}")
    summary = f"{count(report.shards, 'shard')}, {size(report.bytes)}"
    if report.fast:
        summary += ", sizes and indexes only"
    out.print(f"{DONE} intact: {summary}" if report.ok else f"{count(len(report.problems), 'problem')} in {summary}")


def _print_repair(done: Repair, root: cache.Root) -> None:
    """What was restored and removed, and what was read and computed again."""
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
    for again in done.read:
        out.print(f"{again.split}: {count(len(again.videos), 'video')} read again, {count(again.rows, 'row')}")
    for made in done.extracted:
        name = f"{made.plan.split}, {made.plan.spec.name}"
        out.print(f"{plain(name)}: {count(made.computed, 'row')} computed again, {made.carried:,} carried over")
