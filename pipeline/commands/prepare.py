"""`python -m pipeline prepare`: raw files -> tracks, features and a page, for all splits of a
dataset.

`run` prints what a `Preparation` will do, and checks now what would fail later. It finds people in
clips, once for all splits; then it converts every split, extracts the streams of every split, and
writes a page of every split. An error ends a step of one split, and the others go on. At the end it
prints a summary.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Final

import cache
from pipeline import datasets
from pipeline.cli.command_line import Command
from pipeline.cli.console import BUSY, STAND_IN, VERB_WIDTH, WRONG, err, out, plain, task_line
from pipeline.cli.progress import Progress, bar
from pipeline.cli.system_errors import error_text
from pipeline.cli.text import FEW, command, count, few, from_here
from pipeline.commands.extract import RequestedStreams
from pipeline.commands.preparation import DetectorChoice, Preparation
from pipeline.errors import PipelineError
from pipeline.features.committed import stream_label
from pipeline.features.spec import StreamSpec
from pipeline.files.outputs import OutputRule
from pipeline.files.places import require_writable
from pipeline.files.raw import is_demo_data
from pipeline.settings.folders import BODY
from pipeline.settings.sections import Settings
from pipeline.steps.conversion.convert import run_conversion
from pipeline.steps.conversion.plan import plan_conversion
from pipeline.steps.conversion_record import ConversionRecord, committed_split
from pipeline.steps.detection.plan import plan_unlabelled, usual_detector
from pipeline.steps.detection.run import run_detection
from pipeline.steps.extraction.plan import plan_streams
from pipeline.steps.grading import describe_words, stored_words
from pipeline.steps.next_run import NextRun
from pipeline.steps.recipe import Recipe
from pipeline.steps.report import LAYOUT, StepReport
from pipeline.steps.sentences import accounting_lines, lost_videos, next_lines
from pipeline.steps.uncommitted import describe_kept

ERRORS: Final = (PipelineError, cache.CacheError, OSError)  # these end a step of one split only
NOTHING: Final = StepReport()
WITHOUT_WEIGHTS: Final = (
    "no features: no weights are named. To add features, repeat the command with --weights "
    "spin:FILE, torchvision:IMAGENET1K_V2 (downloaded once), or untrained:0 for a trial run "
    "with random weights"
)


def _reads(args: argparse.Namespace) -> list[str]:
    """Sections of the dataset, detector, streams and resources."""
    detector = list[str]()
    if args.dataset in args.cfg.detect.datasets:
        detector.append(args.detector or usual_detector(args.raw))
    streams = RequestedStreams.by_options(args.cfg, weights=args.weights)
    return [args.dataset, *BODY, "detect", *detector, "convert", "dask", *streams.sections]


def _run(args: argparse.Namespace) -> int:
    settings = args.cfg.use_device(args.device)
    recipe = Recipe.by_options(
        settings, args.dataset, raw=args.raw, root=args.cache, named_body=args.body
    )
    recipe.dataset.require_body(recipe.body)
    if recipe.dataset.labels.uses_body and recipe.body is None:
        raise PipelineError(
            f"{recipe.dataset.name}: its 3D joints need SMPL's files: --body DIR. They cannot be "
            "added after features. (`convert` and `extract` work without.)"
        )
    requested = RequestedStreams.by_options(settings, weights=args.weights)
    choice = DetectorChoice(name=args.detector, every=args.every, downloads=not args.plan)
    streams = _streams_by_split(recipe, requested)
    preparation = Preparation.resolve(settings, recipe, choice, streams)
    return run(preparation, plan_only=args.plan, every_video=args.all, overwrite=args.overwrite)


def _streams_by_split(
    recipe: Recipe, requested: RequestedStreams
) -> dict[str, Sequence[StreamSpec]]:
    """The streams to extract of each split. A split for which no weights are named is left out.

    Raises ConfigError for streams without weights that an option names.
    """
    are_named = "streams" in requested.source.section("features").options
    streams = dict[str, Sequence[StreamSpec]]()
    for split in recipe.dataset.splits:
        name = f"{recipe.dataset.name}/{split}"
        committed = committed_split(recipe.root, name)
        specs = requested.specs(committed)
        existing = () if committed is None else committed.streams
        without_weights = requested.list_without_weights(specs, existing)
        if is_demo_data(recipe.raw) or not without_weights:
            streams[split] = specs
        elif are_named:
            requested.refuse_random_weights(without_weights, name)
    return streams


# --------------------------------------------------------------------------------------------------
# steps


def run(
    preparation: Preparation,
    *,
    plan_only: bool = False,
    every_video: bool = False,
    overwrite: bool = False,
) -> int:
    """Plan, run every step of every split, and print a summary. Returns 1 if a video or split was
    skipped; with `plan_only`, 2 if a split cannot be planned.

    every_video: name every video in the plan instead of the first few.
    overwrite: replace also files in the place of pages that this command did not write.
    """
    runs = preparation.plan_runs()
    if not runs:
        recipe = preparation.recipes[0]
        found = f"found no videos of {recipe.dataset.name}"
        raise PipelineError(f"{recipe.raw}: {found}. Name its raw folder: --raw DIR")
    runnable = [planned for planned in runs if not planned.problems]
    if not runnable:
        raise PipelineError(runs[0].problems[0])
    for planned in runs:
        for text in next_lines(planned, None if every_video else FEW):
            out.print(text)
    if preparation.without_weights:
        out.warn(WITHOUT_WEIGHTS)
    out.print()
    preparation.check(runs, downloads=not plan_only)
    for planned in runs:
        _check_page(planned.recipe, overwrite=overwrite)
    n_flaws = len(runs) - len(runnable)
    if plan_only:
        has_lost = any(lost_videos(planned) for planned in runs)
        return 2 if n_flaws else int(has_lost)

    settings = preparation.settings
    n_flaws += _detect(runs, settings) + _run_steps(runnable, settings)
    status = command("status", "--all", "--cache", str(runs[0].recipe.root))
    for planned in runnable:
        split = _split_now(planned)
        if split is not None:
            n_flaws += _print_split(split, _page_folder(planned.recipe), status)
    out.print(f"{'videos':<{VERB_WIDTH}} {plain(status)}")
    return int(n_flaws > 0)


def _bar(verb: str, what: str, unit: str = "") -> AbstractContextManager[Progress]:
    """Show the progress of a step of a split or dataset within the block."""
    return bar(f"  {task_line(verb, what, '')}", err, unit=unit)


def _detect(runs: Sequence[NextRun], settings: Settings) -> int:
    """Detect people once for all splits, and print the report. Returns 1 if a clip cannot be
    used.
    """
    recipes = [run.recipe for run in runs if run.undetected or run.detection is not None]
    work = plan_unlabelled(recipes[0]) if recipes else None  # all share folder and detector
    if work is None:
        return 0
    name = recipes[0].dataset.name
    with _bar("detect", name, "clip") as progress:
        report = run_detection(work, settings, progress)
    return report.print("detect", name)


def _run_steps(runs: Sequence[NextRun], settings: Settings) -> int:
    """Run the other steps, each for every split. Prints the errors, and returns the number of
    flaws, of which an error is one.
    """
    n_flaws = 0
    by_verb = {"convert": _convert, "extract": _extract, "show": _show}
    for (verb, step), run in itertools.product(by_verb.items(), runs):
        try:
            n_flaws += step(run, settings).print(verb, run.name)
        except ERRORS as error:
            n_flaws += 1
            detail = plain(error_text(error, [run.recipe.root]), keep=LAYOUT)
            mark = BUSY if isinstance(error, cache.Busy) else WRONG
            err.print(f"{mark} {task_line(verb, run.name, detail)}")
    return n_flaws


def _convert(run: NextRun, settings: Settings) -> StepReport:
    """Convert a split. Flaws: clips that are damaged."""
    work = run.conversion
    if work is None or not run.up_to_date:
        work = plan_conversion(run.recipe)
    with _bar("convert", run.name, "video") as progress:
        report = run_conversion(work, settings, progress)
    if work.up_to_date:
        report = replace(report, details=(), notes=())
    return replace(report, warnings=())  # the summary has them


def _extract(run: NextRun, settings: Settings) -> StepReport:
    """Extract the streams of a split. Flaws: rows without features."""
    split = _split_now(run)
    # conversion has reported a split without rows
    if run.up_to_date or split is None or not split.manifest["rows"]:
        return NOTHING
    from pipeline.steps.extraction.extract import run_extraction  # imports torch

    upcoming = [work for work in plan_streams(run.recipe) if not work.up_to_date]
    with _bar("extract", run.name, "row") as progress:
        return run_extraction(upcoming, settings, progress)


def _show(run: NextRun, _: Settings) -> StepReport:
    """Write the page of a split with tracks, unless it shows them."""
    from pipeline.show.page import shows
    from pipeline.show.split.page import INDEX, SplitPage
    from pipeline.show.tracks import from_cache

    recipe = run.recipe
    split = _split_now(run)
    folder = _page_folder(recipe)
    page = folder / INDEX
    if split is None or not len(split.tracks) or shows(page, split.manifest["digest"]):
        return NOTHING
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _bar("show", run.name, "track") as progress:
        shown = from_cache(recipe.root, recipe.name, n_tracks=0, raw=recipe.raw, body=recipe.body)
        rule = OutputRule("prepare", overwrite=True)  # `_check_page` has looked
        SplitPage(shown, split, progress).write(folder, rule)
    detail = f"{count(len(split.tracks), 'track')} in {from_here(page)}"
    return StepReport(details=[detail])


def _page_folder(recipe: Recipe) -> Path:
    """The folder of a split's page, beside the cache, or in the working folder for a cache in an
    object store: CACHE-DATASET-SPLIT.
    """
    root = cache.local_folder(recipe.root)
    folder = Path() if root is None else root.parent
    # two caches in one folder have different pages
    cache_name = Path(recipe.root).absolute().name
    return folder / f"{cache_name}-{recipe.dataset.name}-{recipe.split}"


def _check_page(recipe: Recipe, *, overwrite: bool) -> None:
    """Raise PipelineError if a split's page cannot be written."""
    from pipeline.show.split.page import FOLDERS, INDEX

    folder = _page_folder(recipe)
    # also beside a cache in the raw folder: datasets do not read what `about.json` lists
    OutputRule("prepare", overwrite=overwrite).require_folder(folder, (INDEX, *FOLDERS))
    require_writable(folder.absolute().parent, "Pages are written there: make it writable.")


