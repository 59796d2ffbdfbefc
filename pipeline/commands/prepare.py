"""`python -m pipeline prepare`: raw files -> tracks, features and a page, for all splits of a
dataset.

`run` prints the plan of a `Preparation`, and checks now what would fail later. It finds people in
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
from pipeline.cli.command_line import WORK_KEPT, Command, every_option
from pipeline.cli.console import DOUBT, STAND_IN, VERB_WIDTH, WRONG, err, out, plain, task_line
from pipeline.cli.progress import Progress, bar
from pipeline.cli.system_errors import error_text
from pipeline.cli.text import FEW, command, count, few, from_here, size
from pipeline.clips import detectors
from pipeline.commands.extract import RequestedStreams
from pipeline.commands.plan import lines
from pipeline.commands.preparation import NO_DETECTOR, DetectorChoice, Preparation
from pipeline.datasets.conversion_record import ConversionRecord, committed_split
from pipeline.errors import PipelineError
from pipeline.features.committed import stream_label
from pipeline.features.spec import StreamSpec
from pipeline.files.places import require_writable
from pipeline.files.raw import is_stand_in
from pipeline.processes.settings import DeviceName
from pipeline.settings.arguments import cache_option, from_settings
from pipeline.settings.file import PATH, option_type
from pipeline.settings.folders import BODY
from pipeline.steps import execution
from pipeline.steps.detection.plan import usual_detector
from pipeline.steps.execution import LAYOUT, StepResult, accounting_lines
from pipeline.steps.recipe import Recipe, SplitPlan

ERRORS: Final = (PipelineError, cache.CacheError, OSError)  # these end a step of one split only
NOTHING: Final = StepResult(details=())
WITHOUT_WEIGHTS: Final = (
    "no features: no weights are named. To add features, repeat the command with --weights "
    "spin:FILE, torchvision:IMAGENET1K_V2 (downloaded once), or untrained:0 for a trial run "
    "with random weights"
)


def _options(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add(
        "dataset", metavar="DATASET", help=f"{', '.join(datasets.names())} (videos: your own clips)"
    )
    add(
        "--raw",
        type=PATH,
        required=True,
        help="The dataset's raw folder; for videos, the folder of the clips",
    )
    cache_option(sub, required=True)
    add("--plan", action="store_true", help="Print what would be done, and stop")
    add("--all", action="store_true", help="Name every video in the plan instead of the first few")
    add(
        "--weights", help="Weights of the network, as for extract (default: from luigi.cfg, if any)"
    )
    add("--stream", help="Name of the stream, as for extract")
    add(
        "--body",
        type=PATH,
        help="Folder of SMPL's files, for datasets that need them (default: [paths] body)",
    )
    detector_names = ", ".join([*detectors.names(), NO_DETECTOR])
    add("--detector", help=f"Detector for clips without keypoints: {detector_names}")
    every_option(sub)
    help_ = "Device: auto, cpu, cuda, cuda:1, ... (default: [detect] device, [features] device)"
    add("--device", type=option_type(DeviceName), help=help_)
    from_settings(sub, detector="detect.detector", stream="features.streams")


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
    if recipe.dataset.labels.uses_body and recipe.body is None:
        raise PipelineError(
            f"{recipe.dataset.name}: its 3D joints need SMPL's files: --body DIR. They cannot be "
            "added after features. (`convert` and `extract` work without.)"
        )
    requested = RequestedStreams.by_options(settings, weights=args.weights)
    choice = DetectorChoice(name=args.detector, every=args.every, downloads=not args.plan)
    preparation = Preparation.resolve(recipe, choice, _streams_by_split(recipe, requested))
    return run(preparation, plan_only=args.plan, every_video=args.all)


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
        if is_stand_in(recipe.raw) or not without_weights:
            streams[split] = specs
        elif are_named:
            requested.refuse_random_weights(without_weights, name)
    return streams


# --------------------------------------------------------------------------------------------------
# steps


def run(preparation: Preparation, *, plan_only: bool = False, every_video: bool = False) -> int:
    """Plan, run every step of every split, and print a summary. Returns 1 if a video or split was
    skipped; with `plan_only`, 2 if a split cannot be planned.

    every_video: name every video in the plan instead of the first few.
    """
    plans = preparation.plans()
    if not plans:
        recipe = preparation.recipes[0]
        found = f"found no videos of {recipe.dataset.name}"
        raise PipelineError(f"{recipe.raw}: {found}. Name its raw folder: --raw DIR")
    runnable = [plan for plan in plans if not plan.problems]
    if not runnable:
        raise PipelineError(plans[0].problems[0])
    for plan in plans:
        for text in lines(plan, None if every_video else FEW):
            out.print(text)
    if preparation.without_weights:
        out.warn(WITHOUT_WEIGHTS)
    out.print()
    preparation.check(plans, downloads=not plan_only)
    for plan in plans:
        _check_page(plan.recipe)
    n_flaws = len(plans) - len(runnable)
    if plan_only:
        has_lost = any(plan.lost_videos for plan in plans)
        return 2 if n_flaws else int(has_lost)

    n_flaws += _detect(plans) + _run_steps(runnable)
    status = command("status", "--all", "--cache", str(plans[0].recipe.root))
    for plan in runnable:
        split = _split_now(plan)
        if split is not None:
            n_flaws += _print_split(split, _page_file(plan.recipe), status)
    out.print(f"{'videos':<{VERB_WIDTH}} {plain(status)}")
    return int(n_flaws > 0)


def _bar(verb: str, what: str, unit: str = "") -> AbstractContextManager[Progress]:
    """Show the progress of a step of a split or dataset within the block."""
    return bar(f"  {task_line(verb, what, '')}", err, unit=unit)


def _detect(plans: Sequence[SplitPlan]) -> int:
    """Detect people once for all splits, and print the result. Returns the number of clips that
    cannot be used.
    """
    recipes = []
    for plan in plans:
        if plan.detection.undetected or plan.detection.plan is not None:
            recipes.append(plan.recipe)
    if not recipes:
        return 0
    recipe = recipes[0]  # any one: all share the raw folder and the detector
    name = recipe.dataset.name
    with _bar("detect", name, "clip") as progress:
        result = execution.detect(recipe.plan_detection(), recipe.settings, progress)
    result.report("detect", name)
    return result.flaws


def _run_steps(plans: Sequence[SplitPlan]) -> int:
    """Run the other steps, each for every split. Prints the errors, and returns the number of
    flaws, of which an error is one.
    """
    n_flaws = 0
    by_verb = {"convert": _convert, "extract": _extract, "show": _show}
    for (verb, step), plan in itertools.product(by_verb.items(), plans):
        try:
            result = step(plan)
            n_flaws += result.flaws
            result.report(verb, plan.name)
        except ERRORS as error:
            n_flaws += 1
            detail = plain(error_text(error, [plan.recipe.root]), keep=LAYOUT)
            err.print(f"{WRONG} {task_line(verb, plan.name, detail)}")
    return n_flaws


def _convert(plan: SplitPlan) -> StepResult:
    """Convert a split. Flaws: clips that are damaged."""
    conversion = plan.conversion
    if conversion is None or not plan.up_to_date:
        conversion = plan.recipe.plan_conversion()
    with _bar("convert", plan.name, "video") as progress:
        result = execution.convert(conversion, plan.recipe.settings, progress)
    if conversion.up_to_date:
        result = replace(result, details=(), notes=())
    return replace(result, warnings=())  # the summary has them


def _extract(plan: SplitPlan) -> StepResult:
    """Extract the streams of a split. Flaws: rows without features."""
    split = _split_now(plan)
    # conversion has reported a split without rows
    if plan.up_to_date or split is None or not split.manifest["rows"]:
        return NOTHING
    upcoming = [stream for stream in plan.recipe.plan_extraction() if not stream.up_to_date]
    with _bar("extract", plan.name) as progress:
        return execution.extract(upcoming, plan.recipe.settings, progress)


def _show(plan: SplitPlan) -> StepResult:
    """Write the page of a split with tracks, unless it shows them."""
    from pipeline.show.page import shows, write_page
    from pipeline.show.tracks import Choice, from_cache

    recipe = plan.recipe
    split = _split_now(plan)
    page = _page_file(recipe)
    if split is None or not len(split.tracks) or shows(page, split.manifest["digest"]):
        return NOTHING
    page.parent.mkdir(parents=True, exist_ok=True)
    with _bar("show", plan.name, "track") as progress:
        shown = from_cache(recipe.root, recipe.name, Choice(), raw=recipe.raw, body=recipe.body)
        write_page(shown, page, progress=progress)
    n_tracks = count(len(shown.tracks), "track")
    detail = f"{n_tracks} in {from_here(page)} ({size(page.stat().st_size)})"
    return StepResult(details=[detail])


def _page_file(recipe: Recipe) -> Path:
    """The file of a split's page, beside the cache, or in the working folder for a cache in an
    object store: CACHE-DATASET-SPLIT.html.
    """
    root = cache.local_folder(recipe.root)
    folder = Path() if root is None else root.parent
    # two caches in one folder have different pages
    cache_name = Path(recipe.root).absolute().name
    return folder / f"{cache_name}-{recipe.dataset.name}-{recipe.split}.html"


def _check_page(recipe: Recipe) -> None:
    """Raise PipelineError if a split's page cannot be written."""
    from pipeline.show.page import is_page

    page = _page_file(recipe)
    if page.exists() and not is_page(page):
        raise PipelineError(
            f"{page}: expected no file, or an earlier page of tracks; found another file, which is "
            "not replaced. Move it."
        )
    require_writable(page.absolute().parent, "Pages are written there: make it writable.")


