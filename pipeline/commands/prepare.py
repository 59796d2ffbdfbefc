"""`python -m pipeline prepare`: raw files -> tracks, features and a page, for all splits of a
dataset.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import cache
from pipeline import datasets
from pipeline.cli.command_line import Command, every_option
from pipeline.cli.console import DOUBT, STAND_IN, VERB, WRONG, err, line, out, plain, size
from pipeline.cli.progress import Progress, bar
from pipeline.cli.text import FEW, command, count, error_text, few, from_here
from pipeline.clips import detectors
from pipeline.clips.detectors import Detector
from pipeline.clips.files import KEYPOINTS, describe_others, list_clips
from pipeline.clips.plan import detected_otherwise, unlabelled_clips, usual_detector
from pipeline.commands import extract as extract_command
from pipeline.commands.convert import accounting_lines
from pipeline.commands.plan import lines
from pipeline.conversion.committed import rejected_videos
from pipeline.conversion.plan import committed_split
from pipeline.datasets.base import Dataset
from pipeline.errors import ConfigError, MissingAssets, PipelineError, RawDataError
from pipeline.features import computing
from pipeline.features.plan import missing_rows, stream_label
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
DEFAULTS: Final = {  # of the options, for other commands that prepare data
    **dict.fromkeys(
        ("pages", "weights", "stream", "body", "detector", "every", "device", "kind", "precision")
    ),
    **dict.fromkeys(("plan", "all", "replace"), False),
    "set": (),
}
ERRORS: Final = (PipelineError, cache.CacheError, OSError)  # of a split; other splits continue
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
    detector = (
        [args.detector or usual_detector(args.raw)]
        if args.dataset in args.cfg.detect.datasets
        else []
    )
    return [
        args.dataset,
        *BODY,
        "detect",
        *detector,
        "convert",
        "dask",
        *extract_command.reads(args),
    ]


def _run(args: argparse.Namespace) -> int:
    """Prepare what the arguments name."""
    return Preparation.resolve(args).run()


@dataclass(frozen=True, slots=True)
class Preparation:
    """The recipes that the arguments name."""

    args: argparse.Namespace
    dataset: Dataset
    recipes: Sequence[Recipe]
    without_weights: bool  # no weights are named: no features

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
        without_weights = False
        committed = {
            split: committed_split(args.cache, f"{dataset.name}/{split}")
            for split in dataset.splits
        }
        first = next(
            (split for split in committed.values() if split is not None and split.streams), None
        )
        for split in dataset.splits:
            try:  # a new split takes the recorded weights of another one
                recorded = first if committed[split] is None else committed[split]
                named = streams or extract_command.specs_of(
                    args, f"{dataset.name}/{split}", recorded, stand_in=demo
                )
                streams_of[split] = tuple(
                    spec for spec in named if dataset.has_pixels or not spec.stream.reads.crops
                )
            except extract_command.NoWeights:
                if args.stream is not None:
                    raise
                without_weights = dataset.has_pixels
        specs = {spec.name: spec for every in streams_of.values() for spec in every}
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
        if not plans or all(plan.problems for plan in plans):
            problems = [problem for plan in plans for problem in plan.problems]
            do = "Name its raw folder: --raw DIR"
            raise PipelineError(
                problems[0] if problems else f"{args.raw}: found no videos of {args.dataset}. {do}"
            )
        _print_plan(self, plans)
        if args.plan:
            missing = missing_files(self.recipes)
            for text in missing:
                out.print(f"{DOUBT} {plain(text)}")
            return 2 if missing else 0
        self.check(plans)
        detection = next(
            (plan.recipe for plan in plans if plan.undetected or plan.detection is not None), None
        )
        detected = StepResult(details=[]) if detection is None else _detect(self, detection)
        runnable = [plan for plan in plans if not plan.problems]
        failures = [problem for plan in plans for problem in plan.problems]
        printed = [
            text for plan in runnable if plan.conversion for text in plan.conversion.kept_lines
        ]
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
        n_flaws += _print_summary(self, runnable, detected.warnings)
        return int(bool(failures or n_flaws))

    def plans(self) -> list[SplitPlan]:
        every = plan_splits(self.recipes)
        return [
            plan
            for plan in every
            if not plan.conversion or plan.conversion.listed or plan.committed is not None
        ]

    def bar(self, verb: str, what: str, unit: str = "") -> AbstractContextManager[Progress]:
        return bar(f"  {line(verb, what, '')}", err, unit=unit)

    def page(self, recipe: Recipe) -> Path:
        folder = self.args.cache.parent if isinstance(self.args.cache, Path) else Path()
        # two caches in one folder have different pages
        root = Path(self.args.cache).absolute().name
        return (self.args.pages or folder) / f"{root}-{recipe.dataset.name}-{recipe.split}.html"

    def check(self, plans: Sequence[SplitPlan]) -> None:
        """Raise errors of later steps before hours of work: weights, packages, device, folders for
        pages.
        """
        from pipeline.show.page import split_of

        if missing := missing_files(self.recipes):
            raise PipelineError(" ".join(missing))
        for plan in plans:
            if plan.undetected and not os.access(plan.recipe.raw, os.W_OK):
                raise PipelineError(
                    f"{plan.recipe.raw}: read-only, but keypoints are written into its folder "
                    f"{KEYPOINTS}. Make a "
                    "folder of links to the clips (ln -s), and name it: --raw DIR"
                )
        upcoming = [plan.recipe for plan in plans if not (plan.up_to_date or plan.problems)]
        specs = {spec.name: spec for recipe in upcoming for spec in recipe.streams}
        if failures := _load(self.args, self.recipes[0].settings, specs.values()):
            raise MissingAssets(" ".join(failures))
        for page in map(self.page, (plan.recipe for plan in plans)):
            if page.exists() and not split_of(page):
                raise PipelineError(
                    f"{page}: expected no file, or an earlier page of tracks; found another "
                    "file, which is not "
                    "replaced. Move it, or name another folder for pages: --pages DIR"
                )
        for folder in {self.page(plan.recipe).absolute().parent for plan in plans}:
            above = next(path for path in (folder, *folder.parents) if path.exists())
            if not (above.is_dir() and os.access(above, os.W_OK)):
                raise PipelineError(
                    f"{folder}: cannot write pages there. Name another folder: --pages DIR"
                )


def _load(args: argparse.Namespace, settings: Settings, specs: Iterable[StreamSpec]) -> list[str]:
    """Load networks that run in this process, and download their weights. Returns messages about
    missing ones.
    """
    messages = []
    for spec in () if settings.dask.scheduler or settings.features.processes else specs:
        try:
            computing.load(spec.stream, settings.features.machine(), None)
        except MissingAssets as error:
            messages.append(f"{error} {NO_DOWNLOAD}" if args.weights else str(error))
    return messages


def _detector(
    args: argparse.Namespace, settings: Settings, specs: Iterable[StreamSpec]
) -> Detector | None:
    """The detector for clips without keypoints; None if no clip needs one. specs: to name all
    missing downloads.
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
        # as here
        message = re.sub(rf"--set (?!\[|{re.escape(name)}\.)", f"--set {name}.", str(error)).rstrip(
            "."
        )
        message = message.replace("--weights ", f"--detector {name} --set {name}.weights=")
        do = (
            "Or name another --detector, or put keypoints of another tool into "
            f"{args.raw}/{KEYPOINTS}."
        )
        others = [] if args.plan or isinstance(error, ConfigError) else _load(args, settings, specs)
        raise type(error)(" ".join([f"{message}. {do}", *others])) from error
    return detector