def _split_now(run: NextRun) -> cache.Split | None:
    """The split as it is in the cache now; None if it was not converted."""
    if run.up_to_date:
        return run.committed
    return committed_split(run.recipe.root, run.name)


# --------------------------------------------------------------------------------------------------
# output


def _print_split(split: cache.Split, folder: Path, status: str) -> int:
    """Print the content of one split in the cache. Returns the number of rejected videos.

    status: the command that shows all videos.
    """
    from pipeline.show.page import shows
    from pipeline.show.split.page import INDEX

    title = f"[bold]{plain(split.name)}[/bold]"
    if ConversionRecord(split).is_stand_in:
        title += f"  {STAND_IN}"
    out.print(title)
    for text in accounting_lines(split.manifest["accounting"]):
        out.print(f"  {plain(text)}")
    out.print(f"  {describe_words(stored_words(split))}")
    streams = [stream_label(split, stream) for stream in split.streams]
    out.print(f"  features {plain(', '.join(streams)) or 'none'}")
    page = folder / INDEX
    if shows(page, split.manifest["digest"]):
        out.print(f"  page {plain(from_here(page))}")
    rejected = [f"rejected {text}" for text in ConversionRecord(split).rejections()]
    for text in few(rejected, FEW, status):
        out.show_problem(f"{split.name}: {text}")
    return len(rejected)


def _describe_progress(args: argparse.Namespace) -> str:
    splits = datasets.get(args.dataset).splits
    return describe_kept(args.cache, *(f"{args.dataset}/{split}" for split in splits))


COMMAND: Final = Command(_run, _reads, _describe_progress)
