"""`python -m tasks report`: the page of `luigi --module tasks Report`, from the current data."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Final

import cache
from pipeline.cli import console
from pipeline.cli.command_line import Command
from pipeline.cli.progress import bar
from pipeline.errors import PipelineError
from tasks.base import say
from vibe_extensions.pages import report_task as report
from vibe_extensions.pages.commands.show import check_page


def _options(sub: argparse.ArgumentParser) -> None:
    """Add the options."""
    sub.add_argument("--out", type=Path, metavar="FILE", help="output page (default: report.html in [paths] runs)")
    sub.add_argument(
        "--run",
        type=Path,
        action="append",
        default=[],
        dest="folders",
        metavar="FOLDER",
        help="folder of a training run, finished or not (repeatable; default: the runs that luigi.cfg names)",
    )
    help_ = "Another cache: report on its data, and on the runs that --run names (default: [paths] cache)"
    sub.add_argument("--cache", type=cache.place_of, metavar="DIR", help=help_)
    sub.add_argument("--no-training", action="store_true", help="report on the data only")


def _run(args: argparse.Namespace) -> int:
    """Write the page, and print its path."""
    from vibe_extensions.pages.report.assembly import write_report

    if args.folders and args.no_training:
        raise PipelineError("--run and --no-training exclude each other. Omit one of them.")
    if missing := [folder for folder in args.folders if not folder.is_dir()]:
        raise PipelineError(f"--run {missing[0]}: folder not found. Runs are in {report.page().parent}.")
    out = args.out or report.page()
    if args.out is not None:
        check_page(out)
    pages = report.as_configured(training=not (args.folders or args.no_training or args.cache))
    if args.cache is not None:
        cache.open(args.cache)  # raises CacheError
        pages = replace(pages, root=args.cache, raw=None)
    if args.folders:
        pages = replace(pages, runs=tuple((folder.resolve().name, folder) for folder in args.folders), training=True)
    with bar("  report", console.out) as progress:
        written = write_report(pages, out, progress)
    say("report", "page", str(written))
    report.show(out, written.mark)
    return 0


COMMAND: Final = Command(_options, _run)
