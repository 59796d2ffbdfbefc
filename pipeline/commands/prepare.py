"""`python -m pipeline prepare`: raw files -> tracks, features and a page, for all splits of a
dataset.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import cache
from pipeline import datasets
from pipeline.cli.command_line import Command, every_option
from pipeline.cli.console import DOUBT, WRONG, err, line, out, plain, size
from pipeline.cli.progress import Progress, bar
from pipeline.cli.text import FEW, count, error_text, few, from_here
from pipeline.clips import detectors
from pipeline.clips.detectors import Detector
from pipeline.clips.files import KEYPOINTS, describe_others, list_clips
from pipeline.clips.plan import detected_otherwise, unlabelled_clips, usual_detector
from pipeline.commands import extract as extract_command
from pipeline.commands.plan import lines
from pipeline.commands.summary import Summary, split_now
from pipeline.conversion.plan import committed_split
from pipeline.datasets.base import Dataset
from pipeline.errors import ConfigError, MissingAssets, PipelineError, RawDataError
from pipeline.features import computing
from pipeline.features.spec import StreamSpec
from pipeline.files.pixels.frames import Video
from pipeline.files.raw import is_stand_in
from pipeline.processes import DeviceName
from pipeline.recipe.forecast import forecast_lines, forecasts_of
from pipeline.recipe.overview import SplitPlan, plan_splits
from pipeline.recipe.recipe import LAYOUT, Recipe, StepResult, missing_files
from pipeline.settings.arguments import (
    BODY,
    body_of,
    cache_option,
    check_own_folder,
    from_settings,
    refuse_one_folder,
)
from pipeline.settings.file import PATH, option_type
from pipeline.settings.sections import Settings, detector_of

NO_DETECTOR: Final = "none"
DEFAULTS: Final = {  # defaults of the options, for other commands that run a preparation
    **dict.fromkeys(
        ("pages", "weights", "stream", "body", "detector", "every", "device", "kind", "precision")
    ),
    **dict.fromkeys(("plan", "all", "replace"), False),
    "set": (),
}
ERRORS: Final = (PipelineError, cache.CacheError, OSError)  # they end one split; others continue
WITHOUT_WEIGHTS: Final = (
    "no features: no weights are named. To add features, repeat the command with --weights "
    "spin:FILE, torchvision:IMAGENET1K_V2 (downloaded once), or untrained:0 for a trial run "
    "with random weights"
)
NO_DOWNLOAD: Final = (
    "Or leave --weights out (tracks without features), or use untrained:0 (random weights, "
    "a trial run)."
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
    add(
        "--pages",
        type=PATH,
        metavar="DIR",
        help="Folder for CACHE-DATASET-SPLIT.html (default: next to the cache)",
    )
    add("--plan", action="store_true", help="Print what would be done, and stop")
    add("--all", action="store_true", help="Name every video in the plan instead of the first few")
    add(
        "--weights", help="Weights of the network, as for extract (default: from luigi.cfg, if any)"
    )
    add("--stream", help="Name of the stream, as for extract (default: [features] streams)")
    add(
        "--body",
        type=PATH,
        help="Folder of SMPL's files, for datasets that need them (default: [paths] body)",
    )
    known = ", ".join([*detectors.names(), NO_DETECTOR])
    add("--detector", help=f"Detector for clips without keypoints: {known}")
    every_option(sub)
    help_ = "Device: auto, cpu, cuda, cuda:1, ... (default: [detect] device, [features] device)"
    add("--device", type=option_type(DeviceName), help=help_)
    from_settings(sub, detector="detect.detector")
    sub.set_defaults(kind=None, precision=None, set=[], replace=False)  # of extract's options


def _reads(args: argparse.Namespace) -> list[str]:
    """Sections of the dataset, detector, streams and resources."""
    detector = list[str]()
    if args.dataset in args.cfg.detect.datasets:
        detector.append(args.detector or usual_detector(args.raw))
    streams = extract_command.reads(args)
    return [args.dataset, *BODY, "detect", *detector, "convert", "dask", *streams]


def _run(args: argparse.Namespace) -> int:
    """Prepare what the arguments name."""
    return Preparation.resolve(args).run()


@dataclass(frozen=True, slots=True)
class Preparation:
    """One run of `prepare`: the recipes (what to convert and extract) of a dataset's splits."""

    args: argparse.Namespace
    dataset: Dataset
    recipes: Sequence[Recipe]
    without_weights: bool  # no weights are named, so no features are extracted

    @classmethod
    def resolve(cls, args: argparse.Namespace, streams: Sequence[StreamSpec] = ()) -> Preparation:
        """Resolve the recipes of all splits. streams: overrides those of the arguments.

        Raises PipelineError and ConfigError for missing and contradictory inputs.
        """
        dataset = args.cfg.dataset(args.dataset)
        refuse_one_folder(args.raw, args.cache)
        check_own_folder(args.raw, dataset)
        demo = is_stand_in(args.raw)
        settings = args.cfg
        if args.device is not None:
            settings = settings.override(
                {"detect.device": args.device, "features.device": args.device}
            )
        body = body_of(args, dataset, demo=demo)
        if dataset.uses_body and body is None:
            raise PipelineError(
                f"{dataset.name}: its 3D joints need SMPL's files: --body DIR. They cannot be "
                "added after features. (`convert` and `extract` work without.)"
            )
        streams_of = dict[str, tuple[StreamSpec, ...]]()
        specs = dict[str, StreamSpec]()
        without_weights = False
        committed = dict[str, cache.Split | None]()
        for split in dataset.splits:
            committed[split] = committed_split(args.cache, f"{dataset.name}/{split}")
        for split in dataset.splits:
            try:
                named = streams or extract_command.specs_of(
                    args,
                    f"{dataset.name}/{split}",
                    _find_weights_source(committed, split),
                    stand_in=demo,
                )
            except extract_command.NoWeights:
                if args.stream is not None:
                    raise
                without_weights = dataset.has_pixels
                continue
            computed = [spec for spec in named if dataset.has_pixels or not spec.stream.reads.crops]
            streams_of[split] = tuple(computed)
            specs |= {spec.name: spec for spec in computed}
        detector = _detector(args, settings, specs.values())
        recipes = [
            Recipe(
                dataset,
                split,
                args.raw,
                args.cache,
                settings,
                body=body,
                streams=streams_of.get(split, ()),
                drop_removed=settings.convert.removed == "drop",
                detector=detector,
                by_any_detector=detector is not None
                and _keeps_other_keypoints(args, detector.name),
            )
            for split in dataset.splits
        ]
        return cls(args, dataset, recipes, without_weights)

    def run(self) -> int:
        """Plan, run every step of every split, and print a summary. Returns 1 if a video or split
        was skipped.
        """
        args = self.args
        plans = self.plans()
        failures = list[str]()
        runnable = list[SplitPlan]()
        printed = list[str]()
        for plan in plans:
            failures += plan.problems
            if not plan.problems:
                runnable.append(plan)
                if plan.conversion:
                    printed += plan.conversion.kept_lines
        if not plans:
            do = "Name its raw folder: --raw DIR"
            raise PipelineError(f"{args.raw}: found no videos of {args.dataset}. {do}")
        if not runnable:
            raise PipelineError(failures[0])
        _print_plan(self, plans)
        if args.plan:
            missing = missing_files(self.recipes)
            for text in missing:
                out.print(f"{DOUBT} {plain(text)}")
            return 2 if missing else 0

        self.check(plans)
        detected = _detect(self, plans)
        n_flaws = detected.flaws
        for step in (_convert, _extract, _show):
            for plan in runnable:
                try:
                    n_flaws += step(self, plan)
                except ERRORS as error:
                    failures.append(error_text(error, [args.cache]))
                    news = [text for text in failures[-1].split("\n") if text not in printed]
                    text = plain("\n".join(news), keep=LAYOUT) or "see the plan above"
                    err.print(f"{WRONG} {line(step.__name__[1:], plan.name, text)}")
        pages = {plan.name: self.page(plan.recipe) for plan in runnable}
        summary = Summary(args.cache, pages, detected.warnings, self.without_weights)
        n_flaws += summary.print(runnable)
        return int(bool(failures or n_flaws))

    def plans(self) -> list[SplitPlan]:
        """Plan all splits, except those that neither have nor had videos."""
        plans = list[SplitPlan]()
        for plan in plan_splits(self.recipes):
            is_empty = plan.conversion is not None and not plan.conversion.listed
            if plan.committed is not None or not is_empty:
                plans.append(plan)
        return plans

    def bar(self, verb: str, what: str, unit: str = "") -> AbstractContextManager[Progress]:
        return bar(f"  {line(verb, what, '')}", err, unit=unit)

    def page(self, recipe: Recipe) -> Path:
        folder = Path()
        if isinstance(self.args.cache, Path):
            folder = self.args.cache.parent
        # two caches in one folder have different pages
        root = Path(self.args.cache).absolute().name
        return (self.args.pages or folder) / f"{root}-{recipe.dataset.name}-{recipe.split}.html"

    def check(self, plans: Sequence[SplitPlan]) -> None:
        """Raise errors of later steps now: weights, packages, device, read-only folders."""
        missing = missing_files(self.recipes)
        if missing:
            raise PipelineError(" ".join(missing))
        for plan in plans:
            if plan.undetected and not os.access(plan.recipe.raw, os.W_OK):
                raise PipelineError(
                    f"{plan.recipe.raw}: read-only, but keypoints are written into its folder "
                    f"{KEYPOINTS}. Make a "
                    "folder of links to the clips (ln -s), and name it: --raw DIR"
                )
        specs = dict[str, StreamSpec]()
        for plan in plans:
            if not (plan.up_to_date or plan.problems):
                specs |= {spec.name: spec for spec in plan.recipe.streams}
        failures = _load(self.args, self.recipes[0].settings, specs.values())
        if failures:
            raise MissingAssets(" ".join(failures))
        for plan in plans:
            _check_page(self.page(plan.recipe))


