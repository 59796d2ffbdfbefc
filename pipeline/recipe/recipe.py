"""Recipe: inputs, settings and steps of one split.  [raw -> tracks -> features] -> windows

The commands `plan` and `prepare`, and Luigi's tasks, make recipes from luigi.cfg and options. They
plan a recipe's steps (`plan_detection`, `plan_conversion`, `plan_extraction`), and carry out the
plans by `pipeline.recipe.steps`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cache
from pipeline import datasets
from pipeline.clips.detectors import Detector
from pipeline.clips.files import KEYPOINTS
from pipeline.clips.plan import DetectionPlan, plan_detection, unlabelled_clips
from pipeline.conversion import convert
from pipeline.datasets.base import Dataset
from pipeline.errors import ConfigError, MissingAssets, PipelineError
from pipeline.features.plan import ExtractionPlan, compare_stream, plan_extraction
from pipeline.features.spec import StreamSpec
from pipeline.files.formats import smpl_files
from pipeline.files.raw import is_stand_in
from pipeline.plug_ins import PlugInError
from pipeline.settings.arguments import body_for_fits
from pipeline.settings.sections import Settings


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
        `pipeline.clips.plan.plan_detection` does, and ConfigError without a detector.
        """
        if self.detector is None:
            setting = self.settings.source.where("detect", "detector")
            raise ConfigError(f"{setting}: names no detector")
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

    def plan_extraction(self) -> list[ExtractionPlan]:
        """Plan the recipe's streams.

        Raises as `pipeline.features.plan.plan_extraction` does, and ConfigError for random weights
        on real data.
        """
        plans = []
        for spec in self.streams:
            spec_here = replace(spec, raw=self.raw)
            replaces = False
            if spec.stream.is_trained:  # other weights replace its rows, in seconds without pixels
                committed = cache.open(self.root)[self.name]
                replaces = bool(compare_stream(committed, spec_here).differs)
            plans.append(plan_extraction(self.root, self.name, spec_here, replace=replaces))
        self.refuse_random_weights([plan.spec for plan in plans if not plan.up_to_date])
        return plans

    def refuse_random_weights(self, specs: Sequence[StreamSpec]) -> None:
        """Raise ConfigError if luigi.cfg names random weights, and the raw folder has real data."""
        if self.weights_setting and self.raw.is_dir():
            for spec in specs:
                spec.refuse_untrained(self.raw, self.settings.source.where(spec.name, "weights"))

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
