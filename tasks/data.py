"""raw -> tracks -> features, as Luigi tasks: a task is a dataset x split x stage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import luigi

import cache
from pipeline import datasets, synthetic
from pipeline.cli.console import DONE, DOUBT
from pipeline.conversion import convert
from pipeline.conversion.plan import mixture_warning
from pipeline.errors import ConfigError
from pipeline.features import extract
from pipeline.features.plan import ExtractionPlan, plan_extraction, refuse_untrained
from pipeline.plug_ins import PlugInError
from pipeline.raw.stand_in import is_stand_in
from tasks import terminal
from tasks.base import PipelineTask, PipelineWrapper
from tasks.settings import settings

# Tasks that fill the GPU, or every core: one at a time however many workers Luigi has ([resources] network to change).
NETWORK: Final = {"network": 1}


class Synthesize(PipelineTask):
    """The embedded stand-in data and body, in their official layouts. Only when [embedded] is enabled."""

    verb = "synthesize"
    priority = 3

    @property
    def what(self) -> str:
        return "embedded data"

    def up_to_date(self) -> bool:
        paths, embedded = settings().paths, settings().embedded
        return synthetic.is_current(
            paths.raw, paths.body, settings().embedded_datasets, seed=embedded.seed, size=embedded.size
        )

    def work(self) -> None:
        paths, embedded = settings().paths, settings().embedded
        with terminal.working(self, self.verb, self.what) as progress:
            synthetic.synthesize(
                paths.raw,
                paths.body,
                settings().embedded_datasets,
                seed=embedded.seed,
                size=embedded.size,
                workers=settings().workers,
                progress=progress,
            )
        terminal.say(self.verb, self.what, terminal.count(len(settings().embedded_datasets), "dataset"))


class Convert(PipelineTask):
    """raw -> tracks, for one split. Complete when the commit was made from what is there now."""

    verb = "convert"
    priority = 2  # all conversions before the first extraction: a missing raw folder shows in minutes, not after days
    dataset = luigi.Parameter()
    split = luigi.Parameter()

    @property
    def what(self) -> str:
        return f"{self.dataset}/{self.split}"

    def requires(self) -> list[PipelineTask]:
        return [Synthesize()] if settings().embedded.enabled else []

    def plan(self) -> convert.ConversionPlan:
        s = settings()
        dataset, raw = s.dataset(self.dataset), s.raw(self.dataset)
        if s.embedded.enabled and self.dataset not in s.embedded_datasets and not raw.is_dir():
            raise ConfigError(
                f"{raw}: there is no such folder, and [embedded] makes no data for {self.dataset}, which comes from "
                f"another package. Put its raw files there, or take it out of [data] datasets in {s.file}."
            )
        body = s.paths.body if dataset.uses_body else None
        return convert.plan_conversion(dataset, self.split, raw=raw, root=s.paths.cache, body=body)

    def up_to_date(self) -> bool:
        plan = self.plan()
        if settings().convert.strict:
            convert.refuse_committed_failures(plan)
        return plan.up_to_date

    @property
    def as_it_is(self) -> str:
        return _failed(self.what)

    def work(self) -> None:
        plan = self.plan()
        if mixed := mixture_warning(plan, ignore=_made_anew(plan)):
            terminal.warn(mixed)
        with terminal.working(self, self.verb, self.what) as progress:
            done = convert.convert(
                plan,
                workers=settings().workers,
                strict=settings().convert.strict,
                scheduler=settings().dask.scheduler,
                progress=progress,
            )
        mark = DONE if done.totals["frames"]["kept"] else DOUBT
        terminal.say(self.verb, self.what, terminal.conversion(done), mark=mark)
        if done.empty:
            terminal.warn(done.empty)
        for account in done.rejected[:5]:
            terminal.warn(f"rejected {account.rejection}")
        if len(done.rejected) > 5:
            held = terminal.shortened(settings().paths.cache)
            more = terminal.command("-m pipeline status --all --cache", str(held))
            terminal.warn(f"and {len(done.rejected) - 5} more: {more}")


class Extract(PipelineTask):
    """tracks -> a feature stream, for one split; with `crops`, the stream of crops that it is computed from."""

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

    def plan(self) -> ExtractionPlan:
        raw = settings().raw(self.dataset)
        stream = settings().crops if self.crops else settings().stream
        if stream is None:
            raise ConfigError(f"{settings().source.where('features', 'crops')}: names no stream of crops")
        plan = plan_extraction(settings().paths.cache, f"{self.dataset}/{self.split}", stream.at(raw))
        if not plan.up_to_date:
            refuse_untrained(stream, raw, settings().source.where("features", "weights"))
        return plan

    def up_to_date(self) -> bool:
        return self.plan().up_to_date

    @property
    def as_it_is(self) -> str:
        return _failed(f"{self.dataset}/{self.split}")

    def work(self) -> None:
        plan = self.plan()
        with terminal.working(self, self.verb, self.what) as progress:
            done = extract.extract(plan, scheduler=settings().dask.scheduler, progress=progress)
        terminal.say(self.verb, self.what, terminal.extraction(done))
        for example in done.examples:
            terminal.warn(example)


def _failed(*names: str) -> str:
    """How many videos of committed splits are set aside since something is wrong: `3 videos set aside: status --all`"""
    opened, n_failed = cache.open(settings().paths.cache), 0
    for name in names:
        harmless = datasets.get(name.partition("/")[0]).harmless
        aside = opened[name].manifest["accounting"]["videos"]["set_aside"]
        n_failed += sum(n for reason, n in aside.items() if reason not in harmless)
    return f"{terminal.count(n_failed, 'video')} set aside: status --all" if n_failed else ""


def _made_anew(plan: convert.ConversionPlan) -> list[str]:
    """Splits that luigi.cfg enables whose raw data are of the plan's kind, whatever the cache has of them now."""
    s, stand_in = settings(), plan.reader["stand_in"]
    return [f"{name}/{split}" for name, split, _ in enabled_splits() if is_stand_in(s.raw(name)) == stand_in]