def _is_whole(raw: Path, clip: str) -> bool:
    try:
        Video(raw, clip).require_whole()
    except RawDataError:
        return False
    return True


def _keeps_other_keypoints(args: argparse.Namespace, detector: str) -> bool:
    """Whether keypoints of another detector, or of other options, are kept: nothing names one."""
    return not (args.detector or args.every is not None or args.cfg.source.section(detector))


# --------------------------------------------------------------------------------------------------
# steps


def _detect(prepared: Preparation, recipe: Recipe) -> StepResult:
    """Detect people, and print the result. Flaws: clips that cannot be used."""
    plan = recipe.plan_detection()
    if plan.up_to_date:
        given_up = few(list(plan.problems.values()), FEW, plan.again)
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
    """Returns the number of flaws, as all steps do."""
    recipe = plan.recipe
    conversion = (
        plan.conversion if plan.up_to_date and plan.conversion else recipe.plan_conversion()
    )
    with prepared.bar("convert", recipe.name, "video") as progress:
        result = recipe.convert(conversion, progress)
    details = () if conversion.up_to_date else result.details
    # the summary has the warnings
    replace(result, details=details, warnings=()).report("convert", recipe.name)
    return result.flaws


def _split_now(plan: SplitPlan) -> cache.Split | None:
    """The split as it is now: a plan with nothing to do has opened it."""
    return plan.committed if plan.up_to_date else committed_split(plan.recipe.root, plan.name)


