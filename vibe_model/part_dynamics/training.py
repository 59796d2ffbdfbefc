"""One step of the training of part dynamics.  features -> windows -> [training] -> evaluation"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor

from cache.mixture import Mixture, MixturePart
from pipeline.errors import DataError
from pipeline.people.skeletons import KEYPOINTS_13_OF_SPIN49
from vibe_model.devices import constant
from vibe_model.files import file_digest
from vibe_model.losses import generator_losses
from vibe_model.part_dynamics import losses
from vibe_model.part_dynamics.config import PartDynamicsConfig
from vibe_model.part_dynamics.generator import PartDynamics
from vibe_model.part_dynamics.pr_vipe.network import PrVIPE
from vibe_model.part_dynamics.streams import PrVipe
from vibe_model.stand_in import require_one_kind
from vibe_model.training.data import TrainingBatch
from vibe_model.training.process_group import ProcessGroup
from vibe_model.training.video import VideoTrainer

if TYPE_CHECKING:
    from cache import Split
    from pipeline.people.body import Body

MOST_ROWS: Final = 1_000_000  # rows for sigma are drawn from one to two times so many
SUPERVISED: Final = ("kp_2d", "kp_3d", "pose", "shape")  # loss terms, also of the neighbours


class PartDynamicsTrainer(VideoTrainer):
    """Trains the generator, with a frozen embedding for the uncertainty loss."""

    config: PartDynamicsConfig

    def __init__(
        self, config: PartDynamicsConfig, body: Body, group: ProcessGroup | None = None
    ) -> None:
        """Raises RawDataError for an invalid embedding, StandInMixed if only one of embedding and
        body is demo data.
        """
        super().__init__(config, body, group)
        self.learners = {"generator": self.learner(self.generator, "gen", lr=config.lr_generator)}
        self.embedding: PrVIPE | None = None
        if config.uncertainty_weight and config.embedding is not None:
            stream = PrVipe().with_weights(config.embedding)
            self.embedding = stream.load_network().to(self.group.device)
            require_one_kind(
                {f"the embedding {config.embedding}": stream.stand_in, "the body": body.is_stand_in}
            )

    def prepare(self, splits: Mapping[str, Split]) -> None:
        """Set the generator's sigma. Raises DataError if the splits' embeddings have other
        weights.
        """
        config = self.config
        streams = config.extra_streams
        if config.embedding is not None and "pr_vipe" in streams:
            training = {name: splits[name] for name in config.training_splits}
            _check_embeddings(config.embedding, streams["pr_vipe"].stream, training)
        if isinstance(self.generator, PartDynamics) and "homography" in streams:
            self.generator.sigma.copy_(_motion_deviations(config, splits))

    def losses(self, batch: TrainingBatch) -> dict[str, Tensor]:
        config = self.config
        labels = batch.labels
        weights = config.weights
        inputs = {name: labels[name].float() for name in ("features", *config.extra_streams)}
        device = inputs["features"].device.type
        with torch.autocast(device, torch.bfloat16, enabled=config.precision == "bf16"):
            by_step = self.generator.regress_around(**inputs)
        current = self.generator.pose(by_step.pop(0), vertices=False)
        supervised = {name: weights[name] for name in SUPERVISED}
        terms = generator_losses(current, labels, supervised)
        if by_step and isinstance(self.generator, PartDynamics):  # the neighbouring frames
            deltas = self.generator.pose_neighbours(by_step, vertices=False)
            neighbours = losses.neighbours(deltas, labels, supervised)
            terms["neighbours"] = weights["neighbours"] * neighbours
        if self.embedding is not None:
            uncertainty = _uncertainty(self.embedding, current["kp_2d"], labels["kp_2d"])
            terms["uncertainty"] = weights["uncertainty"] * uncertainty
        return terms


def _uncertainty(embedding: PrVIPE, predicted: Tensor, kp_2d: Tensor) -> Tensor:
    """`losses.uncertainty` of predicted (B, T, 49, 2) and labelled keypoints (B, T, 49, 3)."""
    labelled = _keypoints_13(kp_2d[..., :2], kp_2d)
    with torch.no_grad():  # stored embeddings may be those of detected keypoints
        normalised, is_known = PrVIPE.normalise(labelled)
        mean, std = embedding(normalised.flatten(0, 1))
    pr_vipe = torch.cat((mean, std), dim=-1).view(*is_known.shape, -1)
    keypoints = _keypoints_13(predicted, kp_2d)
    return losses.uncertainty(embedding, keypoints, pr_vipe, is_known)


def _keypoints_13(points: Tensor, label: Tensor) -> Tensor:
    """Select the points that `skeletons.keypoints_13` selects of the labels, with the labels'
    visibility.

    points (..., 49, 2), label (..., 49, 3) -> (..., 13, 3).
    """
    confidence = label[..., 2:]
    joints = torch.cat((points, confidence), dim=-1)  # (..., 49, 3)
    named, openpose = KEYPOINTS_13_OF_SPIN49
    by_name = joints[..., constant(named, points), :]
    by_openpose = joints[..., constant(openpose, points), :]
    return torch.where(by_name[..., 2:] > 0, by_name, by_openpose)


def _check_embeddings(embedding: Path, stream: str, splits: Mapping[str, Split]) -> None:
    """Raise DataError if a split's stream was computed by another embedding."""
    digest = file_digest(embedding)
    for name, split in splits.items():
        identity = split.open_stream(stream).identity
        weights = identity.get("weights") or {}
        if weights.get("file_sha256", digest) != digest:
            raise DataError(
                f"{name}: stream {stream} was computed by another embedding than {embedding}. "
                "Extract it again with --weights file:FILE --replace, or set `embedding` to "
                "its file."
            )


def _motion_deviations(config: PartDynamicsConfig, splits: Mapping[str, Split]) -> Tensor:
    """Standard deviations (9,) of stored homographies over random rows of the training splits.

    A row stores the nine numbers of H - I, with the homography H from the previous crop to the
    row's crop and the identity I. Raises DataError if no drawn row has a homography.
    """
    stream = config.homography_stream
    flags = f"{stream}_ok"
    training = {name: splits[name] for name in config.training_splits}
    n_rows = 0
    for split in training.values():
        starts, stops = split.runs.T
        n_rows += int((stops - starts).sum())
    part = MixturePart(
        name="sigma",
        splits=training,
        count=config.sigma_rows,
        fields=(stream, flags),
        streams=(stream,),
        stride=max(n_rows // MOST_ROWS, 1),
    )
    mixture = Mixture([part], seqlen=1, seed=config.seed)
    drawn = mixture.read(mixture.draw(0))["sigma"]
    is_known = drawn[flags] > 0
    rows = drawn[stream][is_known].astype(np.float64)  # (N, 9)
    if not len(rows):
        raise DataError(
            f"{', '.join(training)}: stream {stream}: expected rows with a homography, found none"
        )
    return torch.from_numpy(rows.std(axis=0)).float()
