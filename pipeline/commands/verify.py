"""`python -m pipeline verify`: is a cache intact? And, if it is not: put right what can be."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import cache
from pipeline.cli.console import DONE, ERROR, IDLE, WRONG, show_json, size
from pipeline.cli.progress import bar
from pipeline.commands.options import FEW, cache_option, cores, count, err, few, joined, json_option, out, plain, whole
from pipeline.errors import PipelineError
from pipeline.maintenance import repair

HELP: Final = "Check every byte of a cache against its manifests; exit 1 when something is wrong."


def options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("splits", nargs="*", metavar="DATASET/SPLIT", help="only these; else all of the cache")
    cache_option(sub)
    sub.add_argument("--fast", action="store_true", help="sizes, indexes and small files only: seconds")
    sub.add_argument(
        "--repair",
        action="store_true",
        help="remove damaged shards, and read and compute just their rows again",
    )
    sub.add_argument("--raw", type=Path, help="with --repair: where the dataset's own raw folder lies now")
    sub.add_argument("--body", type=Path, help="with --repair: where SMPL's files lie now")
    sub.add_argument("--workers", type=whole(0), default=0, help="with --repair: processes; 0: one a core")
    json_option(sub)


def run(args: argparse.Namespace) -> int:
    """Every problem that a cache has, and what a killed run left; with --repair, what was done about it."""
    if not args.repair and (alone := [f"--{name}" for name in ("raw", "body") if getattr(args, name)]):
        raise PipelineError(f"{alone[0]} goes with --repair")
    done, report = None, _verify(args)
    if not args.json:
        _tell(report)
    if args.repair:
        done = _repair(args, report)
        for refused in done.refused:
            err.print(f"{ERROR} {plain(refused)}")
        if done.anything:
            report = _verify(args)
            if not args.json:
                _tell_repair(done)
                _tell(report)
        elif not args.json:
            out.print("nothing to repair")
    if args.json:
        show_json(as_dict(report, done))
    return 0 if report.ok and not (done and done.refused) else 1


def as_dict(report: cache.Report, done: repair.Repair | None) -> dict[str, Any]:
    """For a machine to read; after a repair, `problems` are those that are left."""
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
            "mended": done.cache.restored,
            "removed": done.cache.removed,
            "read": [{"split": read.split, "videos": read.videos, "rows": read.rows} for read in done.read],
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


def _repair(args: argparse.Namespace, report: cache.Report) -> repair.Repair:
    return repair.repair(
        args.cache,
        report,
        raw=args.raw,
        body=args.body,
        workers=cores(args.workers),
        told=lambda what: bar(what, err, unit="video" if what.startswith("read") else ""),
    )


def _verify(args: argparse.Namespace) -> cache.Report:
    with bar("verify", err) as progress:
        return cache.verify(args.cache, fast=args.fast, progress=progress, splits=joined(args.splits) or None)


def _tell(report: cache.Report) -> None:
    for problem in report.problems:
        out.print(f"{WRONG} {plain(problem)}")
    for note in report.notes:
        out.print(f"{IDLE} {plain(note)}")
    summary = f"{count(report.shards, 'shard')}, {size(report.bytes)}"
    if report.fast:
        summary += ", sizes and indexes only"
    out.print(f"{DONE} intact: {summary}" if report.ok else f"{count(len(report.problems), 'problem')} in {summary}")


def _tell_repair(done: repair.Repair) -> None:
    """What was restored and removed, and what was read and computed again."""
    for what, keys in (("restored", done.cache.restored), ("removed, of damaged shards", done.cache.removed)):
        if keys:
            out.print(f"{count(len(keys), 'file')} {what}:")
            for key in few(keys, FEW, "all below the cache"):
                out.print(f"  {plain(key)}")
    for read in done.read:
        out.print(f"{read.split}: {count(len(read.videos), 'video')} read anew, {count(read.rows, 'row')}")
    for made in done.extracted:
        name = f"{made.plan.split}, {made.plan.spec.name}"
        out.print(f"{plain(name)}: {count(made.computed, 'row')} computed anew, {made.carried:,} carried over")
