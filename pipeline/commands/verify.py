"""`python -m pipeline verify`: is a cache intact? With --repair, read and compute again what is not.

With --recompute, does every stream have the numbers of its rows' own frames?
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import numpy as np

import cache
from pipeline.cli.console import DONE, DOUBT, ERROR, IDLE, WRONG, err, plain, size
from pipeline.cli.options import cores, json_option, whole
from pipeline.cli.progress import Progress, bar
from pipeline.cli.results import CommandResult, print_result
from pipeline.cli.text import FEW, count, few
from pipeline.commands.maintenance.recompute import IMPORTED, SUSPICIOUS, Recomputed, recompute
from pipeline.commands.maintenance.repair import Repair, repair
from pipeline.commands.settings.arguments import cache_option, chosen, joined
from pipeline.datasets.base import EXTRINSICS
from pipeline.errors import PipelineError
from pipeline.features.weights import WeightsSpec
from pipeline.track import other_units

MOST_ROWS: Final = 20  # that are named on the terminal


def options(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("splits", nargs="*", metavar="SPLIT", help="DATASET/SPLIT, or all of DATASET; default: all")
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
    for name, options_ in with_option.items():
        if getattr(args, name) and not any(getattr(args, option) for option in options_):
            raise PipelineError(f"--{name} goes with {' or '.join(f'--{option}' for option in options_)}")
    weights = WeightsSpec.parse(args.weights) if args.weights else None
    workers = cores(args.workers)
    result, splits = CommandResult({}), _splits(args)
    report, repaired, again = _verify(args, splits), None, None
    _report(result, report)
    if args.repair:
        repaired = repair(args.cache, report, raw=args.raw, body=args.body, workers=workers, bars=_bar)
        _repair(result, repaired)
        if repaired.anything:
            report = _verify(args, splits)
            _report(result, report)
    if args.recompute:
        where = {"splits": splits, "raw": args.raw, "weights": weights}
        again = recompute(args.cache, args.recompute, seed=args.seed, workers=workers, bars=_bar, **where)
        _recomputed(result, again)
    cameras = [] if args.fast else list(_camera_problems(args.cache, splits, report.problems))
    result.lines(cameras, WRONG)
    for refused in (*(repaired.refused if repaired else ()), *(again.refused if again else ())):
        err.print(f"{ERROR} {plain(refused)}")
    ok = report.ok and not cameras and not (repaired and repaired.refused) and (again is None or again.ok)
    keys = ("fast", "splits", "shards", "bytes", "problems", "notes", "damaged")  # after a repair, what is left
    result.rows = {
        "ok": ok,
        **{key: getattr(report, key) for key in keys},
        "problems": [*report.problems, *cameras],
        "repair": repaired and _as_dict(repaired),
        "recompute": again
        and {"ok": again.ok, "compared": again.compared, "skipped": again.skipped, "refused": again.refused},
    }
    result.exit_code = 0 if ok else 1
    return print_result(result, as_json=args.json)


def _splits(args: argparse.Namespace) -> list[str] | None:
    """The splits that are named, by a dataset's name all of its; None: all of the cache."""
    names = list[str]()
    for name in joined(args.splits):
        names += [name] if "/" in name else chosen([name], cache.open(args.cache).splits)
    return names or None


def _camera_problems(root: cache.Root, splits: Sequence[str] | None, damaged: Sequence[str]) -> Iterator[str]:
    """Cameras that conversion would refuse now: an earlier version, or another program, wrote them."""
    opened = cache.open(root)
    for split in [] if damaged else [opened[name] for name in splits or opened.splits]:
        if EXTRINSICS.name not in split.extra or split.extra[EXTRINSICS.name].shape != EXTRINSICS.shape:
            continue
        wrong = []
        for track in split.tracks:
            camera = split.rows(EXTRINSICS.name, track.start, track.stop)
            known = camera[~np.isnan(camera).all(axis=(1, 2))]  # a track without the column has its fill value
            wrong += [(track.name, *problem) for problem in other_units({EXTRINSICS.name: known})]
        for name, column, expected, found in wrong[:1]:
            tracks, do = f"{count(len(wrong), 'track')}, the first is {name}", "Correct the reader, and convert again."
            yield f"{split.name}: '{column}': expected {expected}, found {found} ({tracks}). {do}"


