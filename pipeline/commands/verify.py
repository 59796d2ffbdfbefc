"""`python -m pipeline verify`: check a cache, and drop what is damaged."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

import cache
from pipeline.cli.console import DONE, ERROR, IDLE, WRONG, err, plain, size
from pipeline.cli.options import cores, json_option, whole
from pipeline.cli.progress import bar
from pipeline.cli.results import CommandResult, print_result
from pipeline.cli.text import FEW, count, few
from pipeline.commands.repair import Repair, repair
from pipeline.datasets.base import EXTRINSICS
from pipeline.errors import PipelineError
from pipeline.features.weights import WeightsSpec
from pipeline.plug_ins import service
from pipeline.settings.arguments import cache_option, choose_splits, join_split_name
from pipeline.track import other_units

RECOMPUTE: Final = "vibe_pipeline.recompute"  # entry point of the function behind --recompute


def options(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("splits", nargs="*", metavar="SPLIT", help="DATASET/SPLIT, or all of DATASET (default: all)")
    cache_option(sub)
    add("--fast", action="store_true", help="Check sizes, indexes and small files only (seconds)")
    add("--repair", action="store_true", help="Drop damaged shards, and print the commands that fill them again")
    add(
        "--recompute",
        type=whole(1),
        metavar="N",
        help="Recompute N random rows of each stream with a second decoder and compare. Exits with 1 if a row does "
        "not match its own frame, or cannot be compared",
    )
    add("--seed", type=whole(0), default=0, help="Seed of the drawn rows, with --recompute (default: 0)")
    add("--weights", metavar="KIND:FILE", help="Weights of streams that were computed with a file, with --recompute")
    add("--raw", type=Path, help="The dataset's raw folder, with --recompute, if it has moved")
    add("--workers", type=whole(0), default=0, help="Number of processes, with --recompute (default: one per core)")
    json_option(sub)


def run(args: argparse.Namespace) -> int:
    """Print every problem of a cache, files of killed runs, and repairs. Returns 1 for problems."""
    if alone := [name for name in ("raw", "weights") if getattr(args, name) and not args.recompute]:
        raise PipelineError(f"--{alone[0]} needs --recompute")
    weights = WeightsSpec.parse(args.weights) if args.weights else None
    result, splits = CommandResult({}), _splits(args)
    report, repaired, again = _verify(args, splits), None, None
    _report(result, report)
    if args.repair:
        repaired = repair(args.cache, report)
        _add_repair(result, repaired)
        if repaired.cache.restored or repaired.cache.removed or repaired.dropped or repaired.refused:
            report = _verify(args, splits)
            _report(result, report)
    if args.recompute:
        where = {"splits": splits, "raw": args.raw, "weights": weights, "workers": cores(args.workers)}
        bars = functools.partial(bar, console=err, unit="row")
        again = service(RECOMPUTE)(result, args.cache, args.recompute, seed=args.seed, bars=bars, **where)
    cameras = [] if args.fast else list(_camera_problems(args.cache, splits, report.problems))
    result.lines(cameras, WRONG)
    for refused in (*(repaired.refused if repaired else ()), *(again.refused if again else ())):
        err.print(f"{ERROR} {plain(refused)}")
    ok = report.ok and not cameras and not (repaired and repaired.refused) and (again is None or again.ok)
    keys = ("fast", "splits", "shards", "bytes", "problems", "notes", "damaged")  # after a repair: what remains
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
    names = list[str]()
    for name in join_split_name(args.splits):
        names += [name] if "/" in name else choose_splits([name], cache.open(args.cache).splits)
    return names or None


def _camera_problems(root: cache.Root, splits: Sequence[str] | None, damaged: Sequence[str]) -> Iterator[str]:
    """Cameras that conversion refuses now, written by an earlier version or another program."""
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


def _verify(args: argparse.Namespace, splits: Sequence[str] | None) -> cache.VerifyReport:
    with bar("verify", err) as progress:
        return cache.verify(args.cache, fast=args.fast, progress=progress, splits=splits)


def _as_dict(done: Repair) -> dict[str, Any]:
    dropped = [{"split": split, "videos": videos} for split, videos in done.dropped.items()]
    restored, removed = done.cache.restored, done.cache.removed
    return {"restored": restored, "removed": removed, "dropped": dropped, "fill": done.fill, "refused": done.refused}


def _report(result: CommandResult, report: cache.VerifyReport) -> None:
    result.lines(report.problems, WRONG)
    result.lines(report.notes, IDLE)
    summary = f"{count(report.shards, 'shard')}, {size(report.bytes)}"
    summary += ", sizes and indexes only" * report.fast
    if report.ok:
        result.line(f"intact: {summary}", DONE)
    else:
        result.line(f"{count(len(report.problems), 'problem')} in {summary}")


def _add_repair(result: CommandResult, done: Repair) -> None:
    for verb, keys in (("restored", done.cache.restored), ("of damaged shards removed", done.cache.removed)):
        if keys:
            result.line(f"{count(len(keys), 'file')} {verb}:")
            result.lines(few(keys, FEW, "all below the cache"), indent=2)
    for split, videos in done.dropped.items():
        result.line(f"{split}: rows of {count(len(videos), 'video')} dropped")
    if done.fill:
        result.line("to fill them again:")
        result.lines(done.fill, indent=2)
    elif not (done.cache.restored or done.cache.removed or done.refused):
        result.line("nothing to repair")
