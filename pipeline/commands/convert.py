"""`python -m pipeline convert`: raw -> tracks, for one split."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from pipeline.cli.command_line import Command
from pipeline.cli.console import err
from pipeline.cli.progress import bar
from pipeline.errors import PipelineError
from pipeline.settings.arguments import part_text
from pipeline.settings.folders import BODY
from pipeline.settings.options import (
    DROP,
)
from pipeline.steps.conversion.convert import run_conversion
from pipeline.steps.conversion.plan import plan_conversion
from pipeline.steps.conversion_record import committed_split
from pipeline.steps.recipe import Recipe
from pipeline.steps.run_state import SETTING, record_run
from pipeline.steps.uncommitted import describe_kept

LIST: Final = "convert.corrections"


def _run(args: argparse.Namespace) -> int:
    """Convert one split and print its accounting.

    Returns 1 for problems, and if videos that --retry read again failed again; with --part, if
    some of its share cannot be read.
    """
    recipe = _recipe(args)
    if args.part is not None and args.drop_removed:
        raise PipelineError(
            f"--part: not allowed with {DROP}, which belongs to the command that commits"
        )
    work = plan_conversion(recipe)
    with bar(f"convert {work.name}{part_text(args.part)}", err, unit="video") as progress:
        report = run_conversion(work, args.cfg, progress, args.part)
    if args.retry:  # what failed again
        report = replace(report, flaws=[*report.flaws, *report.warnings], warnings=())
    return report.print("convert", work.name)


def _recipe(args: argparse.Namespace) -> Recipe:
    """The recipe: by the arguments, or as it was recorded, but for the corrections."""
    if _is_as_recorded(args):
        name = f"{args.dataset}/{args.split}"
        split = committed_split(args.cache, name)
        if split is None:
            raise PipelineError(f"{name}: name the dataset's raw folder: --raw DIR")
        recipe = Recipe.from_committed(split, args.raw, args.body)
        recipe = replace(recipe, drop_removed=args.drop_removed, retry=args.retry)
        if args.cfg.source.names(LIST):
            corrections = args.cfg.convert.corrections
            recipe = replace(recipe, selection=replace(recipe.selection, corrections=corrections))
        return recipe
    recipe = Recipe.by_options(
        args.cfg, args.dataset, args.split, raw=args.raw, root=args.cache, named_body=args.body
    )
    return replace(recipe, drop_removed=args.drop_removed or recipe.drop_removed)


def _is_as_recorded(args: argparse.Namespace) -> bool:
    """Whether the options of the last conversion are used, in place of the settings."""
    return args.retry or args.raw is None


def _reads(args: argparse.Namespace) -> Sequence[str]:
    if _is_as_recorded(args):
        return (LIST, SETTING)
    return (args.dataset, "convert", *BODY, SETTING)


def describe_progress(args: argparse.Namespace) -> str:
    """What an interrupted run of a split has left."""
    return describe_kept(args.cache, f"{args.dataset}/{args.split}")


def record(args: argparse.Namespace, code: int, seconds: float) -> None:
    """Write the state of a run of a split; a share of a job has none."""
    if args.part is None:
        name = f"{args.dataset}/{args.split}"
        settings = getattr(args, "cfg", None)
        command = args.command
        record_run(settings, args.cache, command, name, [name], code=code, seconds=seconds)


COMMAND: Final = Command(_run, _reads, describe_progress, record)
