"""Luigi tasks of Pr-VIPE and part dynamics."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import luigi

from pipeline.errors import ConfigError
from tasks.base import PipelineTask
from tasks.data import Convert
from tasks.evaluation import Evaluate
from tasks.settings import settings
from tasks.training import CONFIGURED_SEED, CheckpointTask, Train, best_of
from vibe_model.part_dynamics.config import PR_VIPE, PrVIPEConfig
from vibe_model.part_dynamics.streams import PrVipe
from vibe_model.sections import check_inputs, pr_vipe_settings
from vibe_model.settings import VideoConfig


def _embedding_in_settings() -> Path | None:
    """The embedding's file in a stream of [features], if there is one."""
    for spec in settings().streams:
        if isinstance(spec.stream, PrVipe) and spec.stream.weights.kind == "file":
            return Path(spec.stream.weights.argument)
    return None


class TrainPrVIPE(CheckpointTask):
    """Train the embedding of 2D poses on the cached 3D poses, for the stream `pr_vipe`. Needs no
    features.
    """

    title = "Pr-VIPE"
    trainer = "vibe_model.part_dynamics.pr_vipe.training:run"
    score_format = "Hit@1 {hit_1:.1f} %"
    result_format = "Hit@1 across cameras {hit_1:.1f} % (keypoints {procrustes_hit_1:.1f} %)"

    @classmethod
    def checkpoint(cls, reader: VideoConfig | None) -> Path:  # noqa: ARG003 - the same for all runs
        """The checkpoint in [features], else the one that this task trains."""
        config = pr_vipe_settings(settings())
        return _embedding_in_settings() or best_of(config)

    @classmethod
    def required_tasks(cls, variant: str, seed: int) -> list[PipelineTask]:  # noqa: ARG003 - the same for all runs
        """This task, unless [features] names a trained embedding, which replaces it."""
        if _embedding_in_settings():
            return []
        return [cls()]

    def config(self) -> PrVIPEConfig:
        if self.variant:
            raise ConfigError(f"--variant {self.variant}: Pr-VIPE has no variants")
        config = pr_vipe_settings(settings())
        if self.seed != CONFIGURED_SEED:
            config = replace(config, seed=self.seed)
        check_inputs(settings(), config, PR_VIPE)
        return config

    def requires(self) -> list[luigi.Task]:
        conversions = list[luigi.Task]()
        for name in self.config().splits:
            dataset, split = name.split("/")
            conversions.append(Convert(dataset=dataset, split=split))
        return conversions


class TrainPartDynamics(Train):
    """Train part dynamics on the cached features, the embedding of 2D poses and the
    homographies.
    """

    model = "part_dynamics"


class EvaluatePartDynamics(Evaluate):
    """Print and store the errors of part dynamics and its baselines on every evaluation split."""

    model = "part_dynamics"
