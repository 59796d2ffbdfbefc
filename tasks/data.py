"""raw -> tracks -> features, as Luigi tasks: a task is a dataset x split x stage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import luigi

import cache
from pipeline import datasets, demo
from pipeline.cli.console import IDLE
from pipeline.cli.text import count
from pipeline.commands.preparation import steps
from pipeline.conversion import convert
from pipeline.conversion.committed import rejected_videos
from pipeline.detect.files import KEYPOINTS
from pipeline.detect.plan import DetectionPlan, plan_detection, unlabelled
from pipeline.errors import ConfigError, PipelineError
from pipeline.features.plan import ExtractionPlan, plan_extraction, refuse_untrained
from pipeline.files.raw.stand_in import is_stand_in
from pipeline.plug_ins import PlugInError
from tasks.base import PipelineTask
from tasks.settings import settings
from tasks.terminal import UP_TO_DATE, warn

# Tasks that fill the GPU, or every core: one at a time however many workers Luigi has ([resources] network to change).
NETWORK: Final = {"network": 1}


class Synthesize(PipelineTask):
    """The embedded demo data and body, in their official layouts. Only when [embedded] is enabled."""

    verb = "synthesize"
    what = "embedded data"
    priority = 3

    def up_to_date(self) -> bool:
        s = settings()
        return demo.is_current(
            s.paths.raw, s.paths.body, s.embedded_datasets, seed=s.embedded.seed, size=s.embedded.size
        )

    def work(self) -> None:
        s, names = settings(), settings().embedded_datasets
        seed, size = s.embedded.seed, s.embedded.size
        with self.progress() as progress:
            demo.synthesize(
                s.paths.raw, s.paths.body, names, seed=seed, size=size, workers=s.workers, progress=progress
            )
        self.say(count(len(names), "dataset"))


class Detect(PipelineTask):
    """People in the clips of a dataset's raw folder, as files in its `keypoints`, where [detect] names a detector.

    Complete when every clip has the keypoints of its pixels, the weights and the settings, or was given up with them.
    """

    verb, unit = "detect", "frame"
    priority = 2
    resources = NETWORK
    dataset = luigi.Parameter()

    @property
    def what(self) -> str:
        return str(self.dataset)

    def requires(self) -> list[PipelineTask]:
        return [Synthesize()] if settings().embedded.enabled else []

    def plan(self) -> DetectionPlan:
        s = settings()
        if s.detector is None:
            raise ConfigError(f"{s.source.where('detect', 'detector')}: names no detector")
        raw = s.raw(self.dataset)
        if s.detector.stand_in and raw.is_dir() and not is_stand_in(raw):
            at = s.source.where("detect", "detector")
            raise ConfigError(
                f"{at} = {s.detector.name}: finds people of demo data alone. Take rtmpose, keypoint_rcnn, or none."
            )
        return plan_detection(raw, raw / KEYPOINTS, s.detector, unlabelled(raw))

    def up_to_date(self) -> bool:
        return self.plan().up_to_date

    @property
    def flaw(self) -> str:
        plan = self.plan()
        n = len(plan.problems)
        return f"{count(n, 'clip')} without keypoints: {steps.detect_again(plan)}" if n else ""

    def work(self) -> None:
        s, plan = settings(), self.plan()
        with self.progress() as progress:
            result = steps.detect(plan, s.detect, scheduler=s.dask.scheduler, progress=progress)
        self.report(result)


class Convert(PipelineTask):
    """raw -> tracks, for one split. Complete when the commit was made from what is there now."""

    verb, unit = "convert", "video"
    priority = 2  # all conversions before the first extraction: a missing raw folder shows in minutes, not after days
    dataset = luigi.Parameter()
    split = luigi.Parameter()

    @property
    def what(self) -> str:
        return f"{self.dataset}/{self.split}"

    def requires(self) -> list[PipelineTask]:
        s = settings()
        if s.detector is not None and self.dataset in s.detect.datasets:
            return [Detect(dataset=self.dataset)]
        return [Synthesize()] if s.embedded.enabled else []

    def plan(self) -> convert.ConversionPlan:
        s = settings()
        dataset, raw = s.dataset(self.dataset), s.raw(self.dataset)
        if s.embedded.enabled and self.dataset not in s.embedded_datasets and not raw.is_dir():
            raise ConfigError(
                f"{raw}: there is no such folder, and [embedded] makes no data for {self.dataset}, which comes from "
                f"another package. Put its raw files there, or take it out of [data] datasets in {s.file}."
            )
        body = s.paths.body if dataset.uses_body else None
        drop = s.drops_removed(self.dataset)
        return convert.plan_conversion(dataset, self.split, raw=raw, root=s.paths.cache, body=body, drop_removed=drop)

    def up_to_date(self) -> bool:
        plan = self.plan()
        if settings().convert.strict:
            convert.refuse_committed_failures(plan)
        if not plan.up_to_date or plan.problems:
            return False
        if new_times := convert.record_times(plan):  # now: a task that is complete does not run
            self.say(new_times, mark=IDLE)
        return True

    @property
    def flaw(self) -> str:
        return _rejected(self.what)

    def work(self) -> None:
        s, plan = settings(), self.plan()
        if plan.up_to_date:  # Luigi also runs it when only a task that it requires had something to do
            if plan.problems:
                raise PipelineError("\n".join(plan.problems))
            self.say(convert.record_times(plan) or UP_TO_DATE, mark=IDLE)
            return
        with self.progress() as progress:
            result = steps.convert_split(
                plan, workers=s.workers, strict=s.convert.strict, scheduler=s.dask.scheduler, progress=progress
            )
        self.report(result)


class Extract(PipelineTask):
    """tracks -> feature streams, for one split; with `crops`, the stream of crops that these are computed from."""

    verb = "extract"
    priority = 1
    resources = NETWORK
    dataset = luigi.Parameter()
    split = luigi.Parameter()
    crops = luigi.BoolParameter()

    @property
    def what(self) -> str:
        return f"{self.dataset}/{self.split}" + (" crops" if self.crops else "")

    def requires(self) -> list[PipelineTask]:
        if settings().crops is not None and not self.crops:
            return [Extract(dataset=self.dataset, split=self.split, crops=True)]
        return [Convert(dataset=self.dataset, split=self.split)]

    def plans(self) -> list[ExtractionPlan]:
        """Of the streams that are not up to date."""
        s = settings()
        raw, where = s.raw(self.dataset), s.source.where
        if self.crops and s.crops is None:
            raise ConfigError(f"{where('features', 'crops')}: names no stream of crops")
        specs = [s.crops] if self.crops else [s.stream, *s.also]
        name = f"{self.dataset}/{self.split}"
        plans = [plan_extraction(s.paths.cache, name, spec.at(raw)) for spec in specs if spec is not None]
        for plan in plans:
            if not plan.up_to_date:
                refuse_untrained(plan.spec, raw, where("features", "weights"))
        return [plan for plan in plans if not plan.up_to_date]

    def up_to_date(self) -> bool:
        return not self.plans()

    @property
    def flaw(self) -> str:
        return _rejected(f"{self.dataset}/{self.split}")

    def work(self) -> None:
        s, plans = settings(), self.plans()
        if not plans:
            self.say(UP_TO_DATE, mark=IDLE)
            return
        with self.progress() as progress:
            result = steps.extract(plans, s.features, scheduler=s.dask.scheduler, progress=progress, named=bool(s.also))
        self.report(result)


def streams_of_data() -> set[str]:
    """The streams that `Data` makes."""
    return {settings().features.stream, *(spec.name for spec in settings().also)}


class Data(PipelineTask):
    """Everything before training, for every enabled dataset."""

    verb = "data"

    @property
    def what(self) -> str:
        return count(len(settings().data.datasets), "dataset")

    def requires(self) -> Iterator[PipelineTask]:
        of_labels = any(not spec.stream.reads.crops for spec in settings().also)
        for dataset, split, has_pixels in enabled_splits():
            stage = Extract if has_pixels or of_labels else Convert
            yield stage(dataset=dataset, split=split)

    def up_to_date(self) -> bool:
        return True  # where all that it requires is

    @property
    def flaw(self) -> str:
        return _rejected(*(f"{dataset}/{split}" for dataset, split, _ in enabled_splits()))

    def work(self) -> None:
        opened = cache.open(settings().paths.cache)
        names = [f"{dataset}/{split}" for dataset, split, _ in enabled_splits()]
        n_rows = {name: opened[name].manifest["accounting"]["frames"]["kept"] for name in names}
        self.say(f"{count(len(names), 'split')}, {count(sum(n_rows.values()), 'row')}")
        for name in (name for name, rows in n_rows.items() if not rows):
            warn(f"{name} is empty: nothing of it could be used. The reasons: {steps.status_of(opened.root)}")


def enabled_splits() -> Iterator[tuple[str, str, bool]]:
    """(dataset, split, has pixels) of everything that [data] datasets enables.

    A dataset whose package is broken has one split, `*`: its conversion fails with the reason, and the others continue.
    Raises ConfigError where [paths] raw is no folder.
    """
    s = settings()
    if not s.embedded.enabled and s.data.datasets and not s.paths.raw.is_dir():
        raise ConfigError(
            f"{s.source.where('paths', 'raw')} = {s.paths.raw}: there is no such folder. Name the one that holds "
            "<dataset>/ folders, or mount its disk."
        )
    for name in s.data.datasets:
        try:
            dataset = datasets.get(name)
        except PlugInError:
            yield name, "*", False
            continue
        for split in dataset.splits:
            yield name, split, dataset.has_pixels


def _rejected(*names: str) -> str:
    """Videos of committed splits that were rejected because something is wrong: `3 videos rejected: status --all`"""
    opened = cache.open(settings().paths.cache)
    n_rejected = sum(rejected_videos(opened[name])[0] for name in names)
    return f"{count(n_rejected, 'video')} rejected: status --all" if n_rejected else ""
