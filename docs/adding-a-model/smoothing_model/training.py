"""One step of training."""

import torch
from torch import Tensor

from pipeline.body import Body
from smoothing_model.config import SmoothingConfig
from vibe_model import losses
from vibe_model.training.data import TrainingBatch
from vibe_model.training.parallel import ProcessGroup
from vibe_model.training.video import VideoTrainer


class SmoothingTrainer(VideoTrainer):
    """A generator by itself, and VIBE's supervised losses."""

    def __init__(self, config: SmoothingConfig, body: Body, group: ProcessGroup) -> None:
        super().__init__(config, body, group)
        self.learners = {"generator": self.learner(self.generator, "gen", lr=config.lr_generator)}

    def gradients(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Gradients of all terms into the parameters' `.grad`; the terms."""
        estimate = self.generator.regress(batch.labels["features"].float())
        pred = self.generator.pose(estimate, vertices=False)
        terms = losses.generator_losses(pred, batch.labels, losses.PUBLISHED_WEIGHTS)
        torch.stack(list(terms.values())).sum().backward()
        return {name: term.detach() for name, term in terms.items()}
