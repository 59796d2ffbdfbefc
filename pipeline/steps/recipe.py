"""Recipe: what is wanted of one split, and the folders, reader and detector that give it.  [raw ->
tracks -> features] -> windows

Commands and Luigi's tasks make recipes from luigi.cfg and options, or from what the cache has
recorded of a split. For each step, `plan_...` compares a recipe with the cache, and returns a
*work*, which says what is to do; `run_...` does it, and returns a `Report`:

    step          work              plan and run
    detection     DetectionWork     pipeline.steps.detection.{plan, run}
    conversion    ConversionWork    pipeline.steps.conversion.{plan, convert}
    extraction    ExtractionWork    pipeline.steps.extraction.{plan, extract}

`pipeline.steps.next_run` plans the three steps of a split together.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cache
from pipeline import datasets
from pipeline.clips.detectors import Detector
from pipeline.datasets.base import Dataset
from pipeline.errors import MissingAssets, PipelineError
from pipeline.features.spec import StreamSpec
from pipeline.files.raw import is_demo_data
from pipeline.people import smpl_files
from pipeline.settings.file import SettingsFile
from pipeline.settings.folders import body_of, check_own_folder, refuse_one_folder
from pipeline.steps.conversion.listing import OtherSplits
from pipeline.steps.conversion.selection import ALL_ROWS, RowSelection
from pipeline.steps.conversion_record import ConversionRecord

if TYPE_CHECKING:
    from pipeline.settings.sections import Settings


@dataclass(frozen=True)
class Recipe:
    """One split, and how it is prepared."""

    dataset: Dataset  # its reader
    split: str
    raw: Path  # the dataset's raw folder
    root: cache.Root  # the cache
    body: Path | None = None  # folder of the body model
    selection: RowSelection = ALL_ROWS  # which of the reader's tracks and rows are taken
    drop_removed: bool = False  # whether rows go that the raw files do not give now
    retry: bool = False  # whether videos that were rejected, or would lose rows, are read again
    detector: Detector | None = None
    by_any_detector: bool = False  # whether clips with another detector's keypoints are left alone
    streams: tuple[StreamSpec, ...] = ()  # empty: the committed streams, as recorded
    # whether random weights are refused for real data; of `prepare`, options are checked before
    refuses_random_weights: bool = False
    needs_demo_data: bool = False  # whether the demo data or the demo body must be made first
    # what names settings; those that it does not name may hold as the last conversion took them.
    # None: all is as it is here
    source: SettingsFile | None = None

    @cached_property
    def name(self) -> str:
        return f"{self.dataset.name}/{self.split}"

    @cached_property
    def others(self) -> OtherSplits:
        """The dataset's other splits."""
        return OtherSplits(self.dataset, self.split, self.raw, self.root)

    def lasting_values(self, committed: cache.Split | None) -> dict[str, Any]:
        """The settings that hold as the split's last conversion took them: nothing names them.

        Raises ConfigError for one that is empty.
        """
        if committed is None or self.source is None:
            return {}
        lasting = ConversionRecord(committed).lasting(self.dataset)
        is_named = self.source.names
        return {setting: value for setting, value in lasting.items() if not is_named(setting)}

    def keep_lasting(self, committed: cache.Split | None) -> Recipe:
        """The recipe with `lasting_values`."""
        lasting = self.lasting_values(committed)
        values = {setting.partition(".")[2]: value for setting, value in lasting.items()}
        selection = self.selection
        if "corrections" in values:
            selection = replace(selection, corrections=Path(values.pop("corrections")))
        return replace(self, dataset=replace(self.dataset, **values), selection=selection)

    def refuse_random_weights(self, specs: Iterable[StreamSpec]) -> None:
        """Raise ConfigError if luigi.cfg names random weights, and the raw folder has real data."""
        if self.refuses_random_weights and self.source is not None:
            if self.raw.is_dir() and not is_demo_data(self.raw):
                for spec in specs:
                    setting = self.source.where(spec.name, "weights")
                    spec.refuse_random_weights(str(self.raw), setting)

    @classmethod
    def from_committed(
        cls, split: cache.Split, raw: Path | None = None, body: Path | None = None
    ) -> Recipe:
        """The recipe to convert a committed split again, as it was converted.

        raw, body: new places of the folders, if they moved. Raises PipelineError if a folder is
        unknown or missing, and for a split that was not converted here.
        """
        record = ConversionRecord(split)
        if not record.was_converted_here:
            raise PipelineError(
                f"{split.name}: was not converted from raw data here: it cannot be converted again"
            )
        raw = record.raw_folder(raw)
        return cls(
            record.dataset(),
            split.name.partition("/")[2],
            raw,
            split.root,
            record.body_folder(body),
            RowSelection.from_record(record),
        )

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
            body_of(settings, named_body, dataset, demo=is_demo_data(raw)),
            _selection(settings),
            drop_removed=settings.convert.removed == "drop",
            source=settings.source,
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
            if not datasets.is_known(dataset):
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
        without_raw = name in datasets.WITH_DEMO_DATA and not raw.is_dir()
        is_demo = settings.embedded.enabled and (without_raw or is_demo_data(raw))
        without_body = dataset.labels.uses_body and not settings.paths.body.is_dir()
        body = settings.paths.body if dataset.labels.uses_body else None
        if dataset.labels.checks_fits:
            body = body_of(settings, None, dataset, demo=is_demo_data(raw))
        return cls(
            dataset,
            split,
            raw,
            settings.paths.cache if root is None else root,
            body,
            _selection(settings),
            drop_removed=is_demo or settings.convert.removed == "drop",
            detector=settings.detector if name in settings.detect.datasets else None,
            streams=StreamSpec.readable(settings.streams, dataset.columns(split, body=False)),
            refuses_random_weights=True,
            needs_demo_data=settings.embedded.enabled and (without_raw or without_body),
            source=settings.source,
        )


def _selection(settings: Settings) -> RowSelection:
    return RowSelection(settings.convert.max_fps, settings.convert.corrections)


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
                functools.partial(
                    smpl_files.body_files, recipe.body, gender, recipe.dataset.labels.body_model
                )
                for gender in recipe.dataset.genders
            ]
        for read in needed:
            try:
                read()
            except MissingAssets as error:
                messages.append(str(error))
    return list(dict.fromkeys(messages))