def enabled_splits() -> Iterator[tuple[str, str, bool]]:
    """(dataset, split, has pixels) of everything that [data] datasets enables.

    A dataset whose package is broken has one split, `*`, whose conversion fails and says why: the others go on.
    """
    for name in settings().data.datasets:
        try:
            dataset = datasets.get(name)
        except PlugInError:
            yield name, "*", False
            continue
        for split in dataset.splits:
            yield name, split, dataset.has_pixels


class Data(PipelineWrapper):
    """Everything before training, for every enabled dataset."""

    verb = "data"

    @property
    def what(self) -> str:
        return terminal.count(len(settings().data.datasets), "dataset")

    def requires(self) -> Iterator[PipelineTask]:
        for dataset, split, has_pixels in enabled_splits():
            stage = Extract if has_pixels else Convert
            yield stage(dataset=dataset, split=split)

    @property
    def as_it_is(self) -> str:
        return _failed(*(f"{dataset}/{split}" for dataset, split, _ in enabled_splits()))

    def work(self) -> None:
        opened = cache.open(settings().paths.cache)
        names = [f"{dataset}/{split}" for dataset, split, _ in enabled_splits()]
        kept = {name: opened[name].manifest["accounting"]["frames"]["kept"] for name in names}
        terminal.say(
            self.verb, self.what, f"{terminal.count(len(names), 'split')}, {terminal.count(sum(kept.values()), 'row')}"
        )
        for name in (name for name, rows in kept.items() if not rows):
            held = str(terminal.shortened(settings().paths.cache))
            why = terminal.command("-m pipeline status --cache", held)
            terminal.warn(f"{name} is empty: nothing of it could be used. The reasons: {why}")
