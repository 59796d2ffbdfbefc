"""`python -m pipeline convert`: raw -> tracks, for one split."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from pipeline.cli.command_line import SHARDS_KEPT, Command
from pipeline.cli.console import err
from pipeline.cli.progress import bar
from pipeline.datasets.conversion_record import DROP, ConversionRecord, committed_split
from pipeline.errors import PipelineError
from pipeline.settings.arguments import (
    cache_option,
    part_option,
    setting_options,
    split_arguments,
)
from pipeline.settings.file import PATH
from pipeline.settings.folders import BODY
from pipeline.steps.conversion.plan import ConversionPlan, recorded_plan
from pipeline.steps.conversion.selection import RowSelection
from pipeline.steps.execution import convert
from pipeline.steps.recipe import Recipe

LIST: Final = "convert.leave_out"


def _options(sub: argparse.ArgumentParser) -> None:
    split_arguments(sub)
    cache_option(sub, required=True)
    help_ = "The dataset's raw folder (default: all as recorded, but [convert] leave_out)"
    sub.add_argument("--raw", type=PATH, help=help_)
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

    Returns 1 for problems, and if videos that --retry read again failed again; with --part, if
    some of its share cannot be read.
    """
    plan = _plan(args)
    if args.part is not None and args.drop_removed:
        raise PipelineError(
            f"--part: not allowed with {DROP}, which belongs to the command that commits"
        )
    with bar(f"convert {plan.name}", err, unit="video") as progress:
        result = convert(plan, args.cfg, progress, args.part)
    failed_again = args.retry and bool(result.warnings)
    return result.print("convert", plan.name) or int(failed_again)


def _plan(args: argparse.Namespace) -> ConversionPlan:
    """Plan the conversion: by the arguments, or as it was recorded, but for the list of tracks."""
    if _is_as_recorded(args):
        name = f"{args.dataset}/{args.split}"
        split = committed_split(args.cache, name)
        if split is None:
            raise PipelineError(f"{name}: name the dataset's raw folder: --raw DIR")
        selection = RowSelection.recorded(ConversionRecord(split))
        if args.cfg.source.names(LIST):
            selection = replace(selection, leave_out=args.cfg.convert.leave_out)
        ways = {"drop_removed": args.drop_removed, "retry": args.retry}
        return recorded_plan(split, args.raw, args.body, selection=selection, **ways)
    recipe = Recipe.by_options(
        args.cfg, args.dataset, args.split, raw=args.raw, root=args.cache, named_body=args.body
    )
    drop_removed = args.drop_removed or recipe.drop_removed
    return replace(recipe, drop_removed=drop_removed).plan_conversion()


def _is_as_recorded(args: argparse.Namespace) -> bool:
    """Whether the options of the last conversion are used, in place of the settings."""
    return args.retry or args.raw is None


def _reads(args: argparse.Namespace) -> Sequence[str]:
    if _is_as_recorded(args):
        return (LIST,)
    return (args.dataset, "convert", *BODY)


COMMAND: Final = Command(_options, _run, _reads, SHARDS_KEPT)
