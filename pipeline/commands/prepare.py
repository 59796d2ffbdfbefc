"""`python -m pipeline prepare`: raw files -> tracks, features and a page, for all splits of a
dataset.

`Preparation.resolve` makes a recipe of each split from the arguments and luigi.cfg, and chooses the
detector. `Preparation.run` plans the recipes and prints the plan; checks now what would fail later;
finds people in clips, once for all splits; then converts every split, extracts the streams of every
split, and writes a page of every split. An error ends a step of one split, and the others go on. At
the end it prints a summary. `python -m tasks predict` runs a preparation, too, for videos.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import cache
from pipeline import datasets
from pipeline.cli.command_line import Command, every_option
from pipeline.cli.console import DOUBT, STAND_IN, VERB_WIDTH, WRONG, err, out, plain, task_line
from pipeline.cli.progress import Progress, bar
from pipeline.cli.text import FEW, command, error_text, few, from_here
from pipeline.clips import detectors
from pipeline.clips.plan import usual_detector
from pipeline.commands import extract as extract_command
from pipeline.commands.plan import lines
from pipeline.commands.preparation.detector import (
    NO_DETECTOR,
    choose_detector,
    keeps_other_keypoints,
    load_networks,
)
from pipeline.commands.preparation.pages import check_page, is_page_current, page_file, write_page
from pipeline.conversion.committed import rejected_videos
from pipeline.conversion.plan import committed_split
from pipeline.datasets.base import Dataset
from pipeline.errors import PipelineError
from pipeline.features.plan import stream_label
from pipeline.features.spec import RandomWeights, StreamSpec
from pipeline.files.places import require_writable
from pipeline.files.raw import is_stand_in
from pipeline.processes.settings import DeviceName
from pipeline.recipe import steps
from pipeline.recipe.recipe import Recipe, SplitPlan, missing_files, plan_splits
from pipeline.recipe.steps import LAYOUT, StepResult, accounting_lines
from pipeline.settings import sections
from pipeline.settings.arguments import BODY, cache_option, from_settings
from pipeline.settings.file import PATH, option_type

# defaults of the options, for other commands that run a preparation
DEFAULTS: Final = {
    **dict.fromkeys(("weights", "stream", "body", "kind", "precision")),
    **dict.fromkeys(("plan", "all", "replace"), False),
}
ERRORS: Final = (PipelineError, cache.CacheError, OSError)  # these end a step of one split only
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
    sub.set_defaults(kind=None, precision=None, replace=False)  # of extract's options


def _reads(args: argparse.Namespace) -> list[str]:
    """Sections of the dataset, detector, streams and resources."""
    detector = list[str]()
    if args.dataset in args.cfg.detect.datasets:
        detector.append(args.detector or usual_detector(args.raw))
    streams = extract_command.reads(args)
    return [args.dataset, *BODY, "detect", *detector, "convert", "dask", *streams]


def _run(args: argparse.Namespace) -> int:
    return Preparation.resolve(args).run()


@dataclass(frozen=True, slots=True)
class Preparation:
    """One run of `prepare`: the recipes (what to convert and extract) of a dataset's splits."""

    args: argparse.Namespace
    dataset: Dataset
    recipes: Sequence[Recipe]  # one for each split of the dataset
    without_weights: bool  # no weights are named, so no features are extracted

    @classmethod
    def resolve(cls, args: argparse.Namespace, streams: Sequence[StreamSpec] = ()) -> Preparation:
        """Resolve the recipes of all splits. streams: overrides those of the arguments.

        Raises PipelineError and ConfigError for missing and contradictory inputs.
        """
        args = _name_device(args)
        recipe = Recipe.by_arguments(args, "")
        dataset = recipe.dataset
        if dataset.labels.uses_body and recipe.body is None:
            raise _no_body(dataset)
        streams_of = _streams_by_split(args, dataset, streams)
        detector = choose_detector(args)
        by_any_detector = detector is not None and keeps_other_keypoints(args, detector.name)
        recipe = replace(recipe, detector=detector, by_any_detector=by_any_detector)
        recipes = [
            replace(recipe, split=split, streams=streams_of.get(split, ()))
            for split in dataset.splits
        ]
        without_weights = dataset.has_pixels and len(streams_of) < len(dataset.splits)
        return cls(args, dataset, recipes, without_weights)

    def run(self) -> int:
        """Plan, run every step of every split, and print a summary. Returns 1 if a video or split
        was skipped; with --plan, 2 if a split cannot be planned.
        """
        args = self.args
        plans = self.plans()
        if not plans:
            raise _no_videos(args)
        runnable = [plan for plan in plans if not plan.problems]
        if not runnable:
            raise PipelineError(plans[0].problems[0])
        self._print_plan(plans)
        self.check(plans)
        n_flaws = len(plans) - len(runnable)
        if args.plan:
            has_lost = any(plan.lost_videos for plan in plans)
            return 2 if n_flaws else int(has_lost)

        detected = self._detect(plans)
        n_flaws += detected.flaws + self._run_steps(runnable)
        n_flaws += _print_summary(args.cache, runnable)
        return int(n_flaws > 0)

    def plans(self) -> list[SplitPlan]:
        """Plan all splits, except those that neither have nor had videos."""
        plans = list[SplitPlan]()
        for plan in plan_splits(self.recipes):
            is_empty = plan.conversion is not None and not plan.conversion.listed
            if plan.committed is not None or not is_empty:
                plans.append(plan)
        return plans

    def bar(self, verb: str, what: str, unit: str = "") -> AbstractContextManager[Progress]:
        """Show the progress of a step of a split or dataset within the block."""
        return bar(f"  {task_line(verb, what, '')}", err, unit=unit)

    def check(self, plans: Sequence[SplitPlan]) -> None:
        """Raise errors of later steps now: weights, packages, device, read-only folders. With
        --plan, weights that would be downloaded are not checked.
        """
        missing = missing_files(self.recipes)
        if missing:
            raise PipelineError(" ".join(missing))
        upcoming = [plan.recipe.streams for plan in plans if not (plan.up_to_date or plan.problems)]
        failures = load_networks(self.args.cfg, _unique(upcoming), downloads=not self.args.plan)
        if failures:
            raise PipelineError(" ".join(failures))
        folder = cache.local_folder(self.args.cache)
        if upcoming and folder is not None:
            require_writable(folder, "Name another cache: --cache DIR")
        for plan in plans:
            check_page(plan.recipe)

    # ----------------------------------------------------------------------------------------------
    # steps

    def _detect(self, plans: Sequence[SplitPlan]) -> StepResult:
        """Detect people once for all splits, and print the result. Flaws: clips that cannot be
        used.
        """
        recipes = [plan.recipe for plan in plans if plan.undetected or plan.detection is not None]
        if not recipes:
            return NOTHING
        recipe = recipes[0]  # any one: all share the raw folder and the detector
        with self.bar("detect", self.dataset.name, "clip") as progress:
            result = steps.detect(recipe.plan_detection(), recipe.settings, progress)
        result.report("detect", self.dataset.name)
        return result

    def _run_steps(self, plans: Sequence[SplitPlan]) -> int:
        """Run the other steps, each for every split. Prints the errors, and returns the number of
        flaws, of which an error is one.
        """
        n_flaws = 0
        by_verb = {"convert": self._convert, "extract": self._extract, "show": self._show}
        for (verb, step), plan in itertools.product(by_verb.items(), plans):
            try:
                result = step(plan)
                n_flaws += result.flaws
                result.report(verb, plan.name)
            except ERRORS as error:
                n_flaws += 1
                detail = plain(error_text(error, [self.args.cache]), keep=LAYOUT)
                err.print(f"{WRONG} {task_line(verb, plan.name, detail)}")
        return n_flaws

    def _convert(self, plan: SplitPlan) -> StepResult:
        """Convert a split. Flaws: clips that are damaged."""
        conversion = plan.conversion
        if conversion is None or not plan.up_to_date:
            conversion = plan.recipe.plan_conversion()
        with self.bar("convert", plan.name, "video") as progress:
            result = steps.convert(conversion, plan.recipe.settings, progress)
        if conversion.up_to_date:
            result = replace(result, details=(), notes=())
        return replace(result, warnings=())  # the summary has them

    def _extract(self, plan: SplitPlan) -> StepResult:
        """Extract the streams of a split. Flaws: rows without features."""
        split = _split_now(plan)
        # conversion has reported a split without rows
        if plan.up_to_date or split is None or not split.manifest["rows"]:
            return NOTHING
        upcoming = [stream for stream in plan.recipe.plan_extraction() if not stream.up_to_date]
        with self.bar("extract", plan.name) as progress:
            return steps.extract(upcoming, plan.recipe.settings, progress)

    def _show(self, plan: SplitPlan) -> StepResult:
        """Write the page of a split, if its content has changed."""
        if is_page_current(plan.recipe, _split_now(plan)):
            return NOTHING
        with self.bar("show", plan.name, "track") as progress:
            return write_page(plan.recipe, progress)

    def _print_plan(self, plans: Sequence[SplitPlan]) -> None:
        """Print the plans of all splits, and whether features will be missing."""
        texts = list[str]()
        for plan in plans:
            texts += lines(plan, None if self.args.all else FEW)
        for text in texts:
            out.print(text)
        if self.without_weights:
            out.warn(WITHOUT_WEIGHTS)
        out.print()