def _find_weights_source(
    committed: Mapping[str, cache.Split | None], name: str
) -> cache.Split | None:
    """The split whose weights a split uses: itself, or, if it is new, another one with streams."""
    if committed[name] is not None:
        return committed[name]
    for split in committed.values():
        if split is not None and split.streams:
            return split
    return None


def _check_page(page: Path) -> None:
    """Raise PipelineError if a page cannot be written."""
    from pipeline.show.page import is_page

    if page.exists() and not is_page(page):
        raise PipelineError(
            f"{page}: expected no file, or an earlier page of tracks; found another file, which "
            "is not replaced. Move it, or name another folder for pages: --pages DIR"
        )
    folder = page.absolute().parent
    above = folder
    while not above.exists():
        above = above.parent
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise PipelineError(f"{folder}: cannot write pages there. Name another folder: --pages DIR")


def _load(args: argparse.Namespace, settings: Settings, specs: Iterable[StreamSpec]) -> list[str]:
    """Load the networks of this process, to check their weights; returns messages about missing."""
    messages = list[str]()
    if settings.dask.scheduler or settings.features.processes:
        return messages
    for spec in specs:
        try:
            computing.load(spec.stream, settings.features.machine(), None)
        except MissingAssets as error:
            message = str(error)
            if args.weights:
                message += f" {NO_DOWNLOAD}"
            messages.append(message)
    return messages


