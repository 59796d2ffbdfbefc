"""`python -m pipeline verify`: is a cache intact? With --repair, read and compute again what is not."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import cache
from pipeline.cli.console import DONE, ERROR, IDLE, WRONG, err, out, plain, show_json, size
from pipeline.cli.options import cores, json_option, whole
from pipeline.cli.progress import bar
from pipeline.cli.text import FEW, count, few
from pipeline.errors import PipelineError
from pipeline.maintenance.repair import Repair, repair
from pipeline.settings.arguments import cache_option, joined

HELP: Final = "Check every byte of a cache against its manifests; exit code 1 when something is damaged."


def options(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("splits", nargs="*", metavar="DATASET/SPLIT", help="only these; default: all of the cache")
    cache_option(sub)
    add("--fast", action="store_true", help="sizes, indexes and small files only: seconds")
    add("--repair", action="store_true", help="remove damaged shards, and read and compute just their rows again")
    add("--raw", type=Path, help="with --repair: the dataset's own raw folder, when it has moved")
    add("--body", type=Path, help="with --repair: SMPL's files, when they have moved")
    add("--workers", type=whole(0), default=0, help="with --repair: processes; 0: one for each core")
    json_option(sub)


def run(args: argparse.Namespace) -> int:
    """Every problem of a cache, and what a killed run left; with --repair, what was done about it."""
    if not args.repair and (alone := [f"--{name}" for name in ("raw", "body") if getattr(args, name)]):
        raise PipelineError(f"{alone[0]} goes with --repair")
    done, report = None, _verify(args)
    if not args.json:
        _print(report)
    if args.repair:
        workers, bars = (
            cores(args.workers),
            lambda what: bar(what, err, unit="video" if what.startswith("read") else ""),
        )
        done = repair(args.cache, report, raw=args.raw, body=args.body, workers=workers, bars=bars)
        for refused in done.refused:
            err.print(f"{ERROR} {plain(refused)}")
        report = _verify(args) if done.anything else report
        if not args.json:
            _print_repair(done)
            if done.anything:
                _print(report)
    if args.json:
        keys = ("ok", "fast", "splits", "shards", "bytes", "problems", "notes")  # after a repair, what is left
        damaged = [asdict(damage) for damage in report.damaged]
        repaired = None if done is None else _as_dict(done)
        show_json({**{key: getattr(report, key) for key in keys}, "damaged": damaged, "repair": repaired})
    return 0 if report.ok and not (done and done.refused) else 1


def _verify(args: argparse.Namespace) -> cache.Report:
    with bar("verify", err) as progress:
        return cache.verify(args.cache, fast=args.fast, progress=progress, splits=joined(args.splits) or None)


def _as_dict(done: Repair) -> dict[str, Any]:
    """For --json."""
    extracted = [
        {"split": made.plan.split, "stream": made.plan.spec.name, "rows": made.computed, "carried": made.carried}
        for made in done.extracted
    ]
    return {
        "mended": done.cache.restored,
        "removed": done.cache.removed,
        "read": [again._asdict() for again in done.read],
        "extracted": extracted,
        "refused": done.refused,
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


def _print_repair(done: Repair) -> None:
    """What was restored and removed, and what was read and computed again."""
    if not done.anything:
        out.print("nothing to repair")
    for what, keys in (("restored", done.cache.restored), ("removed, of damaged shards", done.cache.removed)):
        if keys:
            out.print(f"{count(len(keys), 'file')} {what}:")
            for key in few(keys, FEW, "all below the cache"):
                out.print(f"  {plain(key)}")
    for again in done.read:
        out.print(f"{again.split}: {count(len(again.videos), 'video')} read again, {count(again.rows, 'row')}")
    for made in done.extracted:
        name = f"{made.plan.split}, {made.plan.spec.name}"
        out.print(f"{plain(name)}: {count(made.computed, 'row')} computed again, {made.carried:,} carried over")
