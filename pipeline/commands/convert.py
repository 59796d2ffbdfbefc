"""`python -m pipeline convert`: raw -> tracks, for one split."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cache
from pipeline.accounting import VideoAccount
from pipeline.cli.console import DOUBT, IDLE, WRONG, err, out, plain
from pipeline.cli.options import cores, shards_kept
from pipeline.cli.progress import bar
from pipeline.cli.text import FEW, command, count, few, not_counted
from pipeline.commands.settings.arguments import check_own_folder, split_options
from pipeline.commands.settings.commands import body_of, dataset_of, setting_options, value
from pipeline.conversion import convert
from pipeline.conversion.committed import DROP
from pipeline.conversion.plan import recorded_plan
from pipeline.errors import PipelineError
from pipeline.files.raw.stand_in import is_stand_in
from pipeline.reasons import NOT_NOW, reason

HELP: Final = "Convert one split of a raw dataset into committed rows of the cache."
REMOVED: Final = "convert.removed"
kept = shards_kept


def options(sub: argparse.ArgumentParser) -> None:
    split_options(sub, new_rows=True)
    sub.add_argument("--raw", type=Path, help="the dataset's own raw folder; with --retry, only when it has moved")
    sub.add_argument(
        "--body", type=Path, help="SMPL's files, for datasets whose 3D joints come from them; default: [paths] body"
    )
    setting_options(sub, "convert", "workers")
    setting_options(sub, "dask", "scheduler")
    help_ = "let rows of videos go that are no longer in the raw folder ([convert] removed = drop)"
    sub.add_argument(DROP, action="store_true", help=help_)
    mode = sub.add_mutually_exclusive_group()
    setting_options(sub, "convert", "strict", group=mode)
    mode.add_argument("--retry", action="store_true", help="read videos that failed again, changed or not")


def reads(args: argparse.Namespace) -> list[str]:
    """The dataset's section, [paths] body, [convert] removed; what failed is read again with the recorded options."""
    return [] if args.retry else [args.dataset, "paths.body", REMOVED]


def run(args: argparse.Namespace) -> int:
    """Raw -> tracks, for one split, and its accounting. 1 where not all is in order, as where --retry fails again."""
    plan = _plan(args)
    if args.strict:
        convert.refuse_committed_failures(plan)
    if plan.up_to_date:
        out.print(f"{plan.name}: up to date, {count(plan.n_videos, 'video')}")
        if plan.moved:
            convert.record_folders(plan)
            out.print(plain(f"  the raw folder has moved: {plan.raw} is recorded"))
        if new_times := convert.record_times(plan):
            out.print(f"  {new_times}")
        if plan.committed is not None:
            _print_without_rows(plan, plan.committed.manifest["accounting"])
        return _end(plan, plan.problems)
    with bar(f"convert {plan.name}", err, unit="video") as progress:
        done = convert.convert(
            plan, workers=cores(args.workers), strict=args.strict, scheduler=args.scheduler, progress=progress
        )
    out.print(plain(f"{plan.name}: {done.did or 'converted'} (why: {plan.why})"))
    print_accounting(done.totals, done.uncounted)
    _print_rejected(done.rejected, args.cache)
    _print_without_rows(plan, done.totals)
    _print_few([f"note {note}" for note in done.notes], args.cache)
    for name, old in plan.renamed.items():
        out.print(plain(f"  renamed {old} -> {name}"))
    return _end(plan, done.problems) or int(args.retry and bool(done.rejected))


def _plan(args: argparse.Namespace) -> convert.ConversionPlan:
    """By the options; with --retry, by what the split has recorded of its conversion."""
    if args.retry:
        split = cache.open(args.cache)[f"{args.dataset}/{args.split}"]
        return recorded_plan(split, args.raw, args.body, drop_removed=args.drop_removed, retry=True)
    if args.raw is None:
        raise PipelineError("name the dataset's own raw folder: --raw DIR")
    dataset = dataset_of(args, args.dataset)
    check_own_folder(args.raw, dataset)
    body = body_of(args, dataset, demo=is_stand_in(args.raw))
    drop = args.drop_removed or value(args.source, REMOVED) == "drop"
    where = {"raw": args.raw, "root": args.cache, "body": body}
    return convert.plan_conversion(dataset, args.split, **where, drop_removed=drop)


def print_accounting(totals: Any, uncounted: int = 0) -> None:
    """found = kept + dropped by reason, in three lines. `uncounted`: videos that could not be read."""
    for what, dropped in (("videos", "set_aside"), ("tracks", "dropped"), ("frames", "dropped")):
        counts = totals[what]
        known = f" ({totals['known'][what]:,} in the release)" if what in totals["known"] else ""
        unread = not_counted(uncounted) if what == "frames" else ""
        reasons = "".join(f", {n:,} {reason}" for reason, n in counts[dropped].items())
        reasons += f", {n:,} without a track" if (n := counts.get("without_tracks")) else ""
        out.print(f"  {what} {counts['kept']:,} kept of {counts['found']:,}{known}{reasons}{unread}")


def _print_rejected(accounts: Sequence[VideoAccount], root: cache.Root) -> None:
    _print_few([f"rejected {account.rejection}" for account in accounts], root)


def _print_few(lines: Sequence[str], root: cache.Root) -> None:
    for text in few(lines, FEW, command("status", "--all", "--cache", str(root))):
        out.print(f"  {DOUBT} {plain(text)}")


def _print_without_rows(plan: convert.ConversionPlan, totals: Any) -> None:
    """Rejected videos are not read again because the reader changed: only their files, or `--retry`, make it so.

    Before that, how many are without rows though nothing is wrong with them.
    """
    for why in sorted(plan.dataset.harmless & totals["videos"]["set_aside"].keys()):
        without = count(totals["videos"]["set_aside"][why], "video")
        out.print(f"  {IDLE} {without} without rows: {why}, {reason(why).meaning}")
    automatic = {NOT_NOW, *plan.dataset.harmless}
    failed = sum(n for reason, n in totals["videos"]["set_aside"].items() if reason not in automatic)
    if failed:
        again = command("convert", plan.name, "--retry", "--cache", str(plan.root))
        how = f"read again when the files change, or by: {plain(again)}"
        out.print(f"  {DOUBT} {count(failed, 'rejected video')}: {how}")


def _end(plan: convert.ConversionPlan, problems: Sequence[str]) -> int:
    """1 where there are problems, which are printed. Last, that 3D joints are missing."""
    for problem in problems:
        out.print(f"{WRONG} {plain(problem)}")
    if plan.dataset.uses_body and plan.body is None:
        folder = f"{plan.root}/{plan.name}"
        again = command("convert", plan.name, "--raw", str(plan.raw), "--cache", str(plan.root), "--body", "DIR")
        what = f"{plan.name}: converted without a body model: no 3D joints. They cannot be added later: before features"
        out.print(f"{DOUBT} {plain(f'{what} are extracted, remove {folder}, then: {again}')}")
    return 1 if problems else 0
