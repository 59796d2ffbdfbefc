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
from pipeline.cli.options import cores
from pipeline.cli.progress import Progress, bar
from pipeline.cli.text import FEW, command, count, error_text, few, from_here
from pipeline.commands import extract as extract_command
from pipeline.commands.convert import accounting_lines
from pipeline.commands.detect import detector_name, detector_of
from pipeline.commands.maintenance.forecast import FIRST_RUN, forecast_lines, forecasts_of
from pipeline.commands.maintenance.overview import SplitPlan, plan_split
from pipeline.commands.plan import lines
from pipeline.commands.preparation import steps
from pipeline.commands.preparation.steps import StepResult, report_step
from pipeline.commands.settings.arguments import CACHE, check_own_folder
from pipeline.commands.settings.commands import body_of, dataset_of, from_settings, option_type, value
from pipeline.commands.settings.schema import TYPES, Features
from pipeline.commands.settings.sections import dataclass_of, streams_of
from pipeline.commands.settings.targets import Target, absent
from pipeline.conversion import convert
from pipeline.conversion.committed import rejected_videos
from pipeline.conversion.plan import committed_split
from pipeline.datasets.base import Dataset
from pipeline.detect.base import Detector
from pipeline.detect.clips import pictures_in
from pipeline.detect.files import KEYPOINTS
from pipeline.detect.plan import DetectionPlan, unlabelled
from pipeline.errors import ConfigError, MissingAssets, PipelineError
from pipeline.features import computing
from pipeline.features.plan import is_untrained, marked, missing_rows, plan_extraction
from pipeline.features.spec import StreamSpec
from pipeline.files.raw.stand_in import is_stand_in
from pipeline.plug_ins import COMMANDS, load_records
from pipeline.processes.devices import DeviceName

NO_DETECTOR: Final = "none"
SAMPLE: Final = 2  # videos of a split that are read for the forecast
KEPT: Final = "what is finished is kept, the rest continues with the same command"
ERRORS: Final = (PipelineError, cache.CacheError, OSError)  # of a split; the others go on
WITHOUT_WEIGHTS: Final = (
    "no features: nothing names the network's weights. With --weights, the same command adds them: spin:FILE, "
    "torchvision:IMAGENET1K_V2 (downloaded once), or untrained:0 to try the way"
)


