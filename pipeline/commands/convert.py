"""`python -m pipeline convert`: raw -> tracks, for one split."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pipeline import convert, datasets
from pipeline.commands.console import (
    FEW,
    command,
    cores,
    count,
    err,
    few,
    out,
    plain,
    print_accounting,
    scheduler_option,
    split_options,
    whole,
)
from pipeline.planning import of_the_other_kind
from pipeline.progress import bar

HELP: Final = "Convert one split of a raw dataset into committed rows of the cache."


def options(sub: argparse.ArgumentParser) -> None:
    split_options(sub)
    sub.add_argument("--raw", type=Path, required=True, help="the dataset's own raw folder")
    sub.add_argument("--body", type=Path, help="SMPL's files, for datasets whose 3D joints come from SMPL parameters")
    sub.add_argument("--workers", type=whole(0), default=0, help="processes; 0: one a core")
    scheduler_option(sub)
    sub.add_argument("--strict", action="store_true", help="fail where a video cannot be used")


def run(args: argparse.Namespace) -> int:
    """Raw -> tracks, for one split, and its accounting."""
    dataset = datasets.get(args.dataset)
    plan = convert.plan_conversion(dataset, args.split, raw=args.raw, root=args.cache, body=args.body)
    if args.strict:
        convert.refuse_committed_failures(plan)
    if plan.up_to_date:
        out.print(f"{plan.name}: up to date, {count(plan.kept, 'video')}")
        return 0
    if others := of_the_other_kind(plan):
        err.print(f"[yellow]![/yellow] {plain(mixed(plan, others))}")
    if dataset.uses_body and args.body is None:
        err.print(f"[yellow]![/yellow] {plan.name}: no --body, so there will be no 3D joints")
    with bar(f"convert {plan.name}", err) as progress:
        done = convert.convert(
            plan, workers=cores(args.workers), strict=args.strict, scheduler=args.scheduler, progress=progress
        )
    out.print(plain(f"{plan.name}: converted (why: {plan.why})"))
    print_accounting(done.totals)
    told = [f"set aside {account.set_aside}: {account.message}" for account in done.set_aside]
    for text in few(told, FEW, command("status", "--all", "--cache", str(args.cache))):
        out.print(f"  [yellow]![/yellow] {plain(text)}")
    return 0


def mixed(plan: convert.ConversionPlan, others: Sequence[str]) -> str:
    """That a cache is about to hold stand-ins beside real data."""
    kinds = ("embedded stand-in data", "real data")
    this, that = kinds if plan.reader["stand_in"] else reversed(kinds)
    return (
        f"{plan.root}: will hold both kinds, {plan.name} from {this} and {', '.join(others)} from {that}: training "
        "refuses to use them together. Another --cache keeps them apart."
    )