def _bar(what: str) -> AbstractContextManager[Progress]:
    unit = "video" if what.startswith("read") else "row" if what.startswith("recompute") else ""
    return bar(what, err, unit=unit)


def _verify(args: argparse.Namespace, splits: Sequence[str] | None) -> cache.VerifyReport:
    with bar("verify", err) as progress:
        return cache.verify(args.cache, fast=args.fast, progress=progress, splits=splits)


def _as_dict(done: Repair) -> dict[str, Any]:
    """For --json."""
    extracted = [
        {"split": run.plan.split, "stream": run.plan.spec.name, "rows": run.computed, "carried": run.carried}
        for run in done.extracted
    ]
    return {
        "repaired": done.cache.restored,
        "removed": done.cache.removed,
        "read": [{"split": split, "videos": videos} for split, videos in done.read.items()],
        "extracted": extracted,
        "refused": done.refused,
    }


def _report(result: CommandResult, report: cache.VerifyReport) -> None:
    result.lines(report.problems, WRONG)
    result.lines(report.notes, IDLE)
    summary = f"{count(report.shards, 'shard')}, {size(report.bytes)}"
    summary += ", sizes and indexes only" * report.fast
    if report.ok:
        result.line(f"intact: {summary}", DONE)
    else:
        result.line(f"{count(len(report.problems), 'problem')} in {summary}")


def _repair(result: CommandResult, done: Repair) -> None:
    """What was restored and removed, and what was read and computed again."""
    if not done.anything:
        result.line("nothing to repair")
    for verb, keys in (("restored", done.cache.restored), ("removed, of damaged shards", done.cache.removed)):
        if keys:
            result.line(f"{count(len(keys), 'file')} {verb}:")
            result.lines(few(keys, FEW, "all below the cache"), indent=2)
    for split, videos in done.read.items():
        result.line(f"{split}: {count(len(videos), 'video')} read again")
    for extraction in done.extracted:
        name = f"{extraction.plan.split}, {extraction.plan.spec.name}"
        result.line(f"{name}: {count(extraction.computed, 'row')} computed again, {extraction.carried:,} carried over")


def _recomputed(result: CommandResult, done: Recomputed) -> None:
    """A line for each stream; then rows that fit a neighbour's frame better, and what could not be compared."""
    for stream in done.compared:
        name = f"{stream.split}, {stream.stream}"
        if not stream.rows:
            result.line(f"{name}: no rows to compare", IDLE)
            continue
        decoders = "; ".join(f"{decoder}: {rows:,}" for decoder, rows in stream.ways.items())
        summary = f"{count(stream.rows, 'row')} computed again ({decoders}), largest difference {stream.largest:.2%}"
        result.line(f"{name}: {summary}", WRONG if stream.misaligned or stream.not_computed else DONE)
        if stream.misaligned:
            result.line(f"{count(len(stream.misaligned), 'row')} with the numbers of another frame:", indent=2)
        misaligned = [
            f"{row.track}, frame {row.frame}: differs by {row.differs:.2%}, and from frame {row.neighbour} by "
            f"{row.neighbour_differs:.2%}"
            for row in stream.misaligned
        ]
        result.lines(few(misaligned, MOST_ROWS, "verify --recompute --json"), indent=4)
        if differing := stream.differing - len(stream.misaligned):
            summary = f"{count(differing, 'row')} of {SUSPICIOUS:.1%} difference or more"
            result.line(f"{summary}, which fit no neighbour clearly better", DOUBT, indent=2)
        if stream.not_computed:
            summary = f"{count(stream.not_computed, 'row')} not compared, the first: {stream.problem}"
            result.line(summary, indent=2)
    for skipped in done.skipped:
        mark = IDLE if skipped.why == IMPORTED else WRONG
        result.line(f"{skipped.split}, {skipped.stream}: not compared: {skipped.why}", mark)