def options(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("dataset", metavar="DATASET", help=f"{', '.join(datasets.names())}; clips of your own are `videos`")
    add("--raw", type=Path, required=True, help="the dataset's own raw folder; of videos, the folder of the clips")
    add("--cache", type=cache.place_of, required=True, help=CACHE)
    add("--out", type=Path, metavar="DIR", help="where to write CACHE-DATASET-SPLIT.html; default: next to the cache")
    add("--plan", action="store_true", help="print what would be done, and stop")
    weights = "of the features' network, as for extract; without: tracks alone, but where [features] names them"
    add("--weights", help=weights)
    add("--stream", help="the stream of features, as for extract; default: those of [features]")
    add("--body", type=Path, help="SMPL's files, for datasets whose 3D joints come from them; default: [paths] body")
    detectors = ", ".join([*detect.names(), NO_DETECTOR])
    add("--detector", help=f"for clips without keypoints: {detectors}")
    add("--device", type=option_type(DeviceName), help="auto, cpu, cuda, cuda:1, ...; default: [detect]'s, [features]'")
    from_settings(sub, detector="detect.detector")
    sub.set_defaults(kind=None, precision=None, crops=None, replace=False)  # of extract's options


def kept(_: argparse.Namespace) -> str:
    """What of an interrupted run is kept."""
    return KEPT


def reads(args: argparse.Namespace) -> list[str]:
    """The sections of the dataset, the detector and the streams, and of what the steps take of this machine."""
    return [args.dataset, "paths.body", "detect", detector_name(args), "convert", "dask", *extract_command.reads(args)]


def run(args: argparse.Namespace) -> int:
    """One plan, then detection, conversion, extraction and pages, then a summary. 1 where something was left out."""
    prepared = _resolved(args)
    plans, detection = prepared.plans()
    if not plans or all(plan.problems for plan in plans):
        problems = [problem for plan in plans for problem in plan.problems]
        raise PipelineError(
            problems[0] if problems else f"{args.raw}: there is no video of any split of {args.dataset}"
        )
    _print_plan(prepared, plans)
    if args.plan:
        return 0
    prepared.check(plans)
    n_flaws = _detect(prepared, detection)
    targets = [plan.target for plan in plans if not plan.problems]
    failures = [problem for plan in plans for problem in plan.problems]
    for step in (_convert, _extract, _show):
        for target in targets:
            try:
                step(prepared, target)
            except ERRORS as error:
                failures.append(error_text(error, [args.cache]))
                err.print(f"{WRONG} {line(step.__name__[1:], target.name, plain(failures[-1], keep=steps.LAYOUT))}")
    n_flaws += _print_summary(prepared, targets)
    return int(bool(failures or n_flaws))


@dataclass(frozen=True, slots=True)
class Preparation:
    """What the arguments ask for."""

    args: argparse.Namespace
    dataset: Dataset
    targets: Sequence[Target]
    without_weights: bool  # nothing names the network's: no features

    def plans(self) -> tuple[list[SplitPlan], DetectionPlan | None]:
        """Of every split that has videos, and of the detection, if there is one."""
        detections: dict[Path, DetectionPlan] = {}
        every = [plan_split(target, detections) for target in self.targets]
        plans = [plan for plan in every if not plan.conversion or plan.conversion.listed or plan.committed is not None]
        return plans, detections.get(self.args.raw)

    def machine(self, section: str) -> Any:
        """What a step takes of this machine: [detect] or [features], on the device that the command names."""
        settings = dataclass_of(self.args.source.section(section), TYPES[section])
        return settings if self.args.device is None else replace(settings, device=self.args.device, devices=None)

    @property
    def scheduler(self) -> str | None:
        """Of a Dask cluster."""
        address: str | None = value(self.args.source, "dask.scheduler")
        return address

    def bar(self, verb: str, what: str, unit: str = "") -> AbstractContextManager[Progress]:
        """Where a step's progress is shown."""
        return bar(f"  {line(verb, what, '')}", err, unit=unit)

    def page(self, target: Target) -> Path:
        """Where a split's tracks are shown."""
        folder = self.args.cache.parent if isinstance(self.args.cache, Path) else Path()
        root = Path(self.args.cache).absolute().name  # another cache beside this one has pages of its own
        return (self.args.out or folder) / f"{root}-{target.dataset.name}-{target.split}.html"

    def check(self, plans: Sequence[SplitPlan]) -> None:
        """Raise, before hours of work, what a later step would: weights, packages, the device, folders for pages."""
        if missing := absent(self.targets):
            raise PipelineError(" ".join(missing))
        resources = self.machine("features")
        upcoming = [plan.target for plan in plans if not (plan.up_to_date or plan.problems)]
        specs = {spec.name: spec for target in upcoming for spec in target.streams}
        for spec in () if self.scheduler or resources.processes else specs.values():
            computing.load(spec.stream, resources.machine(), None)
        for folder in {self.page(plan.target).absolute().parent for plan in plans}:
            above = next(path for path in (folder, *folder.parents) if path.exists())
            if not (above.is_dir() and os.access(above, os.W_OK)):
                raise PipelineError(f"{folder}: no page can be written there. Name another folder: --out DIR")


def _resolved(args: argparse.Namespace) -> Preparation:
    """Raises PipelineError and ConfigError for what does not fit together or is not there."""
    dataset = dataset_of(args, args.dataset)
    check_own_folder(args.raw, dataset)
    demo = is_stand_in(args.raw)
    body = body_of(args, dataset, demo=demo)
    if dataset.uses_body and body is None:
        raise PipelineError(
            f"{dataset.name}: name SMPL's files: --body DIR. Its 3D joints come from them, and cannot be added "
            "after features. (`convert` and `extract` go without.)"
        )
    source, detector = args.source, _detector(args)
    common: dict[str, Any] = {"body": body, "drop_removed": value(source, "convert.removed") == "drop"}
    if detector is not None:
        common |= {"detector": detector, "by_any_detector": not (args.detector or source.section(detector.name))}
    crops = streams_of(source, dataclass_of(source.section("features"), Features))[1]
    targets, without_weights = [], False
    committed = {split: committed_split(args.cache, f"{dataset.name}/{split}") for split in dataset.splits}
    first = next((split for split in committed.values() if split is not None and split.streams), None)
    for split in dataset.splits:
        specs: list[StreamSpec] = []
        try:  # a new split takes the weights that are recorded of another one
            recorded = first if committed[split] is None else committed[split]
            every = extract_command.specs_of(args, f"{dataset.name}/{split}", recorded, stand_in=demo)
            specs = [spec for spec in every if dataset.has_pixels or not spec.stream.reads.crops]
        except extract_command.NoWeights:
            if args.stream is not None:
                raise
            without_weights = dataset.has_pixels
        streams: dict[str, Any] = {"stream": specs[0], "also": tuple(specs[1:])} if specs else {}
        if crops is not None and any(spec.crops == crops.name for spec in specs):
            streams["crops"] = crops.at(args.raw)
        targets.append(Target(dataset, split, args.raw, args.cache, **common, **streams))
    return Preparation(args, dataset, targets, without_weights)


def _detector(args: argparse.Namespace) -> Detector | None:
    """What finds people in clips without keypoints; None for datasets whose labels have them, and where all have."""
    if args.dataset not in value(args.source, "detect.datasets") or args.detector == NO_DETECTOR:
        return None
    name = detector_name(args)
    by_any = not (args.detector or args.source.section(name))
    if not unlabelled(args.raw, by_any_detector=by_any):
        return None
    try:
        detector = detector_of(name, None, (), args.source)
        if not args.plan:
            detect.identity(detector)  # downloads its weights
    except (ConfigError, MissingAssets) as error:
        message = re.sub(rf"--set (?!\[|{re.escape(name)}\.)", f"--set {name}.", str(error)).rstrip(".")  # as here
        message = message.replace("--weights ", f"--detector {name} --set {name}.weights=")
        do = f"Or name another --detector, or put another tool's keypoints into {args.raw}/{KEYPOINTS}."
        raise type(error)(f"{message}. {do}") from error
    return detector


# ------------------------------------------------------------------------------------------------------------ steps


def _detect(prepared: Preparation, plan: DetectionPlan | None) -> int:
    """How many clips have no keypoints because something is wrong with them."""
    if plan is None:
        return 0
    if plan.up_to_date:
        given_up = few(list(plan.problems.values()), FEW, steps.detect_again(plan))
        result = StepResult(details=[], warnings=given_up, flaws=len(plan.problems))
    else:
        with prepared.bar("detect", prepared.dataset.name, "frame") as progress:
            machine = prepared.machine("detect")
            result = steps.detect(plan, machine, scheduler=prepared.scheduler, progress=progress)
    if pictures := pictures_in(prepared.args.raw):
        text = f"{count(len(pictures), 'image')} among the clips skipped: {', '.join(pictures[:FEW])}"
        result = replace(result, warnings=[*result.warnings, text])
    report_step("detect", prepared.dataset.name, result)
    return result.flaws


def _convert(prepared: Preparation, target: Target) -> None:
    where: dict[str, Any] = {"raw": target.raw, "root": target.root, "body": target.body}
    plan = convert.plan_conversion(target.dataset, target.split, **where, drop_removed=target.drop_removed)
    if plan.up_to_date:
        if plan.moved:
            convert.record_folders(plan)
        convert.record_times(plan)
        result = StepResult(details=[], problems=plan.problems)
    else:
        settings = dataclass_of(prepared.args.source.section("convert"), TYPES["convert"])
        options = {"workers": cores(settings.workers), "strict": settings.strict, "scheduler": prepared.scheduler}
        with prepared.bar("convert", target.name, "video") as progress:
            result = steps.convert_split(plan, **options, progress=progress)
    report_step("convert", target.name, replace(result, warnings=()))  # rejected videos are in the summary


def _extract(prepared: Preparation, target: Target) -> None:
    split = committed_split(target.root, target.name)
    if split is None or not split.manifest["rows"]:  # that conversion has reported
        return
    for specs in ([target.crops], [target.stream, *target.also]):  # the others may be computed from the crops
        plans = [plan_extraction(target.root, target.name, spec) for spec in specs if spec is not None]
        upcoming = [plan for plan in plans if not plan.up_to_date]
        if upcoming:
            resources = prepared.machine("features")
            scheduler, named = prepared.scheduler, len(target.streams) > 1
            with prepared.bar("extract", target.name) as progress:
                result = steps.extract(upcoming, resources, scheduler=scheduler, progress=progress, named=named)
            report_step("extract", target.name, result)


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


def _show(prepared: Preparation, target: Target) -> None:
    page, split = prepared.page(target), committed_split(target.root, target.name)
    pages = _page_writer()
    if split is None or not len(split.tracks) or pages.split_of(page) == split.manifest["digest"]:
        return
    page.parent.mkdir(parents=True, exist_ok=True)
    with prepared.bar("show", target.name, "track") as progress:
        n = pages.write_split(target.root, target.name, page, raw=target.raw, body=target.body, progress=progress)
    details = [f"{count(n, 'track')} in {plain(from_here(page))} ({size(page.stat().st_size)})"]
    report_step("show", target.name, StepResult(details=details))


# -------------------------------------------------------------------------------------------------- what is printed


def _print_plan(prepared: Preparation, plans: Sequence[SplitPlan]) -> None:
    """What will be done, how much, and why. Some videos are read where nothing else tells their number of rows."""
    forecasts = forecasts_of(plans, sample=SAMPLE, unknown_only=True, workers=cores(0))
    for text in (
        *(text for plan in plans for text in lines(plan, FEW)),
        *forecast_lines([*forecasts.values()], FIRST_RUN),
    ):
        out.print(text)
    if prepared.without_weights:
        out.print(f"{DOUBT} {plain(WITHOUT_WEIGHTS)}")
    out.print()


def _print_summary(prepared: Preparation, targets: Sequence[Target]) -> int:
    """What is in the cache now, and what comes next. How many videos are rejected because something is wrong."""
    n_flaws, with_features, n_rows = 0, "", 0
    at = ["--cache", str(prepared.args.cache)]
    for target in targets:
        if (split := committed_split(target.root, target.name)) is None:
            continue
        missing = {stream: missing_rows(split, stream).rows for stream in split.streams}
        streams = [marked(split, stream, f"lacks {count(n, 'row')}" * bool(n)) for stream, n in missing.items()]
        out.print(f"[bold]{plain(target.name)}[/bold]" + f"  {STAND_IN}" * bool(split.manifest["stand_in"]))
        for text in accounting_lines(split.manifest["accounting"]):
            out.print(f"  {plain(text)}")
        untrained = any(is_untrained(split, stream) for stream in missing)
        out.print(f"  features {plain(', '.join(streams)) or 'none'}" + f"  {UNTRAINED}" * untrained)
        if _page_writer().split_of(page := prepared.page(target)) == split.manifest["digest"]:
            out.print(f"  page {plain(from_here(page))}")
        n_rejected, messages = rejected_videos(split)
        for text in few([f"rejected {text}" for text in messages], FEW, command("status", "--all", *at)):
            out.print(f"  {DOUBT} {plain(text)}")
        n_flaws, n_rows = n_flaws + n_rejected, n_rows + split.manifest["rows"]
        with_features = with_features or target.name * bool(streams and split.manifest["rows"])
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
