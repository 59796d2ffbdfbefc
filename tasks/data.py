"""raw -> tracks -> features, as Luigi tasks: a task is a dataset x split x stage.

Each requires those before it:

    Synthesize -> Detect -> Convert -> Extract -> Data
    demo data     people    tracks     features   all of the datasets in [data]

A task plans what is to do for a stage (`pipeline.steps`), is complete if that is nothing, and else
does it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import luigi

import cache
from pipeline import datasets
from pipeline.cli.console import IDLE, plain
from pipeline.cli.text import count
from pipeline.errors import ConfigError
from pipeline.features.spec import StreamSpec
from pipeline.plug_ins import PlugInError
from pipeline.steps import sentences
from pipeline.steps.conversion.convert import (
    record_moves,
    refuse_committed_failures,
    run_conversion,
)
from pipeline.steps.conversion.plan import plan_conversion
from pipeline.steps.conversion_record import ConversionRecord
from pipeline.steps.detection.plan import DetectionWork, plan_unlabelled
from pipeline.steps.detection.run import run_detection
from pipeline.steps.extraction.plan import plan_streams
from pipeline.steps.recipe import Recipe
from tasks.base import PipelineTask
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
        from pipeline.extras.demo.layouts import Request
        from pipeline.extras.demo.writing import is_current

        s = settings()
        request = Request(s.embedded.seed, s.embedded.size)
        return is_current(s.paths.raw, s.paths.body, s.embedded_datasets, request)

    def work(self) -> None:
        from pipeline.extras.demo.layouts import Request
        from pipeline.extras.demo.writing import synthesize

        s = settings()
        names = s.embedded_datasets
        with self.progress() as progress:
            synthesize(
                s.paths.raw,
                s.paths.body,
                names,
                request=Request(s.embedded.seed, s.embedded.size),
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

    def plan(self) -> DetectionWork | None:
        return plan_unlabelled(Recipe.from_settings(settings(), self.dataset, ""))

    def up_to_date(self) -> bool:
        todo = self.plan()
        return todo is None or todo.up_to_date

    @property
    def flaw(self) -> str:
        todo = self.plan()
        if todo is None or not todo.problems:
            return ""
        return f"{count(len(todo.problems), 'clip')} without keypoints: {todo.retry_command}"

    def work(self) -> None:
        todo = self.plan()
        if todo is not None:
            with self.progress() as progress:
                report = run_detection(todo, settings(), progress)
            self.report(report)


class _SplitTask(PipelineTask):
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


class Convert(_SplitTask):
    """raw -> tracks, for one split. Complete if the commit matches the raw files."""

    verb = "convert"
    unit = "video"
    priority = 2  # before all extractions: a missing raw folder shows in minutes, not after days
    problems_fail = True  # whether it fails, after its work, if videos cannot be read

    def requires(self) -> list[PipelineTask]:
        s = settings()
        if s.detector is not None and self.dataset in s.detect.datasets:
            return [Detect(dataset=self.dataset)]
        return [Synthesize()] if s.embedded.enabled else []

    def recipe(self) -> Recipe:
        s = settings()
        recipe = super().recipe()
        is_demo = self.dataset in s.embedded_datasets
        if s.embedded.enabled and not is_demo and not recipe.raw.is_dir():
            raise ConfigError(
                f"{recipe.raw}: there is no such folder, and [embedded] makes no data for "
                f"{self.dataset}, which comes from another package. Put its raw files there, "
                f"or take it out of [data] datasets in {s.file}."
            )
        return recipe

    def up_to_date(self) -> bool:
        """Whether the commit matches. If so, also records a moved raw folder and new times of
        unchanged files, and says so: a complete task does not run.
        """
        todo = plan_conversion(self.recipe())
        if settings().convert.strict:
            refuse_committed_failures(todo)
        if not todo.up_to_date or sentences.problems_of(todo):
            return False
        for text in record_moves(todo):
            self.say(plain(text), mark=IDLE)
        return True

    def work(self) -> None:
        todo = plan_conversion(self.recipe())
        with self.progress() as progress:
            report = run_conversion(todo, settings(), progress)
        split = cache.open(settings().paths.cache)[self.what]
        if not self.problems_fail and split.manifest["rows"]:
            report = replace(report, notes=[*report.notes, *report.problems], problems=())
        self.report(report)


class ConvertFirst(Convert):
    """`Convert` as `Extract` requires it: videos that cannot be read do not make it fail if there
    are rows to extract.

    `Extract` computes the rows of the other videos first, and then fails.
    """

    problems_fail = False


class Extract(_SplitTask):
    """tracks -> feature streams, for one split. Fails after its work if videos could not be
    read.
    """

    verb = "extract"
    unit = "row"
    priority = 1
    resources = NETWORK

    def requires(self) -> list[PipelineTask]:
        return [ConvertFirst(dataset=self.dataset, split=self.split)]

    def up_to_date(self) -> bool:
        return all(todo.up_to_date for todo in plan_streams(self.recipe()))

    def work(self) -> None:
        from pipeline.steps.extraction.extract import run_extraction  # imports torch

        with self.progress() as progress:
            report = run_extraction(plan_streams(self.recipe()), settings(), progress)
        self.report(replace(report, problems=[*self._conversion_problems(), *report.problems]))

    def _conversion_problems(self) -> list[str]:
        """Problems that the conversion has left, such as videos that could not be read."""
        todo = plan_conversion(self.recipe())
        problems = sentences.problems_of(todo)
        if not todo.up_to_date:
            problems.append(
                f"{self.what}: not converted yet: {todo.why}. The next run tries it again."
            )
        return problems


def data_tasks() -> list[PipelineTask]:
    """`Data`, for the tasks that train; none if they read a tag."""
    return [Data()] if settings().data.at is None else []


class Data(PipelineTask):
    """Convert and extract every enabled dataset."""

    verb = "data"

    @property
    def what(self) -> str:
        return count(len(settings().data.datasets), "dataset")

    def requires(self) -> list[_SplitTask]:
        """The task of each split of the datasets in [data] datasets. Raises ConfigError if [paths]
        raw is not a folder.
        """
        s = settings()
        if not s.embedded.enabled and s.data.datasets and not s.paths.raw.is_dir():
            raise ConfigError(
                f"{s.source.where('paths', 'raw')} = {s.paths.raw}: there is no such folder. Name "
                "the one that holds <dataset>/ folders, or mount its disk."
            )
        tasks = list[_SplitTask]()
        for name in s.data.datasets:
            try:
                dataset = datasets.get(name)
            except PlugInError:
                tasks.append(Convert(dataset=name, split="*"))  # it fails with the reason
                continue
            for split in dataset.splits:
                columns = dataset.columns(split, body=False)
                is_extracted = StreamSpec.readable(s.streams, columns)
                stage = Extract if is_extracted else Convert
                tasks.append(stage(dataset=name, split=split))
        return tasks

    def up_to_date(self) -> bool:
        return True  # it is only asked when all required tasks are complete

    @property
    def flaw(self) -> str:
        return _rejected_text(*(task.what for task in self.requires()))

    def work(self) -> None:
        opened = cache.open(settings().paths.cache)
        names = [task.what for task in self.requires()]
        n_rows = sum(opened[name].manifest["accounting"]["frames"]["kept"] for name in names)
        self.say(f"{count(len(names), 'split')}, {count(n_rows, 'row')}")


def _rejected_text(*names: str) -> str:
    """Number of rejected videos in committed splits, as "3 videos rejected: status --all"; "" for
    none.
    """
    opened = cache.open(settings().paths.cache)
    n_rejected = sum(ConversionRecord(opened[name]).n_rejected for name in names)
    if not n_rejected:
        return ""
    return f"{count(n_rejected, 'video')} rejected: status --all"
