"""`python -m pipeline verify`: is a cache intact? With --repair, read and compute again what is not.

With --recompute, does every stream have the numbers of its rows' own frames?
"""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import cache
from pipeline.cli.console import DONE, DOUBT, ERROR, IDLE, WRONG, err, out, plain, show_json, size
from pipeline.cli.options import cores, json_option, whole
from pipeline.cli.progress import Progress, bar
from pipeline.cli.text import FEW, count, few
from pipeline.commands.maintenance.recompute import IMPORTED, SUSPICIOUS, Recomputed, recompute
from pipeline.commands.maintenance.repair import Repair, repair
from pipeline.commands.settings.arguments import cache_option, joined
from pipeline.errors import PipelineError
from pipeline.features.weights import WeightsSpec

HELP: Final = "Check every byte of a cache against its manifests; exit code 1 when something is damaged."

MOST_ROWS: Final = 20  # that are named on the terminal


def options(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("splits", nargs="*", metavar="DATASET/SPLIT", help="only these; default: all of the cache")
    cache_option(sub)
    add("--fast", action="store_true", help="sizes, indexes and small files only: seconds")
    add("--repair", action="store_true", help="remove damaged shards, and read and compute just their rows again")
    add(
        "--recompute",
        type=whole(1),
        metavar="N",
        help="compare N random rows of every stream with what is computed now, of frames that are decoded by another "
        "way; exit code 1 when a row fits its neighbour's frame better than its own, or cannot be compared",
    )
    add("--seed", type=whole(0), default=0, help="with --recompute: which rows are drawn (default 0)")
    add("--weights", metavar="KIND:FILE", help="with --recompute: of streams whose weights are a file of yours")
    add("--raw", type=Path, help="with --repair or --recompute: the dataset's own raw folder, when it has moved")
    add("--body", type=Path, help="with --repair: SMPL's files, when they have moved")
    add("--workers", type=whole(0), default=0, help="with --repair or --recompute: processes; 0: one for each core")
    json_option(sub)


def run(args: argparse.Namespace) -> int:
    """Every problem of a cache, and what a killed run left; with --repair, what was done about it."""
    with_option = {"raw": ("repair", "recompute"), "body": ("repair",), "weights": ("recompute",)}
    for name, others in with_option.items():
        if getattr(args, name) and not any(getattr(args, other) for other in others):
            raise PipelineError(f"--{name} goes with {' or '.join(f'--{other}' for other in others)}")
    weights = WeightsSpec.parse(args.weights) if args.weights else None
    workers = cores(args.workers)
    done, report = None, _verify(args)
    if not args.json:
        _print(report)
    if args.repair:
        done = repair(args.cache, report, raw=args.raw, body=args.body, workers=workers, bars=_bar)
        for refused in done.refused:
            err.print(f"{ERROR} {plain(refused)}")
        report = _verify(args) if done.anything else report
        if not args.json:
            _print_repair(done)
            if done.anything:
                _print(report)
    again = None
    if args.recompute:
        where = {"splits": joined(args.splits) or None, "raw": args.raw, "weights": weights}
        again = recompute(args.cache, args.recompute, seed=args.seed, workers=workers, bars=_bar, **where)
        for refused in again.refused:
            err.print(f"{ERROR} {plain(refused)}")
        if not args.json:
            _print_recomputed(again)
    ok = report.ok and not (done and done.refused) and (again is None or again.ok)
    if args.json:
        keys = ("fast", "splits", "shards", "bytes", "problems", "notes")  # after a repair, what is left
        damaged = [asdict(damage) for damage in report.damaged]
        parts = {"repair": done and _as_dict(done), "recompute": again and _recomputed_as_dict(again)}
        show_json({"ok": ok, **{key: getattr(report, key) for key in keys}, "damaged": damaged, **parts})
    return 0 if ok else 1


def _bar(what: str) -> AbstractContextManager[Progress]:
    unit = "video" if what.startswith("read") else "row" if what.startswith("recompute") else ""
    return bar(what, err, unit=unit)


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
        "read": [{"split": split, "videos": videos} for split, videos in done.read.items()],
        "extracted": extracted,
        "refused": done.refused,
    }


def _recomputed_as_dict(done: Recomputed) -> dict[str, Any]:
    """For --json."""
    compared = [
        {**asdict(one), "ways": dict(one.ways), "misaligned": [row._asdict() for row in one.misaligned]}
        for one in done.compared
    ]
    skipped = [one._asdict() for one in done.skipped]
    return {"ok": done.ok, "compared": compared, "skipped": skipped, "refused": done.refused}


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
    for split, videos in done.read.items():
        out.print(f"{split}: {count(len(videos), 'video')} read again")
    for made in done.extracted:
        name = f"{made.plan.split}, {made.plan.spec.name}"
        out.print(f"{plain(name)}: {count(made.computed, 'row')} computed again, {made.carried:,} carried over")


def _print_recomputed(done: Recomputed) -> None:
    """A line for each stream; then rows that fit a neighbour's frame better, and what could not be compared."""
    for one in done.compared:
        name = plain(f"{one.split}, {one.stream}")
        ways = "; ".join(f"{way}: {rows:,}" for way, rows in one.ways.items())
        mark = WRONG if one.misaligned or one.not_computed else DONE
        what = f"{count(one.rows, 'row')} computed again ({plain(ways)}), largest difference {one.largest:.2%}"
        out.print(f"{mark} {name}: {what}" if one.rows else f"{IDLE} {name}: no rows to compare")
        if one.misaligned:
            out.print(f"  {count(len(one.misaligned), 'row')} with the numbers of another frame:")
        misaligned = [
            f"{row.track}, frame {row.frame}: differs by {row.differs:.2%}, and from frame {row.neighbour} by "
            f"{row.neighbour_differs:.2%}"
            for row in one.misaligned
        ]
        for text in few(misaligned, MOST_ROWS, "verify --recompute --json"):
            out.print(f"    {plain(text)}")
        if others := one.differing - len(one.misaligned):
            what = f"{count(others, 'row')} of {SUSPICIOUS:.1%} difference or more"
            out.print(f"  {DOUBT} {what}, which fit no neighbour clearly better")
        if one.not_computed:
            out.print(f"  {count(one.not_computed, 'row')} not compared, the first: {plain(one.problem)}")
    for skipped in done.skipped:
        mark = IDLE if skipped.why == IMPORTED else WRONG
        out.print(f"{mark} {plain(f'{skipped.split}, {skipped.stream}: not compared: {skipped.why}')}")
