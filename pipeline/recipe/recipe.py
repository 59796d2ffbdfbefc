"""What is to be in a cache of one split, and the steps that make it.  [raw -> tracks -> features] -> windows

A recipe is resolved once, by luigi.cfg or by a command's options. `plan`, `prepare` and Luigi's tasks plan by it and
run its steps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cache
from pipeline import datasets
from pipeline.cli.progress import Progress
from pipeline.conversion import convert
from pipeline.datasets.base import Dataset
from pipeline.demo import has_demo_data
from pipeline.detect.base import Detector
from pipeline.detect.files import KEYPOINTS
from pipeline.detect.plan import DetectionPlan, plan_detection, unlabelled
from pipeline.errors import MissingAssets, PipelineError
from pipeline.features.plan import ExtractionPlan, plan_extraction, refuse_untrained
from pipeline.features.spec import StreamSpec
from pipeline.files.formats import smpl_files
from pipeline.plug_ins import PlugInError, service
from pipeline.recipe import steps
from pipeline.recipe.steps import StepResult
from pipeline.settings.sections import Settings

DETECTION: Final = "vibe_pipeline.detection"  # entry point of the function that carries out a DetectionPlan
NO_SETTINGS: Final = "Run from the project's folder, set LUIGI_CONFIG_PATH, or name the file: --config FILE."


@dataclass(frozen=True, slots=True)
class Recipe:
    """One split, and how it comes into a cache."""

    dataset: Dataset
    split: str
    raw: Path  # the dataset's own raw folder
    root: cache.Root
    settings: Settings  # what steps take of this machine: [detect], [convert], [features], [dask]
    body: Path | None = None
    streams: tuple[StreamSpec, ...] = ()  # none: the streams that the cache has, as they were extracted
    drop_removed: bool = False  # delete rows of videos that are missing from the raw folder
    not_made: bool = False  # demo data, or the demo body, that `synthesize` has not made yet
    detector: Detector | None = None  # that finds people in its clips before they are converted
    by_any_detector: bool = False  # keep keypoints that another detector has found
    weights: str = ""  # where luigi.cfg names the network's, which must be trained for real data; "": by an option

    @property
    def name(self) -> str:
        return f"{self.dataset.name}/{self.split}"

    def plan_detection(self) -> DetectionPlan:
        """What detection would do in the raw folder, which all splits of the dataset share. Raises as that does."""
        assert self.detector is not None
        only = unlabelled(self.raw, by_any_detector=self.by_any_detector)
        return plan_detection(self.raw, self.raw / KEYPOINTS, self.detector, only)

    def plan_conversion(self) -> convert.ConversionPlan:
        """Raises as `convert.plan_conversion`."""
        return convert.plan_conversion(
            self.dataset,
            self.split,
            raw=self.raw,
            root=self.root,
            body=self.body,
            drop_removed=self.drop_removed,
        )

    def plan_extraction(self, streams: Sequence[StreamSpec] | None = None) -> list[ExtractionPlan]:
        """Of those of its streams (or of these) that are not up to date. Raises as `plan_extraction`, and ConfigError
        for random weights on real data."""
        specs = self.streams if streams is None else streams
        plans = [plan_extraction(self.root, self.name, spec.at(self.raw)) for spec in specs]
        upcoming = [plan for plan in plans if not plan.up_to_date]
        for plan in upcoming if self.weights else ():
            refuse_untrained(plan.spec, self.raw, self.settings.source.where(plan.spec.name, "weights"))
        return upcoming

    def detect(self, plan: DetectionPlan, progress: Progress) -> StepResult:
        """Find people in clips, as the extension `clips` does. Raises PipelineError where it is missing."""
        detect = service(DETECTION)
        s = self.settings
        result: StepResult = detect(plan, s.detect, scheduler=s.dask.scheduler, progress=progress)
        return result

    def convert(self, plan: convert.ConversionPlan, progress: Progress) -> StepResult:
        """Raises as `convert.convert`."""
        if plan.up_to_date:
            if plan.moved:
                convert.record_folders(plan)
            new_times = convert.record_times(plan)
            return StepResult(details=[new_times] if new_times else [], problems=plan.problems)
        s = self.settings
        return steps.convert_split(
            plan, workers=s.workers, strict=s.convert.strict, scheduler=s.dask.scheduler, progress=progress
        )

    def extract(self, plans: Sequence[ExtractionPlan], progress: Progress) -> StepResult:
        """Raises as `extract_together`."""
        s, named = self.settings, len(self.streams) > 1
        return steps.extract(plans, s.features, scheduler=s.dask.scheduler, progress=progress, named=named)


def by_settings(s: Settings, names: Sequence[str] = (), root: cache.Root | None = None) -> list[Recipe]:
    """Every split that luigi.cfg enables, or of those the ones that DATASET or DATASET/SPLIT name.

    root: another cache than that of luigi.cfg. Datasets whose package is broken are left out, unless `names` has them.
    Raises PipelineError for a name that is not enabled, PlugInError for one that cannot be loaded.
    """
    broken = datasets.broken(s.data.datasets)
    enabled = {name: s.dataset(name) for name in s.data.datasets if name not in broken}
    for name in names:
        dataset, _, split = name.partition("/")
        if dataset in broken:
            raise PlugInError(broken[dataset])
        if dataset not in enabled:
            if unknown := datasets.unknown(dataset):
                raise PipelineError(unknown)
            only = f"only {', '.join(enabled)}. Enable it there."
            raise PipelineError(f"{s.file} [data] datasets does not enable {dataset!r}, {only}")
        if split:
            enabled[dataset].check_split(split)
    recipes = [recipe_of(s, name, split, root) for name, dataset in enabled.items() for split in dataset.splits]
    return [recipe for recipe in recipes if not names or recipe.dataset.name in names or recipe.name in names]


def recipe_of(s: Settings, name: str, split: str, root: cache.Root | None = None) -> Recipe:
    """A split as luigi.cfg has it. Raises ConfigError, and PlugInError for a dataset that cannot be loaded."""
    dataset = s.dataset(name)
    return Recipe(
        dataset,
        split,
        s.raw(name),
        s.paths.cache if root is None else root,
        s,
        s.paths.body if dataset.uses_body else None,
        tuple(spec for spec in s.streams if dataset.has_pixels or not spec.stream.reads.crops),
        drop_removed=s.drops_removed(name),
        not_made=s.embedded.enabled and _is_not_made(s, dataset),
        detector=s.detector if name in s.detect.datasets else None,
        weights=s.source.where(s.stream.name, "weights"),
    )


def _is_not_made(s: Settings, dataset: Dataset) -> bool:
    """Whether `synthesize` makes its raw files, or the body that it uses, and has not yet."""
    without_raw = has_demo_data(dataset.name) and not s.raw(dataset.name).is_dir()
    return without_raw or (dataset.uses_body and not s.paths.body.is_dir())


def missing_files(recipes: Iterable[Recipe]) -> list[str]:
    """Messages about files of weights and of the body that recipes name and that do not exist, each once."""
    messages = []
    for recipe in recipes:
        needed: list[Callable[[], object]] = [spec.stream.identity for spec in recipe.streams]
        if recipe.detector is not None and not recipe.detector.downloads:
            needed.append(recipe.detector.identity)
        if recipe.dataset.uses_body and recipe.body is not None and not recipe.not_made:
            needed += [functools.partial(smpl_files.digest, recipe.body, gender) for gender in recipe.dataset.genders]
        for digest in needed:
            try:
                digest()
            except MissingAssets as error:
                messages.append(str(error))
    return list(dict.fromkeys(messages))
