"""One step of the training of part dynamics.  features -> windows -> [training] -> evaluation"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor

from cache.mixture import Mixture, Part
from pipeline.features.networks.pr_vipe import PrVIPE
from vibe_model import runs
from vibe_model.checkpoints import LoadReport, load_published, read_checkpoint
from vibe_model.errors import CheckpointError, ConfigError, DataError
from vibe_model.losses import generator_losses
from vibe_model.part_dynamics import losses
from vibe_model.part_dynamics.config import PartDynamicsConfig
from vibe_model.part_dynamics.generator import PartDynamics, pose_neighbours
from vibe_model.pr_vipe.training import STATE
from vibe_model.training.data import Batch
from vibe_model.training.parallel import Group
from vibe_model.training.trainer import Keys, Learner
from vibe_model.training.video import VideoTrainer

if TYPE_CHECKING:
    from cache import Split
    from pipeline.body import Body

MOST_ROWS: Final = 1_000_000  # that sigma's are drawn from: of more, every few
SUPERVISED: Final = ("kp_2d", "kp_3d", "pose", "shape")


class PartDynamicsTrainer(VideoTrainer):
    """The generator, and the frozen embedding that its 2D poses are compared by."""

    def __init__(self, config: PartDynamicsConfig, body: Body, group: Group | None = None) -> None:
        """Raises CheckpointError for an embedding that cannot be read, ConfigError without one that is needed,
        StandInMixed for one of other data than the body."""
        super().__init__(config, body, group or Group())
        self.config = config
        keys = Keys("gen_state_dict", "gen_optimizer", "gen_optimizer_schedule", "gen_optimizer")
        learner = Learner(config, self.generator, keys, lr=config.lr_generator, weight_decay=0.0, fused=True)
        self.learners = {"generator": learner}
        self.embedding: PrVIPE | None = None
        if config.uncertainty_weight:
            if config.embedding is None:
                raise ConfigError("embedding: expected best.pt of TrainPrVIPE, or uncertainty_weight = 0; found none")
            self.embedding, stand_in = load_embedding(config.embedding)
            runs.one_kind({f"the embedding {config.embedding}": stand_in, "the body": body.is_stand_in})
            self.embedding.to(self.group.device)

    def prepare(self, splits: Mapping[str, Split]) -> None:
        """Set the unit of homographies. Raises DataError where the splits' embeddings are of other weights."""
        config, beside = self.config, self.config.beside
        if config.embedding is not None and "pr_vipe" in beside:
            own = runs.file_digest(config.embedding)
            for name in config.training_splits:
                identity = splits[name].stream_manifest(beside["pr_vipe"].stream).get("identity") or {}
                weights = identity.get("weights") or {}
                if weights.get("file_sha256", own) != own:
                    raise DataError(
                        f"{name}: stream {beside['pr_vipe'].stream}: expected the embedding {config.embedding}, found "
                        "another. Extract it again with --set weights=file:FILE --replace, or set `embedding` to its "
                        "file."
                    )
        if isinstance(self.generator, PartDynamics) and "homography" in beside:
            self.generator.sigma.copy_(motion_deviations(config, splits))

    def start_from(self, checkpoint: Path) -> LoadReport:
        # Of another model's checkpoint, the regressor: SPIN's, or VIBE's.
        own = read_checkpoint(checkpoint).get("of_model") == self.config.MODEL and self.config.temporal
        return load_published(self.generator, checkpoint, only="" if own else "regressor.")

    def gradients(self, batch: Batch) -> dict[str, Tensor]:
        config, labels = self.config, batch.labels
        weights = config.weights
        given = {name: labels[name].float() for name in ("features", *config.beside)}
        with torch.autocast(given["features"].device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            every = self.generator.regress_around(**given)
        current = self.generator.pose(every.pop(0), vertices=False)
        supervised = {name: weights[name] for name in SUPERVISED}
        terms = generator_losses(current, labels, supervised)
        if every:
            deltas = pose_neighbours(self.generator.body, every, vertices=False)
            terms["neighbours"] = weights["neighbours"] * losses.neighbours(deltas, labels, supervised)
        if self.embedding is not None:
            seen = losses.keypoints_13(current["kp_2d"], labels["kp_2d"])
            terms["uncertainty"] = weights["uncertainty"] * losses.uncertainty(
                self.embedding, seen, *self._labelled(labels)
            )
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        return {name: term.detach() for name, term in terms.items()}

    @torch.no_grad()
    def _labelled(self, labels: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The labelled poses' embedding (B, T, 64), and where it is known (B, T): stored, or of the batch's labels."""
        if "pr_vipe" in labels:
            return labels["pr_vipe"].float(), labels["pr_vipe_ok"]
        assert self.embedding is not None
        normalised, known = PrVIPE.normalise(losses.keypoints_13(labels["kp_2d"][..., :2], labels["kp_2d"]))
        mean, std = self.embedding(normalised.flatten(0, 1))
        return torch.cat((mean, std), dim=-1).view(*known.shape, -1), known.float()


def load_embedding(checkpoint: Path) -> tuple[PrVIPE, bool]:
    """The embedding of a best.pt of TrainPrVIPE, frozen, and whether it is of demo data. Raises CheckpointError."""
    content = read_checkpoint(checkpoint)
    try:
        state = dict(content[STATE])
        size, hidden = state["mean.weight"].shape
        embedding = PrVIPE.like(size, hidden, state)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"{checkpoint}: expected best.pt of TrainPrVIPE, found something else: {error}"
        ) from error
    return embedding, bool(content.get("stand_in", False))


def motion_deviations(config: PartDynamicsConfig, splits: Mapping[str, Split]) -> Tensor:
    """(9,) standard deviations of H - I over rows of the training splits, drawn by the seed.

    Raises DataError where no row that was drawn has a homography.
    """
    stream, flags = config.homography_stream, f"{config.homography_stream}_ok"
    chosen = {name: splits[name] for name in config.training_splits}
    n_rows = sum(int((split.runs[:, 1] - split.runs[:, 0]).sum()) for split in chosen.values())
    every = max(n_rows // MOST_ROWS, 1)
    part = Part(
        name="sigma", splits=chosen, count=config.sigma_rows, fields=(stream, flags), streams=(stream,), stride=every
    )
    mixture = Mixture([part], seqlen=1, seed=config.seed)
    found = mixture.read(mixture.draw(0))["sigma"]
    rows = found[stream][found[flags] > 0].astype(np.float64)  # (N, 9)
    if not len(rows):
        raise DataError(f"{', '.join(chosen)}: stream {stream}: expected rows with a homography, found none")
    return torch.from_numpy(rows.std(axis=0)).float()


TRAINER: Final = PartDynamicsTrainer
