"""`python -m pipeline prepare`: raw files -> tracks, features and a page of them, all splits of a dataset in one go."""

from __future__ import annotations

import argparse
import importlib
import os
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol, cast

import cache
from pipeline import datasets, detect
from pipeline.cli.command_line import CommandEntry
from pipeline.cli.console import DOUBT, STAND_IN, UNTRAINED, VERB, WRONG, err, line, out, plain, size
from pipeline.cli.progress import Progress, bar
from pipeline.cli.text import FEW, command, count, error_text, few, from_here
from pipeline.commands import extract as extract_command
from pipeline.commands.convert import accounting_lines
from pipeline.commands.plan import lines
from pipeline.conversion.committed import rejected_videos
from pipeline.conversion.plan import committed_split
from pipeline.datasets.base import Dataset
from pipeline.detect.base import Detector
from pipeline.detect.clips import pictures_in
from pipeline.detect.files import KEYPOINTS
from pipeline.detect.plan import unlabelled, usual_detector
from pipeline.errors import ConfigError, MissingAssets, PipelineError
from pipeline.features import computing
from pipeline.features.plan import is_untrained, marked, missing_rows
from pipeline.features.spec import StreamSpec
from pipeline.files.raw.stand_in import is_stand_in
from pipeline.plug_ins import COMMANDS, load_records
from pipeline.processes.devices import DeviceName
from pipeline.recipe import steps
from pipeline.recipe.forecast import forecast_lines, forecasts_of
from pipeline.recipe.overview import SplitPlan, plan_splits
from pipeline.recipe.recipe import Recipe, missing_files
from pipeline.recipe.steps import StepResult, report_step
from pipeline.settings.arguments import CACHE, check_own_folder
from pipeline.settings.commands import body_of, dataset_of, from_settings, option_type
from pipeline.settings.sections import Settings, detector_of

NO_DETECTOR: Final = "none"
DEFAULTS: Final = {  # of the options, for commands that prepare first
    **dict.fromkeys(("pages", "weights", "stream", "body", "detector", "device", "kind", "precision")),
    **dict.fromkeys(("plan", "all", "replace"), False),
    "set": (),
}
KEPT: Final = "what is finished is kept, the rest continues with the same command"
ERRORS: Final = (PipelineError, cache.CacheError, OSError)  # of a split; the others go on
WITHOUT_WEIGHTS: Final = (
    "no features: nothing names the network's weights. With --weights, the same command adds them: spin:FILE, "
    "torchvision:IMAGENET1K_V2 (downloaded once), or untrained:0 for a trial run with random weights"
)


