"""Recipe: inputs, settings and steps of one split, and the plan of these steps.  [raw -> tracks ->
features] -> windows

A recipe names a split, its raw folder, a detector for its clips, and streams to extract. The
commands `plan` and `prepare`, and Luigi's tasks, make recipes from luigi.cfg and options. For each
recipe, `plan_splits` plans the three steps detection, conversion and extraction without doing any:
it compares names, sizes and times of raw files, and reads manifests and tables. Errors are recorded
in the `SplitPlan`, so that one broken split does not hide the others. `pipeline.steps.execution`
carries out the plans.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

import cache
from cache.write.parts import staged_by_parts
from pipeline import datasets
from pipeline.clips.detectors import Detector
from pipeline.clips.files import KEYPOINTS, keypoint_file, read_detection
from pipeline.datasets.base import Dataset
from pipeline.datasets.conversion_record import LEAVE_OUT, ConversionRecord, committed_split
from pipeline.errors import ConfigError, MissingAssets, PipelineError
from pipeline.features.spec import StreamSpec
from pipeline.files.raw import is_stand_in
from pipeline.files.raw.files import VIDEOS, digest_or_problem
from pipeline.people import smpl_files
from pipeline.settings.folders import body_of, check_own_folder, refuse_one_folder
from pipeline.settings.sections import Settings
from pipeline.steps.conversion import convert
from pipeline.steps.conversion.plan import ConversionPlan
from pipeline.steps.conversion.selection import RowSelection
from pipeline.steps.detection.plan import DetectionPlan, plan_detection, unlabelled_clips
from pipeline.steps.extraction.plan import ExtractionPlan, Why, plan_extraction


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
    # whether to delete rows of missing and unusable videos; those of demo videos always are
    drop_removed: bool = False
    needs_demo_data: bool = False  # whether the demo data or the demo body must be made first
    detector: Detector | None = None
    by_any_detector: bool = False  # whether clips with another detector's keypoints are left alone
    # whether random weights are refused for real data; of `prepare`, options are checked before
    refuses_random_weights: bool = False

    @property
    def name(self) -> str:
        return f"{self.dataset.name}/{self.split}"

    def plan_detection(self) -> DetectionPlan:
        """Plan the detection in the raw folder, which all splits of the dataset share. Raises as
        `pipeline.steps.detection.plan.plan_detection` does, and ConfigError without a detector.
        """
        if self.detector is None:
            setting = self.settings.source.where("detect", "detector")
            raise ConfigError(f"{setting}: names no detector")
        only = unlabelled_clips(self.raw, by_any_detector=self.by_any_detector)
        return plan_detection(self.raw, self.raw / KEYPOINTS, self.detector, only)

    def recorded_values(self, committed: cache.Split | None) -> dict[str, str]:
        """The settings that hold as the split's last conversion took them: nothing names them.

        Raises ConfigError for one that is empty.
        """
        if committed is None:
            return {}
        is_named = self.settings.source.names
        lasting = ConversionRecord(committed).lasting(self.dataset)
        return {setting: value for setting, value in lasting.items() if not is_named(setting)}

    def plan_conversion(self) -> ConversionPlan:
        options = self.settings.convert
        recorded = self.recorded_values(committed_split(self.root, self.name))
        values = {setting.partition(".")[2]: value for setting, value in recorded.items()}
        leave_out = values.pop(LEAVE_OUT, options.leave_out)
        return convert.plan_conversion(
            replace(self.dataset, **values),
            self.split,
            raw=self.raw,
            root=self.root,
            body=self.body,
            drop_removed=self.drop_removed,
            selection=RowSelection(options.max_fps, Path(leave_out) if leave_out else None),
        )

    def plan_extraction(self) -> list[ExtractionPlan]:
        """Plan the recipe's streams.

        Raises as `pipeline.steps.extraction.plan.plan_extraction` does, and ConfigError for random
        weights on real data.
        """
        plans = []
        for spec in self.streams:
            spec_here = replace(spec, raw=self.raw)
            replaces = False
            if spec.stream.is_trained:  # other weights replace its rows, in seconds without pixels
                committed = cache.open(self.root)[self.name]
                replaces = bool(ExtractionPlan.compare(committed, spec_here).differs)
            plans.append(plan_extraction(self.root, self.name, spec_here, replace=replaces))
        self.refuse_random_weights([plan.spec for plan in plans if not plan.up_to_date])
        return plans

    def refuse_random_weights(self, specs: Sequence[StreamSpec]) -> None:
        """Raise ConfigError if luigi.cfg names random weights, and the raw folder has real data."""
        if self.refuses_random_weights and self.raw.is_dir() and not is_stand_in(self.raw):
            for spec in specs:
                setting = self.settings.source.where(spec.name, "weights")
                spec.refuse_random_weights(str(self.raw), setting)

    @classmethod
    def by_options(
        cls,
        settings: Settings,
        name: str,
        split: str = "",
        *,
        raw: Path,
        root: cache.Root,
        named_body: Path | None,
    ) -> Recipe:
        """Make the recipe of a split whose raw folder a command names.

        name: the dataset. split: "" for the recipe that all splits share. named_body: the body's
        folder; None: as luigi.cfg says. Raises PipelineError if `raw` is not the dataset's own
        folder, ConfigError if it is in the cache or the cache in it.
        """
        dataset = settings.dataset(name)
        refuse_one_folder(raw, root)
        check_own_folder(raw, dataset)
        return cls(
            dataset,
            split,
            raw,
            root,
            settings,
            body=body_of(settings, named_body, dataset, demo=is_stand_in(raw)),
            drop_removed=settings.convert.removed == "drop",
        )

    @classmethod
    def by_settings(
        cls, settings: Settings, names: Sequence[str] = (), root: cache.Root | None = None
    ) -> list[Recipe]:
        """Make the recipes of all enabled splits, or only of those in `names`, each DATASET or
        DATASET/SPLIT.

        `root` overrides the cache of luigi.cfg. A dataset that cannot be loaded is skipped, unless
        `names` has it. Raises PipelineError for a name that is not enabled, PlugInError for a named
        dataset that cannot be loaded.
        """
        loaded = datasets.load_all(settings.data.datasets)
        enabled = {name: settings.dataset(name) for name in loaded.records}
        for name in names:
            dataset, _, split = name.partition("/")
            if dataset in loaded.broken:
                raise loaded.broken[dataset]
            if dataset not in datasets.names():
                raise datasets.unknown(dataset)
            if dataset not in enabled:
                not_enabled = f"{dataset!r} is not among {', '.join(enabled)}. Add it."
                raise PipelineError(f"{settings.file} [data] datasets: {not_enabled}")
            if split:
                enabled[dataset].check_split(split)

        recipes = []
        for name, dataset_ in enabled.items():
            for split in dataset_.splits:
                if not names or name in names or f"{name}/{split}" in names:
                    recipes.append(cls.from_settings(settings, name, split, root))
        return recipes

    @classmethod
    def from_settings(
        cls, settings: Settings, name: str, split: str, root: cache.Root | None = None
    ) -> Recipe:
        """Make a split's recipe from luigi.cfg. Raises ConfigError for invalid settings, and
        PlugInError for a dataset that cannot be loaded.
        """
        dataset = settings.dataset(name)
        raw = settings.raw(name)
        is_demo = settings.embedded.enabled and name in datasets.WITH_DEMO_DATA
        without_raw = name in datasets.WITH_DEMO_DATA and not raw.is_dir()
        without_body = dataset.labels.uses_body and not settings.paths.body.is_dir()
        body = settings.paths.body if dataset.labels.uses_body else None
        if dataset.labels.checks_fits:
            body = body_of(settings, None, dataset, demo=is_stand_in(raw))
        return cls(
            dataset,
            split,
            raw,
            settings.paths.cache if root is None else root,
            settings,
            body,
            tuple(
                spec
                for spec in settings.streams
                if dataset.has_pixels or not spec.stream.reads.crops
            ),
            drop_removed=is_demo or settings.convert.removed == "drop",
            needs_demo_data=settings.embedded.enabled and (without_raw or without_body),
            detector=settings.detector if name in settings.detect.datasets else None,
            refuses_random_weights=True,
        )


def missing_files(recipes: Iterable[Recipe]) -> list[str]:
    """Messages about files of weights and body models that recipes name and that are missing."""
    messages = []
    for recipe in recipes:
        # functions that read the files
        needed: list[Callable[[], object]] = [spec.stream.identity for spec in recipe.streams]
        if recipe.detector is not None and not recipe.detector.downloads:
            needed.append(recipe.detector.identity)
        uses_body = recipe.dataset.labels.uses_body and not recipe.needs_demo_data
        if uses_body and recipe.body is not None:
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


# --------------------------------------------------------------------------------------------------
# plans


class _DetectionStep(NamedTuple):
    """What the detector has to do for a split."""

    # of the whole raw folder; None also until the detector's weights are downloaded
    plan: DetectionPlan | None = None
    undetected: tuple[str, ...] = ()  # clips of this split


class _ExtractionStep(NamedTuple):
    """What to extract of the committed rows of a split, without those that the conversion adds."""

    plans: Sequence[ExtractionPlan] = ()
    problems: Sequence[str] = ()  # streams of other settings, or that cannot be read
    refusals: Sequence[str] = ()  # streams to import, missing columns


_NO_DETECTION: Final = _DetectionStep()
_NO_EXTRACTIONS: Final = _ExtractionStep()


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """The plans of one recipe's steps. A plan is None, or empty, if it cannot be made."""

    recipe: Recipe
    committed: cache.Split | None = None  # the split in the cache, if any
    conversion: ConversionPlan | None = None
    detection: _DetectionStep = _NO_DETECTION
    extraction: _ExtractionStep = _NO_EXTRACTIONS

    # messages
    problems: Sequence[str] = ()  # errors that a run will meet
    staged: str | None = None  # a line about the staged work of parts

    @property
    def name(self) -> str:
        return self.recipe.name

    @property
    def up_to_date(self) -> bool:
        """Whether a run has nothing to do, and meets no error."""
        if self.problems or self.extraction.refusals or self.detection.undetected:
            return False
        if self.conversion is None or not self.conversion.up_to_date:
            return False
        return not any(plan.why or plan.differs for plan in self.extraction.plans)

    @property
    def converts(self) -> bool:
        """Whether the conversion has something to do, now or after the detection."""
        return self.conversion is not None and bool(
            self.conversion.why or self.detection.undetected
        )

    @property
    def lost_videos(self) -> Sequence[str]:
        """Messages about committed videos that are missing or unusable."""
        if self.conversion is None:
            return ()
        if self.conversion.up_to_date:
            return self.conversion.problems
        return self.conversion.kept_lines


