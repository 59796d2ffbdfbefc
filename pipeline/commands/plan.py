"""`python -m pipeline plan`: what would run, and why. Writes nothing.

Below the table of `status`, a split that is not up to date has a line for each step, and reasons:

    penn_action/train
      convert  2 videos to read of 12
        why    1 new video, 1 changed video
      extract  resnet50: new rows of the conversion
"""

from __future__ import annotations

import argparse
from typing import Final

from pipeline.cli.command_line import Command
from pipeline.cli.console import CommandResult, print_result
from pipeline.cli.text import FEW, count
from pipeline.commands.status import tables
from pipeline.settings.arguments import warn_of_broken
from pipeline.settings.file import settings_file
from pipeline.settings.sections import load
from pipeline.steps.next_run import plan_runs
from pipeline.steps.recipe import Recipe, missing_files
from pipeline.steps.sentences import lost_videos, next_lines
from pipeline.steps.split_status import SplitStatus


def _run(args: argparse.Namespace) -> int:
    """Print what would run, split by split. Returns 2 if a split has an error."""
    settings = load(settings_file())
    recipes = Recipe.by_settings(settings, args.names, args.cache)
    states = [SplitStatus.from_run(run) for run in plan_runs(recipes)]
    missing = missing_files(recipes)
    broken = {} if args.names else warn_of_broken(settings.data.datasets)

    result = CommandResult([], problems=missing)
    if args.json:
        for state in states:
            problems = list(dict.fromkeys([*state.problems, *missing]))
            result.document.append(state.as_dict() | {"problems": problems})
    runs = [state.next_run for state in states if state.next_run is not None]
    if broken or missing or any(run.problems or run.refusals for run in runs):
        result.exit_code = 2
    if states:
        result.text += tables(states)
    for run in runs:
        if not run.up_to_date or lost_videos(run):
            result.text += next_lines(run, None if args.all else FEW)
    if runs and all(run.up_to_date and not lost_videos(run) for run in runs):
        n_splits = count(len(runs), "split")
        result.add_line(f"up to date: {n_splits} (training is not included)")
    return print_result(result, as_json=args.json)


COMMAND: Final = Command(_run, reads=lambda _: None)
