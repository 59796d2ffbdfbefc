"""`python -m pipeline convert`: raw -> tracks, for one split."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any, Final

import cache
from pipeline.accounting import NOT_NOW, reason
from pipeline.cli.command_line import SHARDS_KEPT, Command
from pipeline.cli.console import DOUBT, IDLE, CommandResult, err
from pipeline.cli.progress import bar
from pipeline.cli.text import FEW, command, count, few
from pipeline.conversion import convert
from pipeline.conversion.committed import DROP
from pipeline.conversion.plan import recorded_plan
from pipeline.conversion.spool import read_part
from pipeline.errors import PipelineError
from pipeline.files.raw import is_stand_in
from pipeline.recipe.recipe import convert_tracks
from pipeline.settings.arguments import (
    BODY,
    MEANWHILE,
    body_of,
    cache_option,
    check_own_folder,
    part_option,
    refuse_one_folder,
    setting_options,
    split_arguments,
)
from pipeline.settings.file import PATH


def _options(sub: argparse.ArgumentParser) -> None:
    split_arguments(sub)
    cache_option(sub, required=True)
    sub.add_argument(
        "--raw", type=PATH, help="The dataset's raw folder (with --retry: as recorded)"
    )
    help_ = "Folder of SMPL's files, for datasets that need them (default: [paths] body)"
    sub.add_argument("--body", type=PATH, help=help_)
    setting_options(sub, "convert", "workers")
    setting_options(sub, "dask", "scheduler", set_only="patience")
    help_ = "Delete rows of missing and unusable videos (default: [convert] removed)"
    sub.add_argument(DROP, action="store_true", help=help_)
    mode = sub.add_mutually_exclusive_group()
    setting_options(sub, "convert", "strict", group=mode)
    mode.add_argument(
        "--retry", action="store_true", help="Retry failed videos even if they have not changed"
    )
    part_option(mode, "new and changed videos")


def _run(args: argparse.Namespace) -> int:
    """Convert one split and print its accounting.

    Returns 1 for problems, and if videos that --retry read again failed again.
    """
    plan = _plan(args)
    if args.part is not None:
        return _run_part(args, plan)
    if args.strict:
        convert.refuse_committed_failures(plan)
    result = CommandResult(None)
    if plan.up_to_date:
        return _update_records(result, plan)

    with bar(f"convert {plan.name}", err, unit="video") as progress:
        conversion = convert_tracks(plan, args.cfg, progress)

    result.line(f"{plan.name}: {conversion.video_counts or 'converted'} (why: {plan.why})")
    result.lines(accounting_lines(conversion.totals, conversion.uncounted_note), indent=2)
    every = command("status", "--all", "--cache", str(args.cache))
    rejected = [f"rejected {account.rejection}" for account in conversion.rejected]
    result.lines(few(rejected, FEW, every), DOUBT, 2)
    _add_without_rows(result, plan, conversion.totals)
    labels = filter(None, [plan.dataset.label_note(plan.raw, plan.split)])
    notes = [f"note {note}" for note in (*labels, *conversion.doubts, *conversion.notes)]
    result.lines(few(notes, FEW, every), DOUBT, 2)
    result.lines(plan.renamed_lines, indent=2)
    result.exit_code = int(args.retry and bool(rejected))
    return _end(result, plan, [*conversion.problems, *few(conversion.damaged, FEW, every)])


def _update_records(result: CommandResult, plan: convert.ConversionPlan) -> int:
    """For a split that is up to date, record the raw folder and file times if they have changed."""
    result.line(f"{plan.name}: up to date, {count(plan.n_videos, 'video')}")
    result.lines(convert.record_moves(plan), indent=2)
    if plan.committed is not None:
        _add_without_rows(result, plan, plan.committed.manifest["accounting"])
    return _end(result, plan, plan.problems)


def _run_part(args: argparse.Namespace, plan: convert.ConversionPlan) -> int:
    """Read a part's share of the videos, without committing. Returns 1 if some cannot be read."""
    if args.drop_removed:
        raise PipelineError(
            f"--part: not allowed with {DROP}, which belongs to the command that commits"
        )
    result = CommandResult(None)
    with bar(f"convert {plan.name}", err, unit="video") as progress:
        unreadable = read_part(
            plan, args.part, workers=args.cfg.workers, dask=args.cfg.dask, progress=progress
        )
    share = count(len(args.part.share(plan.append)) - len(unreadable), "video")
    result.line(f"{plan.name}: {share} staged, not committed (why: {plan.why or 'up to date'})")
    if _is_committed_since(plan):
        result.line(MEANWHILE, DOUBT)
    result.problems += [account.rejection for account in unreadable]
    return result.print()


