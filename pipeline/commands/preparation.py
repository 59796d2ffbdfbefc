"""What a preparation of a dataset does: the recipes of its splits.  [raw -> tracks -> features]

`Preparation.resolve` makes the recipes. It also chooses the detector for clips without keypoints,
and loads or downloads its weights, so that a missing file is reported before any work. If nothing
names a detector, clips with keypoints of any detector are left alone. `plan_runs` compares the
recipes with the cache, and `check` raises what would fail later. The commands `prepare` and
`python -m tasks predict` run it (`pipeline.commands.prepare`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cache
from pipeline.clips import detectors
from pipeline.clips.files import KEYPOINTS
from pipeline.commands.options.steps import NO_DETECTOR
from pipeline.errors import ConfigError, MissingAssets, PipelineError, RawDataError
from pipeline.features import streams
from pipeline.features.spec import StreamSpec
from pipeline.files.pixels.frames import Video
from pipeline.files.places import require_writable
from pipeline.settings.sections import Settings, detector_of
from pipeline.steps.detection.plan import unlabelled_clips, usual_detector
from pipeline.steps.next_run import NextRun, plan_runs
from pipeline.steps.recipe import Recipe, missing_files


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorChoice:
    """What the user names of the detector for clips without keypoints."""

    name: str | None  # a detector, or NO_DETECTOR; None: the usual one
    every: int | None  # search every N-th frame; None: as the detector's section says
    downloads: bool = True  # whether its weights may be downloaded now


@dataclass(frozen=True, slots=True)
class Preparation:
    """The recipes (what to detect, convert and extract) of a dataset's splits."""

    settings: Settings
    recipes: Sequence[Recipe]  # one for each split of the dataset
    without_weights: bool  # no weights are named, so no features are extracted

    @classmethod
    def resolve(
        cls,
        settings: Settings,
        recipe: Recipe,
        choice: DetectorChoice,
        streams: Mapping[str, Sequence[StreamSpec]],
    ) -> Preparation:
        """Make the recipes of all splits of a dataset.

        recipe: has what they share. streams: those to extract, by split; a split for which no
        weights are named is left out.

        Raises ConfigError for invalid options, MissingAssets for missing weights of the detector.
        """
        dataset = recipe.dataset
        recipe = _choose_detector(settings, recipe, choice)
        recipes = []
        without_weights = False
        for split in dataset.splits:
            columns = dataset.columns(split, body=False)
            without_weights |= "bbox" in columns and split not in streams
            readable = StreamSpec.readable(streams.get(split, ()), columns)
            recipes.append(replace(recipe, split=split, streams=readable))
        return cls(settings, recipes, without_weights)

    def plan_runs(self) -> list[NextRun]:
        """Plan all splits, except those that neither have nor had videos."""
        runs = list[NextRun]()
        for run in plan_runs(self.recipes):
            is_empty = run.conversion is not None and not run.conversion.listed
            if run.committed is not None or not is_empty:
                runs.append(run)
        return runs

    def check(self, runs: Sequence[NextRun], *, downloads: bool) -> None:
        """Raise errors of later steps now: weights, packages, device, read-only folders.

        downloads: whether weights may be downloaded, to check them.
        """
        missing = missing_files(self.recipes)
        if missing:
            raise PipelineError(" ".join(missing))
        upcoming = [run.recipe for run in runs if not (run.up_to_date or run.problems)]
        if not upcoming:
            return
        by_name = dict[str, StreamSpec]()  # several splits have streams of one name
        for recipe in upcoming:
            by_name |= {spec.name: spec for spec in recipe.streams}
        failures = load_networks(self.settings, [*by_name.values()], downloads=downloads)
        if failures:
            raise PipelineError(" ".join(failures))
        folder = cache.local_folder(upcoming[0].root)
        if folder is not None:
            require_writable(folder, "Name another cache: --cache DIR")


def load_networks(settings: Settings, specs: Sequence[StreamSpec], *, downloads: bool) -> list[str]:
    """Load the networks that this process will run. Returns messages about weights that are missing
    or invalid, and about a missing device.

    downloads: Also load networks whose weights may have to be downloaded.
    """
    messages = list[str]()
    if settings.dask.scheduler or settings.features.processes:
        return messages
    for spec in specs:
        stream = spec.stream
        if not (downloads or stream.weights_file or stream.stand_in):
            continue
        try:
            streams.load(stream, settings.features.machine(), None)
        except PipelineError as error:
            messages.append(str(error))
    return messages


# --------------------------------------------------------------------------------------------------
# the detector


def _choose_detector(settings: Settings, recipe: Recipe, choice: DetectorChoice) -> Recipe:
    """The recipe with the detector for clips without keypoints, if a clip needs one."""
    if recipe.dataset.name not in settings.detect.datasets or choice.name == NO_DETECTOR:
        if choice.every is not None:
            do = "Leave the option out."
            raise ConfigError(f"--every {choice.every}: no detector runs here. {do}")
        return recipe
    name = choice.name or usual_detector(recipe.raw)
    detectors.find(name)  # a misspelt name is refused even if no clip needs a detector
    is_named = choice.name or choice.every is not None or settings.source.section(name)
    if recipe.raw.is_file():  # the dataset's reader reports the expected files
        return recipe
    clips = unlabelled_clips(recipe.raw, by_any_detector=not is_named)
    if not any(_is_whole(recipe.raw, clip) for clip in clips):  # the conversion names the others
        return recipe
    try:
        detector = detector_of(settings.source.override_keys(name, every=choice.every), name)
        if choice.downloads or not detector.downloads:
            detectors.identity(detector)  # reads or downloads its weights
    except (ConfigError, MissingAssets) as error:
        other_ways = (
            "Or name another --detector, or put keypoints of another tool into "
            f"{recipe.raw}/{KEYPOINTS}."
        )
        raise type(error)(f"{str(error).rstrip('.')}. {other_ways}") from error
    return replace(recipe, detector=detector, by_any_detector=not is_named)


def _is_whole(raw: Path, clip: str) -> bool:
    """Whether a clip is a video that is not cut off (`Video.require_whole`)."""
    try:
        Video(raw, clip).require_whole()
    except RawDataError:
        return False
    return True
