"""Recipe: inputs, settings and steps of one split.  [raw -> tracks -> features] -> windows

The commands `plan` and `prepare`, and Luigi's tasks, make recipes from luigi.cfg and options. They
plan a recipe's steps (`plan_detection`, `plan_conversion`, `plan_extraction`) and run the plans
(`detect`, `convert`, `extract`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import cache
from pipeline import datasets
from pipeline.cli.console import DONE, DOUBT, IDLE, line, out, plain
from pipeline.cli.progress import Progress
from pipeline.cli.text import FEW, command, count, few, from_here
from pipeline.clips.detectors import Detector
from pipeline.clips.files import KEYPOINTS
from pipeline.clips.plan import DetectionPlan, plan_detection, unlabelled_clips
from pipeline.conversion import convert
from pipeline.datasets.base import Dataset
from pipeline.errors import MissingAssets, PipelineError
from pipeline.features.plan import ExtractionPlan, plan_extraction
from pipeline.features.spec import StreamSpec
from pipeline.files.formats import smpl_files
from pipeline.files.raw import is_stand_in
from pipeline.plug_ins import PlugInError
from pipeline.settings.arguments import body_for_fits, check_new_cache, forbid_new_cache
from pipeline.settings.sections import Settings

if TYPE_CHECKING:
    from pipeline.features.extract import Extraction

FIRST_TIME: Final = ("not converted before", "not extracted before")  # reasons that are not printed
LAYOUT: Final = "\n\t"  # control characters that are printed: messages may have several lines
NO_SETTINGS: Final = (
    "Run from the project's folder, set LUIGI_CONFIG_PATH, or name the file: --config FILE."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """The result of a step, as messages to print."""

    details: Sequence[str]  # in rich's markup; each ends a line of its own
    mark: str = DONE  # the symbol at the start of these lines
    warnings: Sequence[str] = ()  # text that may come from untrusted files
    notes: Sequence[str] = ()  # like warnings, but a command's summary does not repeat them
    problems: Sequence[str] = ()  # why the step failed, after committing the rest
    # number of clips that were given up or are damaged, and of rows without features; if it is
    # not 0, the command exits with 1
    flaws: int = 0

    def report(self, verb: str, what: str) -> None:
        """Print lines such as `✓ convert    3dpw/train    28 videos, ...`, and warnings. Raises
        PipelineError with the problems, if there are any.
        """
        for detail in self.details:
            out.print(f"{self.mark} {line(verb, what, detail)}")
        for text in (*self.warnings, *self.notes):
            out.print(f"  {DOUBT} {plain(text, keep=LAYOUT)}")
        if self.problems:
            raise PipelineError("\n".join(self.problems))


@dataclass(frozen=True, slots=True)
class Recipe:
    """One split, and how it is prepared."""

    dataset: Dataset
    split: str
    raw: Path  # the dataset's raw folder
    root: cache.Root  # the cache
    settings: Settings  # sections with resources are used: [detect], [convert], [features], [dask]
    body: Path | None = None  # folder of the body model
    streams: tuple[StreamSpec, ...] = ()  # empty: the committed streams, as recorded
    drop_removed: bool = False  # whether to delete rows of missing and unusable videos
    needs_demo_data: bool = False  # whether the demo data or the demo body must be made first
    detector: Detector | None = None
    by_any_detector: bool = False  # whether clips with another detector's keypoints are left alone
    # Where luigi.cfg names the weights, such as "luigi.cfg, line 23 [resnet50] weights", for the
    # error about random weights on real data. "": an option names them; this is not checked here.
    weights_setting: str = ""

    @property
    def name(self) -> str:
        return f"{self.dataset.name}/{self.split}"

    def plan_detection(self) -> DetectionPlan:
        """Plan the detection in the raw folder, which all splits of the dataset share. Raises as
        `pipeline.clips.plan.plan_detection` does.
        """
        assert self.detector is not None
        only = unlabelled_clips(self.raw, by_any_detector=self.by_any_detector)
        return plan_detection(self.raw, self.raw / KEYPOINTS, self.detector, only)

    def plan_conversion(self) -> convert.ConversionPlan:
        return convert.plan_conversion(
            self.dataset,
            self.split,
            raw=self.raw,
            root=self.root,
            body=self.body,
            drop_removed=self.drop_removed,
        )

    def plan_extraction(self, streams: Sequence[StreamSpec] | None = None) -> list[ExtractionPlan]:
        """Plan the recipe's streams, or `streams`. Returns the plans that are not up to date.

        Raises as `pipeline.features.plan.plan_extraction` does, and ConfigError for random weights
        on real data.
        """
        specs = self.streams if streams is None else streams
        plans = [
            plan_extraction(self.root, self.name, replace(spec, raw=self.raw)) for spec in specs
        ]
        upcoming = [plan for plan in plans if not plan.up_to_date]
        if self.weights_setting:
            for plan in upcoming:
                setting = self.settings.source.where(plan.spec.name, "weights")
                plan.spec.refuse_untrained(self.raw, setting)
        return upcoming

    def refuse_random_weights(self) -> None:
        """Raise ConfigError if luigi.cfg names random weights, and the raw folder has real data."""
        if self.weights_setting and self.raw.is_dir():
            for spec in self.streams:
                spec.refuse_untrained(self.raw, self.settings.source.where(spec.name, "weights"))

    def detect(self, plan: DetectionPlan, progress: Progress) -> StepResult:
        """Find people in clips. Raises as `detect_planned` does."""
        from pipeline.clips.detection.run import detect_planned

        dask = self.settings.dask
        report = detect_planned(plan, self.settings.detect, dask=dask, progress=progress)
        failures = few(list(report.problems.values()), FEW, plan.retry_command)
        has_results = report.detected or report.renamed
        return StepResult(
            details=[plain(str(report))],
            mark=DONE if has_results else DOUBT,
            warnings=[*report.doubts, *failures],
            flaws=len(report.problems) + len(report.damaged),
        )

    def convert(self, plan: convert.ConversionPlan, progress: Progress) -> StepResult:
        """Convert raw videos. If the plan is up to date, only record new folders and file times."""
        if plan.up_to_date:
            moves = [*map(plain, convert.record_moves(plan))]
            return StepResult(details=moves, problems=plan.problems)
        done = convert_tracks(plan, self.settings, progress)
        rejected = [f"rejected {account.rejection}" for account in done.rejected]
        every = command("status", "--all", "--cache", from_here(plan.root))
        notes = [*filter(None, [plan.dataset.label_note(plan.raw, plan.split)]), *done.doubts]
        return StepResult(
            details=[_summarize_conversion(done), *map(plain, plan.renamed_lines)],
            mark=DONE if done.totals["frames"]["kept"] else DOUBT,
            warnings=few(rejected, FEW, every),
            flaws=len(done.damaged),
            notes=few([f"note {note}" for note in (*notes, *done.damaged)], FEW, every),
            problems=done.problems,
        )

    def extract(self, plans: Sequence[ExtractionPlan], progress: Progress) -> StepResult:
        """Extract streams. Raises as `extract_together` does."""
        return extract(plans, self.settings, progress, named=len(self.streams) > 1)

    @classmethod
    def by_settings(
        cls, s: Settings, names: Sequence[str] = (), root: cache.Root | None = None
    ) -> list[Recipe]:
        """Make the recipes of all enabled splits, or only of those in `names`, each DATASET or
        DATASET/SPLIT.

        `root` overrides the cache of luigi.cfg. A dataset that cannot be loaded is skipped, unless
        `names` has it. Raises PipelineError for a name that is not enabled, PlugInError for a named
        dataset that cannot be loaded.
        """
        broken = datasets.broken(s.data.datasets)
        enabled = {name: s.dataset(name) for name in s.data.datasets if name not in broken}
        for name in names:
            dataset, _, split = name.partition("/")
            if dataset in broken:
                raise PlugInError(broken[dataset])
            if dataset not in enabled:
                not_enabled = f"{dataset!r} is not among {', '.join(enabled)}. Add it."
                raise PipelineError(
                    datasets.unknown(dataset) or f"{s.file} [data] datasets: {not_enabled}"
                )
            if split:
                enabled[dataset].check_split(split)

        recipes = []
        for name, dataset_ in enabled.items():
            for split in dataset_.splits:
                if not names or name in names or f"{name}/{split}" in names:
                    recipes.append(cls.from_settings(s, name, split, root))
        return recipes

    @classmethod
    def from_settings(
        cls, s: Settings, name: str, split: str, root: cache.Root | None = None
    ) -> Recipe:
        """Make a split's recipe from luigi.cfg. Raises ConfigError for invalid settings, and
        PlugInError for a dataset that cannot be loaded.
        """
        dataset = s.dataset(name)
        without_raw = name in datasets.WITH_DEMO_DATA and not s.raw(name).is_dir()
        without_body = dataset.uses_body and not s.paths.body.is_dir()
        body = s.paths.body if dataset.uses_body else None
        if dataset.checks_fits:
            body = body_for_fits(s.paths.body, demo=is_stand_in(s.raw(name)))
        return cls(
            dataset,
            split,
            s.raw(name),
            s.paths.cache if root is None else root,
            s,
            body,
            tuple(spec for spec in s.streams if dataset.has_pixels or not spec.stream.reads.crops),
            drop_removed=s.drops_removed(name),
            needs_demo_data=s.embedded.enabled and (without_raw or without_body),
            detector=s.detector if name in s.detect.datasets else None,
            weights_setting=s.source.where(s.stream.name, "weights"),
        )


def missing_files(recipes: Iterable[Recipe]) -> list[str]:
    """Messages about files of weights and body models that recipes name and that are missing."""
    messages = []
    for recipe in recipes:
        # functions that read the files
        needed: list[Callable[[], object]] = [spec.stream.identity for spec in recipe.streams]
        if recipe.detector is not None and not recipe.detector.downloads:
            needed.append(recipe.detector.identity)
        if recipe.dataset.uses_body and recipe.body is not None and not recipe.needs_demo_data:
            needed += [
                functools.partial(smpl_files.body_files, recipe.body, gender)
                for gender in recipe.dataset.genders
            ]
        for read in needed:
            try:
                read()
            except MissingAssets as error:
                messages.append(str(error))
    return list(dict.fromkeys(messages))


def convert_tracks(
    plan: convert.ConversionPlan, s: Settings, progress: Progress
) -> convert.Conversion:
    """Convert one split, and tell the user if that makes a new cache. Raises as
    `check_new_cache` and `convert` do.
    """
    is_new = check_new_cache(s, plan.root)
    done = convert.convert(
        plan, workers=s.workers, strict=s.convert.strict, dask=s.dask, progress=progress
    )
    if is_new:
        out.print(f"{IDLE} new cache {plain(from_here(plan.root))}")
    forbid_new_cache(s, plan.root)
    return done


def extract(
    plans: Sequence[ExtractionPlan], s: Settings, progress: Progress, *, named: bool = False
) -> StepResult:
    """Extract streams of one split. `named`: begin each message with the stream's name. Raises as
    `extract_together` does.
    """
    # imported here, because importing the engine is slow
    from pipeline.features.extract import extract_together

    extractions = extract_together(plans, s.features, dask=s.dask, progress=progress)
    details = []
    warnings: list[str] = []
    for extraction in extractions:
        name = f"[bold]{plain(extraction.plan.spec.name)}[/bold] "
        summary = _summarize_extraction(extraction)
        details.append(name + summary if named else summary)
        warnings += extraction.examples
    problems = [extraction.problem for extraction in extractions if extraction.problem]
    n_lost = sum(extraction.problems.total() for extraction in extractions)
    return StepResult(details=details, warnings=warnings, problems=problems, flaws=n_lost)


def _summarize_conversion(done: convert.Conversion) -> str:
    """Sum up a conversion in one line, such as: 1 video read, 9 unchanged: 10 videos (1 rejected),
    12 tracks, 380 of 400 frames kept (20 no_visible_joint)
    """
    videos = done.totals["videos"]
    frames = done.totals["frames"]
    without_rows = []
    n_rejected = 0
    for reason, n in videos["set_aside"].items():
        if reason in done.plan.dataset.harmless:
            without_rows.append(f"{n:,} {reason}")
        else:
            n_rejected += n
    if n_rejected:
        without_rows.append(f"[yellow]{n_rejected:,} rejected[/yellow]")
    dropped = ", ".join(f"{n:,} {reason}" for reason, n in frames["dropped"].items())
    dropped = (dropped + done.uncounted_note).removeprefix("; ")

    text = count(videos["kept"], "video")
    if done.video_counts:
        text = f"{done.video_counts}: {text}"
    if without_rows:
        text += f" ({', '.join(without_rows)})"
    text += f", {count(done.totals['tracks']['kept'], 'track')}"
    text += f", {frames['kept']:,} of {frames['found']:,} frames kept"
    if dropped:
        text += f" ({dropped})"
    return text + _why(done.plan.why)


def _summarize_extraction(done: Extraction) -> str:
    """Sum up an extraction in one line, such as: 380 rows in 12 s (31 rows/s on cpu, bottleneck:
    model), 20 rows carried over
    """
    parts = []
    if done.computed:
        rate = f"{done.meter.rate}, bottleneck: {done.meter.bottleneck}"
        parts.append(f"{count(done.computed, 'row')} in {done.meter.elapsed:.0f} s ({rate})")
    if done.carried:
        parts.append(f"{count(done.carried, 'row')} carried over")
    parts += [f"[yellow]{n:,} {kind}[/yellow]" for kind, n in done.problems.items()]
    return (", ".join(parts) or "no rows") + _why(done.plan.why)


def _why(why: str) -> str:
    """Why a step was run, to append to a line; "" if it was run for the first time."""
    if not why or why in FIRST_TIME:
        return ""
    return f"  [dim]why: {plain(why)}[/dim]"
