"""labels -> embedding of 2D poses, and the streams that models read beside their features, as Luigi tasks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import luigi

import cache
from pipeline.commands.preparation import steps
from pipeline.commands.settings.sections import further_stream
from pipeline.errors import ConfigError
from pipeline.features.plan import ExtractionPlan, compare_stream, plan_extraction, refuse_untrained
from pipeline.features.spec import StreamSpec
from pipeline.features.streams.pr_vipe import EmbeddingWeights, PrVipe
from tasks.base import PipelineTask
from tasks.data import NETWORK, Convert, Extract
from tasks.run import TrainingTask, best_of, read_metrics, shown_by
from tasks.settings import settings
from vibe_model.pr_vipe.config import PrVIPEConfig
from vibe_model.sections import check_inputs, pr_vipe_settings


def pr_vipe_config(seed: int = -1) -> PrVIPEConfig:
    """[pose_embedding] of luigi.cfg. Raises ConfigError."""
    config = pr_vipe_settings(settings(), seed)
    check_inputs(settings(), config)
    return config


def embedding_in_settings() -> Path | None:
    """The file of the embedding that a stream of [features] also has, where one has."""
    weights = [spec.stream.weights for spec in settings().also if isinstance(spec.stream, PrVipe)]
    return next((Path(weights_spec.argument) for weights_spec in weights if weights_spec.kind == "file"), None)


def extracted_with_features() -> set[str]:
    """The streams that `Data` makes."""
    return {settings().features.stream, *(spec.name for spec in settings().also)}


class TrainPrVIPE(TrainingTask):
    """Train the embedding of 2D poses on the cached 3D poses. Needs no features: the stream `pr_vipe` needs it."""

    @property
    def what(self) -> str:
        return f"Pr-VIPE{self.of_seed}"

    def config(self) -> PrVIPEConfig:
        if self.variant:
            raise ConfigError(f"--variant {self.variant}: Pr-VIPE has no variants")
        return pr_vipe_config(self.seed)

    def requires(self) -> list[luigi.Task]:
        return [Convert(dataset=name.split("/")[0], split=name.split("/")[1]) for name in self.config().splits]

    def work(self) -> None:
        from vibe_model.pr_vipe import training  # imports torch

        with self.progress() as progress:
            folder = training.run(self.config(), progress=shown_by(progress, self.what, "hit_1", " %"))
        by_split = {name: metrics for name, metrics in read_metrics(folder).items() if "/" in name}
        hits = [f"{n} {m['hit_1']:.1f} % (keypoints {m['procrustes_hit_1']:.1f} %)" for n, m in by_split.items()]
        self.done(", ".join(["Hit@1 of another camera's picture", *hits] if hits else []))


class ExtractBeside(PipelineTask):
    """A stream that a model reads beside its features, of one split, with the options of its section of luigi.cfg.

    An embedding that names no weights is that of `TrainPrVIPE`.
    """

    verb = "extract"
    priority = 1
    resources = NETWORK
    split = luigi.Parameter()
    stream = luigi.Parameter()

    @property
    def what(self) -> str:
        return f"{self.split} {self.stream}"

    def requires(self) -> list[luigi.Task]:
        dataset, split = str(self.split).split("/")
        before = [TrainPrVIPE()] if self._by_trained() else []
        return [Extract(dataset=dataset, split=split), *before]

    def plan(self) -> ExtractionPlan:
        s = settings()
        spec, raw = self._spec(), s.raw(str(self.split).split("/")[0])
        if self._by_trained():
            weights = EmbeddingWeights("file", str(best_of(pr_vipe_config())))
            spec = replace(spec, stream=PrVipe(weights=weights))
        # Where there is one of another embedding, computing all rows again takes seconds, and no pixels.
        committed, is_embedding = cache.open(s.paths.cache)[self.split], isinstance(spec.stream, PrVipe)
        replaces = is_embedding and bool(compare_stream(committed, spec).differs)
        plan = plan_extraction(s.paths.cache, self.split, spec.at(raw), replace=replaces)
        if not plan.up_to_date:
            refuse_untrained(plan.spec, raw, s.source.where(str(self.stream), "weights"))
        return plan

    def up_to_date(self) -> bool:
        return self.plan().up_to_date

    def work(self) -> None:
        with self.progress() as progress:
            s = settings()
            scheduler = s.dask.scheduler
            result = steps.extract([self.plan()], s.features, scheduler=scheduler, progress=progress, named=False)
        self.report(result)

    def _spec(self) -> StreamSpec:
        s = settings()
        return further_stream(s.source, s.features, str(self.stream))

    def _by_trained(self) -> bool:
        stream = self._spec().stream
        return isinstance(stream, PrVipe) and stream.weights.stand_in
