"""raw -> tracks -> features, as Luigi tasks: a task is a dataset x split x stage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import luigi

import cache
from pipeline import datasets
from pipeline.cli.console import IDLE
from pipeline.cli.text import command, count, from_here
from pipeline.clips.plan import DetectionPlan
from pipeline.conversion import convert
from pipeline.conversion.committed import rejected_videos
from pipeline.errors import ConfigError
from pipeline.files.raw import is_stand_in
from pipeline.plug_ins import PlugInError
from pipeline.recipe.recipe import Recipe, StepResult
from tasks.base import UP_TO_DATE, PipelineTask, warn
from tasks.settings import settings

# Tasks that use the GPU or all cores: one at a time, whatever Luigi's workers ([resources] network
# changes that).
NETWORK: Final = {"network": 1}


class Synthesize(PipelineTask):
    """Write the demo data and the demo body into the raw folders, if [embedded] is enabled."""

    verb = "synthesize"
    what = "embedded data"
    priority = 3

    def up_to_date(self) -> bool:
        from pipeline.demo.writing import is_current

        s = settings()
        options = s.embedded
        return is_current(
            s.paths.raw, s.paths.body, s.embedded_datasets, seed=options.seed, size=options.size
        )

    def work(self) -> None:
        from pipeline.demo.writing import synthesize

        s = settings()
        names = s.embedded_datasets
        options = s.embedded
        with self.progress() as progress:
            synthesize(
                s.paths.raw,
                s.paths.body,
                names,
                seed=options.seed,
                size=options.size,
                workers=s.workers,
                progress=progress,
            )
        self.say(count(len(names), "dataset"))


class Detect(PipelineTask):
    """Detect people in a dataset's clips, if [detect] names a detector."""

    verb = "detect"
    unit = "frame"
    priority = 2
    resources = NETWORK
    dataset = luigi.Parameter()

    @property
    def what(self) -> str:
        return str(self.dataset)

    def requires(self) -> list[PipelineTask]:
        return [Synthesize()] if settings().embedded.enabled else []

    def recipe(self) -> Recipe:
        s = settings()
        raw = s.raw(self.dataset)
        where = s.source.where("detect", "detector")
        if s.detector is None:
            raise ConfigError(f"{where}: names no detector")
        if s.detector.stand_in and raw.is_dir() and not is_stand_in(raw):
            raise ConfigError(
                f"{where} = {s.detector.name}: finds people only in demo data. Use rtmpose, or "
                "none."
            )
        return Recipe.from_settings(s, self.dataset, "")

    def plan(self) -> DetectionPlan:
        return self.recipe().plan_detection()

    def up_to_date(self) -> bool:
        return self.plan().up_to_date

    @property
    def flaw(self) -> str:
        plan = self.plan()
        clips = count(len(plan.problems), "clip")
        return f"{clips} without keypoints: {plan.again}" if plan.problems else ""

    def work(self) -> None:
        plan = self.plan()
        with self.progress() as progress:
            result = self.recipe().detect(plan, progress)
        self.report(result)


class SplitTask(PipelineTask):
    """A task about one split."""

    dataset = luigi.Parameter()
    split = luigi.Parameter()

    @property
    def what(self) -> str:
        return f"{self.dataset}/{self.split}"

    @property
    def flaw(self) -> str:
        return _rejected_text(self.what)

    def recipe(self) -> Recipe:
        return Recipe.from_settings(settings(), self.dataset, self.split)


class Convert(SplitTask):
    """raw -> tracks, for one split. Complete if the commit matches the raw files."""

    verb = "convert"
    unit = "video"
    priority = 2  # before all extractions: a missing raw folder shows in minutes, not after days

    def requires(self) -> list[PipelineTask]:
        s = settings()
        if s.detector is not None and self.dataset in s.detect.datasets:
            return [Detect(dataset=self.dataset)]
        return [Synthesize()] if s.embedded.enabled else []

    def recipe(self) -> Recipe:
        s = settings()
        recipe = super().recipe()
        if (
            s.embedded.enabled
            and self.dataset not in s.embedded_datasets
            and not recipe.raw.is_dir()
        ):
            raise ConfigError(
                f"{recipe.raw}: there is no such folder, and [embedded] makes no data for "
                f"{self.dataset}, which comes from another package. Put its raw files there, "
                f"or take it out of [data] datasets in {s.file}."
            )
        return recipe

    def plan(self) -> convert.ConversionPlan:
        return self.recipe().plan_conversion()

    def up_to_date(self) -> bool:
        plan = self.plan()
        if settings().convert.strict:
            convert.refuse_committed_failures(plan)
        if not plan.up_to_date or plan.problems:
            return False
        if new_times := convert.record_times(plan):  # here, since a complete task does not run
            self.say(new_times, mark=IDLE)
        return True

    def work(self) -> None:
        plan = self.plan()
        with self.progress() as progress:
            result = self.recipe().convert(plan, progress)
        if plan.up_to_date:  # Luigi also runs it after a required task that had something to do
            result = replace(result, details=result.details or [UP_TO_DATE], mark=IDLE)
        self.report(result)