def _detector(
    args: argparse.Namespace, settings: Settings, specs: Iterable[StreamSpec]
) -> Detector | None:
    """Choose the detector for clips without keypoints; None if no clip needs one.

    specs: streams, whose missing weights are named beside those of the detector.
    """
    if args.dataset not in args.cfg.detect.datasets or args.detector == NO_DETECTOR:
        if args.every is not None:
            raise ConfigError(f"--every {args.every}: no detector runs here. Leave the option out.")
        return None
    name = args.detector or usual_detector(args.raw)
    detectors.find(name)  # a misspelt name is refused even if no clip needs a detector
    if args.raw.is_file():
        return None  # the dataset's reader reports the expected files
    clips = unlabelled_clips(args.raw, by_any_detector=_keeps_other_keypoints(args, name))
    if not any(_is_whole(args.raw, clip) for clip in clips):
        return None  # the conversion names the clips that cannot be read
    try:
        detector = detector_of(args.cfg.source, name, every=args.every)
        if not detector.downloads or not args.plan:
            detectors.identity(detector)  # downloads its weights
    except (ConfigError, MissingAssets) as error:
        # the error names options of `detect`: write them as options of this command
        message = re.sub(rf"--set (?!\[|{re.escape(name)}\.)", f"--set {name}.", str(error))
        message = message.rstrip(".")
        message = message.replace("--weights ", f"--detector {name} --set {name}.weights=")
        do = (
            "Or name another --detector, or put keypoints of another tool into "
            f"{args.raw}/{KEYPOINTS}."
        )
        others = list[str]()
        if isinstance(error, MissingAssets) and not args.plan:
            others = _load(args, settings, specs)
        raise type(error)(" ".join([f"{message}. {do}", *others])) from error
    return detector


def _is_whole(raw: Path, clip: str) -> bool:
    try:
        Video(raw, clip).require_whole()
    except RawDataError:
        return False
    return True


def _keeps_other_keypoints(args: argparse.Namespace, detector: str) -> bool:
    """Whether other detectors' keypoints are kept: no option or section names a detector."""
    return not (args.detector or args.every is not None or args.cfg.source.section(detector))


# --------------------------------------------------------------------------------------------------
# steps