def _extract(prepared: Preparation, plan: SplitPlan) -> int:
    recipe = plan.recipe
    split = _split_now(plan)
    # conversion has reported the latter
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
    from pipeline.show.page import split_of, write_split_page

    recipe = plan.recipe
    split = _split_now(plan)
    page = prepared.page(recipe)
    if split is None or not len(split.tracks) or split_of(page) == split.manifest["digest"]:
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
    texts = [text for plan in plans for text in lines(plan, most)]
    texts += _other_keypoints(prepared.args.raw, plans)
    for text in (*texts, *forecast_lines([*forecasts_of(plans).values()])):
        out.print(text)
    if prepared.without_weights:
        out.print(f"{DOUBT} {plain(WITHOUT_WEIGHTS)}")
    out.print()


def _other_keypoints(raw: Path, plans: Sequence[SplitPlan]) -> list[str]:
    """Lines about clips with keypoints of another detector or N, which are replaced or kept."""
    detector = plans[0].recipe.detector
    if detector is None:
        return []
    detection = next((plan.detection for plan in plans if plan.detection is not None), None)
    options = None  # until the detector's weights are downloaded
    missing = {clip for plan in plans for clip in plan.undetected}
    if detection is not None:
        options = detection.about["options"]
        missing = {files.clip for files in detection.missing}
    kept = {*list_clips(raw)} - missing  # none, if a detector is named
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


def _print_summary(
    prepared: Preparation, plans: Sequence[SplitPlan], printed: Sequence[str]
) -> int:
    """Print the cache's contents and the next commands. Returns the number of rejected videos.

    printed: messages about clips, which are not repeated.
    """
    from pipeline.show.page import split_of

    n_flaws = 0
    with_features = ""
    n_rows = 0
    at = ["--cache", str(prepared.args.cache)]
    for plan in plans:
        recipe = plan.recipe
        split = _split_now(plan)
        if split is None:
            continue
        missing = {stream: missing_rows(split, stream).rows for stream in split.streams}
        lacks = {stream: f"{count(n, 'row')} missing" if n else "" for stream, n in missing.items()}
        streams = [stream_label(split, stream, text) for stream, text in lacks.items()]
        demo = f"  {STAND_IN}" if split.manifest["stand_in"] else ""
        out.print(f"[bold]{plain(recipe.name)}[/bold]{demo}")
        for text in accounting_lines(split.manifest["accounting"]):
            out.print(f"  {plain(text)}")
        out.print(f"  features {plain(', '.join(streams)) or 'none'}")
        page = prepared.page(recipe)
        if split_of(page) == split.manifest["digest"]:
            out.print(f"  page {plain(from_here(page))}")
        n_rejected, messages = rejected_videos(split)
        for text in few(
            [_once(text, recipe.raw, printed) for text in messages],
            FEW,
            command("status", "--all", *at),
        ):
            out.print(f"  {DOUBT} {plain(text)}")
        n_flaws = n_flaws + n_rejected
        n_rows = n_rows + split.manifest["rows"]
        inputs = [
            spec.name
            for spec in recipe.streams
            if spec.stream.is_model_input and spec.name in split.streams
        ]
        if not with_features and inputs and split.manifest["rows"]:
            with_features = recipe.name
    predict = ["predict", with_features, *at, "--checkpoint", "FILE", "--body", "DIR"]
    upcoming = {
        "videos": command("status", "--all", *at),
        "features": "the same command with --weights"
        if prepared.without_weights and n_rows
        else "",
        "bodies": command(*predict, module="tasks") if with_features else "",
        "more": "the same command, after adding or changing videos",
    }
    for title, text in upcoming.items():
        if text:
            out.print(f"{title:<{VERB}} {plain(text)}")
    return n_flaws


def _once(rejection: str, raw: Path, printed: Sequence[str]) -> str:
    """A line about a rejected video; without the message if one about the same clip is
    `printed`.
    """
    name, reason, *_ = rejection.split(": ")
    is_printed = any(text.startswith(f"{raw / name}: ") for text in printed)
    return f"rejected {name}: {reason} (see above)" if is_printed else f"rejected {rejection}"


COMMAND: Final = Command(
    _options, _run, reads=_reads, kept="finished work is kept; the same command continues"
)