class ConvertFirst(Convert):
    """`Convert` as `Extract` requires it: videos that cannot be read do not make it fail.

    `Extract` computes the rows of the other videos first, and then fails.
    """

    def report(self, result: StepResult) -> None:
        if cache.open(settings().paths.cache)[self.what].manifest["rows"]:
            result = replace(result, notes=[*result.notes, *result.problems], problems=())
        super().report(result)


class Extract(SplitTask):
    """tracks -> feature streams, for one split. Fails after its work if videos could not be
    read.
    """

    verb = "extract"
    priority = 1
    resources = NETWORK

    def requires(self) -> list[PipelineTask]:
        return [ConvertFirst(dataset=self.dataset, split=self.split)]

    def up_to_date(self) -> bool:
        return not self.recipe().plan_extraction()

    def work(self) -> None:
        recipe = self.recipe()
        plans = recipe.plan_extraction()
        result = StepResult(details=[UP_TO_DATE], mark=IDLE)
        if plans:
            with self.progress() as progress:
                result = recipe.extract(plans, progress)
        self.report(replace(result, problems=[*self._conversion_problems(), *result.problems]))

    def _conversion_problems(self) -> list[str]:
        """Problems that the conversion has left, such as videos that could not be read."""
        plan = self.recipe().plan_conversion()
        left = (
            []
            if plan.up_to_date
            else [f"{self.what}: not converted yet: {plan.why}. The next run tries it again."]
        )
        return [*plan.problems, *left]


class Data(PipelineTask):
    """Convert and extract every enabled dataset."""

    verb = "data"

    @property
    def what(self) -> str:
        return count(len(settings().data.datasets), "dataset")

    def requires(self) -> Iterator[PipelineTask]:
        of_labels = any(not spec.stream.reads.crops for spec in settings().streams)
        for dataset, split, has_pixels in _enabled_splits():
            stage = Extract if has_pixels or of_labels else Convert
            yield stage(dataset=dataset, split=split)

    def up_to_date(self) -> bool:
        return True  # it is only asked when all required tasks are complete

    @property
    def flaw(self) -> str:
        return _rejected_text(*(f"{dataset}/{split}" for dataset, split, _ in _enabled_splits()))

    def show(self) -> None:
        """Name datasets of the cache that [data] datasets does not have."""
        message = settings().left_out(cache.open(settings().paths.cache).splits)
        if message:
            warn(message)

    def work(self) -> None:
        opened = cache.open(settings().paths.cache)
        names = [f"{dataset}/{split}" for dataset, split, _ in _enabled_splits()]
        n_rows = {name: opened[name].manifest["accounting"]["frames"]["kept"] for name in names}
        self.say(f"{count(len(names), 'split')}, {count(sum(n_rows.values()), 'row')}")
        status = command("status", "--cache", from_here(opened.root))
        for name in (name for name, rows in n_rows.items() if not rows):
            warn(f"{name} is empty: nothing of it could be used. The reasons: {status}")
        self.show()


def _enabled_splits() -> Iterator[tuple[str, str, bool]]:
    """(dataset, split, has pixels) of the datasets in [data] datasets.

    A dataset of a broken package has one split `*`, whose conversion fails with the reason. Raises
    ConfigError if [paths] raw is not a folder.
    """
    s = settings()
    if not s.embedded.enabled and s.data.datasets and not s.paths.raw.is_dir():
        raise ConfigError(
            f"{s.source.where('paths', 'raw')} = {s.paths.raw}: there is no such folder. Name "
            "the one that holds <dataset>/ folders, or mount its disk."
        )
    for name in s.data.datasets:
        try:
            dataset = datasets.get(name)
        except PlugInError:
            yield name, "*", False
            continue
        for split in dataset.splits:
            yield name, split, dataset.has_pixels


def _rejected_text(*names: str) -> str:
    """Rejected videos of committed splits: `3 videos rejected: status --all`"""
    opened = cache.open(settings().paths.cache)
    n_rejected = sum(rejected_videos(opened[name])[0] for name in names)
    return f"{count(n_rejected, 'video')} rejected: status --all" if n_rejected else ""