def _name_device(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments with the settings that `--device` names, if it is given: the keys `device` of
    [detect] and [features].
    """
    if args.device is None:
        return args
    source = args.cfg.source
    for section in ("detect", "features"):
        source = source.override(section, "device", str(args.device), "--device")
    return argparse.Namespace(**{**vars(args), "cfg": sections.parse(source, tolerant=True)})


def _streams_by_split(
    args: argparse.Namespace, dataset: Dataset, streams: Sequence[StreamSpec]
) -> dict[str, tuple[StreamSpec, ...]]:
    """The streams to extract of each split: `streams`, or those that the arguments name. A split
    for which no weights are named is left out.
    """
    demo = is_stand_in(args.raw)
    streams_of = dict[str, tuple[StreamSpec, ...]]()
    for split in dataset.splits:
        name = f"{dataset.name}/{split}"
        committed = committed_split(args.cache, name)
        try:
            specs = streams or extract_command.specs_of(args, name, committed, stand_in=demo)
        except RandomWeights:
            if "streams" in args.cfg.source.section("features").options:
                raise
            continue
        streams_of[split] = tuple(
            spec for spec in specs if dataset.has_pixels or not spec.stream.reads.crops
        )
    return streams_of


def _unique(streams: Iterable[Sequence[StreamSpec]]) -> list[StreamSpec]:
    """Each stream of several splits once, by its name."""
    by_name = dict[str, StreamSpec]()
    for specs in streams:
        by_name |= {spec.name: spec for spec in specs}
    return [*by_name.values()]


# --------------------------------------------------------------------------------------------------
# errors


def _no_body(dataset: Dataset) -> PipelineError:
    return PipelineError(
        f"{dataset.name}: its 3D joints need SMPL's files: --body DIR. They cannot be added after "
        "features. (`convert` and `extract` work without.)"
    )


def _no_videos(args: argparse.Namespace) -> PipelineError:
    do = "Name its raw folder: --raw DIR"
    return PipelineError(f"{args.raw}: found no videos of {args.dataset}. {do}")


NOTHING: Final = StepResult(details=())


def _split_now(plan: SplitPlan) -> cache.Split | None:
    """The split as it is in the cache now; None if it was not converted."""
    if plan.up_to_date:
        return plan.committed
    return committed_split(plan.recipe.root, plan.name)


def _print_summary(root: cache.Root, plans: Sequence[SplitPlan]) -> int:
    """Print the content of each split in the cache. Returns the number of rejected videos."""
    status = command("status", "--all", "--cache", str(root))
    n_rejected = 0
    for plan in plans:
        split = _split_now(plan)
        if split is not None:
            n_rejected += _print_split(split, page_file(plan.recipe), status)
    out.print(f"{'videos':<{VERB_WIDTH}} {plain(status)}")
    return n_rejected


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
    n_rejected, messages = rejected_videos(split)
    rejected = [f"rejected {text}" for text in messages]
    for text in few(rejected, FEW, status):
        out.print(f"  {DOUBT} {plain(text)}")
    return n_rejected


COMMAND: Final = Command(
    _options, _run, reads=_reads, kept="finished work is kept; the same command continues"
)