def options(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("dataset", metavar="DATASET", help=f"{', '.join(datasets.names())}; for your own clips, videos")
    add("--raw", type=Path, required=True, help="The dataset's own raw folder; for videos, the folder of the clips")
    prepare_options(sub)


def prepare_options(sub: argparse.ArgumentParser) -> None:
    """The options of all commands that prepare data."""
    add = sub.add_argument
    add("--cache", type=cache.place_of, required=True, help=CACHE)
    add("--pages", type=Path, metavar="DIR", help="Folder for CACHE-DATASET-SPLIT.html (default: that of the cache)")
    add("--plan", action="store_true", help="Print what would be done, and stop")
    add("--all", action="store_true", help="Name every video in the plan instead of the first few")
    add("--weights", help="Weights of the features' network, as for extract (default: those of luigi.cfg, if any)")
    add("--stream", help="Name of the stream of features, as for extract (default: those of [features])")
    add("--body", type=Path, help="Folder of SMPL's files, for datasets whose 3D joints need them")
    detectors = ", ".join([*detect.names(), NO_DETECTOR])
    add("--detector", help=f"Detector for clips without keypoints: {detectors}")
    add(
        "--device", type=option_type(DeviceName), help="auto, cpu, cuda, cuda:1, ... (default: of [detect], [features])"
    )
    from_settings(sub, detector="detect.detector")
    sub.set_defaults(kind=None, precision=None, set=[], replace=False)  # of extract's options


def kept(_: argparse.Namespace) -> str:
    """What of an interrupted run is kept."""
    return KEPT


def reads(args: argparse.Namespace) -> list[str]:
    """The sections of the dataset, the detector and the streams, and of what the steps take of this machine."""
    return [
        args.dataset,
        "paths.body",
        "detect",
        args.detector or usual_detector(args.raw),
        "convert",
        "dask",
        *extract_command.reads(args),
    ]


def run(args: argparse.Namespace) -> int:
    """One plan, then detection, conversion, extraction and pages, then a summary. 1 where something was left out."""
    return prepare(resolve(args))


def prepare(prepared: Preparation) -> int:
    """Plan, run every step of every split, and print a summary. 1 where something was left out."""
    args = prepared.args
    plans = prepared.plans()
    if not plans or all(plan.problems for plan in plans):
        problems = [problem for plan in plans for problem in plan.problems]
        raise PipelineError(
            problems[0] if problems else f"{args.raw}: there is no video of any split of {args.dataset}"
        )
    _print_plan(prepared, plans)
    if args.plan:
        return 0
    prepared.check(plans)
    detection = next((plan.recipe for plan in plans if plan.undetected or plan.detection is not None), None)
    n_flaws = 0 if detection is None else _detect(prepared, detection)
    recipes = [plan.recipe for plan in plans if not plan.problems]
    failures = [problem for plan in plans for problem in plan.problems]
    for step in (_convert, _extract, _show):
        for recipe in recipes:
            try:
                step(prepared, recipe)
            except ERRORS as error:
                failures.append(error_text(error, [args.cache]))
                err.print(f"{WRONG} {line(step.__name__[1:], recipe.name, plain(failures[-1], keep=steps.LAYOUT))}")
    n_flaws += _print_summary(prepared, recipes)
    return int(bool(failures or n_flaws))


@dataclass(frozen=True, slots=True)
class Preparation:
    """What the arguments ask for."""

    args: argparse.Namespace
    dataset: Dataset
    recipes: Sequence[Recipe]
    without_weights: bool  # nothing names the network's: no features

    def plans(self) -> list[SplitPlan]:
        """Of every split that has videos."""
        every = plan_splits(self.recipes)
        return [plan for plan in every if not plan.conversion or plan.conversion.listed or plan.committed is not None]

    def bar(self, verb: str, what: str, unit: str = "") -> AbstractContextManager[Progress]:
        """Where a step's progress is shown."""
        return bar(f"  {line(verb, what, '')}", err, unit=unit)

    def page(self, recipe: Recipe) -> Path:
        """Where a split's tracks are shown."""
        folder = self.args.cache.parent if isinstance(self.args.cache, Path) else Path()
        root = Path(self.args.cache).absolute().name  # another cache beside this one has pages of its own
        return (self.args.pages or folder) / f"{root}-{recipe.dataset.name}-{recipe.split}.html"

    def check(self, plans: Sequence[SplitPlan]) -> None:
        """Raise, before hours of work, what a later step would: weights, packages, the device, folders for pages."""
        if missing := missing_files(self.recipes):
            raise PipelineError(" ".join(missing))
        for plan in plans:
            if plan.undetected and not os.access(plan.recipe.raw, os.W_OK):
                raise PipelineError(
                    f"{plan.recipe.raw}: keypoints are written into its folder {KEYPOINTS}, and it is read-only. Make "
                    "a folder of links to the clips (ln -s), and name that: --raw DIR"
                )
        settings = self.recipes[0].settings
        upcoming = [plan.recipe for plan in plans if not (plan.up_to_date or plan.problems)]
        specs = {spec.name: spec for recipe in upcoming for spec in recipe.streams}
        for spec in () if settings.dask.scheduler or settings.features.processes else specs.values():
            computing.load(spec.stream, settings.features.machine(), None)
        for folder in {self.page(plan.recipe).absolute().parent for plan in plans}:
            above = next(path for path in (folder, *folder.parents) if path.exists())
            if not (above.is_dir() and os.access(above, os.W_OK)):
                raise PipelineError(f"{folder}: no page can be written there. Name another folder: --pages DIR")


def resolve(args: argparse.Namespace, streams: Sequence[StreamSpec] = ()) -> Preparation:
    """The recipes of all splits that the arguments ask for. `streams`: instead of those that they name.

    Raises PipelineError and ConfigError for what does not fit together or is not there.
    """
    dataset = dataset_of(args, args.dataset)
    check_own_folder(args.raw, dataset)
    demo, settings = is_stand_in(args.raw), _on_device(args)
    body = body_of(args, dataset, demo=demo)
    if dataset.uses_body and body is None:
        raise PipelineError(
            f"{dataset.name}: name SMPL's files: --body DIR. Its 3D joints come from them, and cannot be added "
            "after features. (`convert` and `extract` go without.)"
        )
    detector = _detector(args)
    common: dict[str, Any] = {"body": body, "drop_removed": settings.convert.removed == "drop", "detector": detector}
    by_any = not (detector is None or args.detector or settings.source.section(detector.name))
    recipes, without_weights = [], False
    committed = {split: committed_split(args.cache, f"{dataset.name}/{split}") for split in dataset.splits}
    first = next((split for split in committed.values() if split is not None and split.streams), None)
    for split in dataset.splits:
        specs: list[StreamSpec] = []
        try:  # a new split takes the weights that are recorded of another one
            recorded = first if committed[split] is None else committed[split]
            every = streams or extract_command.specs_of(args, f"{dataset.name}/{split}", recorded, stand_in=demo)
            specs = [spec for spec in every if dataset.has_pixels or not spec.stream.reads.crops]
        except extract_command.NoWeights:
            if args.stream is not None:
                raise
            without_weights = dataset.has_pixels
        common |= {"streams": tuple(specs), "by_any_detector": by_any}
        recipes.append(Recipe(dataset, split, args.raw, args.cache, settings, **common))
    return Preparation(args, dataset, recipes, without_weights)


def _on_device(args: argparse.Namespace) -> Settings:
    """The settings, on the device that the command names."""
    settings: Settings = args.cfg
    if args.device is None:
        return settings
    on = {"device": args.device, "devices": None}
    return replace(settings, detect=replace(settings.detect, **on), features=replace(settings.features, **on))


def _detector(args: argparse.Namespace) -> Detector | None:
    """What finds people in clips without keypoints; None for datasets whose labels have them, and where all have."""
    if args.dataset not in args.cfg.detect.datasets or args.detector == NO_DETECTOR:
        return None
    name = args.detector or usual_detector(args.raw)
    by_any = not (args.detector or args.cfg.source.section(name))
    if not unlabelled(args.raw, by_any_detector=by_any):
        return None
    try:
        detector = detector_of(args.cfg.source, name)
        if not detector.downloads or not args.plan:
            detect.identity(detector)  # downloads its weights
    except (ConfigError, MissingAssets) as error:
        message = re.sub(rf"--set (?!\[|{re.escape(name)}\.)", f"--set {name}.", str(error)).rstrip(".")  # as here
        message = message.replace("--weights ", f"--detector {name} --set {name}.weights=")
        do = f"Or name another --detector, or put another tool's keypoints into {args.raw}/{KEYPOINTS}."
        raise type(error)(f"{message}. {do}") from error
    return detector


# ------------------------------------------------------------------------------------------------------------ steps


def _detect(prepared: Preparation, recipe: Recipe) -> int:
    """Number of clips without keypoints because something is wrong with them."""
    plan = recipe.plan_detection()
    if plan.up_to_date:
        given_up = few(list(plan.problems.values()), FEW, steps.detect_again(plan))
        result = StepResult(details=[], warnings=given_up, flaws=len(plan.problems))
    else:
        with prepared.bar("detect", prepared.dataset.name, "frame") as progress:
            result = recipe.detect(plan, progress)
    if pictures := pictures_in(prepared.args.raw):
        text = f"{count(len(pictures), 'image')} among the clips skipped: {', '.join(pictures[:FEW])}"
        result = replace(result, warnings=[*result.warnings, text])
    report_step("detect", prepared.dataset.name, result)
    return result.flaws


def _convert(prepared: Preparation, recipe: Recipe) -> None:
    plan = recipe.plan_conversion()
    with prepared.bar("convert", recipe.name, "video") as progress:
        result = recipe.convert(plan, progress)
    details = () if plan.up_to_date else result.details
    report_step("convert", recipe.name, replace(result, details=details, warnings=()))  # the summary has rejected ones


def _extract(prepared: Preparation, recipe: Recipe) -> None:
    split = committed_split(recipe.root, recipe.name)
    if split is None or not split.manifest["rows"]:  # that conversion has reported
        return
    if upcoming := recipe.plan_extraction():
        with prepared.bar("extract", recipe.name) as progress:
            result = recipe.extract(upcoming, progress)
        report_step("extract", recipe.name, result)


class PageWriter(Protocol):
    """What `prepare` uses of the module of the command `show`."""

    def split_of(self, page: Path) -> str:
        """The digest of the committed split that a page shows; "" where there is no such page."""

    def write_split(
        self, root: cache.Root, name: str, page: Path, *, raw: Path, body: Path | None, progress: Progress
    ) -> int:
        """Write a page of some tracks of a split. Returns how many."""


def _page_writer() -> PageWriter:
    """The command `show`, which an extension adds."""
    writer: Any = importlib.import_module(load_records(COMMANDS, CommandEntry)["show"].module)
    return cast(PageWriter, writer)


def _show(prepared: Preparation, recipe: Recipe) -> None:
    page, split = prepared.page(recipe), committed_split(recipe.root, recipe.name)
    pages = _page_writer()
    if split is None or not len(split.tracks) or pages.split_of(page) == split.manifest["digest"]:
        return
    page.parent.mkdir(parents=True, exist_ok=True)
    with prepared.bar("show", recipe.name, "track") as progress:
        n = pages.write_split(recipe.root, recipe.name, page, raw=recipe.raw, body=recipe.body, progress=progress)
    details = [f"{count(n, 'track')} in {plain(from_here(page))} ({size(page.stat().st_size)})"]
    report_step("show", recipe.name, StepResult(details=details))


# -------------------------------------------------------------------------------------------------- what is printed


def _print_plan(prepared: Preparation, plans: Sequence[SplitPlan]) -> None:
    """Print what will be done, how much, and why."""
    most = None if prepared.args.all else FEW
    for text in (
        *(text for plan in plans for text in lines(plan, most)),
        *forecast_lines([*forecasts_of(plans).values()]),
    ):
        out.print(text)
    if prepared.without_weights:
        out.print(f"{DOUBT} {plain(WITHOUT_WEIGHTS)}")
    out.print()


def _print_summary(prepared: Preparation, recipes: Sequence[Recipe]) -> int:
    """What is in the cache now, and what comes next. How many videos are rejected because something is wrong."""
    n_flaws, with_features, n_rows = 0, "", 0
    at = ["--cache", str(prepared.args.cache)]
    for recipe in recipes:
        if (split := committed_split(recipe.root, recipe.name)) is None:
            continue
        missing = {stream: missing_rows(split, stream).rows for stream in split.streams}
        streams = [marked(split, stream, f"lacks {count(n, 'row')}" * bool(n)) for stream, n in missing.items()]
        out.print(f"[bold]{plain(recipe.name)}[/bold]" + f"  {STAND_IN}" * bool(split.manifest["stand_in"]))
        for text in accounting_lines(split.manifest["accounting"]):
            out.print(f"  {plain(text)}")
        untrained = any(is_untrained(split, stream) for stream in missing)
        out.print(f"  features {plain(', '.join(streams)) or 'none'}" + f"  {UNTRAINED}" * untrained)
        if _page_writer().split_of(page := prepared.page(recipe)) == split.manifest["digest"]:
            out.print(f"  page {plain(from_here(page))}")
        n_rejected, messages = rejected_videos(split)
        for text in few([f"rejected {text}" for text in messages], FEW, command("status", "--all", *at)):
            out.print(f"  {DOUBT} {plain(text)}")
        n_flaws, n_rows = n_flaws + n_rejected, n_rows + split.manifest["rows"]
        with_features = with_features or recipe.name * bool(streams and split.manifest["rows"])
    predict = ["predict", with_features, *at, "--checkpoint", "FILE", "--body", "DIR"]
    upcoming = {
        "videos": command("status", "--all", *at),
        "features": "the same command with --weights" if prepared.without_weights and n_rows else "",
        "bodies": command(*predict, module="tasks") if with_features else "",
        "more": "the same command, after videos came or changed",
    }
    for title, text in upcoming.items():
        out.print(f"{title:<{VERB}} {plain(text)}") if text else None
    return n_flaws
