"""raw -> tracks -> features, as Luigi tasks: a task is a dataset x split x stage."""

from __future__ import annotations

from collections.abc import Iterator

import luigi

from pipeline import convert, datasets, features, synthetic
from tasks import terminal
from tasks.base import PipelineTask, PipelineWrapper
from tasks.settings import settings


class Synthesize(PipelineTask):
    """The embedded stand-in data and body, in their official layouts. Only when [embedded] is enabled."""

    verb = "synthesize"

    @property
    def what(self) -> str:
        return "embedded data"

    def up_to_date(self) -> bool:
        paths, embedded = settings().paths, settings().embedded
        return synthetic.is_current(paths.raw, paths.body, settings().data.datasets, seed=embedded.seed)

    def work(self) -> None:
        paths, embedded = settings().paths, settings().embedded
        with terminal.working(self, self.verb, self.what) as progress:
            synthetic.synthesize_into(
                paths.raw,
                paths.body,
                settings().data.datasets,
                seed=embedded.seed,
                workers=settings().workers,
                progress=progress,
            )
        terminal.say(
            self.verb, self.what, f"{', '.join(settings().data.datasets)}, seed {embedded.seed}, in {paths.raw}"
        )


class Convert(PipelineTask):
    """raw -> tracks, for one split. Complete when the commit was made from what is there now."""

    verb = "convert"
    dataset = luigi.Parameter()
    split = luigi.Parameter()

    @property
    def what(self) -> str:
        return f"{self.dataset}/{self.split}"

    def requires(self) -> list[PipelineTask]:
        return [Synthesize()] if settings().embedded.enabled else []

    def plan(self) -> convert.ConversionPlan:
        s = settings()
        dataset = s.dataset(self.dataset)
        body = s.paths.body if dataset.uses_body else None
        return convert.plan_conversion(dataset, self.split, raw=s.raw(self.dataset), root=s.paths.cache, body=body)

    def up_to_date(self) -> bool:
        return self.plan().up_to_date

    def work(self) -> None:
        plan = self.plan()
        with terminal.working(self, self.verb, self.what) as progress:
            done = convert.convert(
                plan, workers=settings().workers, strict=settings().convert.strict, progress=progress
            )
        terminal.say(self.verb, self.what, terminal.conversion(done))
        for account in done.set_aside[:5]:
            terminal.warn(f"set aside {account.set_aside}: {account.message}")
        if len(done.set_aside) > 5:
            terminal.warn(
                f"and {len(done.set_aside) - 5} more: python -m pipeline status --cache {settings().paths.cache}"
            )


class Extract(PipelineTask):
    """tracks -> a feature stream, for one split."""

    verb = "extract"
    dataset = luigi.Parameter()
    split = luigi.Parameter()

    @property
    def what(self) -> str:
        return f"{self.dataset}/{self.split}"

    def requires(self) -> list[PipelineTask]:
        return [Convert(dataset=self.dataset, split=self.split)]

    def plan(self) -> features.ExtractionPlan:
        stream = settings().stream.at(settings().raw(self.dataset))
        return features.plan_extraction(settings().paths.cache, self.what, stream)

    def up_to_date(self) -> bool:
        return self.plan().up_to_date

    def work(self) -> None:
        plan = self.plan()
        with terminal.working(self, self.verb, self.what) as progress:
            done = features.extract(plan, progress=progress)
        terminal.say(self.verb, self.what, terminal.extraction(done))
        for example in done.examples:
            terminal.warn(example)


def enabled_splits() -> Iterator[tuple[str, str, bool]]:
    """(dataset, split, has pixels) of everything that [data] datasets enables."""
    for name in settings().data.datasets:
        dataset = datasets.get(name)
        for split in dataset.splits:
            yield name, split, dataset.has_pixels


class Data(PipelineWrapper):
    """Everything before training, for every enabled dataset."""

    verb = "data"

    @property
    def what(self) -> str:
        return f"{len(settings().data.datasets)} datasets"

    def requires(self) -> Iterator[PipelineTask]:
        for dataset, split, has_pixels in enabled_splits():
            stage = Extract if has_pixels else Convert
            yield stage(dataset=dataset, split=split)