def _detect(prepared: Preparation, plans: Sequence[SplitPlan]) -> StepResult:
    """Detect people once for all splits, and print the result. Flaws: clips that cannot be used."""
    detecting = [plan.recipe for plan in plans if plan.undetected or plan.detection is not None]
    if not detecting:
        return StepResult(details=[])
    recipe = detecting[0]
    plan = recipe.plan_detection()
    if plan.up_to_date:
        given_up = few(list(plan.problems.values()), FEW, plan.retry_command)
        result = StepResult(details=[], warnings=given_up, flaws=len(plan.problems))
    else:
        with prepared.bar("detect", prepared.dataset.name, "frame") as progress:
            result = recipe.detect(plan, progress)
    others = describe_others(prepared.args.raw)
    if others:
        result = replace(result, warnings=[*result.warnings, others])
    result.report("detect", prepared.dataset.name)
    return result


def _convert(prepared: Preparation, plan: SplitPlan) -> int:
    """Convert a split. Returns the number of flaws, as all steps do: videos that were rejected."""
    recipe = plan.recipe
    conversion = plan.conversion
    if conversion is None or not plan.up_to_date:
        conversion = recipe.plan_conversion()
    with prepared.bar("convert", recipe.name, "video") as progress:
        result = recipe.convert(conversion, progress)
    details = result.details
    if conversion.up_to_date:
        details = ()
    # the summary has the warnings
    replace(result, details=details, warnings=()).report("convert", recipe.name)
    return result.flaws


def _extract(prepared: Preparation, plan: SplitPlan) -> int:
    recipe = plan.recipe
    split = split_now(plan)
    # conversion has reported a split without rows
    if plan.up_to_date or split is None or not split.manifest["rows"]:
        return 0
    upcoming = recipe.plan_extraction()
    if not upcoming:
        return 0
    with prepared.bar("extract", recipe.name) as progress:
        result = recipe.extract(upcoming, progress)
    result.report("extract", recipe.name)
    return result.flaws


def _show(prepared: Preparation, plan: SplitPlan) -> int:
    from pipeline.show.page import shows, write_split_page

    recipe = plan.recipe
    split = split_now(plan)
    page = prepared.page(recipe)
    if split is None or not len(split.tracks) or shows(page, split.manifest["digest"]):
        return 0
    page.parent.mkdir(parents=True, exist_ok=True)
    with prepared.bar("show", recipe.name, "track") as progress:
        n = write_split_page(
            recipe.root, recipe.name, page, raw=recipe.raw, body=recipe.body, progress=progress
        )
    details = [f"{count(n, 'track')} in {plain(from_here(page))} ({size(page.stat().st_size)})"]
    StepResult(details=details).report("show", recipe.name)
    return 0


# --------------------------------------------------------------------------------------------------
# output


def _print_plan(prepared: Preparation, plans: Sequence[SplitPlan]) -> None:
    most = None if prepared.args.all else FEW
    texts = list[str]()
    for plan in plans:
        texts += lines(plan, most)
    texts += _other_keypoints(prepared.args.raw, plans)
    for text in (*texts, *forecast_lines([*forecasts_of(plans).values()])):
        out.print(text)
    if prepared.without_weights:
        out.print(f"{DOUBT} {plain(WITHOUT_WEIGHTS)}")
    out.print()


def _other_keypoints(raw: Path, plans: Sequence[SplitPlan]) -> list[str]:
    """Lines about clips whose keypoints of another detector, or N, are replaced or kept."""
    detector = plans[0].recipe.detector
    if detector is None:
        return []
    options = None  # until the detector's weights are downloaded
    missing = set[str]()
    detections = [plan.detection for plan in plans if plan.detection is not None]
    if detections:
        options = detections[0].about["options"]
        missing.update(files.clip for files in detections[0].missing)
    else:
        for plan in plans:
            missing.update(plan.undetected)
    kept = {*list_clips(raw)} - missing  # if a detector is named, others' clips are in `missing`
    by_others = functools.partial(
        detected_otherwise, raw / KEYPOINTS, detector=detector, options=options
    )
    texts = [f"  {DOUBT} replaces keypoints of {plain(by)}" for by in by_others(missing)]
    new = f"other clips get {detector.name}, --every {detector.every}"
    texts += [
        f"  {DOUBT} keeps, as no --detector is named, keypoints of {plain(by)}; {new}"
        for by in by_others(kept)
    ]
    return texts


COMMAND: Final = Command(
    _options, _run, reads=_reads, kept="finished work is kept; the same command continues"
)