def plan_splits(recipes: Iterable[Recipe]) -> list[SplitPlan]:
    """Plan every recipe. Those of one raw folder share the plan of its detection. Errors become
    `SplitPlan.problems`.
    """
    # raw folder -> plan of its detection; None if all clips have labels that it would not make
    detections: dict[Path, DetectionPlan | None] = {}
    return [_plan_split(recipe, detections) for recipe in recipes]


def _plan_split(recipe: Recipe, detections: dict[Path, DetectionPlan | None]) -> SplitPlan:
    if recipe.needs_demo_data:
        return SplitPlan(recipe)
    problems = []
    staged = None
    committed = None
    conversion = None
    detection = _NO_DETECTION
    extraction = _NO_EXTRACTIONS
    try:
        staged = staged_by_parts(recipe.root, recipe.name)
        committed = committed_split(recipe.root, recipe.name)
        conversion = recipe.plan_conversion()
        committed = conversion.committed  # the one whose tables are read already
        detection = _plan_detection(recipe, conversion, detections)
    except (PipelineError, cache.CacheError) as error:
        problems.append(str(error))
    if committed is not None:
        extraction = _plan_extractions(recipe, committed)
        problems += extraction.problems
    has_new_videos = conversion is not None and (conversion.append or detection.undetected)
    adds_rows = committed is None or has_new_videos
    if not problems and (adds_rows or any(plan.why for plan in extraction.plans)):
        try:
            recipe.refuse_random_weights(recipe.streams)
        except PipelineError as error:
            problems.append(str(error))
    return SplitPlan(recipe, committed, conversion, detection, extraction, problems, staged)