def _split_now(plan: SplitPlan) -> cache.Split | None:
    """The split as it is in the cache now; None if it was not converted."""
    if plan.up_to_date:
        return plan.committed
    return committed_split(plan.recipe.root, plan.name)


# --------------------------------------------------------------------------------------------------
# output


def _print_split(split: cache.Split, page: Path, status: str) -> int:
    """Print the content of one split in the cache. Returns the number of rejected videos.

    status: the command that shows all videos.
    """
    from pipeline.show.page import shows

    title = f"[bold]{plain(split.name)}[/bold]"
    if split.manifest["stand_in"]:
        title += f"  {STAND_IN}"
    out.print(title)
    for text in accounting_lines(split.manifest["accounting"]):
        out.print(f"  {plain(text)}")
    streams = [stream_label(split, stream) for stream in split.streams]
    out.print(f"  features {plain(', '.join(streams)) or 'none'}")
    if shows(page, split.manifest["digest"]):
        out.print(f"  page {plain(from_here(page))}")
    rejected = [f"rejected {text}" for text in ConversionRecord(split).rejections()]
    for text in few(rejected, FEW, status):
        out.print(f"  {DOUBT} {plain(text)}")
    return len(rejected)


COMMAND: Final = Command(_options, _run, reads=_reads, kept=WORK_KEPT)
