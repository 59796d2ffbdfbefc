"""One step of training."""

from pathlib import Path

import torch
from torch import Tensor

from pipeline.body import Body
from smoothing_model.config import SmoothingConfig
from vibe_model import losses
from vibe_model.checkpoints import LoadReport, load_published
from vibe_model.training.data import Batch
from vibe_model.training.parallel import Group
from vibe_model.training.trainer import Keys, Learner
from vibe_model.training.video import VideoTrainer


class SmoothingTrainer(VideoTrainer):
    """A generator by itself, and VIBE's supervised losses."""

    def __init__(self, config: SmoothingConfig, body: Body, group: Group) -> None:
        super().__init__(config, body, group)
        keys = Keys("gen_state_dict", "gen_optimizer", "gen_optimizer_schedule", "gen_optimizer")
        learner = Learner(config, self.generator, keys, lr=config.lr_generator, weight_decay=0.0)
        self.learners = {"generator": learner}

    def start_from(self, checkpoint: Path) -> LoadReport:
        """SPIN's regressor, or VIBE's."""
        return load_published(self.generator, checkpoint, only="regressor.")

    def gradients(self, batch: Batch) -> dict[str, Tensor]:
        """Gradients of all terms into the parameters' `.grad`; the terms."""
        estimate = self.generator.regress(batch.labels["features"].float())
        pred = self.generator.pose(estimate, vertices=False)
        terms = losses.generator_losses(pred, batch.labels, losses.PUBLISHED_WEIGHTS)
        torch.stack(list(terms.values())).sum().backward()
        return {name: term.detach() for name, term in terms.items()}


TRAINER = SmoothingTrainer
