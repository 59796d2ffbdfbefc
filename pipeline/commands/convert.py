"""`python -m pipeline convert`: raw -> tracks, for one split."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import cache
from pipeline import datasets
from pipeline.cli.console import DOUBT, WRONG
from pipeline.cli.progress import bar
from pipeline.commands.options import (
    FEW,
    check_own_folder,
    command,
    cores,
    count,
    err,
    few,
    out,
    plain,
    print_accounting,
    scheduler_option,
    shards_kept,
    split_options,
    whole,
)
from pipeline.conversion import convert
from pipeline.conversion.plan import both_kinds

HELP: Final = "Convert one split of a raw dataset into committed rows of the cache."
kept = shards_kept


def options(sub: argparse.ArgumentParser) -> None:
    split_options(sub, brings=True)
    sub.add_argument("--raw", type=Path, required=True, help="the dataset's own raw folder")
    sub.add_argument("--body", type=Path, help="SMPL's files, for datasets whose 3D joints come from SMPL parameters")
    sub.add_argument("--workers", type=whole(0), default=0, help="processes; 0: one a core")
    scheduler_option(sub)
    sub.add_argument("--strict", action="store_true", help="fail where a video cannot be used")


def run(args: argparse.Namespace) -> int:
    """Raw -> tracks, for one split, and its accounting."""
    dataset = datasets.get(args.dataset)
    check_own_folder(args.raw, dataset)
    plan = convert.plan_conversion(dataset, args.split, raw=args.raw, root=args.cache, body=args.body)
    if args.strict:
        convert.refuse_committed_failures(plan)
    if plan.up_to_date:
        out.print(f"{plan.name}: up to date, {count(n_videos(plan), 'video')}")
        return told_useless(convert.committed_useless(plan))
    if mixed := both_kinds(plan):
        err.print(f"{DOUBT} {plain(mixed)}")
    if dataset.uses_body and args.body is None:
        err.print(f"{DOUBT} {plan.name}: no --body, so there will be no 3D joints")
    with bar(f"convert {plan.name}", err, unit="video") as progress:
        done = convert.convert(
            plan, workers=cores(args.workers), strict=args.strict, scheduler=args.scheduler, progress=progress
        )
    out.print(plain(f"{plan.name}: {done.did or 'converted'} (why: {plan.why})"))
    print_accounting(done.totals, done.uncounted)
    told = [f"set aside {account.rejection}" for account in done.set_aside]
    for text in few(told, FEW, command("status", "--all", "--cache", str(args.cache))):
        out.print(f"  {DOUBT} {plain(text)}")
    return told_useless(done.useless)


def n_videos(plan: convert.ConversionPlan) -> int:
    """Videos of the split, in the cache; those of other splits, which are only looked at, are none."""
    found: int = cache.open(plan.root)[plan.name].manifest["accounting"]["videos"]["found"]
    return found


def told_useless(useless: str) -> int:
    """Say so where nothing of a split could be used. The exit code."""
    if useless:
        out.print(f"{WRONG} {plain(useless)}")
    return 1 if useless else 0