def _plan_detection(
    recipe: Recipe, conversion: ConversionPlan, detections: dict[Path, DetectionPlan | None]
) -> _DetectionStep:
    """Plan the detection for a split. detections: by raw folder, to which this one is added.

    A detection is planned by the detector's weights. Until these are downloaded, there is no plan,
    and clips are undetected by the other options of their keypoints.
    """
    raw = recipe.raw
    detector = recipe.detector
    if detector is None:
        return _NO_DETECTION
    list_unlabelled = functools.partial(
        unlabelled_clips, raw, by_any_detector=recipe.by_any_detector
    )
    files = itertools.chain.from_iterable(video.files for video in conversion.listed)
    of_split = {str(file) for file in files if file.suffix.lower() in VIDEOS}
    if detector.downloads:
        clips = [clip for clip in list_unlabelled() if clip in of_split]
        return _DetectionStep(
            None, tuple(clip for clip in clips if not _is_detected(raw, clip, detector))
        )
    if raw not in detections:
        detections[raw] = recipe.plan_detection() if list_unlabelled() else None
    plan = detections[raw]
    missing = [] if plan is None else [item.clip for item in plan.missing]
    return _DetectionStep(plan, tuple(clip for clip in missing if clip in of_split))


def _is_detected(raw: Path, clip: str, detector: Detector) -> bool:
    """Whether a clip, as it is now, has keypoints by this detector with its N of `--every N`. The
    weights are not compared: they are not downloaded yet.
    """
    detection = read_detection(keypoint_file(raw / KEYPOINTS, clip))
    if detection is None or detection.clip_digest != digest_or_problem(raw / clip):
        return False
    every = detection.options.get("every", 1)
    return (detection.detector, every) == (detector.name, detector.every)


def _plan_extractions(recipe: Recipe, committed: cache.Split) -> _ExtractionStep:
    """Compare the recipe's streams with the committed ones, up to one that cannot be read."""
    plans = []
    problems = []
    refusals = []
    for spec in recipe.streams:
        message = ""
        try:
            if spec.stream.reads.crops:
                message = spec.missing_columns(committed)
            plan = ExtractionPlan.compare(committed, replace(spec, raw=recipe.raw))
        except (PipelineError, cache.CacheError) as error:
            problems.append(str(error))
            break
        if plan.differs and plan.refusal is not None:
            problems.append(plan.refusal)
        elif plan.refusal is not None:
            message = plan.refusal
            plan = replace(plan, why=Why.NOTHING)  # it is not extracted
        if message:
            refusals.append(message)
        if plan.missing is not None:
            plans.append(plan)
    return _ExtractionStep(plans, problems, refusals)