def _is_committed_since(plan: convert.ConversionPlan) -> bool:
    """Whether another command has committed the split since it was planned."""
    features = cache.FeatureCache(plan.root)
    if not features.is_committed(plan.name):
        return False
    before = None if plan.committed is None else plan.committed.manifest["digest"]
    return bool(features[plan.name].manifest["digest"] != before)


def _plan(args: argparse.Namespace) -> convert.ConversionPlan:
    """Plan the conversion: by the arguments, or with --retry as it was recorded."""
    if args.retry:
        split = cache.open(args.cache)[f"{args.dataset}/{args.split}"]
        return recorded_plan(split, args.raw, args.body, drop_removed=args.drop_removed, retry=True)
    if args.raw is None:
        raise PipelineError("name the dataset's raw folder: --raw DIR")
    dataset = args.cfg.dataset(args.dataset)
    refuse_one_folder(args.raw, args.cache)
    check_own_folder(args.raw, dataset)
    body = body_of(args, dataset, demo=is_stand_in(args.raw))
    drop = args.drop_removed or args.cfg.convert.removed == "drop"
    return convert.plan_conversion(
        dataset, args.split, raw=args.raw, root=args.cache, body=body, drop_removed=drop
    )


def accounting_lines(totals: Any, not_counted: str = "") -> Iterator[str]:
    """Yield lines on videos, tracks and frames: found = kept + dropped by reason.

    totals: `Accounting.totals`. not_counted: end of the line on frames.
    """
    for unit, dropped in (("videos", "set_aside"), ("tracks", "dropped"), ("frames", "dropped")):
        counts = totals[unit]
        text = f"{unit} {counts['kept']:,} kept of {counts['found']:,}"
        if unit in totals["known"]:
            text += f" ({totals['known'][unit]:,} in the release)"
        for why, n in counts[dropped].items():
            text += f", {n:,} {why}"
        n_without = counts.get("without_tracks")
        if n_without:
            text += f", {n_without:,} without a track"
        if unit == "frames":
            text += not_counted
        yield text


def _add_without_rows(result: CommandResult, plan: convert.ConversionPlan, totals: Any) -> None:
    """Add the numbers of videos without rows for a harmless reason, and of rejected videos."""
    n_failed = 0
    rejected = totals["videos"]["set_aside"]
    for why, n in sorted(rejected.items()):
        if why in plan.dataset.harmless:
            text = f"{count(n, 'video')} without rows: {why}, {reason(why).meaning}"
            result.line(text, IDLE, 2)
        elif why != NOT_NOW:
            n_failed += n
    if n_failed:
        again = command("convert", plan.name, "--retry", "--cache", str(plan.root))
        how = f"retried when their files change, or with: {again}"
        result.line(f"{count(n_failed, 'rejected video')}: {how}", DOUBT, 2)


def _end(result: CommandResult, plan: convert.ConversionPlan, problems: Sequence[str]) -> int:
    """Print the result, problems and a warning about missing 3D joints. Returns 1 for problems."""
    result.problems += problems
    if plan.dataset.uses_body and plan.body is None:
        places = ["--raw", str(plan.raw), "--cache", str(plan.root), "--body", "DIR"]
        again = command("convert", plan.name, *places)
        result.line(
            f"{plan.name}: converted without a body model: no 3D joints. To add them, before "
            f"extracting features, delete {plan.root}/{plan.name}, then: {again}",
            DOUBT,
        )
    return result.print()


def _reads(args: argparse.Namespace) -> Sequence[str]:
    if args.retry:  # the recorded options are used
        return ()
    return (args.dataset, "convert", *BODY)


COMMAND: Final = Command(_options, _run, _reads, SHARDS_KEPT)
